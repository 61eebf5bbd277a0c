"""Semantic segmentation scores by A2D's official protocol: ave, glo and mIoU from one confusion.

Legend: n = 1 + |X| * |Y| joint classes, background first, then every pair in ascending joint id.

The actor and the action label of a pixel are derived from its joint label. So an invalid pair that
is predicted is wrong in the joint scores, while its actor and its action still count in theirs.
"""

import numpy as np

from a2d_d2.label_space import LabelSpace

LEVELS = ("actor", "action", "joint")
# Up to this many ids, counting pairs of ids is faster than looking up their classes first.
_MOST_IDS = 256


def pixel_confusion(
    truth: np.ndarray, predicted: np.ndarray, label_space: LabelSpace
) -> np.ndarray:
    """Counts the pixels of one frame by true and predicted joint class.

    Args:
        truth, predicted: (H, W) integer maps of joint ids.
        label_space: what the ids mean.

    Returns:
        (n, n) int64: pixels by true class (row) and predicted class (column). The confusion of a
        data set is the sum over its frames.

    Raises:
        ValueError: the sizes differ, or a label is neither 0 nor the id of a pair.
    """
    if truth.shape != predicted.shape:
        raise ValueError(
            f"the label map is {_size(predicted)}, the frame {_size(truth)} (height x width)"
        )
    maps = {"the annotation": truth, "the label map": predicted}
    for name, label_map in maps.items():
        _check_range(label_map, label_space, name)
    labels, width = np.array([0, *label_space.joint_ids]), label_space.max_id + 1
    if width > _MOST_IDS:  # squeeze the ids, with one more for those that mean nothing
        table = np.full(width, len(labels))
        table[labels] = np.arange(len(labels))
        truth, predicted = table[truth], table[predicted]
        labels, width = np.arange(len(labels)), len(labels) + 1
    # Wrong labels are looked for in the counts: that is faster than in the pixels.
    cells = np.multiply(truth, width, dtype=np.intp)
    cells += predicted.astype(np.intp, copy=False)
    counts = np.bincount(cells.ravel(), minlength=width**2).reshape(width, width)
    confusion = counts[np.ix_(labels, labels)]
    if confusion.sum() != cells.size:
        for name, label_map in maps.items():
            _check_labels(label_map, label_space, name)
    return confusion


def segmentation_scores(confusion: np.ndarray, label_space: LabelSpace) -> tuple[dict, dict]:
    """The nine figures of the paper's Table 1, in percent, and the same per class.

    A class takes part in ``ave`` and ``mIoU`` if it has ground-truth pixels; background is a class
    like the others.

    Args:
        confusion: (n, n) of :func:`pixel_confusion`, summed over the data set.
        label_space: what the classes mean.

    Returns:
        ``{"actor": {"ave", "glo", "mIoU"}, "action": ..., "joint": ...}``: mean recall, share of
        correct pixels, mean intersection over union. Then ``{"actor": {name: {"recall", "IoU"}}}``
        and so on for background and the actors, the actions, the valid pairs; None where the class
        has no ground truth.

    Raises:
        ValueError: there are no pixels.
    """
    if not confusion.sum():
        raise ValueError("no pixels to score")
    names, listed = class_names(label_space)
    merged = level_confusions(confusion, label_space)
    scores, per_class = {}, {}
    for level in LEVELS:
        matrix = merged[level]
        true, correct = matrix.sum(axis=1), matrix.diagonal()
        present = np.flatnonzero(true)
        recall = 100 * correct[present] / true[present]
        iou = 100 * correct[present] / (true + matrix.sum(axis=0) - correct)[present]
        scores[level] = {
            "ave": float(recall.mean()),
            "glo": float(100 * correct.sum() / true.sum()),
            "mIoU": float(iou.mean()),
        }
        per_class[level] = dict.fromkeys(listed[level], {"recall": None, "IoU": None})
        for i, r, u in zip(present, recall, iou, strict=True):
            per_class[level][names[level][i]] = {"recall": float(r), "IoU": float(u)}
    return scores, per_class


def level_confusions(confusion: np.ndarray, label_space: LabelSpace) -> dict[str, np.ndarray]:
    """The confusion of each level, whose classes are those of :func:`class_names`.

    Args:
        confusion: (n, n) of :func:`pixel_confusion`.
        label_space: what the classes mean.
    """
    digits = np.array([0, *label_space.joint_ids])
    return {
        "actor": _merge(confusion, digits // label_space.base, 1 + label_space.num_actors),
        "action": _merge(confusion, digits % label_space.base, 1 + label_space.num_actions),
        "joint": confusion,
    }


def class_names(label_space: LabelSpace) -> tuple[dict, dict]:
    """The classes of each level, background first.

    Returns:
        ``{"actor": names, "action": ..., "joint": ...}`` in the order of
        :func:`level_confusions`, and the same with the valid pairs alone: those that a table lists.
    """
    pairs = [label_space.pair_name(*label_space.split_id(i)) for i in label_space.joint_ids]
    names = {"actor": label_space.actors, "action": label_space.actions, "joint": pairs}
    names = {level: ("background", *values) for level, values in names.items()}
    return names, names | {"joint": ("background", *label_space.pair_names)}


def _check_range(label_map: np.ndarray, label_space: LabelSpace, name: str) -> None:
    """ValueError when a label cannot be that of a pair; ``name`` is that of the map."""
    if label_map.size == 0:
        raise ValueError(f"{name} has no pixels")
    if label_map.min() < 0 or label_map.max() > label_space.max_id:
        _check_labels(label_map, label_space, name)


def _check_labels(label_map: np.ndarray, label_space: LabelSpace, name: str) -> None:
    """ValueError when a label is neither 0 nor the id of a pair."""
    wrong = set(np.unique(label_map).tolist()) - {0, *label_space.joint_ids}
    if wrong:
        raise ValueError(
            f"label {min(wrong)} in {name} is neither background nor a pair of {label_space.name}"
        )


def _merge(confusion: np.ndarray, part: np.ndarray, count: int) -> np.ndarray:
    """The confusion of classes 0..count-1, of which ``part`` gives one per joint class."""
    member = (part[:, None] == np.arange(count)).astype(confusion.dtype)  # (n, count)
    return member.T @ confusion @ member


def _size(label_map: np.ndarray) -> str:
    return " x ".join(map(str, label_map.shape))
