#!/usr/bin/env python3
"""Shows what the mapper really feeds the network, one picture a clip.

The frames of the window with the key frame marked and an empty slot for each neighbour that does
not exist, the flow, and the annotations, all of them after augmentation. Example:

    python tools/visualize_data.py --config-file configs/synthetic/R18_FPN.yaml \\
        DATASETS.ROOT demo/A2D
"""

import argparse
from pathlib import Path

from a2d_d2.config import setup_cfg
from a2d_d2.utils.cli import run_tool
from a2d_d2.visualization.clips import draw_clips


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="", metavar="YAML")
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--output", default="output/data", metavar="DIR", help="(%(default)s)")
    parser.add_argument("--num", type=int, default=12, help="number of clips (%(default)s)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration keys")
    args = parser.parse_args()
    if args.num < 1:
        parser.error("--num must be at least 1")
    cfg = setup_cfg(args.config_file, args.opts)
    paths = draw_clips(cfg, args.split, args.num, Path(args.output))
    print(f"wrote {len(paths)} pictures to {args.output}")


if __name__ == "__main__":
    run_tool(main)
