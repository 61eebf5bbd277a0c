"""Scores anybody's results, given as files, against the annotations of a release."""

import functools
import io
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from a2d_d2.data.layout import (
    VideoInfo,
    annotated_frames,
    annotation_path,
    read_annotation,
    read_videoset,
)
from a2d_d2.evaluation.predictions import FrameKey, load_entries, parse_entries
from a2d_d2.evaluation.protocols import get_protocol
from a2d_d2.evaluation.rasterize import ACTION_THRESHOLD, ACTOR_THRESHOLD
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.parallel import parallel_map
from a2d_d2.utils.untrusted import check_size

# Below this number of frames, starting processes takes longer than scoring.
_FEW_FRAMES = 100


def check_thresholds(**thresholds: float) -> None:
    """ValueError when a threshold is no number, which no score reaches; names its option."""
    for name, value in thresholds.items():
        if math.isnan(value):
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be a number")


def evaluate_files(
    root: str | os.PathLike,
    split: str,
    label_space: LabelSpace,
    *,
    predictions: str | os.PathLike | None = None,
    label_maps: str | os.PathLike | None = None,
    actor_threshold: float = ACTOR_THRESHOLD,
    action_threshold: float = ACTION_THRESHOLD,
    protocol: str = "official",
    workers: int | None = None,
    progress: bool = True,
) -> dict:
    """Scores predictions, label maps or both on every annotated frame of a split.

    Reads ``videoset.csv`` and the annotations themselves; no clip and no index of them.

    Args:
        root: folder that holds ``videoset.csv``.
        split: "train" or "test".
        label_space: of the release.
        predictions: JSON file (:mod:`a2d_d2.evaluation.predictions`) for detection and, without
            ``label_maps``, rasterised for segmentation. Frames that it leaves out have none.
        label_maps: folder of ``<video>/<%05d>.png``, joint ids, for segmentation.
        actor_threshold, action_threshold: of :mod:`a2d_d2.evaluation.rasterize`.
        protocol: a word of :data:`a2d_d2.evaluation.protocols.PROTOCOLS`. "coco" scores instances:
            it needs ``predictions``, and leaves ``label_maps`` and the thresholds alone.
        workers, progress: as in :func:`a2d_d2.utils.parallel.parallel_map`.

    Returns:
        As the ``summarize`` of :mod:`a2d_d2.evaluation.scoring` (official),
        :mod:`a2d_d2.evaluation.med_vt` or :mod:`a2d_d2.evaluation.coco`.

    Raises:
        ValueError: neither results are given, or not those of the protocol, or one of the files is
            missing or wrong; names the file, or the video and frame.
    """
    thresholds = {"actor_threshold": actor_threshold, "action_threshold": action_threshold}
    check_thresholds(**thresholds)
    rules = get_protocol(protocol)
    logger = logging.getLogger(__name__)
    if predictions is None and not rules.label_maps:
        raise ValueError(
            f"protocol {protocol} scores instances, not label maps: give --predictions"
        )
    if label_maps is not None and not rules.label_maps:
        logger.warning("protocol %s scores instances; the label maps are not read", protocol)
        label_maps = None
    if predictions is None and label_maps is None:
        raise ValueError("nothing to score: give --predictions, --label-maps or both")
    videos = {info.video_id: info for info in read_videoset(root)}
    frames: set[FrameKey] = set()
    for video_id, info in videos.items():
        if info.split == split:
            indices = annotated_frames(root, video_id)
            if not indices:
                raise ValueError(f"{root}: video {video_id} has no annotations")
            frames.update((video_id, index) for index in indices)
    if not frames:
        raise ValueError(f"{root}: no annotated frames in the {split} split")

    entries = None
    if predictions is not None:
        entries = load_entries(predictions)
        for key in entries:
            _check_frame(key, frames, videos, split, f"{predictions}: entry {entries[key][0][0]}")
        listed = [entry for kept in entries.values() for _, entry in kept]
        maskless = all(entry.get("segmentation") is None for entry in listed)
        if listed and maskless and label_maps is None:
            logger.warning(
                "all %d predictions have no segmentation and %s", len(listed), rules.maskless
            )
    if label_maps is not None and not os.path.isdir(label_maps):
        raise ValueError(f"there is no folder of label maps {label_maps}")

    jobs = [
        _Job(
            key,
            annotation_path(root, *key),
            entries if entries is None else entries.get(key, []),
            label_maps and Path(label_maps, key[0], f"{key[1] + 1:05d}.png"),
        )
        for key in sorted(frames)
    ]
    score = functools.partial(
        _score_files,
        protocol=protocol,
        label_space=label_space,
        source=str(predictions),
        thresholds=thresholds,
    )
    results = parallel_map(
        score,
        jobs,
        workers=0 if len(jobs) < _FEW_FRAMES else workers,
        description="scoring",
        unit="frame",
        progress=progress,
    )
    frames = dict(zip((job.key for job in jobs), results, strict=True))
    return rules.summarize(frames, label_space, progress=progress)


