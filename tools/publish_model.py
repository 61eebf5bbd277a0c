#!/usr/bin/env python3
"""Keep the demo's model in the repository: rounded weights, their scores and a model card."""

import argparse
from pathlib import Path

from a2d_d2.engine.publish import publish_demo_model
from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.repository import REPOSITORY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of a full demo")
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "results" / "demo", help="(%(default)s)"
    )
    args = parser.parse_args()
    publish_demo_model(args.demo, args.output)
    print(f"Written to {args.output}")


if __name__ == "__main__":
    run_tool(main)
