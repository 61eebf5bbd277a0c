#!/usr/bin/env python3
"""Decodes the clips of a release and computes their optical flow once, for fast training.

Stores the windows around the annotated frames. A run that was stopped goes on where it was, and a
complete cache is checked. Train with INPUT.CLIP.CACHE set to the cache folder.

Several machines that share the folders of release and cache each do a part: run the command on all
of them with --num-machines, --machine-rank and --dist-url, or under torchrun. Exit code: 0; 1 when
a video could not be stored whole; 2 for a wrong argument, or when a machine ended early.
"""

import argparse

from a2d_d2.data.flow import FLOW_METHODS
from a2d_d2.utils.cli import run_tool


def main() -> None:
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
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="0 to machines - 1")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0")
    parser.set_defaults(num_gpus=1)  # one process a machine, which starts the workers
    args = parser.parse_args()
    # Not above: each worker runs the imports of this file, and none needs torch and Detectron2.
    from a2d_d2.engine.prepare import prepare_from_arguments

    prepare_from_arguments(args)


if __name__ == "__main__":
    run_tool(main)
