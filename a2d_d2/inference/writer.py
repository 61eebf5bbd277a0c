"""Writing pictures as a video that a browser plays, or as files.

H.264 in mp4 through PyAV (``pip install 'a2d_d2[video]'``) or else an ``ffmpeg`` in PATH; where
there is neither, VP8 in webm through OpenCV. Pictures are RGB uint8 (H, W, 3).
"""

import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from a2d_d2.utils.files import atomic_path
from a2d_d2.visualization.canvas import write_picture

FORMATS = ("mp4", "webm", "frames")

# H.264 encoders of FFmpeg, the better one first.
_H264 = ("libx264", "libopenh264")
# The largest width and height that H.264 and VP8 have room for.
_MAX_SIDE = 16383
# Names of the pictures of a FrameWriter.
_PICTURE = re.compile(r"(\d{6}|[1-9]\d{6,})\.jpg", re.ASCII)
# Longest time in seconds over which one picture is repeated.
_MAX_PAUSE = 10.0


class Encoder(Protocol):
    """Encodes pictures of one even size at a constant rate."""

    def write(self, picture: np.ndarray) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Output:
    """How pictures are written.

    Attributes:
        suffix: of the file (or, for "frames", the folder) with its dot.
        description: for the log.
        encoder: called with path, frames per second and (width, height); None writes files.
    """

    suffix: str
    description: str
    encoder: Callable[[Path, Fraction, tuple[int, int]], Encoder] | None

    @property
    def is_video(self) -> bool:
        return self.encoder is not None


def choose_output(name: str | None = None) -> Output:
    """The way of writing for one of ``FORMATS``; None takes mp4 where it can be written, else webm.

    Raises:
        ValueError: this machine has no encoder for it; names what to install or to ask for.
    """
    if name not in (None, *FORMATS):
        raise ValueError(f"unknown format {name!r}; use one of {', '.join(FORMATS)}")
    if name == "frames":
        return Output(".frames", "JPEG files", None)
    if name != "webm" and (output := _h264_output()) is not None:
        return output
    if name == "mp4":
        raise ValueError(
            "format mp4 needs an H.264 encoder: pip install 'a2d_d2[video]', put ffmpeg in PATH,"
            " or use the format webm"
        )
    return Output(".webm", "VP8 in webm through OpenCV", _OpenCVEncoder)


def _h264_output() -> Output | None:
    if codec := _pyav_codec():
        encoder = functools.partial(_PyAVEncoder, codec=codec)
        return Output(".mp4", f"H.264 in mp4 through PyAV ({codec})", encoder)
    if codec := _ffmpeg_codec():
        encoder = functools.partial(_FFmpegEncoder, codec=codec)
        return Output(".mp4", f"H.264 in mp4 through ffmpeg ({codec})", encoder)
    return None


def _pyav_codec() -> str | None:
    try:
        import av
    except ImportError:
        return None
    return next((codec for codec in _H264 if codec in av.codecs_available), None)


def _ffmpeg_codec() -> str | None:
    if not shutil.which("ffmpeg"):
        return None
    command = ["ffmpeg", "-hide_banner", "-encoders"]
    try:
        listed = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next((codec for codec in _H264 if codec in listed.stdout.split()), None)


# ---------------------------------------------------------------- encoders


class _PyAVEncoder:
    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int], codec: str):
        import av

        self._frame = av.VideoFrame.from_ndarray
        self._step = 1 / rate
        self._count = 0
        self._container = av.open(
            str(path), mode="w", format="mp4", options={"movflags": "+faststart"}
        )
        self._stream = self._container.add_stream(codec, rate=rate)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}

    def write(self, picture: np.ndarray) -> None:
        frame = self._frame(picture, format="rgb24")
        frame.pts, frame.time_base = self._count, self._step
        self._count += 1
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        try:
            for packet in self._stream.encode():
                self._container.mux(packet)
        finally:
            self._container.close()


