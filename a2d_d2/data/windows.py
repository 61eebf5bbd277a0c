"""The window of frames around a key frame: one function for training, testing and streaming.

Dimensions: T frames in the window, F frames of it that count, K key frames among them, W frames in
the neighbourhood of a key frame (2 * radius + 1).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ClipWindow:
    """Which frames a clip is made of. Frame numbers are 0-based.

    Attributes:
        frames: the F frames, ascending.
        keys: positions in ``frames`` of the K key frames, where losses and predictions are made.
        neighbours: for each key frame the positions in ``frames`` of the W frames around it, itself
            in the middle; -1 where there is no frame.
    """

    frames: tuple[int, ...]
    keys: tuple[int, ...]
    neighbours: tuple[tuple[int, ...], ...]

    def restrict(self, present: Collection[int]) -> "ClipWindow":
        """The window without the frames that are not ``present``: a clip shorter than announced."""
        frames = tuple(frame for frame in self.frames if frame in present)
        place = {self.frames.index(frame): i for i, frame in enumerate(frames)}
        kept = [k for k, position in enumerate(self.keys) if position in place]
        return ClipWindow(
            frames,
            tuple(place[self.keys[k]] for k in kept),
            tuple(tuple(place.get(i, -1) for i in self.neighbours[k]) for k in kept),
        )


def check_window(length: int, stride: int) -> None:
    """ValueError when a window of this length and stride, in frames, cannot be made."""
    for key, value in (("LENGTH", length), ("STRIDE", stride)):
        if value < 1:
            raise ValueError(f"INPUT.CLIP.{key} is {value}; it must be at least 1")


def make_window(
    key_frame: int,
    num_frames: int | None,
    *,
    length: int,
    stride: int,
    radius: int,
    annotated: Iterable[int] = (),
    position: int | None = None,
) -> ClipWindow:
    """The window of T = ``length`` frames around ``key_frame``, cut down to the frames that count.

    Frames outside the video or the window do not exist, as a convolution over the window with zero
    padding in time has it. Frames outside the temporal receptive field of every key frame are left
    out: they change nothing.

    Args:
        key_frame: 0-based.
        num_frames: of the video; None when its end is not known (see :meth:`ClipWindow.restrict`).
        length: T, the frames in the window, those that do not exist included.
        stride: step between them in frames.
        radius: how many steps the model looks to each side of a key frame.
        annotated: further frames that are key frames when they lie in the window (training).
        position: place of ``key_frame`` in the window, 0 to T - 1; by default T // 2.
    """
    position = length // 2 if position is None else position
    assert stride >= 1 and radius >= 0 and 0 <= position < length, (length, stride, position)
    assert key_frame >= 0 and (num_frames is None or key_frame < num_frames), key_frame
    first = key_frame - position * stride
    window = {
        frame
        for frame in range(first, first + length * stride, stride)
        if frame >= 0 and (num_frames is None or frame < num_frames)
    }
    key_frames = sorted({key_frame} | (window & set(annotated)))
    around = [[key + stride * d for d in range(-radius, radius + 1)] for key in key_frames]
    frames = sorted(window.intersection(*[[f for row in around for f in row]]))
    place = {frame: i for i, frame in enumerate(frames)}
    return ClipWindow(
        tuple(frames),
        tuple(place[key] for key in key_frames),
        tuple(tuple(place.get(frame, -1) for frame in row) for row in around),
    )
