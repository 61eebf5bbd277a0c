"""Rows of the benchmark's table."""

import pytest

from a2d_d2.benchmark.rows import make_row, row_lines


@pytest.mark.parametrize(
    "unit, values, goal, expected",
    [
        ("ms", (6.0, 4.0), {"most_ratio": 1.5}, (1.5, "at most 1.5 times", True)),
        ("ms", (6.0, 4.0), {"most_ratio": 1.49}, (1.5, "at most 1.49 times", False)),
        ("ms", (6.0, 4.0), {"most_ratio": 1.5, "ratio": 1.6}, (1.6, "at most 1.5 times", False)),
        ("s", (2.0, 0.5), {"at_most": 3.0}, (4.0, "at most 3 s", True)),
        ("s", (3.1, 0.5), {"at_most": 3.0}, (6.2, "at most 3 s", False)),
        ("s", (2.25, 2.0), {"most_more": 0.25}, (1.125, "at most 0.25 s more", True)),
        ("s", (2.5, 2.0), {"most_more": 0.25}, (1.25, "at most 0.25 s more", False)),
        ("frames/s", (500.0, 2000.0), {"at_least": 400}, (4.0, "at least 400 frames/s", True)),
        ("frames/s", (399.0, 399.0), {"at_least": 400}, (1.0, "at least 400 frames/s", False)),
        ("s", (1.0, 2.0), {}, (0.5, None, None)),
    ],
)
def test_rows_by_hand(unit, values, goal, expected):
    row = make_row("a", values[0], unit, limit=values[1], limit_name="b", **goal)
    assert (row["ratio"], row["goal"], row["met"]) == (pytest.approx(expected[0]), *expected[1:])
    assert (row["name"], row["limit_name"], row["measured"], row["limit"]) == ("a", "b", *values)


def test_the_table():
    rows = [
        make_row("clip", 6.04, "ms", limit=4.0, limit_name="OpenCV", most_ratio=1.5),
        make_row("index", 1.0, "s", limit=0.5, limit_name="bytes", at_most=3),
        make_row("other", 1.0, "s", limit=2.0, limit_name="bytes"),
    ]
    header, rule, *lines = row_lines(rows)
    assert set(rule) == set("|-")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (header, *lines)]
    assert cells == [
        ["", "measured", "limit", "ratio", "goal", ""],
        ["clip", "6.04 ms", "4 ms: OpenCV", "1.51", "at most 1.5 times", "missed"],
        ["index", "1 s", "0.5 s: bytes", "2.00", "at most 3 s", "met"],
        ["other", "1 s", "2 s: bytes", "0.50", "", ""],
    ]
