"""What loading a training clip from the cache costs beside OpenCV's decode of the same files."""

import multiprocessing
import os
import statistics
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode

from a2d_d2.benchmark.common import (
    check_counts,
    interleave,
    machine,
    machine_line,
    processor_seconds,
    ratio,
    seconds_of,
)
from a2d_d2.benchmark.rows import make_row, row_lines
from a2d_d2.config import setup_cfg
from a2d_d2.data.build import build_train_loader, train_records
from a2d_d2.data.clip_cache import prepare_clips
from a2d_d2.data.mapper import build_mapper
from a2d_d2.data.synthetic import make_release

MOST_RATIO = 1.5
LOADER_CLIPS = 60
PROCESSES = 2  # of the loader: as many as the cores that they are to keep busy
LEAST_BUSY = 1.8  # of these cores


def measure_data(
    config_file: str,
    options: Sequence = (),
    *,
    height: int,
    width: int,
    full_height: int,
    full_width: int,
    videos: int,
    repeats: int,
    progress: bool = True,
) -> dict:
    """Measures the mapper of training on two generated releases with their caches.

    One has frames of the network's size, ``height`` x ``width``; the other frames of
    ``full_height`` x ``full_width`` that are resized as the configuration asks for. Both run in one
    process with one thread of OpenCV, as a loader's process does. Then how many cores the loader of
    training keeps busy with PROCESSES.

    Args:
        config_file, options: of the model.
        height, width, full_height, full_width: of the videos.
        videos: of each release.
        repeats: figures are medians; each loads every clip once.
        progress: shows progress bars.

    Raises:
        ValueError: a number is out of range, or the configuration is wrong.
    """
    check_counts(
        height=height,
        width=width,
        full_height=full_height,
        full_width=full_width,
        videos=videos,
        repeats=repeats,
    )
    same_size = ["INPUT.MIN_SIZE_TRAIN", (min(height, width),)]
    same_size += ["INPUT.MAX_SIZE_TRAIN", max(height, width)]
    cases = {
        f"training clip of {height}x{width}": (height, width, same_size),
        f"training clip of {full_height}x{full_width}, resized": (full_height, full_width, []),
    }
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        parts = {
            name: _measure(config_file, [*options, *more], *size, videos, repeats, progress)
            for name, (*size, more) in cases.items()
        }
    finally:
        cv2.setNumThreads(threads)
    return {
        "machine": machine(),
        "repeats": repeats,
        "clips": parts,
        "rows": [row for name, part in parts.items() for row in _rows(name, part)],
    }


def _rows(name: str, part: Mapping) -> list[dict]:
    return [
        make_row(
            name,
            part["load_ms"],
            "ms",
            limit=part["decode_ms"],
            limit_name="decode of its files",
            ratio=part["ratio"],
            most_ratio=MOST_RATIO,
        ),
        make_row(
            f"{name}: what its loader keeps busy",
            part["loader_busy_cores"],
            "cores",
            limit=PROCESSES,
            limit_name=f"its {PROCESSES} processes",
            at_least=LEAST_BUSY,
        ),
    ]


def _measure(
    config_file: str,
    options: Sequence,
    height: int,
    width: int,
    videos: int,
    repeats: int,
    progress: bool,
) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "release", Path(folder) / "cache"
        make_release(root, videos, 0, height=height, width=width, workers=1, progress=progress)
        paths = ["DATASETS.ROOT", str(root), "INPUT.CLIP.CACHE", str(cache)]
        cfg = setup_cfg(config_file, [*options, *paths])
        prepare_clips(
            root,
            cache,
            splits=("train",),
            flow_method=cfg.INPUT.FLOW_METHOD,
            length=cfg.INPUT.CLIP.LENGTH,
            stride=cfg.INPUT.CLIP.STRIDE,
            workers=1,
            progress=progress,
        )
        records = train_records(cfg)
        mapper = build_mapper(cfg, is_train=True)
        clips = [mapper(record) for record in records]
        files = [
            data
            for clip in clips
            for data in _files(cache, clip["video_id"], clip["frame_indices"])
        ]
        ways = {
            "load": lambda: seconds_of(lambda: [mapper(record) for record in records]),
            "decode": lambda: seconds_of(
                lambda: [cv2.imdecode(data, cv2.IMREAD_UNCHANGED) for data in files]
            ),
        }
        interleave(ways, 1, description="warming up", progress=progress)
        seconds = interleave(ways, repeats, description="measuring", progress=progress)
        loading = [measure_loader(cfg, PROCESSES, LOADER_CLIPS) for _ in range(repeats)]
    return {
        "clips": len(clips),
        "frames": statistics.mean(len(clip["frame_indices"]) for clip in clips),
        "files": len(files),
        "kib": sum(data.nbytes for data in files) / len(clips) / 1024,
        "load_ms": 1000 * statistics.median(seconds["load"]) / len(clips),
        "decode_ms": 1000 * statistics.median(seconds["decode"]) / len(clips),
        "ratio": ratio(seconds["load"], seconds["decode"]),
        "loader_clips_a_second": LOADER_CLIPS / statistics.median(x for x, _ in loading),
        "loader_busy_cores": statistics.median(processor / wall for wall, processor in loading),
    }


def measure_loader(cfg: CfgNode, processes: int, clips: int) -> tuple[float, float]:
    """How long training's loader takes for so many clips, once its processes are at work.

    Args:
        cfg: of the model.
        processes: of the loader; each has prepared what it may before the clock starts, and has
            prepared as much again when it stops.
        clips: to wait for.

    Returns:
        Seconds of the clock, and those of the processor, of this process and the loader's.
    """
    cfg = cfg.clone()
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", processes, "SOLVER.IMS_PER_BATCH", 1])
    batches = iter(build_train_loader(cfg))
    for _ in range(4 * processes):  # twice what they prepare ahead
        next(batches)
    own = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]
    before = sum(map(processor_seconds, own))
    seconds = seconds_of(lambda: [next(batches) for _ in range(clips)])
    return seconds, sum(map(processor_seconds, own)) - before


def _files(cache: Path, video_id: str, frames: Sequence[int]) -> list[np.ndarray]:
    """The files of a clip in the cache, frames and flow, as they are stored."""
    files = []
    for path in sorted(cache.glob(f"*/{video_id}.zip")):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name[:5].isdigit()]
            kept = [name for name in names if int(name[:5]) - 1 in frames]
            files += [np.frombuffer(archive.read(name), np.uint8) for name in kept]
    return files


def data_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_data` for a person to read."""
    return [
        machine_line(result["machine"]),
        *(
            f"{name}: {part['clips']} clips, {part['frames']:.1f} frames and {part['kib']:.0f} KiB "
            f"of files a clip on average; medians of {result['repeats']}"
            for name, part in result["clips"].items()
        ),
        *row_lines(result["rows"]),
    ]
