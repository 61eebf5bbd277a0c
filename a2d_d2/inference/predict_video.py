"""The work of ``tools/predict_video.py``: videos in, who does what where out.

Of each video, in the output folder:

- ``<stem>.mp4`` or ``<stem>.webm``, or the folder ``<stem>.frames``: the frames, drawn on.
- ``<stem>.jsonl``: one line a frame, written as soon as it is known::

      {"frame": 1, "time": 0.0, "instances": [{"track_id": 0, "actor": "dog", "action": "running",
       "score": 0.97, "action_scores": [...], "bbox": [x, y, w, h], "segmentation": {...}}]}

  ``frame`` is 1-based, ``time`` in seconds from the start of the video. ``track_id`` is 0-based.
  ``score`` is p(actor); ``action_scores`` are in label order, smoothed along the track, and
  ``action`` is the best valid one. ``bbox`` and ``segmentation`` are as in
  :mod:`a2d_d2.evaluation.predictions`.
- ``<stem>.tracks.json``: of each track its actor, frames and action timeline, all frame numbers
  1-based and inside; of the video what was read and what was lost.
- ``<stem>.html``: the video beside the action timelines (of a long video, of its longest tracks).

Ctrl-C or SIGTERM ends all of them after the frame in work; a second one stops at once. That is how
a camera ends: its results are then complete.

The results of an earlier run on the same video stay until the first frame of this one is known.
Those of another video of the same name stay for good, and so does what a camera has recorded: the
next one gets a number. ``tracks.json`` is there before any other result and names its video: files
of these names that it does not know are of somebody else, and the command refuses to run.
"""

import argparse
import bisect
import contextlib
import datetime
import heapq
import itertools
import json
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from a2d_d2.config import check_device, setup_cfg
from a2d_d2.data.video import VideoError
from a2d_d2.engine.launch import launch_main
from a2d_d2.evaluation.predictions import detection_rows
from a2d_d2.experiments.records import digest
from a2d_d2.inference.source import VideoSource, expand_inputs
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.inference.tracks import Track, TrackedInstance, Tracker, track_color
from a2d_d2.inference.types import FrameResult
from a2d_d2.inference.writer import Output, choose_output, open_writer, remove_frames
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.cli import counted
from a2d_d2.utils.files import write_json, write_json_rows, write_text
from a2d_d2.visualization.canvas import picture_scale, to_picture
from a2d_d2.visualization.instances import LabelledRegion, draw_instances
from a2d_d2.visualization.video_page import (
    TimelineRow,
    TimelineSegment,
    VideoPage,
    render_video_page,
)

logger = logging.getLogger(__name__)

_TEXTS = (".jsonl", ".tracks.json", ".html")
_DRAWN = (".mp4", ".webm", ".frames")

# A page of a long video has room for its longest tracks, up to so many of them and their segments;
# more make a browser slow.
_MOST_TRACKS = 100
_MOST_SEGMENTS = 4000


@dataclass(frozen=True)
class VideoJob:
    """One video and where its results go.

    Attributes:
        source: of the frames.
        base: path of the results without a suffix.
        inputs: of all videos, resolved; no result takes their place.
    """

    source: VideoSource
    base: Path
    inputs: frozenset[Path] = frozenset()

    def path(self, suffix: str) -> Path:
        """The path of the result with this suffix."""
        return self.base.with_name(self.base.name + suffix)

    @property
    def source_path(self) -> str | None:
        """The absolute path of the source; None for a camera."""
        return None if self.source.is_live else os.path.abspath(self.source.name)

    @property
    def fingerprint(self) -> dict:
        """What tells whether results on the disk are of this source."""
        return {
            "name": self.source.name,
            "files": [file_state(file) for file in self.source.files if file.is_file()],
            "start": self.source.start,
            "end": self.source.end,
        }


