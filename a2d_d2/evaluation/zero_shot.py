"""Zero-shot recognition of actions (section 4.4): how well an actor's actions are known unseen.

A network is trained without the action labels of one actor x'; its actor, box and mask labels stay.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from a2d_d2.evaluation.predictions import FramePredictions
from a2d_d2.label_space import LabelSpace


def actor_precision(pair_precisions: Mapping[str, float], actor: str, space: LabelSpace) -> float:
    """The average precision of an actor's pairs, averaged over its valid actions.

    "none" is included (section 4.4: "averaged over all valid actions of that actor").

    Args:
        pair_precisions: name of a pair to its average precision, as
            ``per_class["detection"]["joint"]`` of the official protocol.
        actor: name of x'.
        space: gives its valid actions.
    """
    index = space.actor_index(actor)
    names = [space.pair_name(i, j) for i, j in space.valid_pairs if i == index]
    return sum(pair_precisions[name] for name in names) / len(names)


def performance_ratio(zero_shot: float, full: float | None) -> float | None:
    """r_zs of equation (3): AP_zero-shot / AP_full; None if AP_full is 0 or not known."""
    return zero_shot / full if full else None


def with_equal_actions(predictions: FramePredictions, space: LabelSpace) -> FramePredictions:
    """The predictions with equal scores for all valid actions of each actor, and without masks.

    What they score is chance: actors and boxes as found, nothing known of the action.
    """
    valid = space.valid[predictions.actors]
    scores = valid / valid.sum(axis=1, keepdims=True)
    return dataclasses.replace(
        predictions,
        action_scores=scores.astype(np.float64),
        segmentations=[None] * len(predictions.scores),
    )
