"""What preparing a video's windows costs beside OpenCV's decode of their frames and DIS."""

import functools
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2

from a2d_d2.benchmark.common import (
    check_counts,
    interleave,
    machine,
    machine_line,
    ratio,
    seconds_of,
)
from a2d_d2.benchmark.rows import make_row, row_lines
from a2d_d2.data.clip_cache import FRAME_FORMATS, iter_clip, prepare_clips, window_frames
from a2d_d2.data.flow import encode_flow
from a2d_d2.data.layout import annotated_frames, clip_path, read_videoset
from a2d_d2.data.synthetic import make_release
from a2d_d2.utils.parallel import default_workers, parallel_map

LENGTH = 5  # T
MOST_RATIO = 1.25
# Name to what it is.
PARTS = {
    "decode": "decoding, OpenCV alone",
    "dis": "DIS of the needed pairs, OpenCV alone",
    "encode_frames": "encoding frames (JPEG)",
    "encode_flow": "encoding flow (PNG)",
}


def measure_flow(
    *,
    height: int,
    width: int,
    frames: int,
    videos: int,
    repeats: int,
    workers: int | None = None,
    progress: bool = True,
) -> dict:
    """Measures :func:`a2d_d2.data.clip_cache.prepare_clips` on a generated release.

    As many processes as there are cores do the same at the same time, each with one thread of
    OpenCV, so that all cores are busy and starting processes does not count.

    Args:
        height, width, frames: of each video.
        videos: of the release.
        repeats: of each way; figures are medians over repeats and processes.
        workers: processes; None uses every core.
        progress: shows a progress bar.

    Raises:
        ValueError: a number is out of range.
    """
    check_counts(height=height, width=width, frames=frames, videos=videos, repeats=repeats)
    workers = default_workers() if workers is None else workers
    check_counts(workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "release"
        make_release(
            root,
            videos,
            0,
            height=height,
            width=width,
            num_frames=frames,
            workers=workers,
            progress=progress,
        )
        measure = functools.partial(_measure, str(root), repeats)
        shows = [progress] + [False] * (workers - 1)
        results = list(parallel_map(measure, shows, workers=workers, progress=False))
        stored = sum(len(wanted) for _, wanted in _windows(root))
    seconds = {name: [value for result in results for value in result[name]] for name in results[0]}
    limit = [sum(pair) for pair in zip(seconds["decode"], seconds["dis"], strict=True)]
    per_frame = {
        name: 1000 * statistics.median(values) / stored
        for name, values in (seconds | {"limit": limit}).items()
    }
    return {
        "machine": machine(),
        "frames": {"height": height, "width": width, "stored": stored, "videos": videos},
        "repeats": repeats,
        "workers": workers,
        "milliseconds_a_frame": per_frame,
        "rows": [
            make_row(
                "preparing windows, a frame",
                per_frame["prepare"],
                "ms",
                limit=per_frame["limit"],
                limit_name="decode and DIS",
                ratio=ratio(seconds["prepare"], limit),
                most_ratio=MOST_RATIO,
            )
        ],
    }


def _measure(root: str, repeats: int, progress: bool) -> dict[str, list[float]]:
    """Seconds of each way, one a repeat, with one thread of OpenCV."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        ways = {name: functools.partial(seconds_of, way) for name, way in _ways(Path(root)).items()}
        interleave(ways, 1, description="warming up", progress=progress)
        return interleave(ways, repeats, description="measuring", progress=progress)
    finally:
        cv2.setNumThreads(threads)


def _ways(root: Path) -> dict[str, Callable]:
    jobs = _windows(root)
    clips = [
        list(iter_clip(path, frames, "dis")) for path, frames in jobs
    ]  # frames and flow, to encode
    grays = [
        {i: cv2.cvtColor(x, cv2.COLOR_BGR2GRAY) for i, x in _decode(path, frames).items()}
        for path, frames in jobs
    ]
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    suffix, options = FRAME_FORMATS["frames-jpeg95"]

    def prepare() -> None:
        with tempfile.TemporaryDirectory() as cache:
            prepare_clips(root, cache, splits=("train",), length=LENGTH, workers=0, progress=False)

    def dis() -> None:
        for (_, frames), gray in zip(jobs, grays, strict=True):
            for i in frames:
                if i > 0:
                    estimator.calc(gray[i - 1], gray[i], None)

    return {
        "prepare": prepare,
        "decode": lambda: [_decode(path, frames) for path, frames in jobs],
        "dis": dis,
        "encode_frames": lambda: [
            cv2.imencode(suffix, image, options) for clip in clips for _, image, _ in clip
        ],
        "encode_flow": lambda: [encode_flow(flow) for clip in clips for _, _, flow in clip],
    }


def _windows(root: Path) -> list[tuple[str, list[int]]]:
    """The clips of the training split, and which of their frames are stored."""
    return [
        (
            str(clip_path(root, video.video_id)),
            sorted(window_frames(annotated_frames(root, video.video_id), LENGTH, 1)),
        )
        for video in read_videoset(root)
    ]


def _decode(path: str, frames: list[int]) -> dict:
    """The frames and those before them by OpenCV alone, in one decode with one thread."""
    needed = {i + d for i in frames for d in (-1, 0) if i + d >= 0}
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    images = {}
    for index in range(max(needed) + 1):
        if not capture.grab():
            break
        if index in needed:
            images[index] = capture.retrieve()[1]
    capture.release()
    return images


def flow_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_flow` for a person to read."""
    frames = result["frames"]
    per_frame = result["milliseconds_a_frame"]
    return [
        machine_line(result["machine"]),
        f"{frames['stored']} frames of {frames['videos']} videos, {frames['height']}x"
        f"{frames['width']} pixels, in each of {result['workers']} processes at once; medians of "
        f"{result['repeats']}, milliseconds a frame:",
        *(f"  {title:<50}{per_frame[name]:8.2f}" for name, title in PARTS.items()),
        *row_lines(result["rows"]),
    ]
