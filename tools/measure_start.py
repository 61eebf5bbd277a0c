#!/usr/bin/env python3
"""Measures the first and the second start on a fabricated release of A2D's size."""

import argparse

from a2d_d2.data.measure import measure_start
from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file")
    args = parser.parse_args()
    result = measure_start()
    print(
        f"{result['annotated_frames']} annotated frames of {result['videos']} videos: first start "
        f"{result['first_start_seconds']} s on {result['cores']} cores, second start "
        f"{result['second_start_seconds']} s, index {result['index_mib']} MiB"
    )
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    run_tool(main)
