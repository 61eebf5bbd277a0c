#!/usr/bin/env python3
"""Changes the metric and loss modules one operator or number at a time, and runs their tests.

    python tools/mutate.py --json results/reliability/mutants.json

A change that no test notices survives; tools/mutants_explained.json says of those that change no
result why (on Python 3.11 or newer, which write statements alike). The exit code is 1 while another
one survives. Stopped runs go on where they were.
"""

import argparse
from pathlib import Path

from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_json
from a2d_d2.utils.repository import REPOSITORY


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--modules", nargs="+", default=(), metavar="PATH", help="(all planned)")
    parser.add_argument("--limit", type=int, help="at most so many mutants of each module")
    parser.add_argument("--workers", type=int, help="processes (every core)")
    parser.add_argument("--record", help="outcome of each mutant, for a later call (OUT.record)")
    args = parser.parse_args()

    from a2d_d2.benchmark.common import check_counts, machine
    from a2d_d2.mutation.campaign import read_explanations, run_campaign, summarize
    from a2d_d2.mutation.plan import LIBRARIES, PACKAGE, planned

    if args.limit is not None:
        check_counts(limit=args.limit)
    modules = planned(args.modules)
    reasons = read_explanations(REPOSITORY / "tools" / "mutants_explained.json")
    outcomes = run_campaign(
        REPOSITORY,
        modules,
        Path(args.record or f"{args.json}.record"),
        package=PACKAGE,
        libraries=LIBRARIES,
        limit=args.limit,
        workers=args.workers,
    )
    result = summarize(REPOSITORY, modules, outcomes, reasons)
    if args.modules:  # the others' explanations are not looked for
        result["stale_explanations"] = []
    write_json(args.json, result | {"machine": machine()})
    for path, one in result["modules"].items():
        print(
            f"{path:<38} {one['tried']:>4} tried {one['killed']:>4} killed {one['timed_out']:>3} "
            f"timed out {one['survived']:>3} survived, {one['unexplained']} unexplained"
        )
        for survivor in one["survivors"]:
            if survivor["reason"] is None:
                print(f"  {survivor['id']} line {survivor['line']}, {survivor['function']}")
                print("    " + survivor["diff"].replace("\n", "\n    "))
    for key in result["stale_explanations"]:
        print(f"tools/mutants_explained.json explains {key}, which there is no more")
    return int(bool(result["unexplained"] or result["stale_explanations"]))


if __name__ == "__main__":
    run_tool(main)
