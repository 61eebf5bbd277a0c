"""From instances to one label map.

How instances become a label map is nowhere published; the rule here is this. The action of an
instance is the valid action of its actor with the highest action score (of equal ones the first in
label order). An instance is painted if its actor score is at least the actor threshold (0.7) and
the score of that action at least the action threshold (0.3), the inference thresholds of the
paper's released code. Instances are painted in ascending actor score, so that the surest lies on
top; of equal scores the one listed later lies on top. Unpainted pixels are background.
"""

from collections.abc import Sequence

import numpy as np

from a2d_d2.evaluation.predictions import FramePredictions, decode_mask
from a2d_d2.label_space import LabelSpace

ACTOR_THRESHOLD = 0.7
ACTION_THRESHOLD = 0.3


def rasterize_instances(
    predictions: FramePredictions,
    size: tuple[int, int],
    label_space: LabelSpace,
    *,
    actor_threshold: float = ACTOR_THRESHOLD,
    action_threshold: float = ACTION_THRESHOLD,
) -> np.ndarray:
    """Paints the instances of a frame as the module says; those without a mask paint nothing.

    Args:
        predictions: of the frame.
        size: (height, width) of the frame in pixels.
        label_space: gives the valid actions and the joint ids.
        actor_threshold, action_threshold: least scores of a painted instance.

    Returns:
        (H, W) joint ids, of the label space's ``label_map_dtype``.

    Raises:
        ValueError: a mask, painted or not, has another size.
    """
    masks = predictions.segmentations
    check_sizes(masks, size)
    actions, best = best_actions(predictions, label_space)
    painted = (predictions.scores >= actor_threshold) & (best >= action_threshold)
    label_map = np.zeros(size, dtype=label_space.label_map_dtype)
    for i in painting_order(predictions.scores, painted):
        if masks[i] is not None:
            joint_id = label_space.joint_id(predictions.actors[i], actions[i])
            label_map[decode_mask(masks[i])] = joint_id
    return label_map


def best_actions(
    predictions: FramePredictions, label_space: LabelSpace
) -> tuple[np.ndarray, np.ndarray]:
    """The (N,) best valid action of each instance, and its (N,) action scores."""
    possible = np.where(label_space.valid[predictions.actors], predictions.action_scores, -np.inf)
    return possible.argmax(axis=1), possible.max(axis=1)


def painting_order(scores: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """The indices of the instances that are ``painted`` (N,) bool, the topmost last.

    Args:
        scores: (N,) p(actor).
        painted: (N,) bool.
    """
    order = np.argsort(scores, kind="stable")
    return order[painted[order]]


def check_sizes(masks: Sequence[dict | None], size: tuple[int, int]) -> None:
    """Raises ValueError if a run-length encoding is not of ``size``, (height, width)."""
    for mask in masks:
        if mask is not None and tuple(mask["size"]) != tuple(size):
            raise ValueError(
                f"a predicted segmentation is {mask['size'][0]} x {mask['size'][1]}, "
                f"the frame {size[0]} x {size[1]} (height x width)"
            )
