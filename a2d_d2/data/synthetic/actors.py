"""Draws the figures: seven kinds of articulated, textured actors, and shapes that are no actors.

A figure is drawn into an *index map*, one number per material, in body coordinates: the figure's
largest extent is 1, the origin its centre, x forward, y down. A table of colours and a texture that
stays on the body turn the map into premultiplied BGRA. Everything is drawn at twice the size needed
(:data:`OVERSAMPLING`) and shrunk when it is placed in the frame, which smooths the edges.
"""

import colorsys
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

OVERSAMPLING = 2
_SHIFT = 4  # fractional bits of drawing coordinates
_ROOM = 1.3  # side of the canvas relative to the figure: wings and swinging limbs

# Materials; 0 is nothing. Limbs of the far side are darker.
MAIN, MAIN_FAR, SECOND, SECOND_FAR, SKIN, SKIN_FAR, ACCENT, DARK, LIGHT, OUTLINE = range(1, 11)
_NUM_MATERIALS = 11
_PATTERNED = (MAIN, MAIN_FAR)
_SHADES = 4  # brightness levels of the texture's noise


class Canvas:
    """An index map of a figure, with a pen in body coordinates.

    Args:
        size: of the figure, in frame pixels.
    """

    def __init__(self, size: float):
        self.unit = size * OVERSAMPLING
        self.side = math.ceil(self.unit * _ROOM)
        self.index = np.zeros((self.side, self.side), np.uint8)

    def _fixed(self, points) -> np.ndarray:
        points = np.asarray(points, dtype=np.float64) * self.unit + (self.side - 1) / 2
        return np.round(points * (1 << _SHIFT)).astype(np.int32)

    def polygon(self, points: Sequence[tuple[float, float]], material: int) -> None:
        cv2.fillPoly(self.index, [self._fixed(points)], material, shift=_SHIFT)

    def ellipse(self, center, radii, material: int, angle: float = 0.0) -> None:
        x, y = self._fixed(center).tolist()
        axes = [round(r * self.unit * (1 << _SHIFT)) for r in radii]
        cv2.ellipse(self.index, (x, y), axes, angle, 0, 360, material, -1, shift=_SHIFT)

    def limb(self, points: Sequence[tuple[float, float]], width: float, material: int) -> None:
        """A line with round ends and joints."""
        thickness = max(1, round(width * self.unit))
        cv2.polylines(self.index, [self._fixed(points)], False, material, thickness, shift=_SHIFT)


def _leg(hip, swing: float, bend: float, lengths: tuple[float, float]) -> list:
    """Points of a two-part limb: ``swing`` forward, ``bend`` of the joint backward, in radians."""
    x, y = hip
    knee = (x + lengths[0] * math.sin(swing), y + lengths[0] * math.cos(swing))
    lower = swing - bend
    return [
        hip,
        knee,
        (knee[0] + lengths[1] * math.sin(lower), knee[1] + lengths[1] * math.cos(lower)),
    ]


def _swing(phase: float, shift: float = 0.0) -> float:
    return math.sin(2 * math.pi * (phase + shift))


def _draw_adult(c: Canvas, phase: float) -> None:
    near, far = _swing(phase), _swing(phase, 0.5)
    lift_near, lift_far = _swing(phase, 0.25), _swing(phase, 0.75)
    shoulder, hip = (-0.01, -0.22), (-0.01, 0.06)
    c.limb(_leg(shoulder, 0.8 * near, -0.6, (0.16, 0.14)), 0.055, MAIN_FAR)
    for swing, lift, material in ((far, lift_far, SECOND_FAR), (near, lift_near, SECOND)):
        leg = _leg(hip, 0.6 * swing, 0.35 + 0.35 * lift, (0.19, 0.19))
        c.ellipse((leg[-1][0] + 0.03, leg[-1][1] + 0.015), (0.07, 0.035), DARK)
        c.limb(leg, 0.09, material)
    c.polygon(
        [(-0.09, -0.27), (-0.03, -0.29), (0.05, -0.28), (0.1, -0.2), (0.08, 0.09), (-0.09, 0.09)],
        MAIN,
    )
    c.ellipse((0.01, -0.38), (0.1, 0.115), SKIN)
    c.ellipse((-0.02, -0.43), (0.11, 0.075), ACCENT, -20)
    c.ellipse((-0.065, -0.38), (0.05, 0.09), ACCENT)
    c.ellipse((0.065, -0.375), (0.014, 0.022), DARK)
    arm = _leg(shoulder, 0.8 * far, -0.6, (0.16, 0.14))
    c.limb(arm, 0.065, MAIN_FAR)
    c.ellipse(arm[-1], (0.038, 0.038), SKIN)


