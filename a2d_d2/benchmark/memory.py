"""Peak memory of a short and of a long video, each in a process of its own."""

import functools
import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from a2d_d2.benchmark.common import (
    FRAMES_PER_SECOND,
    MIB,
    check_counts,
    machine,
    machine_line,
    moving_frames,
    peak_bytes,
    peak_gpu_bytes,
    random_model,
    set_threads,
)
from a2d_d2.config import setup_cfg
from a2d_d2.data.video import write_frames
from a2d_d2.inference.predict_video import VideoJob, predict_videos
from a2d_d2.inference.source import VideoSource
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.inference.tracks import Tracker
from a2d_d2.inference.writer import choose_output

# Path to what it is.
PATHS = {
    "streaming": "streaming frames that are made on the fly",
    "predict_video": "all of tools/predict_video.py: decoding, tracks, drawing, writing",
}
LENGTHS = ("short", "long")
LARGEST_CHANGE = 0.05  # the goal for the long video's peak, as a share of the short one's


@dataclass(frozen=True)
class MemoryRun:
    """One video in one process.

    Attributes:
        path: of PATHS.
        config_file, options: of the model, which gets random weights.
        height, width: of the frames, in pixels.
        frames: of the video.
        threads: of the network.
        progress: shows a progress bar.
    """

    path: str
    config_file: str
    options: tuple[str, ...]
    height: int
    width: int
    frames: int
    threads: int
    progress: bool

    def __call__(self) -> dict:
        """Processes the video; "cpu_mib" and, with a GPU, "gpu_mib" are this process's peaks."""
        set_threads(self.threads)
        cfg = setup_cfg(self.config_file, self.options)
        predictor = StreamingPredictor.for_model(random_model(cfg), cfg)
        {"streaming": self._stream, "predict_video": self._predict_video}[self.path](predictor)
        peaks = {"frames": self.frames, "cpu_mib": peak_bytes() / MIB}
        if (gpu := peak_gpu_bytes()) is not None:
            peaks["gpu_mib"] = gpu / MIB
        return peaks

    def _stream(self, predictor: StreamingPredictor) -> None:
        frames = islice(moving_frames(self.height, self.width), self.frames)
        timed = ((i / FRAMES_PER_SECOND, frame) for i, frame in enumerate(frames))
        title = f"{self.frames} frames, streaming"
        results = predictor.predict(timed)
        for _ in tqdm(
            results, total=self.frames, desc=title, unit="frame", disable=not self.progress
        ):
            pass

    def _predict_video(self, predictor: StreamingPredictor) -> None:
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / f"{self.frames} frames, predict_video.mp4"
            frames = islice(moving_frames(self.height, self.width), self.frames)
            write_frames(video, frames, FRAMES_PER_SECOND)
            problems = predict_videos(
                [VideoJob(VideoSource(video), Path(folder) / "results" / video.stem)],
                predictor,
                # Random scores are low: every detection counts.
                functools.partial(Tracker, predictor.label_space, score_threshold=0.0),
                predictor.label_space,
                choose_output(),
                settings={},
                progress=self.progress,
            )
        assert not problems, problems


def measure_memory(
    config_file: str,
    options: Sequence[str],
    *,
    height: int,
    width: int,
    short: int,
    long: int,
    threads: int,
    progress: bool = True,
) -> dict:
    """Measures the peak memory of generated videos of two lengths, by streaming and by the command.

    Args:
        config_file, options: of the model; no weights are loaded.
        height, width: of the videos, in pixels.
        short, long: their frames.
        threads: of the network.
        progress: shows a progress bar for each video.

    Returns:
        What was measured, and :func:`compare` of it.

    Raises:
        ValueError: a number is out of range, or the configuration is wrong.
        OSError: a process died.
    """
    check_counts(height=height, width=width, short=short, long=long)
    if long <= short:
        raise ValueError(f"--long is {long}; it must be above --short, which is {short}")
    cfg = setup_cfg(config_file, options)  # a mistake is said before anything runs
    peaks = {}
    for path in PATHS:
        runs = {
            name: MemoryRun(
                path, config_file, tuple(options), height, width, frames, threads, progress
            )
            for name, frames in zip(LENGTHS, (short, long), strict=True)
        }
        peaks[path] = {name: in_new_process(run) for name, run in runs.items()}
    return {
        "machine": machine(),
        "frames": {
            "height": height,
            "width": width,
            "most_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        },
        **compare(peaks),
    }


def in_new_process(function: Callable[[], dict]) -> dict:
    """What a picklable function returns in a fresh process.

    Raises:
        OSError: the process died.
    """
    # Ctrl-C ends the child as well; this process alone says so.
    ending = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_DFL)}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, **ending) as executor:
        try:
            return executor.submit(function).result()
        except BrokenProcessPool as error:
            raise OSError(
                "the process that was measured died, most likely out of memory; measure a smaller "
                "--config-file or smaller frames"
            ) from error


def compare(peaks: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict:
    """How much more a long video takes than a short one.

    Args:
        peaks: path to "short" and "long", each with "frames", "cpu_mib" and perhaps "gpu_mib".

    Returns:
        "peaks" as given; "ratios": path to "cpu" and perhaps "gpu", each the "ratio" of the long
        video's peak to the short one's, and "met", whether it is within LARGEST_CHANGE.
    """
    ratios = {}
    for path, lengths in peaks.items():
        short, long = (lengths[name] for name in LENGTHS)
        ratios[path] = {}
        for device in ("cpu", "gpu"):
            if (key := f"{device}_mib") in short:
                growth = long[key] / short[key]
                met = abs(growth - 1) <= LARGEST_CHANGE
                ratios[path][device] = {"ratio": growth, "met": met}
    return {"peaks": peaks, "ratios": ratios}


def memory_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_memory` for a person to read."""
    frames = result["frames"]
    lines = [
        machine_line(result["machine"]),
        f"peak memory for frames of {frames['height']}x{frames['width']} pixels, at most "
        f"{frames['most_detections']} detections on each, random weights:",
    ]
    for path, title in PATHS.items():
        lines.append(f"  {title}")
        short, long = (result["peaks"][path][name] for name in LENGTHS)
        for device, figure in result["ratios"][path].items():
            key, verdict = f"{device}_mib", "met" if figure["met"] else "missed"
            lines.append(
                f"    {device.upper()}: {short['frames']} frames {short[key]:.1f} MiB, "
                f"{long['frames']} frames {long[key]:.1f} MiB, ratio {figure['ratio']:.3f}  "
                f"(goal: within {LARGEST_CHANGE:.0%}; {verdict})"
            )
    return lines
