"""What ``import a2d_d2`` adds to importing torch and Detectron2."""

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

from a2d_d2.benchmark.common import (
    check_counts,
    interleave,
    machine,
    machine_line,
    ratio,
    seconds_of,
)
from a2d_d2.benchmark.rows import make_row, row_lines

MOST_MORE = 0.3  # seconds
# Name to the statements without and with the package, and whether the goal is meant.
IMPORTS = {
    "import a2d_d2": ("import torch, detectron2", "import torch, detectron2, a2d_d2", True),
    "Python API, a2d_d2.predictor": (
        "import torch, detectron2.engine",
        "import torch, detectron2.engine, a2d_d2.predictor",
        False,
    ),
}


def measure_import(
    *,
    repeats: int,
    imports: Mapping[str, tuple[str, str, bool]] = IMPORTS,
    progress: bool = True,
) -> dict:
    """Measures new interpreters that import and end, in turns.

    Args:
        repeats: figures are medians.
        imports: what to compare.
        progress: shows a progress bar.

    Raises:
        ValueError: a number is out of range.
        OSError: an interpreter fails.
    """
    check_counts(repeats=repeats)
    ways = {
        (name, place): lambda code=code: seconds_of(lambda: _run(code))
        for name, statements in imports.items()
        for place, code in zip(("without", "with"), statements, strict=False)
    }
    interleave(ways, 1, description="warming up", progress=progress)
    seconds = interleave(ways, repeats, description="measuring", progress=progress)
    return {
        "machine": machine(),
        "repeats": repeats,
        "rows": [
            _row(name, seconds[name, "with"], seconds[name, "without"], *statements)
            for name, statements in imports.items()
        ],
    }


def _row(
    name: str,
    seconds: Sequence[float],
    without: Sequence[float],
    statement: str,
    _: str,
    has_goal: bool,
) -> dict:
    more = statistics.median(x - y for x, y in zip(seconds, without, strict=True))
    limit = statistics.median(without)
    return make_row(
        name,
        limit + more,
        "s",
        limit=limit,
        limit_name=statement,
        ratio=ratio(seconds, without),
        most_more=MOST_MORE if has_goal else None,
    )


def _run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{code!r} fails: {done.stderr.strip().splitlines()[-1:]}")


def import_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_import` for a person to read."""
    return [
        machine_line(result["machine"]),
        f"new interpreters, seconds from start to end; medians of {result['repeats']}",
        *row_lines(result["rows"]),
    ]
