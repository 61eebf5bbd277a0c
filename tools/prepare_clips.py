#!/usr/bin/env python3
"""Decodes the clips of a release and computes their optical flow once, for fast training.

Stores the windows around the annotated frames. A run that was stopped goes on where it was, and a
complete cache is checked. Train with INPUT.CLIP.CACHE set to the cache folder.
"""

import argparse
import sys

from a2d_d2.config import setup_cfg
from a2d_d2.data.clip_cache import prepare_clips
from a2d_d2.data.flow import FLOW_METHODS
from a2d_d2.utils.cli import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder that holds videoset.csv")
    parser.add_argument("--cache", required=True, help="folder to write to")
    parser.add_argument("--workers", type=int, help="processes; default: every core")
    parser.add_argument(
        "--config-file", metavar="C", help="of the training: gives what the next three leave out"
    )
    parser.add_argument("--method", choices=FLOW_METHODS, help="INPUT.FLOW_METHOD (dis)")
    parser.add_argument("--length", type=int, help="INPUT.CLIP.LENGTH (5)")
    parser.add_argument("--stride", type=int, help="INPUT.CLIP.STRIDE (1)")
    parser.add_argument("--split", choices=("train", "test"), help="default: both")
    parser.add_argument(
        "--lossless", action="store_true", help="frames as PNG: exact, three times the size of JPEG"
    )
    args = parser.parse_args()
    of_config = setup_cfg(args.config_file).INPUT
    done = prepare_clips(
        args.root,
        args.cache,
        splits=(args.split,) if args.split else ("train", "test"),
        flow_method=of_config.FLOW_METHOD if args.method is None else args.method,
        length=of_config.CLIP.LENGTH if args.length is None else args.length,
        stride=of_config.CLIP.STRIDE if args.stride is None else args.stride,
        lossless=args.lossless,
        workers=args.workers,
    )
    for video_id, message in done.problems:
        print(f"{video_id}: {message}", file=sys.stderr)
    print(
        f"{args.cache}: {done.num_videos} videos, {done.num_complete} of them stored before, "
        f"{len(done.problems)} with problems"
    )
    return 1 if done.problems else 0


if __name__ == "__main__":
    run_tool(main)
