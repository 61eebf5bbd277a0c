#!/usr/bin/env python3
"""Write the figures of results/ into README.md and docs/."""

import argparse
from pathlib import Path

from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_text
from a2d_d2.utils.readme import (
    DOCUMENTS,
    take_over_coverage,
    take_over_demo,
    update_document,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, help="take over the scores of this demo folder first")
    parser.add_argument(
        "--coverage", type=Path, help="take over this report of `make coverage` too"
    )
    args = parser.parse_args()
    root = Path(__file__).parents[1]
    if args.coverage:
        take_over_coverage(args.coverage, root)
    if args.demo:
        take_over_demo(args.demo, root)
    texts = {document: update_document(root, document) for document in DOCUMENTS}
    for document, text in texts.items():
        write_text(root / document, text)


if __name__ == "__main__":
    run_tool(main)
