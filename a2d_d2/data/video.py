"""Decoding videos. Every frame comes from one decode in order, so that all parts of the project see
the same pixels under the same number: seeking is not exact in every file, nor are header counts."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

# Broken files are reported by VideoError: keep FFmpeg and OpenCV from writing to the console too.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


class VideoError(ValueError):
    """A video is missing or cannot be decoded; the message names the file."""


def iter_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Yields the frames of a video in order, BGR uint8 (H, W, 3).

    Raises:
        VideoError: there is no such file, or no frame of it can be decoded.
    """
    for capture in _decode(path):
        yield _retrieve(capture, path)


def select_frames(
    path: str | os.PathLike, indices: Iterable[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index, BGR frame) for the 0-based ``indices`` in ascending order.

    Decodes once, up to the last of them. Frames after the end of the video do not come.

    Raises:
        VideoError: as :func:`iter_frames`.
    """
    wanted = set(indices)
    last = max(wanted, default=-1)
    if last < 0:
        return
    for index, capture in enumerate(_decode(path)):
        if index in wanted:
            yield index, _retrieve(capture, path)
        if index == last:
            return


def read_frames(path: str | os.PathLike, indices: Iterable[int]) -> dict[int, np.ndarray]:
    """The frames of :func:`select_frames` by index; those after the end of the video are absent."""
    return dict(select_frames(path, indices))


def _decode(path: str | os.PathLike) -> Iterator[cv2.VideoCapture]:
    """Yields the capture at each frame in turn, for whoever wants to retrieve that frame."""
    if not Path(path).is_file():
        raise VideoError(f"there is no video {path}; check the path, or get the file again")
    # One decoder on all machines, and one thread: loaders and tools run several processes.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.grab():
            raise _undecodable(path)
        yield capture
        while capture.grab():
            yield capture
    finally:
        capture.release()


def _retrieve(capture: cv2.VideoCapture, path: str | os.PathLike) -> np.ndarray:
    ok, frame = capture.retrieve()
    if not ok:
        raise _undecodable(path)
    return frame


def _undecodable(path: str | os.PathLike) -> VideoError:
    return VideoError(f"cannot decode {path}: broken, or not a video; get the file again")
