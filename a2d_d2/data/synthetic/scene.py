"""A scene: a textured world, actors and distractors that move in it, and a hand-held camera.

Legend: N actors, H height, W width of a frame. Lengths are in pixels, time in frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from a2d_d2.data.synthetic.actors import OVERSAMPLING, Sprite, make_actor, make_distractor
from a2d_d2.data.synthetic.motions import (
    COORDINATES,
    Body,
    Pose,
    phase_rates,
    pose_at,
    random_phases,
)

_DEFAULT_HEIGHT, _DEFAULT_WIDTH = 128, 160  # the size of frame that all lengths below belong to


@dataclass(frozen=True)
class Stage:
    """What all scenes of a release share.

    Attributes:
        height, width: of the frames.
        difficulty: 0 easy, 1 default, 2 hard.
    """

    height: int
    width: int
    difficulty: float

    @property
    def scale(self) -> float:
        """Size of the frame relative to the default."""
        return min(self.height / _DEFAULT_HEIGHT, self.width / _DEFAULT_WIDTH)

    @property
    def size_range(self) -> tuple[float, float]:
        """Smallest and largest actor, in pixels."""
        return (48 - 8 * self.difficulty) * self.scale, 72 * self.scale

    @property
    def min_visible(self) -> float:
        """Least fraction of an annotated actor's silhouette that can be seen."""
        return 0.75 - 0.15 * self.difficulty


class Camera:
    """Pan, sway and shake of the view; with difficulty 0 it stands still."""

    def __init__(self, stage: Stage, rng: np.random.Generator):
        amount = stage.difficulty * stage.scale
        # Two sine waves of the position per axis: a slow wide one and a quick narrow one.
        self._amplitude = amount * np.array([[4.0], [0.9]]) * rng.uniform(0.5, 1, (2, 2))
        self._period = np.stack([rng.uniform(18, 36, 2), rng.uniform(7, 12, 2)])
        self._phase = rng.uniform(0, 2 * math.pi, (2, 2))
        self._jitter = amount * 0.15
        self._seed = rng.integers(2**32)
        self.reach = math.ceil(4.9 * amount + 4 * self._jitter)

    def position(self, t: int) -> tuple[float, float]:
        """x, y of the view's corner in the world; at most ``reach`` from the origin."""
        wave = self._amplitude * np.sin(2 * math.pi * t / self._period + self._phase)
        noise = np.random.default_rng([self._seed, t]).standard_normal(2)
        x, y = wave.sum(axis=0) + self._jitter * np.clip(noise, -4, 4)
        return float(x), float(y)


@dataclass(frozen=True)
class _Thing:
    """A sprite and its way: phases of the pose at frame 0 and their rates."""

    sprite: Sprite
    body: Body
    phases: np.ndarray
    rates: np.ndarray

    def pose(self, t: int) -> Pose:
        return pose_at(self.phases + t * self.rates, self.body)


