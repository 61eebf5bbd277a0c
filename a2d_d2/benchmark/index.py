"""What opening a release of A2D's size costs beside reading the bytes it needs."""

import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from a2d_d2.benchmark.common import (
    check_counts,
    interleave,
    machine,
    machine_line,
    ratio,
    seconds_of,
)
from a2d_d2.benchmark.rows import make_row, row_lines
from a2d_d2.data.index import index_path
from a2d_d2.data.layout import annotated_frames, annotation_path, read_videoset
from a2d_d2.data.measure import fabricate_release
from a2d_d2.data.release import load_release
from a2d_d2.label_space import LabelSpace

MOST_SECONDS = 3


def measure_index(*, shrink: int, repeats: int, space: LabelSpace, progress: bool = True) -> dict:
    """Measures the first start and later ones on a fabricated release without clips.

    Args:
        shrink: of :func:`a2d_d2.data.measure.fabricate_release`; 1 for A2D's size.
        repeats: of the second start; figures are medians.
        space: the labels of the release.
        progress: shows progress bars.

    Returns:
        "first_start_seconds" is of one run, and reads every annotation.

    Raises:
        ValueError: a number is out of range.
    """
    check_counts(shrink=shrink, repeats=repeats)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fabricate_release(root, space, shrink)

        def start() -> None:
            for split in ("train", "test"):
                load_release(root, split, space, progress=progress)

        paths = [
            annotation_path(root, video.video_id, frame)
            for video in read_videoset(root)
            for frame in annotated_frames(root, video.video_id)
        ]
        read_all = seconds_of(lambda: [path.read_bytes() for path in paths])
        first = seconds_of(start)
        index = index_path(root)

        def read() -> None:
            for path in paths:
                os.stat(path)
            index.read_bytes()

        ways = {
            "start": lambda: seconds_of(start),
            "read": lambda: seconds_of(read),
        }
        interleave(ways, 1, description="warming up", progress=progress)
        seconds = interleave(ways, repeats, description="measuring", progress=progress)
        size = index.stat().st_size
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "machine": machine(),
        "annotated_frames": len(paths),
        "index_mib": size / 2**20,
        "repeats": repeats,
        "rows": [
            make_row(
                "second start, both splits",
                medians["start"],
                "s",
                limit=medians["read"],
                limit_name="states of the files, bytes of the index",
                ratio=ratio(seconds["start"], seconds["read"]),
                at_most=MOST_SECONDS,
            ),
            make_row(
                "first start, all cores",
                first,
                "s",
                limit=read_all,
                limit_name="bytes of the annotations, one process",
            ),
        ],
    }


def index_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_index` for a person to read."""
    return [
        machine_line(result["machine"]),
        f"{result['annotated_frames']} annotation files, index of {result['index_mib']:.1f} MiB; "
        f"medians of {result['repeats']}, the first start once",
        *row_lines(result["rows"]),
    ]
