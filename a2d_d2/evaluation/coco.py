"""Average precision of boxes and masks as COCO computes it, per actor, action and pair.

``pycocotools.cocoeval.COCOeval`` itself matches and accumulates: IoU thresholds 0.50 to 0.95 in
steps of 0.05, 101 recalls, at most 100 detections a frame and class. As in the official protocol a
detection counts for its actor with p(actor), for every action, whatever its actor, with
p(actor) * p(action), and for the valid pairs of its actor with p(actor) * p(action); there is no
score threshold. Unlike there, nothing is suppressed: what the file lists is scored. The means are
COCO's, over the classes that have ground truth; "none" is an action like the others.
"""

import contextlib
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from a2d_d2.data.layout import FrameAnnotation
from a2d_d2.evaluation.detection import FrameTruth
from a2d_d2.evaluation.predictions import (
    FrameKey,
    FramePredictions,
    compress_mask,
    encode_mask,
)
from a2d_d2.evaluation.rasterize import check_sizes
from a2d_d2.evaluation.scoring import frame_truth
from a2d_d2.evaluation.segmentation import LEVELS
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.parallel import parallel_map

METRICS = ("AP", "AP50", "AP75")
MAX_DETECTIONS = 100
# What is compared, by its name in the scores, and the key of it in COCO's annotations.
_SHAPES = {"boxes": "bbox", "masks": "segmentation"}


@dataclass(frozen=True)
class FrameInstances:
    """The instances of a frame; masks stay compressed run-length encodings.

    Attributes:
        size: (height, width) in pixels.
        truth: M annotated instances.
        truth_masks: M encodings.
        predictions: N detections; their encodings are pycocotools' own, None without a mask.
    """

    size: tuple[int, int]
    truth: FrameTruth
    truth_masks: list[dict]
    predictions: FramePredictions


@dataclass(frozen=True)
class _Class:
    """One average precision to compute; an index of None stands for any."""

    shape: str
    level: str
    name: str
    actor: int | None
    action: int | None


def frame_instances(
    annotation: FrameAnnotation, label_space: LabelSpace, *, predictions: FramePredictions
) -> FrameInstances:
    """Prepares the instances of one frame.

    Raises:
        ValueError: a predicted mask has another size than the frame.
    """
    size = annotation.label_map.shape
    check_sizes(predictions.segmentations, size)
    masks = [mask and compress_mask(mask) for mask in predictions.segmentations]
    return FrameInstances(
        size,
        frame_truth(annotation, label_space),
        [encode_mask(mask) for mask in annotation.masks],
        replace(predictions, segmentations=masks),
    )


def summarize(
    frames: Mapping[FrameKey, FrameInstances], label_space: LabelSpace, *, progress: bool = False
) -> dict:
    """The scores of the frames of a data set, in percent.

    Args:
        frames: of :func:`frame_instances`.
        label_space: what the indices mean.
        progress: whether to show a bar on standard error.

    Returns:
        ``{"protocol": "coco", "boxes": {"actor": {"AP", "AP50", "AP75"}, "action": ..., "joint":
        ...}, "masks": ..., "per_class": {"boxes": {"actor": {name: {"AP", ...}}, ...}, "masks":
        ...}}``. A class without ground truth has None. A detection without a mask is no mask
        detection; where no detection of the whole set has one, all figures of masks are None.
    """
    frames = list(frames.values())
    masks = [mask for frame in frames for mask in frame.predictions.segmentations]
    shapes = [shape for shape in _SHAPES if shape == "boxes" or not masks or any(masks)]
    classes = [one for shape in _SHAPES for one in _classes(label_space, shape)]
    scored = [one for one in classes if one.shape in shapes]
    results = parallel_map(
        functools.partial(class_precision, frames),
        scored,
        workers=0,
        description="COCO average precision",
        unit="class",
        progress=progress,
    )
    precisions = dict(zip(scored, results, strict=True))
    absent = dict.fromkeys(METRICS)
    scores = {"protocol": "coco"}
    per_class = {}
    for shape in _SHAPES:
        scores[shape], per_class[shape] = {}, {}
        for level in LEVELS:
            members = [one for one in classes if (one.shape, one.level) == (shape, level)]
            values = {one.name: precisions.get(one) or absent for one in members}
            per_class[shape][level] = values
            counted = [value for value in values.values() if value["AP"] is not None]
            scores[shape][level] = {
                metric: sum(value[metric] for value in counted) / len(counted) if counted else None
                for metric in METRICS
            }
    return scores | {"per_class": per_class}


def _classes(label_space: LabelSpace, shape: str) -> list[_Class]:
    actors = [("actor", name, i, None) for i, name in enumerate(label_space.actors)]
    actions = [("action", name, None, i) for i, name in enumerate(label_space.actions)]
    pairs = zip(label_space.pair_names, label_space.valid_pairs, strict=True)
    pairs = [("joint", name, *pair) for name, pair in pairs]
    return [_Class(shape, *values) for values in (*actors, *actions, *pairs)]


def class_precision(frames: Sequence[FrameInstances], one: _Class) -> dict | None:
    """The average precisions of one class, in percent; None if it has no ground truth.

    One class at a time bounds the memory: all actions together would be |Y| results a detection.
    """
    key = _SHAPES[one.shape]
    truth, detections = [], []
    for image, frame in enumerate(frames):
        wanted = np.ones(len(frame.truth.actors), dtype=bool)
        found = np.ones(len(frame.predictions.actors), dtype=bool)
        scores = frame.predictions.scores
        if one.actor is not None:
            wanted &= frame.truth.actors == one.actor
            found &= frame.predictions.actors == one.actor
        if one.action is not None:
            wanted &= frame.truth.actions == one.action
            scores = scores * frame.predictions.action_scores[:, one.action]
        true_shapes, shapes = _shapes(frame, one.shape)
        truth += [(image, {key: true_shapes[i]}) for i in np.flatnonzero(wanted)]
        detections += [
            (image, {key: shapes[i], "score": float(scores[i])})
            for i in np.flatnonzero(found)
            if shapes[i] is not None
        ]
    if not truth:
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        evaluation = COCOeval(
            _coco(truth, frames), _coco(detections, frames), "bbox" if key == "bbox" else "segm"
        )
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [[0, np.inf]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    values = 100 * evaluation.eval["precision"].mean(axis=(1, 2, 3, 4))  # one per IoU threshold
    return {"AP": float(values.mean()), "AP50": float(values[0]), "AP75": float(values[5])}


def _shapes(frame: FrameInstances, shape: str) -> tuple[Sequence, Sequence]:
    """The annotated and the predicted boxes [x, y, w, h] or masks of a frame."""
    if shape == "masks":
        return frame.truth_masks, frame.predictions.segmentations
    return tuple(
        np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        for boxes in (frame.truth.boxes, frame.predictions.boxes)
    )


def _coco(entries: Sequence[tuple[int, dict]], frames: Sequence[FrameInstances]) -> COCO:
    """COCO's index of the entries (number of the frame, annotation) of one class."""
    coco = COCO()
    # Ids start at 1: COCOeval takes 0 for no match. The area only chooses among sizes: none here.
    fixed = {"category_id": 1, "iscrowd": 0, "area": 0}
    coco.dataset = {
        "images": [
            {"id": image, "height": frame.size[0], "width": frame.size[1]}
            for image, frame in enumerate(frames)
        ],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": number, "image_id": image, **fixed, **entry}
            for number, (image, entry) in enumerate(entries, start=1)
        ],
    }
    coco.createIndex()
    return coco
