"""The line of a benchmark's table: what was measured, the limit it is set against, and the goal."""

import math
from collections.abc import Iterable, Mapping

from tabulate import tabulate

_HEADERS = ("", "measured", "limit", "ratio", "goal", "")


def make_row(
    name: str,
    measured: float,
    unit: str,
    *,
    limit: float,
    limit_name: str,
    ratio: float | None = None,
    most_ratio: float | None = None,
    at_most: float | None = None,
    most_more: float | None = None,
    at_least: float | None = None,
) -> dict:
    """A row of the table, ready for JSON.

    Args:
        name: of the stage.
        measured, limit: in ``unit``.
        unit: of time ("ms", "s"), where less is better, or "frames/s", where more is.
        limit_name: what the limit is.
        ratio: how many times as much as the limit the stage takes. By default that of the two
            figures; give the median of the ratios within the repeats where there is one.
        most_ratio, at_most, most_more, at_least: the goal, one of them: the largest ratio, the
            largest figure, the largest difference to the limit, or the smallest figure. None of
            them: the row has no goal.

    Returns:
        "name", "measured", "unit", "limit", "limit_name", "ratio", "goal" (in words; None for
        none) and "met" (None without a goal).
    """
    goals = [
        (most_ratio, "at most {:g} times", lambda: ratio <= most_ratio),
        (at_most, f"at most {{:g}} {unit}", lambda: measured <= at_most),
        (most_more, f"at most {{:g}} {unit} more", lambda: measured - limit <= most_more),
        (at_least, f"at least {{:g}} {unit}", lambda: measured >= at_least),
    ]
    goals = [goal for goal in goals if goal[0] is not None]
    assert len(goals) <= 1, name
    if ratio is None:
        ratio = limit / measured if unit.endswith("/s") else measured / limit
    assert math.isfinite(ratio), name
    row = {
        "name": name,
        "measured": measured,
        "unit": unit,
        "limit": limit,
        "limit_name": limit_name,
        "ratio": ratio,
        "goal": None,
        "met": None,
    }
    for value, words, is_met in goals:
        row |= {"goal": words.format(value), "met": bool(is_met())}
    return row


def row_lines(rows: Iterable[Mapping]) -> list[str]:
    """Rows of :func:`make_row` as a table in Markdown."""
    cells = [
        (
            row["name"],
            f"{row['measured']:.4g} {row['unit']}",
            f"{row['limit']:.4g} {row['unit']}: {row['limit_name']}",
            f"{row['ratio']:.2f}",
            row["goal"] or "",
            {True: "met", False: "missed", None: ""}[row["met"]],
        )
        for row in rows
    ]
    return tabulate(cells, _HEADERS, tablefmt="github", disable_numparse=True).splitlines()
