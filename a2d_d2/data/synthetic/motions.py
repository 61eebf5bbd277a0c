"""Nine actions as nine ways to move through one space of poses, so that a still never tells which.

The momentary state of an actor is a point on a torus: one phase in [0, 1) per coordinate of
:data:`COORDINATES`. Where the actor is, how it is turned and what its limbs do is a function of
that point alone (:func:`pose_at`). An action is a constant *velocity* on the torus
(:func:`phase_rates`). The starting point is uniform and drawn without knowing the action. A uniform
point moved at any constant velocity stays uniform, so the state at any frame, and with it every
single image of the actor, has the same distribution for all actions. Only change over time tells
them apart.

Lengths are in pixels, angles in degrees, rates in cycles per frame.
"""

import math
from dataclasses import dataclass

import numpy as np

# x, y: way to and fro between the borders (the actor faces where it goes); crawl: surge and stretch
# of an inchworm; hop: height of a bouncing body; bob: height of a gliding body; tilt: turn in the
# image plane; nod: bow about the hind foot; limbs: swing of arms, legs, wings, wheels and tail.
COORDINATES = ("x", "y", "crawl", "hop", "bob", "tilt", "nod", "limbs")

# Size in pixels, in a frame of 128 x 160, of the actor that the speeds below belong to. Speeds and
# amplitudes grow with the square root of the size, as those of animals do.
REFERENCE_SIZE = 44.0

TILT = 30.0  # largest turn of anything but a ball
NOD = 13.0  # largest bow
STRETCH = 0.14  # relative
HOP, BOB, SURGE = 12.0, 5.0, 3.6  # height of the bounce; amplitudes of the two sine waves

# action: {"x" and "y": pixels a frame, "tilt": degrees a frame, others: cycles a frame}
_MOTIONS = {
    "climbing": {"y": 2.4, "limbs": 0.10},
    "crawling": {"x": 1.2, "crawl": 0.125, "limbs": 0.06},
    "eating": {"nod": 0.15},
    "flying": {"x": 3.0, "bob": 0.125, "limbs": 0.23},
    "jumping": {"hop": 0.125},
    "rolling": {"x": 2.4, "tilt": 15.0},
    "running": {"x": 5.2, "limbs": 0.19},
    "walking": {"x": 2.0, "limbs": 0.10},
    "none": {},
}


@dataclass(frozen=True)
class Body:
    """What of an actor its motion depends on.

    Attributes:
        size: largest extent, in pixels.
        scale: size of the frame relative to 128 x 160.
        x_range, y_range: where its centre may go, in pixels.
        round: turns full circle, as a ball may without being upside down.
    """

    size: float
    scale: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    round: bool

    @property
    def pace(self) -> float:
        """Factor of all lengths and speeds in pixels."""
        return math.sqrt(self.size / (REFERENCE_SIZE * self.scale)) * self.scale


@dataclass(frozen=True)
class Pose:
    """How an actor is drawn in one frame.

    Attributes:
        x, y: centre, in pixels.
        facing: 1 looks right, -1 left.
        angle: turn in the image plane, in degrees, clockwise as seen.
        bow: further turn about the hind foot, in degrees, in the direction it faces.
        stretch: factor of the length; the height shrinks as much.
        limbs: phase of the limbs' swing, 0..1.
    """

    x: float
    y: float
    facing: int
    angle: float
    bow: float
    stretch: float
    limbs: float


def random_phases(rng: np.random.Generator) -> np.ndarray:
    """A uniform point on the torus. Takes no action, on purpose."""
    return rng.random(len(COORDINATES))


def phase_rates(
    action: str, body: Body, phases: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The velocity of an action on the torus, per frame, with a tempo of its own.

    ``phases`` is the starting point: what rolls to the right turns clockwise.
    """
    tempo = rng.uniform(0.88, 1.12)
    rates = np.zeros(len(COORDINATES))
    for name, speed in _MOTIONS[action].items():
        if name in "xy":  # to and fro: twice the range a cycle
            low, high = body.x_range if name == "x" else body.y_range
            speed = speed * body.pace / (2 * (high - low))
        elif name == "tilt":
            speed = speed * _heading(phases[0]) / (360.0 if body.round else 4 * TILT)
        rates[COORDINATES.index(name)] = speed * tempo
    return rates


def pose_at(phases: np.ndarray, body: Body) -> Pose:
    """The pose that belongs to a point on the torus."""
    phase = dict(zip(COORDINATES, (phases % 1.0).tolist(), strict=True))
    facing = _heading(phase["x"])
    surge = facing * SURGE * _sine(phase["crawl"])
    height = HOP * (4 * phase["hop"] * (1 - phase["hop"]) - 2 / 3) + BOB * _sine(phase["bob"])
    tilt = 360 * phase["tilt"] if body.round else TILT * (2 * _to_and_fro(phase["tilt"]) - 1)
    return Pose(
        x=_between(body.x_range, phase["x"]) + surge * body.pace,
        y=_between(body.y_range, phase["y"]) - height * body.pace,
        facing=facing,
        angle=tilt,
        bow=NOD * _sine(phase["nod"]),
        stretch=1 + STRETCH * math.cos(2 * math.pi * phase["crawl"]),
        limbs=phase["limbs"],
    )


def _sine(phase: float) -> float:
    return math.sin(2 * math.pi * phase)


def _to_and_fro(phase: float) -> float:
    """Triangle wave: 0 at phase 0, 1 at one half, and back."""
    return 1 - abs(1 - 2 * phase)


def _heading(phase: float) -> int:
    """1 on the way to, -1 on the way fro."""
    return 1 if phase < 0.5 else -1


def _between(bounds: tuple[float, float], phase: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * _to_and_fro(phase)
