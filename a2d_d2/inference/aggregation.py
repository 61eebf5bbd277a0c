"""Aggregation over time in a stream: each step once a frame, what it gives held while needed.

Level 0 is the pyramids of frames, level i what the first i steps of the temporal modules make of
them.

Dimensions: F frames that a step is given, K frames that it gives, V frames around each of those.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from a2d_d2.data.windows import ClipWindow, make_window
from a2d_d2.modeling.meta_arch import ActorActionRCNN, FrameFeatures


@dataclass(frozen=True)
class Schedule:
    """Which frames are detected on, and which each of them needs.

    Attributes:
        length, stride, radius: of the windows, see :func:`a2d_d2.data.windows.make_window`.
        every: the key frames are 0, ``every``, 2 * ``every``, ...
    """

    length: int
    stride: int
    radius: int
    every: int

    def window(self, key: int, num_frames: int | None) -> ClipWindow:
        """The window of a key frame; ``num_frames`` is None before the end of the video is seen."""
        return make_window(
            key, num_frames, length=self.length, stride=self.stride, radius=self.radius
        )

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The frames of a window that is cut off nowhere, relative to its key frame."""
        key = self.length * self.stride  # far enough from the first frame
        return tuple(frame - key for frame in self.window(key, None).frames)

    def is_key(self, frame: int) -> bool:
        return frame % self.every == 0

    def is_needed(self, frame: int) -> bool:
        """Whether ``frame`` is in the window of a key frame."""
        keys = (frame - offset for offset in self.offsets)
        return any(key >= 0 and self.is_key(key) for key in keys)

    def keys(self, first: int, seen: int) -> range:
        """The key frames from the key frame ``first`` on that look at frames before ``seen``."""
        return range(first, seen - self.offsets[0], self.every)


@dataclass(frozen=True)
class Step:
    """What is computed at once for a frame.

    Attributes:
        window: gives, of a frame and the number of frames of the video (None before its end is
            seen), the frames that the step looks at.
        run: makes the features of K frames of those of F and of ``neighbours`` (K, V), as
            :meth:`ActorActionRCNN.over_time` does.
    """

    window: Callable[[int, int | None], ClipWindow]
    run: Callable[[FrameFeatures, Tensor], FrameFeatures]


def temporal_steps(model: ActorActionRCNN, schedule: Schedule) -> tuple[Step, ...]:
    """The steps in which a stream aggregates over time.

    Those of the temporal modules, each taken once a frame. A single one, the whole window of a key
    frame, where the modules offer none, or where windows leave out frames that the modules would
    look at: then what a step gives for a frame is another in the window of each key frame.
    """
    radii = model.step_radii
    if radii is None or len(schedule.offsets) <= 2 * schedule.radius:
        return (Step(schedule.window, model.over_time),)
    assert sum(radii) == schedule.radius, (radii, schedule)
    return tuple(
        Step(replace(schedule, length=2 * r + 1, radius=r).window, partial(model.over_time, step=i))
        for i, r in enumerate(radii)
    )


class HeldFeatures:
    """What is held of the frames of one video, at each level.

    Attributes:
        steps: from each level to the next.
        levels: of each level the features of single frames, by frame.
    """

    def __init__(self, steps: Sequence[Step]):
        self.steps = steps
        self.levels: list[dict[int, FrameFeatures]] = [{} for _ in range(len(steps) + 1)]

    def __len__(self) -> int:
        """How many features of a frame are held."""
        return sum(len(level) for level in self.levels)

    def copy(self) -> "HeldFeatures":
        """Holds the same; what either takes or forgets from now on leaves the other alone."""
        other = HeldFeatures(self.steps)
        other.levels = [dict(level) for level in self.levels]
        return other

    def add(self, frames: Iterable[int], features: Iterable[FrameFeatures]) -> None:
        """Takes the pyramids of some frames, one each."""
        self.levels[0].update(zip(frames, features, strict=True))

    def appearance(self, frames: Iterable[int]) -> dict[str, Tensor]:
        """The appearance pyramid of some frames, together."""
        return _join([self.levels[0][frame].appearance for frame in frames])

    def aggregate(self, keys: Sequence[int], num_frames: int) -> FrameFeatures:
        """The features of key frames after the last step; computes what is not held on the way.

        Args:
            keys: the key frames.
            num_frames: of the video so far; more than any window of ``keys`` has, or all.
        """
        needed = self._needed(keys, num_frames)
        for level, step in enumerate(self.steps):
            frames = sorted(needed[level + 1] - self.levels[level + 1].keys())
            if frames:
                given, neighbours = _gather([step.window(frame, num_frames) for frame in frames])
                features = join_frames([self.levels[level][frame] for frame in given])
                device = next(iter(features.appearance.values())).device
                result = step.run(features, torch.tensor(neighbours, device=device))
                self.levels[level + 1].update(zip(frames, split_frames(result), strict=True))
        return join_frames([self.levels[-1][key] for key in keys])

    def keep(self, keys: Iterable[int]) -> None:
        """Forgets all that the key frames ``keys``, those still to come, do not need."""
        needed = self._needed(keys, None)
        needed[0] |= set(keys)  # detection looks at their pyramids
        self.levels = [
            {frame: features for frame, features in level.items() if frame in frames}
            for level, frames in zip(self.levels, needed, strict=True)
        ]

    def _needed(self, keys: Iterable[int], num_frames: int | None) -> list[set[int]]:
        """For each level, the frames that what is not yet computed for ``keys`` takes."""
        needed = [set(keys)]
        for step, held in zip(reversed(self.steps), reversed(self.levels[1:]), strict=True):
            windows = (step.window(frame, num_frames) for frame in needed[0] - held.keys())
            needed.insert(0, {frame for window in windows for frame in window.frames})
        return needed


def _gather(windows: Sequence[ClipWindow]) -> tuple[list[int], list[list[int]]]:
    """The frames of some windows, and for each the positions in them of those around its key."""
    frames = sorted({frame for window in windows for frame in window.frames})
    place = {frame: i for i, frame in enumerate(frames)}
    neighbours = [
        [-1 if i < 0 else place[window.frames[i]] for i in window.neighbours[0]]
        for window in windows
    ]
    return frames, neighbours


def split_frames(features: FrameFeatures) -> list[FrameFeatures]:
    """The features of F frames as those of each, without copying."""
    appearance = _split(features.appearance)
    if features.motion is None:
        return [FrameFeatures(x) for x in appearance]
    both = zip(appearance, _split(features.motion), strict=True)
    return [FrameFeatures(*x) for x in both]


def join_frames(frames: Sequence[FrameFeatures]) -> FrameFeatures:
    """The inverse of :func:`split_frames`."""
    appearance = _join([x.appearance for x in frames])
    motion = None if frames[0].motion is None else _join([x.motion for x in frames])
    return FrameFeatures(appearance, motion)


def _split(pyramid: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Level to (F, C, h, w) as F times level to (1, C, h, w)."""
    frames = zip(*(x.split(1) for x in pyramid.values()), strict=True)
    return [dict(zip(pyramid, frame, strict=True)) for frame in frames]


def _join(pyramids: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The inverse of :func:`_split`."""
    return {level: torch.cat([x[level] for x in pyramids]) for level in pyramids[0]}
