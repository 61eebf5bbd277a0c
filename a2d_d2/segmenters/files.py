"""Two-stage refinement on saved predictions; behind tools/segment_predictions.py."""

import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from a2d_d2.data.clip_cache import ClipCache
from a2d_d2.data.layout import clip_path, read_videoset
from a2d_d2.data.video import select_frames
from a2d_d2.evaluation.predictions import (
    load_entries,
    parse_entries,
    segmentation_of,
    write_predictions,
)
from a2d_d2.evaluation.score_files import check_video
from a2d_d2.label_space import LabelSpace
from a2d_d2.segmenters.base import MIN_SCORE, build_segmenter, segment_detections
from a2d_d2.utils.parallel import parallel_map


@dataclass(frozen=True)
class SegmentedFile:
    """What :func:`segment_predictions` did.

    Attributes:
        num_entries: in the file.
        num_masks: entries that have a mask now.
        num_videos: with entries.
    """

    num_entries: int
    num_masks: int
    num_videos: int


def segment_predictions(
    root: str | os.PathLike,
    split: str,
    predictions: str | os.PathLike,
    output: str | os.PathLike,
    label_space: LabelSpace,
    *,
    segmenter: str = "GrabCutSegmenter",
    min_score: float = MIN_SCORE,
    cache: str | os.PathLike | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> SegmentedFile:
    """Writes a file of predictions again, each entry with a mask from its box.

    Masks that the entries have are replaced; those below ``min_score`` get null. Everything else of
    the entries, and their order, stays. Each video is decoded once, in order. Given what a model
    predicted and the same frames, the masks are those of :class:`SecondStage`.

    Args:
        root: folder that holds videoset.csv.
        split: "train" or "test".
        predictions: JSON file (:mod:`a2d_d2.evaluation.predictions`) on any frames of the split's
            videos.
        output: file to write, atomically.
        label_space: of the predictions.
        segmenter: name for :func:`a2d_d2.segmenters.build_segmenter`.
        min_score: entries with a lower actor score get no mask.
        cache: folder that tools/prepare_clips.py wrote, to read the frames from. A video of which
            it lacks one is decoded.
        workers, progress: as in :func:`a2d_d2.utils.parallel.parallel_map`.

    Raises:
        ValueError: an input is missing or wrong; names the file, or the video and frame.
    """
    _segmenter(segmenter)  # a wrong name shows before any process starts
    if cache is not None and not os.path.isdir(cache):
        raise ValueError(f"there is no clip cache {cache}; tools/prepare_clips.py makes one")
    videos = {info.video_id: info for info in read_videoset(root)}
    jobs: dict[str, _Job] = {}
    num_entries = 0
    for key, entries in load_entries(predictions).items():
        check_video(key, videos, split, f"{predictions}: entry {entries[0][0]}")
        video_id, index = key
        if video_id not in jobs:
            jobs[video_id] = _Job(video_id, clip_path(root, video_id), {})
        jobs[video_id].frames[index] = entries
        num_entries += len(entries)
    results = parallel_map(
        functools.partial(
            _segment_video,
            label_space=label_space,
            source=str(predictions),
            segmenter=segmenter,
            min_score=min_score,
            cache=cache,
        ),
        list(jobs.values()),
        workers=workers,
        description="segmenting",
        unit="video",
        progress=progress,
    )
    written: list[dict] = [{}] * num_entries
    num_decoded = 0
    for entries, from_cache in results:
        num_decoded += not from_cache
        for number, entry in entries:
            written[number - 1] = entry
    if cache is not None and num_decoded:
        logging.getLogger(__name__).warning(
            f"the clip cache {cache} lacks frames of {num_decoded} of {len(jobs)} videos, or was"
            " made from other files; these were decoded"
        )
    write_predictions(output, written)
    num_masks = sum(entry["segmentation"] is not None for entry in written)
    return SegmentedFile(num_entries, num_masks, len(jobs))


@dataclass(frozen=True)
class _Job:
    """The entries of one video, with their places in the file, by 0-based frame."""

    video_id: str
    clip: Path
    frames: dict[int, list[tuple[int, dict]]]


def _segment_video(
    job: _Job,
    *,
    label_space: LabelSpace,
    source: str,
    segmenter: str,
    min_score: float,
    cache: str | os.PathLike | None,
) -> tuple[list[tuple[int, dict]], bool]:
    """The entries with masks, with their places, and whether the cache had the frames."""
    found = {
        index: parse_entries(entries, label_space, source=source)
        for index, entries in job.frames.items()
    }
    cached = None
    if cache is not None:
        cached = ClipCache(cache, None).read(job.clip, job.video_id, found)
    if cached is None:
        frames = select_frames(job.clip, found)
    else:
        frames = ((index, frame) for index, (frame, _) in cached.items())
    result, missing = [], set(found)
    for index, frame in frames:
        missing.remove(index)
        boxes, scores = found[index].boxes, found[index].scores
        try:
            masks = segment_detections(
                _segmenter(segmenter), frame, boxes, scores, min_score=min_score
            )
        except ValueError as error:
            raise ValueError(f"video {job.video_id}, frame {index + 1}: {error}") from error
        result += [
            (number, entry | {"segmentation": segmentation_of(mask)})
            for (number, entry), mask in zip(job.frames[index], masks, strict=True)
        ]
    if missing:
        index = min(missing)
        number = job.frames[index][0][0]
        raise ValueError(
            f"{source}: entry {number}, video {job.video_id}: {job.clip} ends before frame"
            f" {index + 1}"
        )
    return result, cached is not None


# One a process: what a segmenter loads, it loads once.
_segmenter = functools.lru_cache(maxsize=1)(build_segmenter)
