"""Reads thousands of damaged files with every reader and prints what became of them.

    python tools/fuzz.py --cases 5000 --json fuzz.json --keep failures

A file is refused with one line, or accepted; a traceback, a hang, a crash of the interpreter, a
message that does not say which file, other content than the file's, or memory out of proportion is
a failure, and makes the exit code 1.
"""

import argparse

from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_json

TARGETS = (
    *("videoset", "annotations", "index", "label_space", "predictions", "label_maps", "flow"),
    *("video", "cache", "config", "checkpoint", "replay", "page"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="per target (%(default)s)")
    parser.add_argument(
        "--targets", nargs="+", choices=TARGETS, default=TARGETS, metavar="NAME", help="(all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the files (%(default)s)")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--keep", help="folder for the files that failed")
    args = parser.parse_args()

    from a2d_d2.benchmark.common import check_counts
    from a2d_d2.fuzz.campaign import as_json, print_figures, run_campaign

    check_counts(cases=args.cases)

    figures = run_campaign(
        args.targets, args.cases, seed=args.seed, keep=args.keep, report=print_figures
    )
    record = as_json(figures, args.cases, args.seed)
    if args.json:
        write_json(args.json, record)
    print(
        "{cases} cases: {rejected} rejected, {accepted} accepted, {failures} failures".format(
            **record["total"]
        )
    )
    return int(record["total"]["failures"] > 0)


if __name__ == "__main__":
    run_tool(main)
