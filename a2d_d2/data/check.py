"""Checks every clip and annotation of a release; behind tools/check_dataset.py."""

import contextlib
import functools
import os
from pathlib import Path

import numpy as np

from a2d_d2.data.layout import (
    FrameAnnotation,
    ReleaseError,
    VideoInfo,
    annotated_frames,
    annotation_folder,
    annotation_path,
    box_faults,
    clip_path,
    frame_index_of,
    parse_videoset,
    read_annotation,
)
from a2d_d2.data.video import VideoError, iter_frames
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.parallel import parallel_map


def check_release(
    root: str | os.PathLike,
    label_space: LabelSpace,
    workers: int | None = None,
    progress: bool = True,
) -> dict:
    """Decodes every clip once, reads every annotation and compares them with each other.

    Args:
        root: of the release.
        label_space: of its annotations.
        workers: number of processes; None uses every core.
        progress: show a progress bar.

    Returns:
        "videos", "annotated_frames" and "instances" as {"train": n, "test": n}, of what is on disk
        and can be read; and "problems", a list of {"video_id", "frame" (1-based, or None), "kind",
        "message"} in the order of videoset.csv. Sound videos have none. The kinds are listed in
        datasets/README.md. A wrong line of videoset.csv has None for its video.

    Raises:
        ReleaseError: ``root`` holds no readable videoset.csv.
    """
    videos, errors = parse_videoset(root)
    counts = {name: {"train": 0, "test": 0} for name in ("videos", "annotated_frames", "instances")}
    problems = [_problem(None, None, error.kind, str(error)) for error in errors]
    results = parallel_map(
        functools.partial(_check_video, root, label_space),
        videos,
        workers=workers,
        description="checking videos",
        unit="video",
        progress=progress,
    )
    for video, (num_annotated, num_instances, found) in zip(videos, results, strict=True):
        counts["videos"][video.split] += 1
        counts["annotated_frames"][video.split] += num_annotated
        counts["instances"][video.split] += num_instances
        problems += found
    return {**counts, "problems": problems}


def _problem(video_id: str | None, frame_index: int | None, kind: str, message: str) -> dict:
    frame = None if frame_index is None else frame_index + 1
    return {"video_id": video_id, "frame": frame, "kind": kind, "message": message}


def _check_video(
    root: str | os.PathLike, label_space: LabelSpace, video: VideoInfo
) -> tuple[int, int, list[dict]]:
    """Number of annotations, of their instances, and the problems of one video."""
    num_decoded, size, problems = _check_clip(clip_path(root, video.video_id), video)
    frames = annotated_frames(root, video.video_id)
    problems += _check_folder(annotation_folder(root, video.video_id), video, len(frames))
    num_instances = 0
    for index in frames:
        path = annotation_path(root, video.video_id, index)
        found = []
        if num_decoded is not None and index >= num_decoded:
            found.append(("frame_beyond_clip", f"{path}: the clip has {num_decoded} frames"))
        try:
            annotation = read_annotation(path)
        except ReleaseError as error:
            found.append((error.kind, str(error)))
        else:
            num_instances += len(annotation.joint_ids)
            faults = _annotation_faults(annotation, size, label_space)
            found += [(kind, f"{path}: {text}") for kind, text in faults]
        problems += [_problem(video.video_id, index, kind, text) for kind, text in found]
    return len(frames), num_instances, problems