class Scene:
    """A world that can be seen at any frame.

    Args:
        pairs: (actor, action) names of the N actors, from back to front.
        stage: size and difficulty.
        seed: of everything random; the same seed gives the same pixels.
        shrink: factor of the actors' sizes.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        stage: Stage,
        seed: Sequence[int],
        shrink: float = 1.0,
    ):
        rng = np.random.default_rng(seed)
        self._stage = stage
        self._camera = Camera(stage, rng)
        self._world = _background(stage, self._camera.reach + 1, rng)
        self._actors = [_make_actor(*pair, stage, shrink, rng) for pair in pairs]
        behind, front = rng.poisson([0.7 * stage.difficulty, 0.25 * stage.difficulty]).clip(0, 4)
        self._behind = [_make_distractor(stage, rng) for _ in range(behind)]
        self._front = [_make_distractor(stage, rng) for _ in range(front)]

    def render(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws frame ``t``.

        Returns:
            frame: (H, W, 3) uint8 BGR.
            masks: (N, H, W) bool, the pixels of which an actor, unhidden, covers at least half.
            visible: (N,) fraction of each actor's silhouette that its mask holds.
        """
        stage = self._stage
        x, y = self._camera.position(t)
        reach = self._camera.reach + 1
        shift = np.array([[1, 0, x + reach], [0, 1, y + reach]])
        frame = cv2.warpAffine(
            self._world,
            shift,
            (stage.width, stage.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        owner = np.zeros(frame.shape[:2], np.uint8)  # 0 nobody, i + 1 actor i

        def paint(thing: _Thing, number: int) -> int:
            return _paint(frame, owner, number, thing.sprite, thing.pose(t), (x, y))

        for thing in self._behind:
            paint(thing, 0)
        areas = [paint(thing, i) for i, thing in enumerate(self._actors, start=1)]
        for thing in self._front:
            paint(thing, 0)
        masks = owner == np.arange(1, len(areas) + 1, dtype=np.uint8)[:, None, None]
        return frame, masks, masks.sum(axis=(1, 2)) / np.maximum(areas, 1)


def _make_actor(kind: str, action: str, stage: Stage, shrink: float, rng) -> _Thing:
    size = shrink * rng.uniform(*stage.size_range)
    if kind == "ball":
        size *= 0.8
    body = Body(
        size=size,
        scale=stage.scale,
        x_range=_room(stage.width, 0.45 * size + 3 * stage.scale),
        y_range=_room(stage.height, 0.45 * size + 3 * stage.scale),
        round=kind == "ball",
    )
    sprite, phases = make_actor(kind, size, rng), random_phases(rng)
    return _Thing(sprite, body, phases, phase_rates(action, body, phases, rng))


def _make_distractor(stage: Stage, rng: np.random.Generator) -> _Thing:
    """A shape that wanders and spins."""
    size = rng.uniform(11, 26) * stage.scale
    body = Body(size, stage.scale, (0.0, stage.width), (0.0, stage.height), round=True)
    phases = random_phases(rng)
    rates = np.zeros_like(phases)
    rates[:2] = rng.uniform(-3, 3, 2) * stage.scale / (2 * stage.width, 2 * stage.height)  # x, y
    rates[COORDINATES.index("tilt")] = rng.uniform(-12, 12) / 360
    return _Thing(make_distractor(size, rng), body, phases, rates)


def _room(length: float, margin: float) -> tuple[float, float]:
    """Where a centre may go along a side: ``margin`` from its ends, and some way in any case."""
    margin = min(margin, 0.4 * length)
    return margin, length - margin


def _paint(frame, owner, number: int, sprite: Sprite, pose: Pose, view) -> int:
    """Draws a sprite into frame and owner map; returns its number of pixels, hidden or not."""
    image = sprite.image(pose.limbs)
    turn = math.radians(pose.angle)
    bow = pose.facing * math.radians(pose.bow)
    length, height = pose.stretch * pose.facing, 1 / pose.stretch
    # Turned by `turn` about its centre and by `bow` about the hind foot.
    foot_x, foot_y = -0.22 * sprite.size * length, 0.36 * sprite.size * height
    whole = turn + bow
    x = pose.x - view[0] + _rotate_x(foot_x, foot_y, turn) - _rotate_x(foot_x, foot_y, whole)
    y = pose.y - view[1] + _rotate_y(foot_x, foot_y, turn) - _rotate_y(foot_x, foot_y, whole)
    cos, sin = math.cos(whole), math.sin(whole)
    linear = np.array([[cos * length, -sin * height], [sin * length, cos * height]]) / OVERSAMPLING
    middle = (image.shape[0] - 1) / 2
    half = np.abs(linear).sum(axis=1) * middle + 2
    left, top = math.floor(x - half[0]), math.floor(y - half[1])
    right, bottom = math.ceil(x + half[0]), math.ceil(y + half[1])
    offset = np.array([x - left, y - top]) - linear @ [middle, middle]
    placed = cv2.warpAffine(
        image,
        np.column_stack([linear, offset]),
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR,
    )
    solid = placed[..., 3] >= 128

    rows = slice(max(top, 0), min(bottom, frame.shape[0]))
    columns = slice(max(left, 0), min(right, frame.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        inner = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        over, region = placed[inner], frame[rows, columns]
        alpha = over[..., 3:].astype(np.uint16)
        keep = 256 - (alpha + (alpha >> 7))
        region[:] = over[..., :3] + ((region * keep) >> 8).astype(np.uint8)
        owner[rows, columns][solid[inner]] = number
    return int(np.count_nonzero(solid))


def _rotate_x(x: float, y: float, angle: float) -> float:
    return x * math.cos(angle) - y * math.sin(angle)


def _rotate_y(x: float, y: float, angle: float) -> float:
    return x * math.sin(angle) + y * math.cos(angle)


def _background(stage: Stage, border: int, rng: np.random.Generator) -> np.ndarray:
    """(H + 2 border, W + 2 border, 3) uint8: a gradient, noise of several octaves, maybe blocks."""
    height, width = stage.height + 2 * border, stage.width + 2 * border
    corners = rng.uniform(50, 190, (2, 2, 1)) + rng.uniform(-35, 35, (2, 2, 3))
    image = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    strength = rng.uniform(10, 24)
    for octave in range(4):
        cell = 32 * stage.scale / 2**octave
        grid = (max(2, round(height / cell)), max(2, round(width / cell)))
        noise = rng.standard_normal((*grid, 1)) + 0.4 * rng.standard_normal((*grid, 3))
        noise = cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        image += strength * 0.75**octave * noise
    if rng.random() < 0.5:
        for _ in range(rng.integers(4, 14)):
            size = rng.uniform(8, 50, 2) * stage.scale
            x, y = rng.uniform((0, 0), (width, height)) - size / 2
            block = slice(max(0, int(y)), int(y + size[1])), slice(max(0, int(x)), int(x + size[0]))
            image[block] += rng.uniform(-45, 45) + rng.uniform(-15, 15, 3)
    return image.clip(8, 247).astype(np.uint8)
