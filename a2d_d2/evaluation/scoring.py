"""What one frame adds to the scores, and the scores of all frames together.

The evaluator of a training run and the scoring of files share this, so that they cannot differ.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from a2d_d2.data.layout import FrameAnnotation
from a2d_d2.evaluation.detection import (
    FrameMatches,
    FrameTruth,
    average_precisions,
    match_frame,
)
from a2d_d2.evaluation.predictions import FramePredictions
from a2d_d2.evaluation.rasterize import rasterize_instances
from a2d_d2.evaluation.segmentation import LEVELS, pixel_confusion, segmentation_scores
from a2d_d2.label_space import LabelSpace

# Paths of the means in what :func:`summarize` gives.
SCORE_PATHS = tuple(
    f"{task}/{level}/{metric}"
    for task, metrics in (("segmentation", ("ave", "glo", "mIoU")), ("detection", ("mAP",)))
    for level in LEVELS
    for metric in metrics
)


@dataclass(frozen=True)
class PixelCounts:
    """The pixel confusion of a frame; small, to be sent between processes.

    Attributes:
        cells, pixels: (K,) the cells of the flattened pixel confusion that are not zero, and their
            numbers of pixels.
    """

    cells: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True)
class FrameScore(PixelCounts):
    """What a frame adds to the scores.

    Attributes:
        matches: for detection; None where only label maps are scored.
    """

    matches: FrameMatches | None


def score_frame(
    annotation: FrameAnnotation,
    label_space: LabelSpace,
    *,
    predictions: FramePredictions | None = None,
    label_map: np.ndarray | None = None,
    **thresholds: float,
) -> FrameScore:
    """Compares the predictions, the label map or both of a frame with its annotation.

    Segmentation is scored as in :func:`count_pixels`.

    Raises:
        ValueError: as :func:`count_pixels`.
    """
    matches = None
    if predictions is not None:
        matches = match_frame(frame_truth(annotation, label_space), predictions, label_space)
    counts = count_pixels(
        annotation, label_space, predictions=predictions, label_map=label_map, **thresholds
    )
    return FrameScore(counts.cells, counts.pixels, matches)


def count_pixels(
    annotation: FrameAnnotation,
    label_space: LabelSpace,
    *,
    predictions: FramePredictions | None = None,
    label_map: np.ndarray | None = None,
    **thresholds: float,
) -> PixelCounts:
    """Compares the label map of a frame with its annotation.

    That is ``label_map`` when given, else ``predictions``, rasterised with ``thresholds`` as
    :mod:`a2d_d2.evaluation.rasterize` says.

    Raises:
        ValueError: a mask or the label map has another size than the frame, or a label is neither
            background nor a pair.
    """
    if predictions is not None:
        rasterized = rasterize_instances(
            predictions, annotation.label_map.shape, label_space, **thresholds
        )  # checks the sizes of the masks too, when a label map is given
        label_map = rasterized if label_map is None else label_map
    confusion = pixel_confusion(annotation.label_map, label_map, label_space).ravel()
    cells = np.flatnonzero(confusion)
    return PixelCounts(cells, confusion[cells])


def summarize(frames: Iterable[FrameScore], label_space: LabelSpace) -> dict:
    """The scores of a data set, in percent.

    Returns:
        ``{"segmentation": {"actor": {"ave", "glo", "mIoU"}, "action": ..., "joint": ...},
        "detection": {"actor": {"mAP"}, ...}, "per_class": {"segmentation": ..., "detection":
        ...}}``; the keys ``detection`` only where every frame has matches.
    """
    frames = list(frames)
    scores, per_class = {}, {}
    scores["segmentation"], per_class["segmentation"] = segmentation_scores(
        total_confusion(frames, label_space), label_space
    )
    if all(frame.matches is not None for frame in frames):
        scores["detection"], per_class["detection"] = average_precisions(
            (frame.matches for frame in frames), label_space
        )
    return {**scores, "per_class": per_class}


def total_confusion(frames: Iterable[PixelCounts], label_space: LabelSpace) -> np.ndarray:
    """The (n, n) confusion of :func:`a2d_d2.evaluation.segmentation.pixel_confusion`, summed."""
    n = 1 + len(label_space.joint_ids)
    confusion = np.zeros(n * n, dtype=np.int64)
    for frame in frames:
        confusion[frame.cells] += frame.pixels
    return confusion.reshape(n, n)


def frame_truth(annotation: FrameAnnotation, label_space: LabelSpace) -> FrameTruth:
    """The instances of an annotation, with the boxes of their masks."""
    pairs = [label_space.split_id(joint_id) for joint_id in annotation.joint_ids]
    actors, actions = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    return FrameTruth(annotation.boxes, actors, actions)
