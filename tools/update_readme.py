#!/usr/bin/env python3
"""Write the figures of results/ into README.md."""

import argparse
from pathlib import Path

from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_text
from a2d_d2.utils.readme import update_readme


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    root = Path(__file__).parents[1]
    write_text(root / "README.md", update_readme(root))


if __name__ == "__main__":
    run_tool(main)