class _FFmpegEncoder:
    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int], codec: str):
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "{}x{}".format(*size)]
        command += ["-r", str(rate), "-i", "pipe:0", "-an", "-c:v", codec]
        if codec == "libx264":
            command += ["-crf", "20", "-preset", "veryfast"]
        command += ["-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(path)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the encoder
        # Its own session: Ctrl-C at the console must not stop it before its input ends.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    def write(self, picture: np.ndarray) -> None:
        try:
            self._process.stdin.write(picture.tobytes())
        except BrokenPipeError as error:
            raise OSError(f"ffmpeg stopped: {self._last_error()}") from error

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        status = self._process.wait()
        message = self._last_error()
        self._errors.close()
        if status:
            raise OSError(f"ffmpeg failed with status {status}: {message}")

    def _last_error(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it gave no reason"


class _OpenCVEncoder:
    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]):
        code = cv2.VideoWriter_fourcc(*"VP80")
        with _quiet():
            self._writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, float(rate), size)
        if not self._writer.isOpened():
            raise OSError(
                f"this OpenCV cannot write VP8 to {path}; use the format frames, or install an"
                " H.264 encoder: pip install 'a2d_d2[video]'"
            )

    def write(self, picture: np.ndarray) -> None:
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))

    def close(self) -> None:
        self._writer.release()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps OpenCV's line on the tag of VP8, which is no fault, from standard error."""
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


# ---------------------------------------------------------------- timing


class VideoWriter:
    """Pictures with their times as a video of a constant rate.

    What is on the screen after t seconds is the picture of that time: a picture is shown again
    until the next one is due, and one that comes within the same 1 / fps is left out. A pause is
    cut to ten seconds. Odd sizes grow by a pixel.
    """

    def __init__(self, path: Path, output: Output, fps: float):
        self._open = lambda size: output.encoder(path, self._rate, size)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._encoder: Encoder | None = None
        self._last: np.ndarray | None = None
        self._origin = 0.0  # the time that the file shows at its start
        self._count = 0

    def write(self, picture: np.ndarray, time: float, number: int) -> float:
        """Adds a picture.

        Args:
            picture: RGB uint8, of the first one's size.
            time: in seconds, above the last one's.
            number: of the frame; not used here.

        Returns:
            The second of the file at which it is shown.

        Raises:
            ValueError: the picture is too large for a video.
        """
        del number
        rate = float(self._rate)
        height, width = picture.shape[:2]
        picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._encoder is None:
            if max(picture.shape[:2]) > _MAX_SIDE:
                raise ValueError(
                    f"its pictures are {picture.shape[1]} x {picture.shape[0]}, and no side of a "
                    f"video may have more than {_MAX_SIDE} pixels; use the format frames"
                )
            self._encoder = self._open((picture.shape[1], picture.shape[0]))
            self._origin = time
        place = round((time - self._origin) * rate)
        if place < self._count:
            return (self._count - 1) / rate
        pause = place - self._count - round(_MAX_PAUSE * rate)
        if pause > 0:
            self._origin += pause / rate
            place -= pause
        for _ in range(place - self._count):
            self._encoder.write(self._last)
        self._encoder.write(picture)
        self._last, self._count = picture, place + 1
        return place / rate

    @property
    def duration(self) -> float:
        """Seconds written so far."""
        return self._count / float(self._rate)

    def close(self) -> None:
        """Ends the file."""
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            encoder.close()


class FrameWriter:
    """Pictures as ``<%06d>.jpg`` in a folder, named by the number of the frame."""

    def __init__(self, folder: Path, fps: float):
        self._folder = folder
        self._fps = fps
        self._origin: float | None = None
        self.duration = 0.0

    def write(self, picture: np.ndarray, time: float, number: int) -> float:
        """Writes a picture, with the arguments and the result of :meth:`VideoWriter.write`."""
        write_picture(self._folder / f"{number:06d}.jpg", picture)
        if self._origin is None:
            self._origin = time
        self.duration = time - self._origin + 1 / self._fps
        return time - self._origin


def remove_frames(folder: Path, numbers: Container[int], kept: Collection[Path] = ()) -> None:
    """Removes the pictures that a :class:`FrameWriter` has written, and the folder if it is empty.

    Args:
        folder: of the pictures; there need not be one.
        numbers: of the frames that it has written.
        kept: resolved paths that stay.
    """
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        match = _PICTURE.fullmatch(path.name)
        if match and int(match[1]) in numbers and path.is_file() and path.resolve() not in kept:
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def open_writer(path: Path, output: Output, fps: float) -> Iterator[VideoWriter | FrameWriter]:
    """A writer to ``path``, whose suffix is ``output.suffix``.

    A video gets its name only when the block ends without an exception; at least one picture must
    have been written by then.

    Raises:
        OSError: the encoder failed.
    """
    if not output.is_video:
        yield FrameWriter(path, fps)
        return
    with atomic_path(path) as temporary:
        writer = VideoWriter(temporary, output, fps)
        try:
            yield writer
        finally:
            writer.close()
        if temporary.stat().st_size == 0:
            raise OSError(f"the encoder wrote nothing to {path}; is the disk full?")
