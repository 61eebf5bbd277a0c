"""Decoding videos, and writing small ones.

Every frame comes from one decode in order, so that all parts of the project see the same pixels
under the same number: seeking is not exact in every file, nor are header counts.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from a2d_d2.utils.files import atomic_path
from a2d_d2.utils.signals import signals_later
from a2d_d2.utils.untrusted import MAX_PIXELS

# Broken files are reported by VideoError: keep FFmpeg and OpenCV from writing to the console too.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)


# So many packets in a row that cannot be decoded are taken for the end of a video, which OpenCV
# does not tell from them; while the header announces more frames, up to so many.
_END, _LATEST_END = 100, 10_000


# What files begin with that make FFmpeg read others, wherever they lie.
_LISTS = (b"ffconcat", b"#EXTM3U")


class VideoError(ValueError):
    """A video is missing or cannot be decoded; the message names the file."""


@dataclass(frozen=True)
class VideoHeader:
    """What a file says of itself, which need not be true.

    Attributes:
        fps: frames per second; 0 if the file does not say.
        num_frames: 0 if the file does not say. Some containers store this number, for the others
            it is an estimate from the duration.
    """

    fps: float
    num_frames: int


def read_header(path: str | os.PathLike) -> VideoHeader:
    """The header of a video; zeros for a file that cannot be opened.

    Raises:
        VideoError: its name is not UTF-8.
    """
    capture = _open(path)
    try:
        return _header(capture)
    finally:
        capture.release()


def iter_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Yields the frames of a video in order, BGR uint8 (H, W, 3).

    Raises:
        VideoError: there is no such file, or no frame of it can be decoded.
    """
    for capture in grab_frames(path):
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
    for index, capture in enumerate(grab_frames(path)):
        if index in wanted:
            yield index, _retrieve(capture, path)
        if index == last:
            return


def read_frames(path: str | os.PathLike, indices: Iterable[int]) -> dict[int, np.ndarray]:
    """The frames of :func:`select_frames` by index; those after the end of the video are absent."""
    return dict(select_frames(path, indices))


def grab_frames(path: str | os.PathLike) -> Iterator[cv2.VideoCapture]:
    """Yields the capture at each frame in turn, for whoever wants to retrieve that frame.

    Ends where something cannot be decoded: what comes after it has lost its number.

    Raises:
        VideoError: as :func:`iter_frames`.
    """
    for index, (capture, num_rejected) in enumerate(grab_past_damage(path)):
        if num_rejected and index == 0:
            raise undecodable(path)
        if num_rejected:
            return
        yield capture


def grab_past_damage(path: str | os.PathLike) -> Iterator[tuple[cv2.VideoCapture, int]]:
    """Yields the capture at each frame that can be decoded, and how many packets before it could
    not, of each of which a frame is missing as a rule.

    Frames are upright: OpenCV applies the rotation that the file asks for.

    Raises:
        VideoError: as :func:`iter_frames`.
    """
    if not Path(path).is_file():
        raise VideoError(f"there is no video {path}; check the path, or get the file again")
    capture = _open(path)
    try:
        width, height = (
            capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > MAX_PIXELS:
            raise VideoError(f"{path} announces {width:.0f} x {height:.0f} pixels: broken")
        announced = _header(capture).num_frames
        is_readable, num_packets, num_rejected = False, 0, 0
        while num_rejected < (_LATEST_END if num_packets < announced else _END):
            num_packets += 1
            if capture.grab():
                is_readable = True
                yield capture, num_rejected
                num_rejected = 0
            else:
                num_rejected += 1
        if not is_readable:
            raise undecodable(path)
    finally:
        capture.release()


def count_packets_after(path: str | os.PathLike, seconds: float) -> int:
    """How many packets of a video are of frames after that time; decodes nothing."""
    capture = _open(path)
    try:
        capture.set(cv2.CAP_PROP_FORMAT, -1)  # packets as they are
        count = 0
        while capture.grab():
            count += capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 > seconds
        return count
    finally:
        capture.release()


def damaged_frames(path: str | os.PathLike) -> Iterator[bool]:
    """Of each frame in order, whether the decoder filled in what it could not read.

    OpenCV does not say so; PyAV does, and decodes the file once more for it. Decoders of H.264 and
    the MPEG family notice damage, most others show it as a picture. Nothing comes without PyAV.
    """
    try:
        import av
    except ImportError:
        return
    with (
        contextlib.suppress(av.error.FFmpegError),
        av.open(os.path.abspath(path), metadata_errors="replace") as container,
    ):
        for stream in container.streams.video[:1]:
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"skip_loop_filter": "all"}  # nobody sees the pictures
            for packet in container.demux(stream):
                with contextlib.suppress(av.error.FFmpegError):  # no frame comes of it
                    for frame in packet.decode():
                        yield frame.is_corrupt


def undecodable(path: str | os.PathLike) -> VideoError:
    """The error for a file of which nothing can be decoded."""
    return VideoError(
        f"cannot decode {path}: broken, not a video, or of a codec that OpenCV lacks (as AV1); "
        "get the file again, or convert it to H.264"
    )


def write_frames(path: str | os.PathLike, frames: Iterable[np.ndarray], fps: float) -> None:
    """Writes a video of MPEG-4 as every OpenCV can write and read it, atomically.

    Args:
        path: of an mp4 file.
        frames: at least one, BGR uint8 (H, W, 3), all of one size.
        fps: frames per second.

    Raises:
        OSError: this OpenCV cannot, or the disk is full.
    """
    writer = None
    with atomic_path(path) as temporary:
        try:
            for frame in frames:
                if writer is None:
                    size = frame.shape[1::-1]
                    code = cv2.VideoWriter_fourcc(*"mp4v")
                    writer = cv2.VideoWriter(str(temporary), code, fps, size)
                    if not writer.isOpened():
                        raise OSError(f"cannot write {path}: this OpenCV has no mp4v encoder")
                writer.write(frame)
        finally:
            if writer is not None:
                writer.release()
        assert writer is not None, "a video has at least one frame"
        if not _open(temporary).isOpened():  # the writer says nothing; its index comes last
            raise OSError(f"cannot write {path}: the encoder failed; is the disk full?")


def _open(path: str | os.PathLike) -> cv2.VideoCapture:
    path = os.path.abspath(path)  # FFmpeg takes what stands before a colon for a protocol
    try:
        path.encode()
    except UnicodeEncodeError as error:  # OpenCV would crash
        raise VideoError(f"the name of {ascii(path)} is not UTF-8; rename the file") from error
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read(16).removeprefix(b"\xef\xbb\xbf").startswith(_LISTS):
            raise VideoError(f"{path} is a list of other files, which are not read; name these")
    # One decoder on all machines, and one thread: loaders and tools run several processes.
    with signals_later():  # OpenCV 5 crashes where a handler raises while it reads the parameters
        return cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


def _header(capture: cv2.VideoCapture) -> VideoHeader:
    fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    # Broken headers give NaN, infinity or negative numbers.
    return VideoHeader(fps if 0 < fps < np.inf else 0.0, int(frames) if 0 < frames < 2**31 else 0)


def _retrieve(capture: cv2.VideoCapture, path: str | os.PathLike) -> np.ndarray:
    try:
        ok, frame = capture.retrieve()
    except cv2.error as error:
        raise undecodable(path) from error
    if not ok or frame is None or not frame.size:
        raise undecodable(path)
    return frame
