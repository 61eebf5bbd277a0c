#!/usr/bin/env python3
"""Checks every clip and annotation of a release in the layout of A2D."""

import argparse

from a2d_d2.data.check import check_release
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_json


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 sound, 1 problems found, 2 nothing could be checked.",
    )
    parser.add_argument("--root", required=True, help="folder that holds videoset.csv")
    parser.add_argument("--label-space", default="", help="YAML file; A2D's classes by default")
    parser.add_argument("--json", metavar="OUT", help="write counts and problems to this file")
    parser.add_argument("--workers", type=int, help="number of processes; every core by default")
    args = parser.parse_args()
    report = check_release(args.root, LabelSpace.load(args.label_space), args.workers)

    for name in ("videos", "annotated_frames", "instances"):
        counts = report[name]
        print(
            f"{name.replace('_', ' '):17}train {counts['train']:6}   test {counts['test']:6}   "
            f"together {sum(counts.values()):6}"
        )
    problems = report["problems"]
    for problem in problems:
        video_id = problem["video_id"] or "videoset.csv"
        frame = "" if problem["frame"] is None else f"/{problem['frame']:05d}"
        print(f"{video_id}{frame} {problem['kind']}: {problem['message']}")
    count = len(problems)
    print(f"{count} problem{'s' if count > 1 else ''}" if problems else "sound")
    if args.json:
        write_json(args.json, report)
    return 1 if problems else 0


if __name__ == "__main__":
    run_tool(main)
