"""What preparing a video's windows costs beside OpenCV's decode of their frames and DIS."""

import functools
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
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
from a2d_d2.utils.repository import repository_path

MOST_RATIO = 1.25
LEAST_BUSY = 0.9  # of the cores that tools/prepare_clips.py may use
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
    tool_videos: int,
    repeats: int,
    length: int = 5,
    stride: int = 1,
    workers: int | None = None,
    progress: bool = True,
) -> dict:
    """Measures :func:`a2d_d2.data.clip_cache.prepare_clips` on a generated release, then the tool.

    As many processes as there are cores do the same at the same time, each with one thread of
    OpenCV, so that all cores are busy and starting processes does not count. Then
    ``tools/prepare_clips.py`` runs on another release as users run it, and again on the complete
    cache, which is what its start costs.

    Args:
        height, width, frames: of each video.
        videos, tool_videos: of the release, and of the tool's.
        repeats: of each way; figures are medians over repeats and processes.
        length, stride: of the windows.
        workers: processes; None uses every core.
        progress: shows a progress bar.

    Raises:
        ValueError: a number is out of range.
        OSError: the tool fails.
    """
    check_counts(height=height, width=width, frames=frames, videos=videos, repeats=repeats)
    check_counts(tool_videos=tool_videos)
    workers = default_workers() if workers is None else workers
    check_counts(workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        root, tool_root = Path(folder) / "release", Path(folder) / "tool"
        for release, count in ((root, videos), (tool_root, tool_videos)):
            make_release(
                release,
                count,
                0,
                height=height,
                width=width,
                num_frames=frames,
                workers=workers,
                progress=progress,
            )
        measure = functools.partial(_measure, str(root), repeats, length, stride)
        shows = [progress] + [False] * (workers - 1)
        results = list(parallel_map(measure, shows, workers=workers, progress=False))
        stored, of_tool = (
            sum(len(wanted) for _, wanted in _windows(x, length, stride)) for x in (root, tool_root)
        )
        options = ["--length", str(length), "--stride", str(stride), "--workers", str(workers)]
        runs = [_run_tool(tool_root, options) for _ in range(repeats)]
    seconds = {name: [value for result in results for value in result[name]] for name in results[0]}
    limit = [sum(pair) for pair in zip(seconds["decode"], seconds["dis"], strict=True)]
    per_frame = {
        name: 1000 * statistics.median(values) / stored
        for name, values in (seconds | {"limit": limit}).items()
    }
    tool = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    tool |= {"videos": tool_videos, "stored": of_tool}
    return {
        "machine": machine(),
        "frames": {"height": height, "width": width, "stored": stored, "videos": videos},
        "repeats": repeats,
        "workers": workers,
        "milliseconds_a_frame": per_frame,
        "tool": tool,
        "rows": [
            make_row(
                "preparing windows, a frame",
                per_frame["prepare"],
                "ms",
                limit=per_frame["limit"],
                limit_name="decode and DIS",
                ratio=ratio(seconds["prepare"], limit),
                most_ratio=MOST_RATIO,
            ),
            *_tool_rows(tool, workers, per_frame["limit"]),
        ],
    }


def _tool_rows(tool: dict[str, float], workers: int, limit: float) -> Iterator[dict]:
    """The table's rows of :func:`_run_tool`; ``limit`` is in milliseconds a frame."""
    seconds = tool["seconds"] - tool["start"]
    if seconds > 0:  # so few videos that the start hides them say nothing
        yield make_row(
            "tools/prepare_clips.py without its start, a frame and process",
            1000 * seconds * workers / tool["stored"],
            "ms",
            limit=limit,
            limit_name="decode and DIS, measured before",
            most_ratio=MOST_RATIO,
        )
    yield make_row(
        "tools/prepare_clips.py with its start: what it keeps busy",
        tool["busy_cores"],
        "cores",
        limit=workers,
        limit_name=f"its {workers} processes",
        at_least=LEAST_BUSY * workers,
    )


def _run_tool(root: Path, options: list[str]) -> dict[str, float]:
    """Of the tool: "seconds", those of a run that only checks, "start", and "busy_cores"."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, repository_path("tools/prepare_clips.py"), "--split", "train"]
        command += ["--root", str(root), "--cache", cache, "--method", "dis", *options]

        def run() -> None:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise OSError(f"tools/prepare_clips.py fails: {done.stderr.strip()}")

        before = _processor_seconds()
        seconds = seconds_of(run)
        busy = (_processor_seconds() - before) / seconds
        return {"seconds": seconds, "start": seconds_of(run), "busy_cores": busy}


def _processor_seconds() -> float:
    """Of all processes that this one started and that have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _measure(
    root: str, repeats: int, length: int, stride: int, progress: bool
) -> dict[str, list[float]]:
    """Seconds of each way, one a repeat, with one thread of OpenCV."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        ways = _ways(Path(root), length, stride)
        ways = {name: functools.partial(seconds_of, way) for name, way in ways.items()}
        interleave(ways, 1, description="warming up", progress=progress)
        return interleave(ways, repeats, description="measuring", progress=progress)
    finally:
        cv2.setNumThreads(threads)


def _ways(root: Path, length: int, stride: int) -> dict[str, Callable]:
    jobs = _windows(root, length, stride)
    windows = {"length": length, "stride": stride}
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
            prepare_clips(root, cache, splits=("train",), **windows, workers=0, progress=False)

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


def _windows(root: Path, length: int, stride: int) -> list[tuple[str, list[int]]]:
    """The clips of the training split, and which of their frames are stored."""
    jobs = []
    for video in read_videoset(root):
        frames = window_frames(annotated_frames(root, video.video_id), length, stride)
        kept = sorted(frame for frame in frames if frame < video.num_frames)
        jobs.append((str(clip_path(root, video.video_id)), kept))
    return jobs


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
    per_frame, tool = result["milliseconds_a_frame"], result["tool"]
    return [
        machine_line(result["machine"]),
        f"{frames['stored']} frames of {frames['videos']} videos, {frames['height']}x"
        f"{frames['width']} pixels, in each of {result['workers']} processes at once; medians of "
        f"{result['repeats']}, milliseconds a frame:",
        *(f"  {title:<50}{per_frame[name]:8.2f}" for name, title in PARTS.items()),
        f"tools/prepare_clips.py, {tool['stored']} frames of {tool['videos']} videos: "
        f"{tool['seconds']:.1f} s, of these {tool['start']:.1f} s for its start (a run that only "
        "checks)",
        *row_lines(result["rows"]),
    ]
