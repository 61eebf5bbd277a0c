"""Where the frames of the video path come from: files, folders of images, cameras.

Nothing that a file says of itself is believed. Frames come from one decode in order, with the times
of the container, so that a variable frame rate comes out right; what was lost on the way is said
after the last frame. Damage that the decoder itself conceals is seen where PyAV is installed.
"""

import contextlib
import functools
import glob
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from a2d_d2.data.video import (
    VideoError,
    VideoHeader,
    count_packets_after,
    damaged_frames,
    grab_past_damage,
    read_header,
    undecodable,
)
from a2d_d2.utils.cli import counted
from a2d_d2.utils.untrusted import read_image

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov")
    + (".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv")
)
IMAGE_SUFFIXES = frozenset(
    (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

# Frames per second of images, and of files that do not say theirs or say nonsense.
DEFAULT_FPS = 25.0
_MAX_FPS = 240.0
# Containers that store the number of frames; in the others it is an estimate from the duration.
_COUNTED_SUFFIXES = frozenset((".3gp", ".avi", ".m4v", ".mov", ".mp4"))
# So many frames fewer than announced are no damage: headers are off by one or two.
_FORGIVEN = 2

_WEBCAM = re.compile(r"webcam:(\d+)")

Retrieve = Callable[[], tuple[bool, np.ndarray | None]]


class _Item(NamedTuple):
    """A frame that is not retrieved yet, with its time stamp in seconds."""

    stamp: float
    retrieve: Retrieve
    is_damaged: bool = False
    num_rejected: int = 0  # packets right before it


class VideoSource:
    """A video as an iterable of ``(time, frame)``: seconds from its start, (H, W, 3) uint8 BGR.

    Times are finite and ascend strictly. All frames have the size of the first; others are scaled
    to it. Rotation that the file asks for is applied. Each iteration starts anew.

    Attributes:
        name: what was given, for messages.
        stem: name for output files; several sources may share it.
        start, end: in seconds; frames outside [start, end) are left out.
        fps: nominal frames per second, for a writer. Of a camera it is known once frames come.
        first_frame: after the first frame has come, its 0-based number among the frames that the
            video has.
        problem: after the iteration, one line on what was lost, or None.
    """

    def __init__(
        self,
        path: str | os.PathLike | Sequence[os.PathLike],
        *,
        start: float = 0.0,
        end: float | None = None,
    ):
        """
        Args:
            path: a video file, a folder of images, their paths in order, or ``webcam:N``.
            start, end: in seconds from the start of the video; ``end`` None is its end.

        Raises:
            ValueError: no such span, or nothing that could be a video.
        """
        if not (math.isfinite(start) and start >= 0):
            raise ValueError(f"start must be a number of seconds from 0 on, got {start}")
        if end is not None and not (math.isfinite(end) and end > start):
            raise ValueError(f"end must be a number of seconds above start ({start}), got {end}")
        self.start, self.end = start, end
        self.problem: str | None = None
        self.first_frame = 0
        self._images: list[Path] | None = None
        self._camera: int | None = None
        self._camera_fps: float | None = None
        if not isinstance(path, str | os.PathLike):
            self._images = [Path(image) for image in path]
            if not self._images:
                raise ValueError("a video of images needs at least one")
            alone = len(self._images) == 1
            self.path = self._images[0] if alone else self._images[0].parent
        elif match := _WEBCAM.fullmatch(str(path)):
            self._camera = int(match[1])
            self.path = Path(f"webcam{match[1]}")
        else:
            self.path = Path(path)
            if self.path.is_dir():
                self._images = _files(self.path, IMAGE_SUFFIXES)
                if not self._images:
                    raise ValueError(f"folder {path} holds no images; give one of images")
        self.name = str(path) if self._camera is not None else str(self.path)
        absolute = Path(os.path.abspath(self.path))  # "." has a name, too
        self.stem = absolute.name if self.path.is_dir() else absolute.stem

    @property
    def fps(self) -> float:
        fps = self._camera_fps if self._camera is not None else self._header.fps
        return fps if fps and 1 <= fps <= _MAX_FPS else DEFAULT_FPS

    @property
    def is_live(self) -> bool:
        """Whether it is a camera, which ends when somebody stops it."""
        return self._camera is not None

    @property
    def expected_frames(self) -> int | None:
        """Number of frames by the header, for an estimate of the time left; None if unknown."""
        total = self._header.num_frames
        if self.end is not None:
            total = min(total, math.ceil(self.end * self.fps))
        return max(0, total - math.ceil(self.start * self.fps)) or None

    @property
    def files(self) -> list[Path]:
        """The files that are read; empty for a camera."""
        if self._camera is not None:
            return []
        return [self.path] if self._images is None else list(self._images)

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """
        Raises:
            VideoError: not one frame of the span comes; says why.
        """
        self.problem, self.first_frame = None, 0
        size, previous = None, -1.0
        skipped = broken = damaged = rejected = resized = 0
        reason = ""
        problems: list[str] = []
        with contextlib.closing(self._read(problems)) as frames:
            for item in frames:
                before, now = previous, self._ascending(item.stamp, previous)
                previous = now
                if now < self.start:
                    skipped += 1
                    continue
                if self._wants_after(before):
                    rejected += item.num_rejected
                if self.end is not None and now >= self.end:
                    break
                try:
                    ok, frame = item.retrieve()
                except ValueError as error:  # of a picture: broken, or too large
                    ok, reason = False, reason or " ".join(str(error).split())
                if not ok:
                    broken += 1
                    continue
                damaged += item.is_damaged
                if size is None:
                    size, self.first_frame = frame.shape[:2], skipped
                elif frame.shape[:2] != size:
                    frame = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
                    resized += 1
                yield now, frame
        if size is None:
            if reason:
                raise VideoError(f"{reason}; convert the picture, or leave it out")
            if broken or previous < 0:
                raise undecodable(self.name)
            raise VideoError(
                f"{self.name} ends at {previous:.2f} s; the start asked for, {self.start:g} s, "
                "must be before that"
            )
        if rejected:
            problems.insert(
                0, f"{counted(rejected, 'packet')} could not be decoded: frames are missing"
            )
        if broken:
            first = f" (the first: {reason})" if reason else ""
            problems.append(
                f"{counted(broken, 'frame')} could not be decoded and had to be left out{first}"
            )
        if damaged:
            problems.append(
                f"{counted(damaged, 'frame')} came damaged, and the decoder has filled in what it "
                "could not read; frames after that may be wrong, too"
            )
        if resized:
            height, width = size
            problems.append(
                f"{counted(resized, 'frame')} of another size had to be scaled to the first's, "
                f"{width} x {height}"
            )
        self.problem = "; ".join(problems) or None

    def _ascending(self, stamp: float, previous: float) -> float:
        """A time above ``previous`` (below 0: none yet): the stamp's, or one frame later."""
        if previous < 0:
            return max(0.0, stamp) if math.isfinite(stamp) else 0.0
        return stamp if previous < stamp < math.inf else previous + 1 / self.fps

    def _wants_after(self, time: float) -> bool:
        """Whether the span goes on with a frame after the one of that time."""
        return self.end is None or time + 1.5 / self.fps < self.end

    @functools.cached_property
    def _header(self) -> VideoHeader:
        if self._images is not None:
            return VideoHeader(DEFAULT_FPS, len(self._images))
        return VideoHeader(0.0, 0) if self._camera is not None else read_header(self.path)

    def _read(self, problems: list[str]) -> Iterator[_Item]:
        """The frames; adds to ``problems`` when the end is early."""
        if self._images is not None:
            return self._read_images()
        if self._camera is not None:
            return self._read_camera(problems)
        return self._read_file(problems)

    def _read_images(self) -> Iterator[_Item]:
        for i, path in enumerate(self._images):
            yield _Item(i / DEFAULT_FPS, functools.partial(_read_image, path))

    def _read_camera(self, problems: list[str]) -> Iterator[_Item]:
        capture = cv2.VideoCapture(self._camera)
        try:
            self._camera_fps = capture.get(cv2.CAP_PROP_FPS)
            if not capture.grab():
                raise VideoError(f"cannot open {self.name}: no camera there, or it is in use")
            first = time.monotonic()
            yield _Item(0.0, capture.retrieve)
            while capture.grab():
                yield _Item(time.monotonic() - first, capture.retrieve)
            problems.append("the camera stopped")
        finally:
            capture.release()

    def _read_file(self, problems: list[str]) -> Iterator[_Item]:
        count, rejected, latest = 0, 0, 0.0
        with contextlib.closing(damaged_frames(self.path)) as damage:
            for capture, num_rejected in grab_past_damage(self.path):
                count += 1
                rejected += num_rejected
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                latest = max(latest, stamp)
                yield _Item(stamp, capture.retrieve, next(damage, False), num_rejected)
        if not self._wants_after(latest):
            return
        if self._is_short(count, rejected, latest):
            problems.append(
                f"{count} of the {self._header.num_frames} frames that its header announces could "
                "be decoded; the file is cut, trimmed or damaged, or its header is wrong"
            )
        elif self.path.suffix.lower() == ".gif" and not _has_trailer(self.path):
            problems.append("the file does not end as a GIF does: it is cut")

    def _is_short(self, count: int, rejected: int, latest: float) -> bool:
        """Whether a file lacks more than its rejected packets.

        Args:
            count: of its frames that came.
            rejected: number of packets before them that could not be decoded.
            latest: time of the last of them.
        """
        announced = self._header.num_frames
        if announced - count - rejected <= _FORGIVEN:
            return False
        suffix = self.path.suffix.lower()
        is_counted = suffix in _COUNTED_SUFFIXES and not _is_fragmented(self.path)
        # What is missing before the start is nobody's; an AVI's count has places without a frame.
        if is_counted and not self.start and suffix != ".avi":
            return True
        missing = announced - 1 - latest * self.fps  # at the end
        if missing <= _FORGIVEN or is_counted:
            return missing > _FORGIVEN
        # From the duration, also of the sound, more or less is missing: are there packets of it?
        return (
            missing > announced // 50
            or count_packets_after(self.path, latest + 0.5 / self.fps) > _FORGIVEN
        )


def expand_inputs(
    inputs: Sequence[str], *, start: float = 0.0, end: float | None = None
) -> list[VideoSource]:
    """The videos that a command line names, each once, in a fixed order.

    Args:
        inputs: video files, folders of videos or else of images, patterns (``clips/*.mp4``, ``**``
            for any depth), ``webcam:N``. In folders hidden files are passed over, and images only
            count where there is no video. Files in folders and of patterns whose suffix is no
            video's or image's are passed over with a line in the log. Images that are named one
            by one or by a pattern are one video per folder. Names with numbers are in the order of
            the numbers.
        start, end: of each, in seconds.

    Raises:
        ValueError: an input matches nothing; names it.
    """
    found: dict[object, list[Path] | str | Path] = {}
    others: list[str] = []

    def add_file(path: Path) -> None:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images = found.setdefault(("images", path.parent.resolve()), [])
            if path not in images:
                images.append(path)
        else:
            found.setdefault(path.resolve(), path)

    def add_folder(path: Path) -> None:
        others.extend(str(x) for x in _files(path) if not _has_frames(x))
        videos = _files(path, VIDEO_SUFFIXES)
        for file in videos or _files(path, IMAGE_SUFFIXES):
            add_file(file)

    def add_match(path: Path) -> None:
        if path.is_dir():
            add_folder(path)
        elif _has_frames(path):
            add_file(path)
        else:
            others.append(str(path))

    for text in inputs:
        before = len(found)
        if _WEBCAM.fullmatch(text):
            found.setdefault(text, text)
        elif os.path.isdir(text):
            add_folder(Path(text))
            if len(found) == before and not _files(Path(text), VIDEO_SUFFIXES | IMAGE_SUFFIXES):
                raise ValueError(f"folder {text} holds no videos and no images; give another")
        elif os.path.exists(text):
            add_file(Path(text))
        else:
            matches = sorted(glob.glob(text, recursive=True), key=natural_order)
            for match in matches:
                add_match(Path(match))
            if not matches:
                raise ValueError(
                    f"there is no input {text}: give a video, a folder, a pattern or webcam:N"
                )
    if passed := list(dict.fromkeys(others)):
        more = f" and {len(passed) - 3} more" if len(passed) > 3 else ""
        logger.warning(
            "passed over, by their names no videos or images: %s%s", ", ".join(passed[:3]), more
        )
    if not found:
        raise ValueError(f"there is no video in {', '.join(inputs)}; give another input")
    return [VideoSource(paths, start=start, end=end) for paths in found.values()]


def natural_order(name: str | os.PathLike) -> tuple:
    """A key that sorts ``frame_2`` before ``frame_10``."""
    parts = re.split(r"(\d+)", str(name))
    return tuple(int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)), str(name)


def _has_frames(path: Path) -> bool:
    """Whether the name is that of a video or an image."""
    return path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _files(folder: Path, suffixes: frozenset[str] | None = None) -> list[Path]:
    """The files of a folder, with one of the suffixes, not hidden, in natural order."""
    paths = (x for x in folder.iterdir() if suffixes is None or x.suffix.lower() in suffixes)
    kept = (path for path in paths if path.is_file() and not path.name.startswith("."))
    return sorted(kept, key=natural_order)


def _is_fragmented(path: Path) -> bool:
    """Whether an MP4 is in fragments, whose frames its header does not count."""
    with open(path, "rb") as file:
        return b"mvex" in file.read(2**16)


def _has_trailer(path: Path) -> bool:
    """Whether a GIF ends with the byte that the format asks for; zeros may follow."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read().rstrip(b"\0").endswith(b";")


def _read_image(path: Path) -> tuple[bool, np.ndarray]:
    return True, read_image(path, cv2.IMREAD_COLOR)
