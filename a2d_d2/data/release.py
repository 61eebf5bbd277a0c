"""An A2D release as Detectron2 records, one for each annotated frame.

The files themselves are the affair of :mod:`a2d_d2.data.layout`, whose names this module passes on.
"""

import logging
import os
from collections.abc import Iterable

from detectron2.structures import BoxMode

from a2d_d2.data.index import load_index
from a2d_d2.data.layout import (
    FrameAnnotation,
    ReleaseError,
    VideoInfo,
    annotated_frames,
    annotation_folder,
    annotation_path,
    clip_path,
    read_annotation,
    read_videoset,
)
from a2d_d2.label_space import LabelSpace

__all__ = [
    "FrameAnnotation",
    "ReleaseError",
    "VideoInfo",
    "annotated_frames",
    "annotation_path",
    "clip_path",
    "load_release",
    "read_annotation",
    "read_videoset",
    "split_videos",
]

logger = logging.getLogger(__name__)


def load_release(
    root: str | os.PathLike,
    split: str,
    label_space: LabelSpace,
    progress: bool = True,
    hold_out: int = 0,
) -> list[dict]:
    """The records of a split, sorted by video and frame.

    Each record holds "file_name" (the clip), "video_id", "frame_index" (0-based), "image_id"
    ("<video_id>/<%05d>", 1-based), "height", "width", "num_frames" (of videoset.csv, a hint),
    "annotated_frames" (0-based, all of the video's), "label_map_file" (the annotation) and
    "annotations": "bbox" of the mask with "bbox_mode", "category_id" (actor), "action_id",
    "segmentation" (compressed RLE) and "iscrowd".

    A video without annotations is a fault, and so is an annotation that cannot be read or has an
    instance outside the valid pairs. The train split leaves faults out, with one warning, and so
    does the val split, which is made of training videos.

    Args:
        root: folder that holds videoset.csv.
        split: "train", "val" or "test".
        label_space: of the annotations.
        progress: show a progress bar while annotations are read.
        hold_out: of :func:`split_videos`.

    Raises:
        ReleaseError: the root holds no release, the split no video or no sound annotation, or the
            test split has a fault: an evaluation must not leave frames out.
    """
    all_videos = read_videoset(root)
    videos = split_videos(all_videos, split, hold_out)
    if not videos:
        raise ReleaseError(f"{root}/videoset.csv lists no {split} video", "videoset")
    # The index covers both splits, so that loading the second one finds it complete.
    index = load_index(root, [video.video_id for video in all_videos], progress=progress)

    records, faults, box_faults = [], [], 0
    for video in videos:
        sound = []
        entries = index[video.video_id]
        if not entries:
            folder = annotation_folder(root, video.video_id)
            faults.append(f"{folder}: no annotation")
        for entry in entries:
            reason = _fault(entry, label_space)
            if reason:
                path = annotation_path(root, video.video_id, entry["frame_index"])
                faults.append(f"{path}: {reason}")
            else:
                sound.append(entry)
                box_faults += entry["box_faults"]
        frames = [entry["frame_index"] for entry in sound]
        records += [_record(root, video, entry, frames, label_space) for entry in sound]

    remedy = f"List all with: python tools/check_dataset.py --root {root}"
    if faults:
        fault = f"{len(faults)} annotations of the {split} split of {root} cannot be used"
        first = f"The first is {faults[0]}. {remedy}"
        if split == "test":
            raise ReleaseError(f"{fault}, and an evaluation must not leave any out. {first}")
        if not records:
            raise ReleaseError(f"{fault}, and no other is there. {first}")
        logger.warning(f"{fault} and are left out. {first}")
    if box_faults:
        logger.warning(
            f"{box_faults} stored boxes of the {split} split of {root} disagree with their masks, "
            f"whose boxes are used instead. {remedy}"
        )
    return records


def split_videos(videos: Iterable[VideoInfo], split: str, hold_out: int = 0) -> list[VideoInfo]:
    """The videos of a split, sorted by id.

    Args:
        videos: of a whole release.
        split: "train" or "test" of the release, or "val", the training videos held out.
        hold_out: K of DATASETS.HOLD_OUT: of the training videos, sorted by id, the first and every
            K-th after it belong to "val" instead of "train"; 0 holds none out.

    Raises:
        ValueError: there is no such split, or K leaves "train" or "val" without a video.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split must be train, val or test, not {split!r}")
    if hold_out < 0 or hold_out == 1:
        raise ValueError(f"DATASETS.HOLD_OUT is {hold_out}; it must be 0 or at least 2")
    if split == "val" and not hold_out:
        raise ValueError("DATASETS.HOLD_OUT is 0, so no training video is held out for a2d_val")
    of_release = "test" if split == "test" else "train"
    chosen = sorted(
        (video for video in videos if video.split == of_release), key=lambda video: video.video_id
    )
    if split == "val":
        return chosen[::hold_out]
    if split == "train" and hold_out:
        return [video for i, video in enumerate(chosen) if i % hold_out]
    return chosen


def _fault(entry: dict, label_space: LabelSpace) -> str | None:
    """Why an entry of the index cannot be used, if so."""
    if "error" in entry:
        return entry["error"]
    invalid = [i for i in entry["ids"] if not label_space.is_valid_id(i)]
    return f"{invalid[0]} is not the id of a valid pair of {label_space.name}" if invalid else None


def _record(
    root: str | os.PathLike,
    video: VideoInfo,
    entry: dict,
    frames: list[int],
    label_space: LabelSpace,
) -> dict:
    index, size = entry["frame_index"], [entry["height"], entry["width"]]
    annotations = []
    for joint_id, box, counts in zip(entry["ids"], entry["boxes"], entry["rles"], strict=True):
        actor, action = label_space.split_id(joint_id)
        annotations.append(
            {
                "bbox": [float(x) for x in box],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": actor,
                "action_id": action,
                "segmentation": {"size": size, "counts": counts},
                "iscrowd": 0,
            }
        )
    return {
        "file_name": str(clip_path(root, video.video_id)),
        "video_id": video.video_id,
        "frame_index": index,
        "image_id": f"{video.video_id}/{index + 1:05d}",
        "height": size[0],
        "width": size[1],
        "num_frames": video.num_frames,
        "annotated_frames": frames,
        "label_map_file": str(annotation_path(root, video.video_id, index)),
        "annotations": annotations,
    }