def _draw_baby(c: Canvas, phase: float) -> None:
    near, far = _swing(phase), _swing(phase, 0.5)
    c.limb(_leg((-0.04, 0.24), 0.6 * far, 0.3, (0.1, 0.1)), 0.12, SKIN_FAR)
    c.limb(_leg((0.0, 0.06), 0.9 * near + 0.4, -0.3, (0.1, 0.1)), 0.09, SKIN_FAR)
    c.limb(_leg((0.0, 0.24), 0.6 * near, 0.3, (0.1, 0.1)), 0.12, SKIN)
    c.ellipse((-0.01, 0.12), (0.16, 0.18), MAIN)
    c.ellipse((-0.02, 0.26), (0.17, 0.1), LIGHT)
    c.ellipse((0.02, -0.2), (0.25, 0.25), SKIN)
    c.ellipse((-0.05, -0.4), (0.09, 0.05), ACCENT, -25)
    c.ellipse((0.13, -0.2), (0.03, 0.045), DARK)
    c.ellipse((0.17, -0.08), (0.045, 0.025), ACCENT)
    c.limb(_leg((0.0, 0.06), 0.9 * far + 0.4, -0.3, (0.1, 0.1)), 0.09, SKIN)


def _draw_ball(c: Canvas, phase: float) -> None:
    c.ellipse((0, 0), (0.4, 0.4), MAIN)
    for start in (0, 120, 240):  # three panels
        edge = np.radians(np.arange(start, start + 61, 10))
        c.polygon([(0, 0), *np.stack([0.4 * np.cos(edge), 0.4 * np.sin(edge)], 1)], SECOND)
    c.ellipse((0, 0), (0.13, 0.13), ACCENT)
    c.ellipse((0.2, -0.2), (0.05 + 0.02 * _swing(phase), 0.05), LIGHT)


def _draw_bird(c: Canvas, phase: float) -> None:
    flap = 0.9 * _swing(phase)
    legs = 0.3 * _swing(phase, 0.25)

    def wing(lift: float, material: int) -> None:
        rise = math.sin(lift)
        tip = (-0.25 - 0.08 * math.cos(lift), -0.02 - 0.38 * rise)
        front, back = (0.02, -0.1 - 0.3 * rise), (-0.2, 0.0 - 0.15 * rise)
        c.polygon([(0.14, -0.06), front, tip, back, (-0.1, 0.07), (0.08, 0.04)], material)

    wing(flap + 0.25, MAIN_FAR)
    for x, swing in ((-0.04, legs), (0.04, -legs)):
        c.limb(_leg((x, 0.12), swing, 0.0, (0.08, 0.06)), 0.03, ACCENT)
    c.polygon([(-0.2, -0.04), (-0.5, -0.12), (-0.47, 0.0), (-0.5, 0.1), (-0.18, 0.08)], SECOND)
    c.ellipse((0.0, 0.02), (0.27, 0.15), MAIN, -8)
    c.ellipse((0.06, 0.09), (0.17, 0.075), SECOND, -8)
    c.polygon([(0.35, -0.18), (0.5, -0.1), (0.35, -0.06)], ACCENT)
    c.ellipse((0.27, -0.13), (0.125, 0.115), MAIN)
    c.ellipse((0.31, -0.15), (0.025, 0.025), DARK)
    wing(flap, SECOND_FAR)