def file_state(path: Path) -> list[int]:
    """Size and time of change of a file: another state is taken for another file."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def plan_jobs(
    sources: Sequence[VideoSource], folder: Path, output: Output | None
) -> list[VideoJob]:
    """Gives every source its own place in ``folder``.

    That is where nothing is yet or, unless it is a camera, its own earlier results are.

    Raises:
        ValueError: a result would overwrite an input, or a file of somebody else, or cannot have
            its name.
    """
    taken: set[str] = set()
    inputs = frozenset(file.resolve() for source in sources for file in source.files)
    jobs = []
    for source in sources:
        number = 1
        job = VideoJob(source, folder / source.stem, inputs)
        while job.base.name.casefold() in taken or _is_of_another(job):
            number += 1
            job = VideoJob(source, folder / f"{source.stem}-{number}", inputs)
        taken.add(job.base.name.casefold())  # some file systems do not tell cases apart
        jobs.append(job)
    for job in jobs:
        record = _earlier(job)
        own = [*(job.path(suffix).name for suffix in _TEXTS), record["output"]] if record else []
        for suffix in (*_TEXTS, *([output.suffix] if output else [])):
            path = job.path(suffix)
            _check_name(path)
            if path.resolve() in inputs:
                raise ValueError(
                    f"the result {path} would overwrite an input; choose another --output"
                )
            if path.name not in own and path.is_file():
                raise ValueError(
                    f"the result {path} would overwrite a file that no earlier run has written; "
                    "choose another --output, or move the file"
                )
        if output and not output.is_video:
            _check_folder(job, output, inputs)
    return jobs


def _is_of_another(job: VideoJob) -> bool:
    """Whether the results of this name are of another source; those of a camera are of another."""
    if job.source.is_live:
        return any(os.path.lexists(job.path(suffix)) for suffix in (*_TEXTS, *_DRAWN))
    record = _earlier(job)
    if not record:
        return False
    path = record.get("path", os.path.abspath(record["source"]["name"]))
    # The same file is moved with its folder, or named another way.
    return path is None or (path != job.source_path and record["source"] != job.fingerprint)


def _check_name(path: Path) -> None:
    """ValueError if no result can have this name."""
    try:
        (_existing(path.parent) / path.name).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ValueError(
            f"the result {path} cannot be written ({error.strerror}); rename the video, or choose "
            "another --output"
        ) from error
    if path.is_symlink() and not os.path.exists(path):
        raise ValueError(
            f"the result {path} cannot be written: it is a symbolic link that leads nowhere; "
            "choose another --output, or remove it"
        )
    if path.exists() and path.is_dir() != (path.suffix == ".frames"):
        kind = "a folder" if path.is_dir() else "no folder"
        raise ValueError(
            f"the result {path} cannot be written: there is {kind} of this name; choose another "
            "--output, or rename it"
        )


def _check_folder(job: VideoJob, output: Output, inputs: frozenset[Path]) -> None:
    """ValueError if the folder of the drawn frames holds inputs, or files not of this job."""
    folder = job.path(output.suffix).resolve()
    if any(folder in file.parents for file in inputs):
        raise ValueError(
            f"the frames of {job.source.name} would go to {folder}, where an input is; choose "
            "another --output"
        )
    is_own = _earlier(job).get("output") == job.path(output.suffix).name and _drawn_frames(job)
    if not is_own and folder.is_dir() and any(x.name[0] != "." for x in folder.iterdir()):
        raise ValueError(
            f"{folder} holds files of something else; choose another --output, or remove them"
        )


# ---------------------------------------------------------------- many videos


def predict_videos(
    jobs: Sequence[VideoJob],
    predictor: StreamingPredictor,
    make_tracker: Callable[[], Tracker],
    label_space: LabelSpace,
    output: Output | None,
    *,
    settings: dict,
    resume: bool = False,
    progress: bool = True,
) -> list[str]:
    """Predicts videos one after the other; one that cannot be read does not stop the others.

    Args:
        jobs: what to do.
        predictor: of the frames.
        make_tracker: a new tracker for each video.
        label_space: of the predictor.
        output: of the drawn frames; None draws nothing.
        settings: all that the results depend on beside the video, as plain values. It is written to
            ``tracks.json``.
        resume: leave out videos whose results are complete, of the same file and ``settings``.
        progress: shows a progress bar for each video, with frames per second and time left.

    Returns:
        One line for each video of which something was lost, naming it.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the results so far were written; not if it ended
            a camera, the last of the videos.
    """
    problems = []
    with _Interrupt() as interrupt:
        for job in jobs:
            if resume and (done := _finished(job, settings)) is not None:
                logger.info("%s: done before", job.source.name)
                if done["problem"]:
                    problems.append(f"{job.source.name}: {done['problem']}")
                continue
            line = None
            try:
                problem = predict_video(
                    job,
                    predictor,
                    make_tracker(),
                    label_space,
                    output,
                    settings=settings,
                    interrupt=interrupt,
                    progress=progress,
                )
                if problem is not None:
                    line = f"{job.source.name}: {problem}"
            except VideoError as error:  # it names the file
                line = str(error)
            except ValueError as error:  # a frame that cannot be resized
                line = f"{job.source.name}: {error}"
            except cv2.error as error:
                line = f"{job.source.name}: OpenCV cannot process it: {error}"
            if line is not None:
                problems.append(" ".join(line.split()))
                if len(jobs) > 1:  # the caller says all of them, in the end
                    logger.warning("%s", problems[-1])
            if interrupt.requested and not (job.source.is_live and job is jobs[-1]):
                raise KeyboardInterrupt
    return problems


class _Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a request, so that no file ends within a frame."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.requested = False

    def __enter__(self) -> "_Interrupt":
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._before = {
                number: signal.signal(number, self._handle) or signal.SIG_DFL
                for number in self.SIGNALS
            }
        return self

    def __exit__(self, *error) -> None:
        if self._active:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, b"\nstopping after this frame; a second time stops at once\n")


def _earlier(job: VideoJob) -> dict:
    """What ``tracks.json`` of an earlier run holds; nothing if there is none of ours."""
    try:
        record = json.loads(job.path(".tracks.json").read_text(encoding="utf-8"))
        is_own = isinstance(record["source"]["name"], str) and "output" in record
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return {}
    return record if is_own else {}


def _finished(job: VideoJob, settings: dict) -> dict | None:
    """What ``tracks.json`` says of the video if its results are complete, else None."""
    record = _earlier(job)
    try:
        files = [job.path(".jsonl"), job.path(".html")]
        if record["output"] is not None:
            files.append(job.base.with_name(record["output"]))
        same = record["source"] == job.fingerprint and record["settings"] == settings
        is_whole = record["complete"] and "problem" in record and all(x.exists() for x in files)
        return record if same and is_whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make_way(job: VideoJob, record: dict) -> None:
    """Removes the results of an earlier run; what it drew if its ``tracks.json`` names that.

    No input is removed. What comes gets its owner: ``record``, of no frame yet.
    """
    drawn = _earlier(job).get("output")
    if drawn == job.path(".frames").name:
        remove_frames(job.path(".frames"), _drawn_frames(job), job.inputs)
    videos = [suffix for suffix in (".mp4", ".webm") if drawn == job.path(suffix).name]
    for path in map(job.path, (".jsonl", ".html", *videos)):
        if path.is_file() and path.resolve() not in job.inputs:
            path.unlink()
    # Last: until then it names them, and what it calls complete is not without them.
    write_json_rows(job.path(".tracks.json"), record, "tracks", [])


def _drawn_frames(job: VideoJob) -> range:
    """The numbers of the frames of an earlier run, by its lines: each comes before its picture."""
    try:
        with open(job.path(".jsonl"), "rb") as lines:
            first = json.loads(next(lines, b""))["frame"]
            return range(first, first + 1 + sum(1 for _ in lines))
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return range(0)


# ---------------------------------------------------------------- one video


@dataclass
class _Written:
    """What was written of the frames.

    Attributes:
        times: seconds of each frame in the source.
        shown: seconds of each frame in the written video, or from the first frame without one.
        duration: seconds of the written video.
        size: (height, width) of its pictures.
        seconds: how long it took.
    """

    times: array = field(default_factory=lambda: array("d"))
    shown: array = field(default_factory=lambda: array("d"))
    duration: float = 0.0
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0

    def end(self, index: int) -> float:
        """When frame ``index`` makes way for the next, in the written video."""
        return self.shown[index + 1] if index + 1 < len(self.shown) else self.duration


def predict_video(
    job: VideoJob,
    predictor: StreamingPredictor,
    tracker: Tracker,
    label_space: LabelSpace,
    output: Output | None,
    *,
    settings: dict,
    interrupt: _Interrupt,
    progress: bool = True,
) -> str | None:
    """Writes all results of one video.

    Args:
        interrupt: once it is requested, the results end with the frame in work.
        job, predictor, tracker, label_space, output, settings, progress: of
            :func:`predict_videos`.

    Returns:
        What was lost, one line, or None.

    Raises:
        VideoError: not one frame came; nothing was written, and earlier results are as they were.
    """
    source = job.source
    drawn = job.path(output.suffix).name if output else None
    record = {
        "source": job.fingerprint,
        "path": job.source_path,
        "settings": settings,
        "complete": False,
        "problem": "interrupted",
        "frames": 0,
        "fps": source.fps,
        "output": drawn,
    }
    with contextlib.closing(predictor.predict(source)) as results:
        frames = _tracked(results, tracker, interrupt)
        written = _write_frames(job, frames, label_space, output, record, progress)
    if not written.times:  # interrupted before the first frame
        return None
    is_cut = interrupt.requested and not source.is_live
    problem = "interrupted" if is_cut else source.problem
    tracks = _on_page(tracker.summaries())
    page = VideoPage(
        title=Path(source.name).name,
        summary=_summary(job, written, tracker.num_tracks, len(tracks)),
        problem=problem,
        video=drawn if output and output.is_video else None,
        no_video=f"the frames are in the folder {drawn}." if drawn else "none was asked for.",
        size=written.size,
        duration=written.duration,
        rows=[_timeline(track, source, written, label_space) for track in tracks],
        footer=f"An instance counts from an actor score of {tracker.score_threshold:g} on. "
        "A # with a number is the identity of an actor, the same in the video and in "
        f"{job.path('.jsonl').name}.",
    )
    write_text(job.path(".html"), render_video_page(page))
    record |= {"complete": not is_cut, "problem": problem}
    record |= {"frames": len(written.times), "fps": source.fps}
    records = (_track_record(x, source, written, label_space) for x in tracker.summaries())
    write_json_rows(job.path(".tracks.json"), record, "tracks", records)
    logger.info(
        "%s: %s in %.1f s (%.1f a second), %s: %s",
        source.name,
        counted(len(written.times), "frame"),
        written.seconds,
        len(written.times) / written.seconds,
        counted(tracker.num_tracks, "track"),
        job.path(".html"),
    )
    return None if is_cut else problem


def _tracked(
    results: Iterator[FrameResult], tracker: Tracker, interrupt: _Interrupt
) -> Iterator[tuple[FrameResult, list[TrackedInstance]]]:
    """The frames with their instances, until the end or an interrupt."""
    if not interrupt.requested:
        for result in results:
            yield from tracker.update(result)
            if interrupt.requested:
                break
    yield from tracker.finish()


def _write_frames(
    job: VideoJob,
    frames: Iterator[tuple[FrameResult, list[TrackedInstance]]],
    label_space: LabelSpace,
    output: Output | None,
    record: dict,
    progress: bool,
) -> _Written:
    """Writes the lines and the drawn frames as they come; touches no file before the first.

    Args:
        record: for :func:`_make_way`.
        job, label_space, output, progress: of :func:`predict_videos`.
    """
    source, written = job.source, _Written()
    start = time.perf_counter()
    lines = writer = None
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(
                total=source.expected_frames,
                desc=job.base.name,
                unit="frame",
                leave=False,
                position=comm.get_local_rank(),
                disable=not progress,
            )
        )
        for result, instances in frames:
            if lines is None:
                job.base.parent.mkdir(parents=True, exist_ok=True)
                _make_way(job, record)
                lines = stack.enter_context(_open_lines(job, output))
                if output:
                    path = job.path(output.suffix)
                    writer = stack.enter_context(open_writer(path, output, source.fps))
            number = source.first_frame + result.index + 1
            lines.write(json.dumps(_line(result, number, instances, label_space)) + "\n")
            written.times.append(result.time)
            if writer:
                picture = _draw(result, instances, label_space)
                written.shown.append(writer.write(picture, result.time, number))
                written.duration, written.size = writer.duration, picture.shape[:2]
            else:
                written.shown.append(result.time - written.times[0])
                written.duration = written.shown[-1] + 1 / source.fps
            bar.update()
    written.seconds = time.perf_counter() - start
    return written


@contextlib.contextmanager
def _open_lines(job: VideoJob, output: Output | None) -> Iterator[TextIO]:
    """The file of the lines; after an error it and the owner stay only beside the frames."""
    with open(job.path(".jsonl"), "w", encoding="utf-8", buffering=1) as lines:
        try:
            yield lines
        except Exception:
            if output is None or output.is_video:
                for suffix in (".jsonl", ".tracks.json"):
                    job.path(suffix).unlink(missing_ok=True)
            raise


def _line(
    result: FrameResult,
    number: int,
    instances: Sequence[TrackedInstance],
    label_space: LabelSpace,
) -> dict:
    """A line of the JSON file, as the module describes it."""
    rows = detection_rows(
        [x.actor for x in instances],
        np.array([x.score for x in instances], np.float32),
        np.array([x.action_scores for x in instances], np.float32),
        np.array([x.bbox for x in instances], np.float32).reshape(-1, 4),
        [x.mask for x in instances],
        label_space,
    )
    return {
        "frame": number,
        "time": round(result.time, 6),
        "instances": [
            {"track_id": x.track_id, "actor": None, "action": label_space.actions[x.action]} | row
            for x, row in zip(instances, rows, strict=True)
        ],
    }


def _draw(
    result: FrameResult, instances: Sequence[TrackedInstance], label_space: LabelSpace
) -> np.ndarray:
    """The frame with its instances, the surest on top; small frames are enlarged."""
    regions = [
        LabelledRegion(
            actor=x.actor,
            action=x.action,
            score=x.pair_score,
            box=x.bbox,
            mask=x.mask,
            identity=(x.track_id, track_color(x.track_id)),
        )
        for x in sorted(instances, key=lambda x: x.score)
    ]
    scale = max(1.0, picture_scale(result.frame.shape[1]))
    return draw_instances(to_picture(result.frame), regions, label_space, scale=scale, alpha=0.45)


# ---------------------------------------------------------------- tracks


def _track_record(
    track: Track, source: VideoSource, written: _Written, label_space: LabelSpace
) -> dict:
    """A track in ``tracks.json``: numbers of frames 1-based, seconds of the source."""

    def span(first: int, last: int) -> dict:
        return {
            "from": source.first_frame + first + 1,
            "to": source.first_frame + last + 1,
            "from_time": round(written.times[first], 6),
            "to_time": round(written.times[last], 6),
        }

    return {
        "track_id": track.track_id,
        "actor": label_space.actors[track.actor],
        **span(track.first, track.last),
        "frames": track.frames,
        "score": round(track.score, 6),
        "segments": [
            span(segment.first, segment.last)
            | {"action": label_space.actions[segment.action], "score": round(segment.score, 6)}
            for segment in track.segments
        ],
    }


def _timeline(
    track: Track, source: VideoSource, written: _Written, label_space: LabelSpace
) -> TimelineRow:
    segments = [
        TimelineSegment(
            start=written.shown[segment.first],
            end=written.end(segment.last),
            action=label_space.actions[segment.action],
            color=label_space.color(label_space.joint_id(track.actor, segment.action)),
            score=segment.score,
            first=source.first_frame + segment.first + 1,
            last=source.first_frame + segment.last + 1,
            times=(written.times[segment.first], written.times[segment.last]),
        )
        for segment in track.segments
    ]
    return TimelineRow(
        number=track.track_id,
        color=track_color(track.track_id),
        actor=label_space.actors[track.actor],
        segments=segments,
    )


def _on_page(tracks: Iterator[Track]) -> list[Track]:
    """The tracks that a page has room for: those of the most frames, by number."""
    longest = heapq.nlargest(_MOST_TRACKS, tracks, key=lambda track: track.frames)
    segments = itertools.accumulate(len(track.segments) for track in longest)
    fitting = bisect.bisect_right(list(segments), _MOST_SEGMENTS)
    return sorted(longest[: max(fitting, 1)], key=lambda track: track.track_id)


def _summary(job: VideoJob, written: _Written, tracks: int, shown: int) -> str:
    rest = f", {shown} of them here: {job.path('.tracks.json').name} has all"
    return (
        f"{counted(len(written.times), 'frame')}, from {written.times[0]:.2f} s to "
        f"{written.times[-1]:.2f} s; {counted(tracks, 'track')}{rest if shown < tracks else ''}."
    )


# ---------------------------------------------------------------- the command


def predict_from_arguments(args: argparse.Namespace) -> list[str]:
    """The whole command, in one process or several.

    Args:
        args: of ``tools/predict_video.py``.

    Returns:
        One line for each video of which something was lost; under several machines or torchrun, of
        those that this machine or process has worked on.

    Raises:
        ValueError: a wrong argument, key, file of weights or input.
        KeyboardInterrupt: as :func:`predict_videos`.
    """
    output = choose_output(args.format) if args.video else None
    sources = expand_inputs(args.input, start=args.start, end=args.end)
    _check_output(Path(args.output))
    args.jobs = plan_jobs(sources, Path(args.output), output)
    _configure(args)  # a mistake is said once, not by every process
    with tempfile.TemporaryDirectory() as folder:
        args.problems = folder
        try:
            launch_main(_work, args)
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.join()  # it heard Ctrl-C too, and is ending its files
            raise
        found = [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]
    return [problem for problems in found for problem in problems]


def _existing(folder: Path) -> Path:
    """The folder, or else the nearest above it that there is."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _check_output(folder: Path) -> None:
    """ValueError if no folder can be made there."""
    there = folder
    try:
        there = _existing(folder)
        if not there.is_dir():
            raise ValueError(f"--output {folder}: {there} is no folder; choose another")
        tempfile.TemporaryDirectory(dir=there).cleanup()
    except OSError as error:
        raise ValueError(
            f"--output {folder}: {there} cannot be written to ({error.strerror}); choose another"
        ) from error


