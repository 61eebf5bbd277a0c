"""Detection scores by A2D's official protocol: average precision at IoU >= 0.5.

Legend: N detections and M instances of a frame; C = |X| + |Y| + |V| scored classes: the actors, the
actions, the valid pairs, in this order.

A detection counts for its actor with p(actor), for every action, whatever its actor, with
p(actor) * p(action), and for the valid pairs of its actor with p(actor) * p(action). Each class by
itself: within a frame, greedy non-maximum suppression in descending score drops a box whose IoU
with a kept one is above 0.3. Every ground-truth box of the class then claims the highest-scored
kept detection that overlaps it by at least 0.5. A detection that any box claims is one true
positive, else a false one; two boxes may claim the same detection, so recall may end below 1.
Precision is interpolated at 11 recalls. Equal scores keep their order: frames as given, detections
as listed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from a2d_d2.label_space import LabelSpace

NMS_IOU = 0.3
MATCH_IOU = 0.5
# As products in float64: k / 10 differs from k * 0.1 and moves a mean by up to 0.06 points.
RECALLS = np.arange(11) * 0.1
# The action that stands for no action is detected like the others but left out of the action mean.
NO_ACTION = "none"


@dataclass(frozen=True)
class FrameTruth:
    """The instances of a frame.

    Attributes:
        boxes: (M, 4) XYXY_ABS.
        actors, actions: (M,) 0-based indices.
    """

    boxes: np.ndarray
    actors: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True)
class FrameDetections:
    """The detections of a frame.

    Attributes:
        boxes: (N, 4) XYXY_ABS, each the one regressed for its actor.
        actors: (N,) 0-based indices.
        scores: (N,) p(actor).
        action_scores: (N, |Y|) p(action).
    """

    boxes: np.ndarray
    actors: np.ndarray
    scores: np.ndarray
    action_scores: np.ndarray


@dataclass(frozen=True)
class FrameMatches:
    """What a frame adds to the average precisions.

    Attributes:
        classes, scores, hits: (K,) class 0..C-1 of each detection that suppression left in a class,
            its score there, and whether a ground-truth box claims it.
        num_truth: (C,) number of ground-truth boxes.
    """

    classes: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    num_truth: np.ndarray


def detection_scores(
    truth: Sequence[FrameTruth], detections: Sequence[FrameDetections], label_space: LabelSpace
) -> tuple[dict, dict]:
    """The three means of the paper's Table 2, in percent, and the average precision per class.

    Args:
        truth, detections: one of each per frame, in the same order.
        label_space: what the indices mean.

    Returns:
        As :func:`average_precisions`.
    """
    frames = zip(truth, detections, strict=True)
    return average_precisions((match_frame(*pair, label_space) for pair in frames), label_space)


def match_frame(
    truth: FrameTruth, detections: FrameDetections, label_space: LabelSpace
) -> FrameMatches:
    """Suppresses and matches the detections of one frame, in all classes at once."""
    pair_actors, pair_actions = np.transpose(label_space.valid_pairs)
    actor_classes = np.arange(label_space.num_actors)[:, None]
    action_classes = np.arange(label_space.num_actions)[:, None]

    true_actors, true_actions = truth.actors == actor_classes, truth.actions == action_classes
    wanted = np.concatenate(  # (C, M)
        [true_actors, true_actions, true_actors[pair_actors] & true_actions[pair_actions]]
    )
    num_truth = wanted.sum(axis=1)

    actors = detections.actors == actor_classes
    every = np.ones((label_space.num_actions, len(detections.scores)), dtype=bool)
    joint = detections.scores * detections.action_scores.T
    alive = np.concatenate([actors, every, actors[pair_actors]])  # (C, N)
    scores = np.concatenate(
        [np.broadcast_to(detections.scores, actors.shape), joint, joint[pair_actions]]
    )
    order = np.argsort(np.where(alive, -scores, np.inf), axis=1, kind="stable")
    _suppress(alive, order, box_iou(detections.boxes, detections.boxes) > NMS_IOU)

    hits = np.zeros_like(alive)
    if hits.size and wanted.size:
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
        overlap = box_iou(truth.boxes, detections.boxes) >= MATCH_IOU  # (M, N)
        claimable = wanted[:, :, None] & alive[:, None] & overlap  # (C, M, N)
        best = np.where(claimable, rank[:, None], order.shape[1]).argmin(axis=2)  # (C, M)
        classes, boxes = np.nonzero(claimable.any(axis=2))
        hits[classes, best[classes, boxes]] = True

    classes, left = np.nonzero(alive)
    return FrameMatches(classes, scores[classes, left], hits[classes, left], num_truth)


def average_precisions(
    matches: Iterable[FrameMatches], label_space: LabelSpace
) -> tuple[dict, dict]:
    """Puts the frames of a data set together.

    Returns:
        ``{"actor": {"mAP"}, "action": ..., "joint": ...}`` in percent: the means over all actors,
        over all actions but "none", over the valid pairs; a class without ground truth has 0 and
        counts. Then ``{"actor": {name: AP}, ...}``, with "none" among the actions.
    """
    matches = list(matches)
    groups = {
        "actor": label_space.actors,
        "action": label_space.actions,
        "joint": label_space.pair_names,
    }
    num_truth = sum((m.num_truth for m in matches), np.zeros(sum(map(len, groups.values())), int))
    classes, scores, hits = (
        np.concatenate([np.empty(0), *(getattr(m, name) for m in matches)])
        for name in ("classes", "scores", "hits")
    )
    order = np.lexsort((-scores, classes))  # stable
    cuts = np.searchsorted(classes[order], np.arange(1, len(num_truth)))
    precisions = iter(
        [
            100 * average_precision(sorted_hits, count)
            for sorted_hits, count in zip(np.split(hits[order], cuts), num_truth, strict=True)
        ]
    )
    means, per_class = {}, {}
    for level, names in groups.items():
        values = list(zip(names, precisions, strict=False))
        skipped = NO_ACTION if level == "action" else None
        counted = [value for name, value in values if name != skipped]
        means[level] = {"mAP": sum(counted) / max(len(counted), 1)}
        per_class[level] = dict(values)
    return means, per_class


def average_precision(hits: np.ndarray, num_truth: int) -> float:
    """11-point interpolated average precision, 0..1.

    Args:
        hits: (K,) whether each detection is a true positive, in descending score.
        num_truth: number of ground-truth boxes; 0 gives 0.
    """
    if not num_truth or not len(hits):
        return 0.0
    positives = np.cumsum(hits)
    precision = positives / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(positives / num_truth, RECALLS)  # where the recall is reached
    return float(np.append(best_from_here, 0.0)[first].sum() / len(RECALLS))


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) intersection over union of (A, 4) and (B, 4) XYXY_ABS boxes; 0 for empty ones."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared, dtype=float), where=union > 0)


def _suppress(alive: np.ndarray, order: np.ndarray, conflict: np.ndarray) -> None:
    """Greedy suppression in every class, in place.

    Args:
        alive: (C, N) detections that take part; True is left for the kept ones.
        order: (C, N) detections by descending score, those that take part first.
        conflict: (N, N) whether two boxes may not both be kept.
    """
    np.fill_diagonal(conflict, False)
    counts = alive.sum(axis=1)
    rows = np.arange(len(alive))
    for step in range(counts.max(initial=0)):
        rows = rows[counts[rows] > step]
        best = order[rows, step]
        # Only a kept box suppresses; it cannot reach a box kept before, for that one spared it.
        alive[rows] &= ~(conflict[best] & alive[rows, best, None])