def _draw_car(c: Canvas, phase: float) -> None:
    c.polygon([(-0.3, -0.05), (-0.2, -0.23), (0.12, -0.23), (0.27, -0.05)], MAIN)
    c.polygon(
        [(-0.5, -0.05), (-0.46, -0.08), (0.3, -0.07), (0.48, -0.01), (0.5, 0.12), (-0.5, 0.12)],
        MAIN,
    )
    c.polygon([(-0.24, -0.06), (-0.17, -0.19), (-0.06, -0.19), (-0.06, -0.06)], LIGHT)
    c.polygon([(-0.02, -0.06), (-0.02, -0.19), (0.1, -0.19), (0.21, -0.06)], LIGHT)
    c.polygon([(-0.5, 0.06), (0.5, 0.06), (0.5, 0.12), (-0.5, 0.12)], SECOND)
    c.ellipse((0.46, 0.02), (0.035, 0.03), ACCENT)
    for x in (-0.28, 0.28):
        c.ellipse((x, 0.13), (0.115, 0.115), DARK)
        c.ellipse((x, 0.13), (0.06, 0.06), LIGHT)
        spoke = 0.1 * math.cos(2 * math.pi * phase), 0.1 * math.sin(2 * math.pi * phase)
        c.limb([(x - spoke[0], 0.13 - spoke[1]), (x + spoke[0], 0.13 + spoke[1])], 0.03, DARK)


def _draw_cat(c: Canvas, phase: float) -> None:
    near, far = 0.45 * _swing(phase), 0.45 * _swing(phase, 0.5)
    wag = 0.06 * _swing(phase, 0.1)
    tail = [(-0.3, 0.08), (-0.43, 0.02), (-0.46, -0.14), (-0.38 + wag, -0.28), (-0.43 + wag, -0.42)]
    c.limb(tail, 0.085, MAIN)
    c.limb(tail[3:], 0.085, SECOND)
    for x, swing in ((0.12, far), (-0.24, near)):
        c.limb(_leg((x, 0.13), swing, 0.1, (0.09, 0.08)), 0.075, MAIN_FAR)
    c.ellipse((-0.07, 0.07), (0.3, 0.14), MAIN)
    for x in (-0.22, -0.1, 0.02):  # a tabby's stripes
        c.limb([(x, -0.045), (x - 0.02, 0.09)], 0.045, SECOND)
    for x, swing in ((0.16, near), (-0.28, far)):
        c.limb(_leg((x, 0.13), swing, 0.1, (0.09, 0.08)), 0.08, MAIN)
    for side in (-1, 1):
        x = 0.27 + 0.1 * side
        c.polygon([(x - 0.075, -0.16), (x + 0.05 * side, -0.4), (x + 0.075, -0.16)], MAIN)
    c.ellipse((0.27, -0.09), (0.18, 0.13), MAIN)
    c.ellipse((0.31, -0.03), (0.085, 0.05), LIGHT)
    for x in (0.22, 0.35):
        c.ellipse((x, -0.11), (0.04, 0.045), ACCENT)
        c.ellipse((x + 0.006, -0.11), (0.014, 0.04), DARK)


def _draw_dog(c: Canvas, phase: float) -> None:
    near, far = 0.5 * _swing(phase), 0.5 * _swing(phase, 0.5)
    wag = 0.05 * _swing(phase, 0.3)
    c.limb([(-0.34, -0.04), (-0.43, -0.1), (-0.45 + wag, -0.18)], 0.06, MAIN)
    for x, swing in ((0.08, far), (-0.27, near)):
        c.limb(_leg((x, 0.06), swing, 0.2, (0.16, 0.15)), 0.085, MAIN_FAR)
    c.polygon(
        [(-0.38, -0.08), (0.14, -0.12), (0.2, 0.02), (0.12, 0.16), (-0.2, 0.11), (-0.38, 0.08)],
        MAIN,
    )
    for x, swing in ((0.12, near), (-0.31, far)):
        leg = _leg((x, 0.06), swing, 0.2, (0.16, 0.15))
        c.limb(leg, 0.09, MAIN)
        c.limb(leg[1:], 0.09, LIGHT)
    c.polygon([(0.04, -0.1), (0.19, 0.07), (0.32, -0.14), (0.18, -0.28)], MAIN)
    c.limb([(0.09, -0.15), (0.25, 0.01)], 0.075, ACCENT)
    c.ellipse((0.25, -0.24), (0.14, 0.12), MAIN)
    c.polygon([(0.26, -0.3), (0.47, -0.24), (0.49, -0.12), (0.28, -0.1)], LIGHT)
    c.ellipse((0.47, -0.22), (0.035, 0.035), DARK)
    c.ellipse((0.3, -0.27), (0.025, 0.027), DARK)
    c.ellipse((0.15, -0.18), (0.07, 0.17), SECOND_FAR, 15)


