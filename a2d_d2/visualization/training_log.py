"""The scalars of a training run, from the lines that Detectron2's JSONWriter appends."""

import json
import os
from dataclasses import dataclass

# What reading a line raises that is something else.
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Curve:
    """One scalar over the run: iterations, ascending, and a finite value at each."""

    iterations: list[int]
    values: list[float]


def read_training_log(path: str | os.PathLike) -> dict[str, Curve]:
    """Reads ``OUTPUT_DIR/metrics.json`` of a training run.

    A resumed run starts again at its checkpoint: what it writes replaces what the interrupted run
    had written from that iteration on. A broken last line (a run that was killed while it wrote) is
    left out, and so are values that are not finite numbers.

    Returns:
        Scalar's name to its curve, in order of names.

    Raises:
        ValueError: a line other than the last, or the only one, is not a JSON object with an
            iteration; names it.
    """
    with open(path, encoding="utf-8", errors="replace") as stream:
        lines = [(number, line) for number, line in enumerate(stream, 1) if line.strip()]
    points: dict[str, list[tuple[int, float]]] = {}
    for number, line in lines:
        try:
            scalars = json.loads(line)
            iteration = int(scalars.pop("iteration"))
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            if number == lines[-1][0] and len(lines) > 1:
                break
            raise ValueError(
                f"{path}: line {number} is not a line of Detectron2's metrics.json (one JSON "
                "object with an iteration)"
            ) from error
        for name, value in scalars.items():
            # By scalar: one write of JSONWriter may put an older iteration after a newer one.
            curve = points.setdefault(name, [])
            while curve and curve[-1][0] >= iteration:
                curve.pop()
            if isinstance(value, int | float) and abs(value) < 1e308:
                curve.append((iteration, float(value)))
    return {
        name: Curve([i for i, _ in curve], [v for _, v in curve])
        for name, curve in sorted(points.items())
        if curve
    }
