"""The thresholds of painting (:mod:`a2d_d2.evaluation.rasterize`), chosen on held-out frames."""

import functools
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from a2d_d2.data.layout import read_annotation
from a2d_d2.evaluation.predictions import FramePredictions, decode_mask
from a2d_d2.evaluation.rasterize import best_actions, check_sizes, painting_order
from a2d_d2.evaluation.segmentation import pixel_confusion, segmentation_scores
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.parallel import parallel_map

ACTOR_GRID = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ACTION_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Below this number of frames, starting processes takes longer than painting.
_FEW_FRAMES = 100


@dataclass(frozen=True)
class Thresholds:
    """A choice, and the joint mIoU in percent that it had on the frames it was made on."""

    actor: float
    action: float
    score: float


def choose_thresholds(
    frames: Sequence[tuple[str | os.PathLike, FramePredictions]],
    label_space: LabelSpace,
    *,
    actor_grid: Sequence[float] = ACTOR_GRID,
    action_grid: Sequence[float] = ACTION_GRID,
    workers: int | None = None,
    progress: bool = True,
) -> Thresholds:
    """The pair of thresholds with the highest joint mIoU of the official protocol.

    Every pair of the two grids is tried; of equal ones the smaller actor threshold wins, then the
    smaller action threshold. Each mask is decoded once.

    Args:
        frames: annotation file and predictions, with masks, of each frame.
        label_space: what the ids mean.
        actor_grid, action_grid: thresholds to try.
        workers, progress: of :func:`a2d_d2.utils.parallel.parallel_map`.

    Raises:
        ValueError: there is no frame, an annotation cannot be read, or a mask has another size.
    """
    if not frames:
        raise ValueError("there is no frame to choose thresholds on")
    pairs = sorted(itertools.product(actor_grid, action_grid))
    results = parallel_map(
        functools.partial(_confusions, label_space=label_space, pairs=pairs),
        frames,
        workers=0 if len(frames) < _FEW_FRAMES else workers,
        description="thresholds",
        unit="frame",
        progress=progress,
    )
    n = 1 + len(label_space.joint_ids)
    total = np.zeros((len(pairs), n * n), dtype=np.int64)
    for of_frame in results:
        for rows, cells, pixels in of_frame:
            total[np.ix_(rows, cells)] += pixels
    scores = [
        segmentation_scores(confusion.reshape(n, n), label_space)[0]["joint"]["mIoU"]
        for confusion in total
    ]
    best = int(np.argmax(scores))  # the first of equal ones
    return Thresholds(*pairs[best], scores[best])


def _confusions(
    frame: tuple[str | os.PathLike, FramePredictions],
    label_space: LabelSpace,
    pairs: Sequence[tuple[float, float]],
) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """The pixel confusion of a frame under each pair, those of equal pairs once.

    Returns:
        indices of the pairs, the cells that are not zero, and their numbers of pixels.
    """
    path, predictions = frame
    truth = read_annotation(path).label_map
    try:
        check_sizes(predictions.segmentations, truth.shape)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    actions, best = best_actions(predictions, label_space)
    masks = {
        i: decode_mask(segmentation)
        for i, segmentation in enumerate(predictions.segmentations)
        if segmentation is not None
    }
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, (actor_threshold, action_threshold) in enumerate(pairs):
        painted = (predictions.scores >= actor_threshold) & (best >= action_threshold)
        order = painting_order(predictions.scores, painted)
        groups.setdefault(tuple(i for i in order.tolist() if i in masks), []).append(row)
    results = []
    for order, rows in groups.items():
        label_map = np.zeros(truth.shape, dtype=label_space.label_map_dtype)
        for i in order:
            label_map[masks[i]] = label_space.joint_id(predictions.actors[i], actions[i])
        confusion = pixel_confusion(truth, label_map, label_space).ravel()
        cells = np.flatnonzero(confusion)
        results.append((rows, cells, confusion[cells]))
    return results