def _check_clip(path: Path, video: VideoInfo) -> tuple[int | None, tuple[int, int], list[dict]]:
    """Number of frames (None if none can be decoded), their (height, width), and problems."""
    size = (video.height, video.width)
    problem = functools.partial(_problem, video.video_id, None)
    if not path.is_file():
        return None, size, [problem("clip_missing", f"{path} does not exist")]
    count, sizes = 0, set()
    with contextlib.suppress(VideoError):
        for frame in iter_frames(path):
            sizes.add(frame.shape[:2])
            count += 1
    if count == 0:
        return None, size, [problem("clip_truncated", f"{path}: no frame can be decoded")]
    problems = []
    lacking = video.num_frames - count
    if lacking > 1 or (lacking == 1 and _is_cut_off(path)):
        text = f"{path}: only {count} of {video.num_frames} frames can be decoded"
        problems.append(problem("clip_truncated", text))
    elif _is_cut_off(path):
        problems.append(problem("clip_truncated", f"{path}: the end of the file is missing"))
    elif lacking:  # one frame less in a whole file: programs count differently
        text = f"{path} has {count} frames, videoset.csv says {video.num_frames}"
        problems.append(problem("count_mismatch", text))
    if sizes != {size}:
        found = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        text = f"{path}: frames of {found} pixels, videoset.csv says {size[1]}x{size[0]}"
        problems.append(problem("size_mismatch", text))
    return count, min(sizes), problems


def _check_folder(folder: Path, video: VideoInfo, num_annotated: int) -> list[dict]:
    """Problems of an annotation folder as a whole."""
    problem = functools.partial(_problem, video.video_id, None)
    problems = [
        problem("file_name", f"{path} is ignored: not named by a 1-based frame as in 00001.mat")
        for path in sorted(folder.glob("*.mat"))
        if frame_index_of(path.name) is None and not path.name.startswith(".")
    ]
    if num_annotated == 0:
        problems.append(problem("no_annotations", f"{folder} holds no annotation"))
    elif num_annotated != video.num_annotated:
        text = (
            f"{folder} holds {num_annotated} annotations, videoset.csv says {video.num_annotated}"
        )
        problems.append(problem("count_mismatch", text))
    return problems


def _annotation_faults(
    annotation: FrameAnnotation, size: tuple[int, int], label_space: LabelSpace
) -> list[tuple[str, str]]:
    """(kind, message) of what is wrong with an annotation that can be read."""
    faults = [(fault.kind, str(fault)) for fault in box_faults(annotation)]
    num_names, num_ids = len(annotation.class_names), len(annotation.joint_ids)
    if num_names not in (0, num_ids):
        faults.append(("class_mismatch", f"{num_names} class names but {num_ids} ids"))
    label_map = annotation.label_map
    if label_map.shape != size:
        shapes = [f"{width}x{height}" for height, width in (label_map.shape, size)]
        text = f"{shapes[0]} pixels, the clip has {shapes[1]}"
        faults.append(("size_mismatch", text))
    covers = annotation.masks.sum(axis=0)
    pairs = zip(annotation.joint_ids, annotation.masks, strict=True)
    for number, (joint_id, mask) in enumerate(pairs, start=1):
        labels = label_map[mask & (covers == 1)]  # where instances overlap, either may be right
        if not mask.any():
            faults.append(("mask_empty", f"the mask of instance {number} is empty"))
        if not label_space.is_valid_id(joint_id):
            text = f"id {joint_id} of instance {number} is no valid pair of {label_space.name}"
            faults.append(("invalid_id", text))
        elif labels.size and np.mean(labels == joint_id) < 0.5:
            text = f"instance {number} has id {joint_id}, but reS_id disagrees on most of its mask"
            faults.append(("label_mismatch", text))
    known = {0, *annotation.joint_ids}
    for joint_id in np.unique(label_map).tolist():
        if joint_id not in known and not label_space.is_valid_id(joint_id):
            text = f"{joint_id} in reS_id is no valid pair of {label_space.name}"
            faults.append(("invalid_id", text))
    return faults


def _is_cut_off(path: Path) -> bool:
    """Whether an MP4 file ends inside one of its boxes; a decoder may hide that."""
    end = path.stat().st_size
    position = 0
    with open(path, "rb") as file:
        while position < end:
            file.seek(position)
            header = file.read(16)
            if position == 0 and header[4:8] != b"ftyp":
                return False  # another container, which only the decoder can judge
            size = int.from_bytes(header[:4], "big")
            if size == 1:  # a 64-bit size follows
                size = int.from_bytes(header[8:], "big")
            if size == 0:  # the box reaches the end of the file
                return False
            position += max(size, 8)
    return position > end