_DRAW: dict[str, Callable[[Canvas, float], None]] = {
    "adult": _draw_adult,
    "baby": _draw_baby,
    "ball": _draw_ball,
    "bird": _draw_bird,
    "car": _draw_car,
    "cat": _draw_cat,
    "dog": _draw_dog,
}


def _draw_cross(c: Canvas) -> None:
    c.polygon([(-0.5, -0.13), (0.5, -0.13), (0.5, 0.13), (-0.5, 0.13)], MAIN)
    c.polygon([(-0.13, -0.5), (0.13, -0.5), (0.13, 0.5), (-0.13, 0.5)], MAIN)


def _draw_triangle(c: Canvas) -> None:
    c.polygon([(0, -0.5), (0.46, 0.36), (-0.46, 0.36)], MAIN)


def _draw_ring(c: Canvas) -> None:
    c.ellipse((0, 0), (0.5, 0.5), MAIN)
    c.ellipse((0, 0), (0.28, 0.28), 0)


def _draw_leaf(c: Canvas) -> None:
    along = np.linspace(-0.5, 0.5, 9)
    width = 0.2 * np.cos(np.pi * along)
    edge = np.concatenate([np.stack([along, -width], 1), np.stack([along[::-1], width[::-1]], 1)])
    c.polygon(edge, MAIN)
    c.limb([(-0.45, 0), (0.45, 0)], 0.04, MAIN_FAR)


_SHAPES = (_draw_cross, _draw_triangle, _draw_ring, _draw_leaf)


