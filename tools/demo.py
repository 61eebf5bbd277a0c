#!/usr/bin/env python3
"""Run the whole project on a small generated release: data, training, scores and a page."""

import argparse
from pathlib import Path

from a2d_d2.engine.demo import FULL, MINIATURE, SEED, run_demo
from a2d_d2.utils.cli import check_not_negative, run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of everything")
    parser.add_argument("--seed", type=int, default=SEED, help="of the release (%(default)s)")
    parser.add_argument(
        "--miniature", action="store_true", help="a few videos and steps: shows that it works"
    )
    args = parser.parse_args()
    check_not_negative(seed=args.seed)
    run_demo(args.output, MINIATURE if args.miniature else FULL, args.seed)


if __name__ == "__main__":
    run_tool(main)
