#!/usr/bin/env python3
"""Export a trained model as two TorchScript programs, which run without this package.

features.pt makes the pyramids of frames, detect.pt aggregates those of a window and detects on its
key frame; export.json says what they take and give. Example:

    python tools/export_model.py --config-file configs/synthetic/R18_FPN.yaml \\
        --weights demo/model/model_final.pth --output output/export --height 128 --width 160
"""

import argparse

from a2d_d2.config import setup_cfg
from a2d_d2.deployment.export import export_model
from a2d_d2.utils.cli import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="YAML", help="of the model")
    parser.add_argument("--weights", metavar="W", help="its checkpoint; else MODEL.WEIGHTS")
    parser.add_argument("--output", required=True, help="folder for the programs")
    parser.add_argument("--height", type=int, default=320, help="of the frames (%(default)s)")
    parser.add_argument("--width", type=int, default=568, help="of the frames (%(default)s)")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="of the config; they win"
    )
    args = parser.parse_args()
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    cfg = setup_cfg(args.config_file, [*weights, *args.opts])
    description = export_model(cfg, args.output, height=args.height, width=args.width)
    height, width = description["input_size"]
    print(
        f"Written to {args.output}: {', '.join(description['programs'].values())}, for frames of "
        f"{args.width}x{args.height} pixels, which the network sees at {width}x{height}"
    )


if __name__ == "__main__":
    run_tool(main)