class Sprite:
    """Something that can be drawn: an index map's colours and texture.

    Args:
        draw: draws the figure into a canvas at a phase of its limbs.
        size: largest extent, in frame pixels.
        colors: (materials, 2, 3) BGR in 0..255: plain and patterned.
        pattern: makes the (side, side) bool pattern that the body wears.
        rng: of the texture's noise.
    """

    def __init__(self, draw, size: float, colors: np.ndarray, pattern, rng: np.random.Generator):
        self.size = size
        self._draw = draw
        side = Canvas(size).side
        shade = _noise(rng, side, cells=(side / 5, side / 14))
        shade = np.clip((shade * 0.9 + 2), 0, _SHADES - 1).astype(np.uint8)
        self._texture = shade | (pattern(rng, side).astype(np.uint8) << 2)
        brightness = np.linspace(0.72, 1.1, _SHADES).reshape(1, 1, -1, 1)
        table = np.zeros((_NUM_MATERIALS, 2, _SHADES, 4))
        table[1:, ..., :3] = np.clip(colors[1:, :, None] * brightness, 0, 255)
        table[1:, ..., 3] = 255
        self._table = table.round().astype(np.uint8).view(np.uint32).ravel()
        self._drawn = (None, None)

    def image(self, phase: float) -> np.ndarray:
        """(side, side, 4) premultiplied BGRA at twice the size, the centre in the middle.

        ``phase`` is that of the limbs' swing, 0..1.
        """
        if self._drawn[0] != phase:
            canvas = Canvas(self.size)
            self._draw(canvas, phase)
            index = canvas.index
            inside = cv2.erode((index > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
            index[(inside == 0) & (index > 0)] = OUTLINE
            image = self._table[(index << 3) | self._texture]
            self._drawn = (phase, image.view(np.uint8).reshape(*index.shape, 4))
        return self._drawn[1]


def make_actor(kind: str, size: float, rng: np.random.Generator) -> Sprite:
    """An actor of a random look; ``size`` is its largest extent in pixels."""
    return Sprite(_DRAW[kind], size, _actor_colors(kind, rng), _random_pattern(rng), rng)


def make_distractor(size: float, rng: np.random.Generator) -> Sprite:
    """A plain shape that is no actor."""
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    colors = np.zeros((_NUM_MATERIALS, 2, 3))
    colors[:] = _hsv(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.35, 0.95))
    colors[MAIN_FAR] *= 0.7
    colors[OUTLINE] *= 0.8
    return Sprite(lambda canvas, _: shape(canvas), size, colors, _plain, rng)


# -------------------------------------------------------------------------------- looks


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """BGR in 0..255."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))[::-1]


def _fur(rng: np.random.Generator) -> np.ndarray:
    """Orange, brown, cream, grey or black."""
    if rng.random() < 0.65:
        return _hsv(rng.uniform(0.04, 0.12), rng.uniform(0.3, 0.85), rng.uniform(0.35, 0.95))
    return _hsv(rng.random(), 0.06, rng.uniform(0.2, 0.95))


def _paint(hue: float, rng: np.random.Generator) -> np.ndarray:
    return _hsv(hue, rng.uniform(0.55, 0.95), rng.uniform(0.55, 0.98))


def _actor_colors(kind: str, rng: np.random.Generator) -> np.ndarray:
    """(materials, 2, 3) BGR."""
    colors = np.zeros((_NUM_MATERIALS, 2, 3))
    animal = kind in ("cat", "dog")
    if animal:
        main, second = _fur(rng), _fur(rng)
    else:
        hue = rng.random()
        main, second = _paint(hue, rng), _paint(hue + rng.uniform(0.2, 0.8), rng)
    accent = _paint(rng.random(), rng)
    skin = _hsv(rng.uniform(0.04, 0.09), rng.uniform(0.25, 0.65), rng.uniform(0.45, 0.98))
    if kind in ("adult", "baby"):
        accent = _hsv(rng.uniform(0.02, 0.12), rng.uniform(0.3, 0.8), rng.uniform(0.1, 0.8))
    elif kind == "bird":
        accent = _hsv(rng.uniform(0.06, 0.14), 0.9, 0.95)
    elif kind == "cat":
        accent = _hsv(rng.uniform(0.15, 0.4), 0.8, 0.95)
    colors[MAIN], colors[SECOND], colors[SKIN], colors[ACCENT] = main, second, skin, accent
    colors[MAIN, 1] = second if rng.random() < 0.5 else 0.55 * main
    for near, far in ((MAIN, MAIN_FAR), (SECOND, SECOND_FAR), (SKIN, SKIN_FAR)):
        colors[far] = 0.7 * colors[near]
    colors[DARK], colors[LIGHT] = 28, (245, 240, 235)
    colors[OUTLINE] = 0.3 * main
    return colors


def _noise(rng: np.random.Generator, side: int, cells: Sequence[float]) -> np.ndarray:
    """(side, side) smooth noise of unit variance: one octave per number of cells along a side."""
    total = np.zeros((side, side), np.float32)
    for count in cells:
        count = max(2, round(count))
        grid = rng.standard_normal((count, count)).astype(np.float32)
        total += cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    return total / math.sqrt(len(cells))


def _plain(rng: np.random.Generator, side: int) -> np.ndarray:
    return np.zeros((side, side), bool)


def _stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    angle, count = rng.uniform(0, math.pi), rng.uniform(5, 9)
    across = np.arange(side) * (2 * math.pi * count / side)
    wave = math.cos(angle) * across[None] + math.sin(angle) * across[:, None]
    return np.sin(wave + 0.8 * _noise(rng, side, (4,))) > 0.2


def _spots(rng: np.random.Generator, side: int) -> np.ndarray:
    return _noise(rng, side, (rng.uniform(8, 13),)) > 0.7


def _patches(rng: np.random.Generator, side: int) -> np.ndarray:
    return _noise(rng, side, (rng.uniform(4, 6),)) > 0.35


def _random_pattern(rng: np.random.Generator):
    return (_plain, _stripes, _spots, _patches)[rng.integers(4)]