def _configure(args: argparse.Namespace):
    if args.device:
        check_device(args.device)
    options = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    options += ["MODEL.DEVICE", args.device] if args.device else []
    return setup_cfg(args.config_file, [*options, *args.opts])


def _digest(cfg: CfgNode, label_space: LabelSpace) -> str:
    """Tells what the named files hold: configuration, classes, and the state of the weights."""
    weights = Path(cfg.MODEL.WEIGHTS)
    state = file_state(weights) if weights.is_file() else None
    return digest({"config": cfg.dump(), "classes": label_space.to_dict(), "weights": state})


def _work(args: argparse.Namespace) -> None:
    """What one process does: every n-th video, n being the number of processes."""
    rank, world = comm.get_rank(), comm.get_world_size()
    setup_logger(name="a2d_d2")
    cfg = _configure(args)
    label_space = LabelSpace.load(cfg.DATASETS.LABEL_SPACE)
    threshold = cfg.TEST.ACTOR_THRESH if args.score_threshold is None else args.score_threshold
    output = choose_output(args.format) if args.video else None
    if output and rank == 0:
        logger.info("Writing %s", output.description)

    def make_tracker() -> Tracker:
        return Tracker(
            label_space,
            score_threshold=threshold,
            smoothing=args.smoothing,
            min_track_length=args.min_track_length,
        )

    make_tracker()  # says what is wrong before the model is built
    # No mask is pasted for what the tracker would drop.
    cfg = cfg.clone()
    cfg.merge_from_list(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", float(threshold)])
    predictor = StreamingPredictor.from_config(
        cfg, batch_size=args.batch_size, every=args.every, precision=args.precision
    )
    problems = predict_videos(
        args.jobs[rank::world],
        predictor,
        make_tracker,
        label_space,
        output,
        settings={
            "config_file": args.config_file,
            "weights": cfg.MODEL.WEIGHTS,
            "contents": _digest(cfg, label_space),
            "options": list(args.opts),
            "every": args.every,
            "score_threshold": threshold,
            "smoothing": args.smoothing,
            "min_track_length": args.min_track_length,
            "precision": args.precision,
            "format": output.suffix if output else None,
        },
        resume=args.resume,
    )
    if dist.is_torchelastic_launched():  # it stops all processes once one ends with an error
        group = dist.new_group(backend="gloo", timeout=datetime.timedelta(days=365))
        dist.barrier(group)
    write_json(Path(args.problems) / f"{rank:06d}.json", problems)