def read_label_map(path: str | os.PathLike) -> np.ndarray:
    """The (H, W) joint ids of a PNG of one channel: grey of 8 or 16 bits, or indexed.

    Raises:
        ValueError: the file is missing, broken or has more channels; names it.
    """
    if not os.path.exists(path):
        raise ValueError(f"there is no label map {path}")
    try:
        data = Path(path).read_bytes()
        check_size(data)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            values = np.asarray(image)
    except Exception as error:  # Pillow's readers raise whatever a broken file leads to
        raise ValueError(f"label map {path} is not a sound PNG file: {error}") from error
    if values.ndim != 2 or values.dtype == bool and values.any():
        raise ValueError(f"label map {path} must have one channel, of joint ids (not colours)")
    return values.astype(np.uint8) if values.dtype == bool else values


@dataclass(frozen=True)
class _Job:
    """The files of one frame; ``entries`` and ``label_map`` None where not given."""

    key: FrameKey
    annotation: str | os.PathLike
    entries: list[tuple[int, dict]] | None
    label_map: str | os.PathLike | None


def _score_files(
    job: _Job, *, protocol: str, label_space: LabelSpace, source: str, thresholds: dict[str, float]
):
    rules = get_protocol(protocol)
    try:
        results = {"predictions": None}
        if job.entries is not None:
            results["predictions"] = parse_entries(
                job.entries, label_space, source=source, need_masks=job.label_map is None
            )
        if rules.label_maps:
            label_map = None if job.label_map is None else read_label_map(job.label_map)
            results |= {"label_map": label_map, **thresholds}
        return rules.score_frame(read_annotation(job.annotation), label_space, **results)
    except (ValueError, OSError) as error:
        place = f"video {job.key[0]}, frame {job.key[1] + 1}: "
        message = str(error)
        raise ValueError(message if place in message else place + message) from error


def check_video(key: FrameKey, videos: dict[str, VideoInfo], split: str, where: str) -> None:
    """Raises ValueError, beginning with ``where``, if the frame's video is none of the split."""
    video_id, index = key
    if video_id not in videos:
        raise ValueError(f"{where}: unknown video {video_id}, frame {index + 1}")
    if videos[video_id].split != split:
        raise ValueError(
            f"{where}: video {video_id}, frame {index + 1} is of the {videos[video_id].split} "
            f"split, not of {split}"
        )


def _check_frame(
    key: FrameKey, frames: set[FrameKey], videos: dict, split: str, where: str
) -> None:
    """Raises ValueError if ``key`` is no annotated frame of the split."""
    if key in frames:
        return
    check_video(key, videos, split, where)
    video_id, index = key
    known = ", ".join(str(i + 1) for v, i in sorted(frames) if v == video_id)
    raise ValueError(
        f"{where}: video {video_id} has no annotated frame {index + 1}; it has {known}"
    )
