#!/usr/bin/env python3
"""Do a training step again whose loss or gradient was not finite, and say where that began.

    python tools/replay_batch.py OUTPUT_DIR/non_finite/step_0000123.pth

The exit code is 1 when the step is not finite here either, 0 when it is.
"""

import argparse
from pathlib import Path

from a2d_d2.engine.non_finite import describe, replay
from a2d_d2.utils.cli import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("batch", type=Path, help="a file that the training wrote")
    parser.add_argument("--config-file", default="", help="instead of the training's own")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    facts, processes = replay(args.batch, args.config_file, args.opts)
    print(f"step {facts['step']}: the {facts['what']} was not finite")
    for rank, replayed in enumerate(processes):
        print("\n".join(describe(replayed, rank)))
    return int(any(not replayed.is_finite for replayed in processes))


if __name__ == "__main__":
    run_tool(main)
