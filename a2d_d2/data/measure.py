"""What first and later starts on a release of A2D's size cost; behind tools/measure_start.py."""

import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from a2d_d2.data.index import index_path
from a2d_d2.data.layout import annotation_path
from a2d_d2.data.release import load_release
from a2d_d2.data.release_writer import VideosetRow, write_annotation, write_videoset
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.parallel import default_workers

# A2D: so many videos have so many annotated frames; this many of the videos are for testing.
ANNOTATED = {3: 3427, 5: 315, 2: 30, 1: 10}
NUM_TEST = 746
HEIGHT, WIDTH = 320, 568
# Two of three frames have one instance, the others two to six: 1.7 a frame, as in A2D's test split.
INSTANCES = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 6)


def measure_start() -> dict:
    """Loads both splits twice from a fabricated release without clips.

    Returns:
        "videos", "annotated_frames", "instances", "cores", "index_mib", "first_start_seconds"
        (reads every annotation, builds the index) and "second_start_seconds" (uses it), imports not
        counted.
    """
    label_space = LabelSpace.a2d()
    seconds = []
    with tempfile.TemporaryDirectory() as root:
        fabricate_release(Path(root), label_space)
        for _ in range(2):
            start = time.perf_counter()
            records = [
                record
                for split in ("train", "test")
                for record in load_release(root, split, label_space)
            ]
            seconds.append(time.perf_counter() - start)
        index_bytes = index_path(root).stat().st_size
    return {
        "videos": sum(ANNOTATED.values()),
        "annotated_frames": len(records),
        "instances": sum(len(record["annotations"]) for record in records),
        "cores": default_workers(),
        "index_mib": round(index_bytes / 2**20, 1),
        "first_start_seconds": round(seconds[0], 1),
        "second_start_seconds": round(seconds[1], 2),
    }


def fabricate_release(root: Path, label_space: LabelSpace, shrink: int = 1) -> None:
    """Writes videoset.csv and annotations; the files of equal content are links to one.

    Args:
        root: a new folder.
        label_space: of the annotations.
        shrink: makes one of so many videos, but some of each kind.
    """
    models = [
        _write_model(root / "models" / f"{k}.mat", count, label_space)
        for k, count in enumerate(INSTANCES)
    ]
    rows, num_files = [], 0
    for count, num_videos in ANNOTATED.items():
        for _ in range(-(-num_videos // shrink)):
            split = "test" if len(rows) * shrink < NUM_TEST else "train"
            video_id = f"video{len(rows):06d}"
            rows.append(VideosetRow(video_id, 11, 0, 5, HEIGHT, WIDTH, 121, count, split))
            for k in range(count):
                path = annotation_path(root, video_id, 20 * (k + 1))
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(models[num_files % len(models)], path)
                num_files += 1
    write_videoset(root, rows)


def _write_model(path: Path, count: int, label_space: LabelSpace) -> Path:
    """An annotation with ``count`` ragged ellipses about as large as A2D's actors."""
    random = np.random.default_rng(count)
    noise = cv2.GaussianBlur(random.normal(size=(HEIGHT, WIDTH)).astype(np.float32), (0, 0), 5)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.zeros((count, HEIGHT, WIDTH), dtype=bool)
    for mask in masks:
        center_x, center_y = random.uniform(0.2, 0.8, 2) * (WIDTH, HEIGHT)
        radius_x, radius_y = random.uniform(40, 120, 2)
        distance = ((x - center_x) / radius_x) ** 2 + ((y - center_y) / radius_y) ** 2
        mask[:] = distance + 0.15 * noise / noise.std() < 1
    joint_id = label_space.joint_id(*label_space.valid_pairs[0])
    label_map = joint_id * masks.any(axis=0)
    write_annotation(path, label_map, masks, [joint_id] * count, label_space)
    return path
