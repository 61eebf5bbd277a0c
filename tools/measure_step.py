#!/usr/bin/env python3
"""Measure one training and one inference step of a model: seconds, memory, start weights loaded."""

import argparse

import torch

from a2d_d2.config import setup_cfg
from a2d_d2.engine.measure import measure
from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default="configs/a2d_R101_FPN.yaml")
    parser.add_argument("--height", type=int, default=320, help="of the frames, in pixels")
    parser.add_argument("--width", type=int, default=568, help="of the frames, in pixels")
    parser.add_argument("--repeats", type=int, default=3, help="the median of these is reported")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--stand-in-weights",
        action="store_true",
        help="make files of random values in the model zoo's formats, and load those",
    )
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg = setup_cfg(args.config_file, args.opts)
    result = measure(cfg, args.height, args.width, args.repeats, args.stand_in_weights)
    for stream, weights in result["start_weights"].items():
        print(f"{stream}: {weights['loaded']} of {weights['total']} tensors loaded")
    for name in ("training", "inference"):
        seconds, gib = result[f"{name}_seconds"], result[f"{name}_peak_gib"]
        print(f"{name} step: {seconds:.2f} s, peak memory {gib:.2f} GiB")
    ratio = result["inference_seconds"] / result["mask_rcnn_inference_seconds"]
    print(f"inference takes {ratio:.1f} times as long as Mask R-CNN on one frame")
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    run_tool(main)
