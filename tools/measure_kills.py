#!/usr/bin/env python3
"""Kills trainings with SIGKILL at random moments, resumes them, and compares what they end with."""

import argparse
import tempfile
from pathlib import Path

from a2d_d2.benchmark.common import check_counts
from a2d_d2.engine.kills import Trainings, measure_kills
from a2d_d2.utils.cli import check_not_negative, run_tool
from a2d_d2.utils.files import write_json


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kills-per-run", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", help="keep the runs in this folder, new or empty")
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for train_net.py")
    args = parser.parse_args()
    check_counts(kills=args.kills, kills_per_run=args.kills_per_run, steps=args.steps)
    check_not_negative(seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainings = Trainings(Path(args.work or folder).absolute(), args.steps, args.opts)
        result = measure_kills(
            trainings, args.kills, seed=args.seed, kills_per_run=args.kills_per_run
        )
    result |= {"steps": args.steps, "opts": args.opts}
    print(
        f"{result['kills']} kills of {result['runs']} trainings "
        f"({result['while_writing_a_checkpoint']} while a checkpoint was being written, "
        f"{result['before_the_first_checkpoint']} before there was one): "
        f"{result['runs_equal']} trainings ended equal"
    )
    for failure in result["failures"]:
        print(f"  {failure}")
    if args.json:
        write_json(args.json, result)
    return int(bool(result["failures"]))


if __name__ == "__main__":
    run_tool(main)
