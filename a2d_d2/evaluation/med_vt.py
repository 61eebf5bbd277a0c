"""Segmentation scores as MED-VT (CVPR 2023) reports them on A2D: per frame, then per video.

``mIoU`` is the protocol as it is told: in each frame the intersection over union of each class
present in truth or prediction, background left out, and their mean; the mean over the annotated
frames of a video, then over the videos.

``pixel_IoU`` is what the public code computes (github.com/rkyuca/medvt: ``evaluate`` in
``actor_action/evals_a2d.py`` of commit 466af47, with ``new_iou`` in ``actor_action/util/metric.py``
of 0b98aaa). It turns truth and prediction into one-hot vectors per pixel, without background, and
divides their intersection by their union *pixel by pixel*; the figure of a frame is the mean over
the pixels that either map labels. So it is the share of correctly labelled pixels in the union of
the two foregrounds: a class weighs as much as its pixels, and a wrong label counts once. (Commit
864c07e keeps one frame a video; that is not followed.) The two agree where a frame holds one class.
Which of them gave the published figures is not known, so both are reported.

The public code scores the joint label maps alone; the actor and action maps are derived from them
as in the official protocol (:mod:`a2d_d2.evaluation.segmentation`). A frame without any label in
truth and prediction has no figure (in the public code it would make the result NaN): it is left out
of the mean of its video, and a video without any other frame is left out of the mean over videos.
"""

import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from a2d_d2.evaluation.predictions import FrameKey
from a2d_d2.evaluation.scoring import PixelCounts, total_confusion
from a2d_d2.evaluation.segmentation import LEVELS, class_names, level_confusions
from a2d_d2.label_space import LabelSpace


def frame_iou(confusion: np.ndarray) -> tuple[float, np.ndarray]:
    """The figures of one frame at one level, 0..1.

    Args:
        confusion: (C, C) pixels by true and predicted class, background first.

    Returns:
        the share of correct pixels in the union of the foregrounds, NaN if that is empty; and the
        (C - 1,) intersection over union of each class but background, NaN where it is absent.
    """
    correct = confusion.diagonal()[1:]
    unions = (confusion.sum(axis=1) + confusion.sum(axis=0))[1:] - correct
    ious = np.divide(correct, unions, out=np.full(len(unions), np.nan), where=unions > 0)
    foreground = confusion.sum() - confusion[0, 0]
    return correct.sum() / foreground if foreground else np.nan, ious


def med_vt_scores(
    videos: Iterable[Iterable[np.ndarray]], label_space: LabelSpace
) -> tuple[dict, dict]:
    """The scores of a data set, in percent.

    Args:
        videos: for each video the (n, n) confusions of its annotated frames, of
            :func:`a2d_d2.evaluation.segmentation.pixel_confusion`.
        label_space: what the classes mean.

    Returns:
        ``{"actor": {"mIoU", "pixel_IoU"}, "action": ..., "joint": ...}``, None where no frame has
        a label. Then ``{"actor": {name: {"IoU"}}, ...}``: the mean over the frames in which truth
        or prediction has the class; None where none has.
    """
    names, listed = class_names(label_space)
    means = {level: [] for level in LEVELS}  # one (mIoU, pixel IoU) per video
    ious = {level: [] for level in LEVELS}  # one (C - 1,) per frame
    for video in videos:
        figures = {level: [] for level in LEVELS}
        for confusion in video:
            for level, matrix in level_confusions(confusion, label_space).items():
                pixels, classes = frame_iou(matrix)
                figures[level].append((_mean(classes), pixels))
                ious[level].append(classes)
        for level in LEVELS:
            means[level].append(_mean(np.array(figures[level])))
    scores, per_class = {}, {}
    for level in LEVELS:
        values = _percent(_mean(np.array(means[level]).reshape(-1, 2)))
        scores[level] = dict(zip(("mIoU", "pixel_IoU"), values, strict=True))
        foreground = names[level][1:]
        values = _percent(_mean(np.array(ious[level]).reshape(-1, len(foreground))))
        by_name = dict(zip(foreground, values, strict=True))
        per_class[level] = {name: {"IoU": by_name[name]} for name in listed[level][1:]}
    return scores, per_class


def summarize(frames: Mapping[FrameKey, PixelCounts], label_space: LabelSpace) -> dict:
    """The scores of the frames of a data set.

    Args:
        frames: what :func:`a2d_d2.evaluation.scoring.count_pixels` gives, in ascending order.
        label_space: what the classes mean.

    Returns:
        ``{"protocol": "med-vt", "segmentation": ..., "per_class": {"segmentation": ...}}``, as
        :func:`med_vt_scores`.
    """
    videos = (
        [total_confusion([frames[key]], label_space) for key in keys]
        for _, keys in itertools.groupby(frames, key=lambda key: key[0])
    )
    scores, per_class = med_vt_scores(videos, label_space)
    return {
        "protocol": "med-vt",
        "segmentation": scores,
        "per_class": {"segmentation": per_class},
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean along the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)


def _percent(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(100 * value) for value in values]
