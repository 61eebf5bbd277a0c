#!/usr/bin/env python3
"""Run the systems of the paper's tables and write the tables, pictures and page. Example:

    python tools/run_experiments.py --suite table3 --root datasets/A2D/Release --output output/paper

Every run is two calls of train_net.py. A call that was stopped goes on where it was. "all" are the
paper's tables; equal_time trains the other systems for the full model's time.
"""

import argparse
import sys
from pathlib import Path

from a2d_d2.experiments.outputs import write_outputs
from a2d_d2.experiments.plan import BASE, Experiment, plan_lines
from a2d_d2.experiments.runs import run_all
from a2d_d2.experiments.systems import EQUAL_TIME, SUITES
from a2d_d2.utils.cli import run_tool, split_options
from a2d_d2.utils.repository import repository_path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--suite", choices=(*SUITES, EQUAL_TIME, "all"), default="all", help="what to run"
    )
    parser.add_argument("--systems", nargs="+", default=[], help="of the suite, only these")
    parser.add_argument("--root", type=Path, help="folder that holds videoset.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of everything")
    parser.add_argument("--base", default=repository_path(BASE), help=f"the full model ({BASE})")
    parser.add_argument("--seeds", nargs="+", default=["0"], help="a run for each (0)")
    parser.add_argument(
        "--hold-out",
        type=int,
        default=20,
        metavar="K",
        help="every K-th training video is for validation; 0: none (%(default)s)",
    )
    parser.add_argument(
        "--launcher",
        default="",
        help='words before train_net.py, as "torchrun --nproc-per-node=8" or "srun -n1 {python}"; '
        "{python} is this Python, which comes last without it unless a torchrun, accelerate, "
        "deepspeed or python is there",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, write nothing")
    parser.add_argument(
        "--tables-only", action="store_true", help="run nothing; make tables from the records"
    )
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="for every run"
    )
    args = parser.parse_args()
    systems, after_systems = split_options("--systems", args.systems)
    seeds, after_seeds = split_options("--seeds", args.seeds)
    if args.tables_only:
        print(f"Written to {write_outputs(args.output, args.root)}")
        return 0
    if args.root is None:
        raise ValueError("--root is missing: the folder that holds videoset.csv")
    experiment = Experiment(
        root=args.root,
        output=args.output,
        base=args.base,
        seeds=tuple(map(_seed, seeds)),
        hold_out=args.hold_out,
        options=(*after_systems, *after_seeds, *args.options),
        launcher=args.launcher,
    )
    runs = experiment.plan(args.suite, systems)
    if args.dry_run:
        print("\n".join(plan_lines(experiment, runs)))
        return 0
    failures = run_all(experiment, runs)
    if any((args.output / "records").glob("*.json")):
        print(f"Written to {write_outputs(args.output, args.root)}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"--seeds must be whole numbers, not {text!r}") from error


if __name__ == "__main__":
    run_tool(main)
