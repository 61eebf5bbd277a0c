#!/usr/bin/env python3
"""Find who does what where in videos of your own. Example:

    python tools/predict_video.py --config-file configs/a2d_R101_FPN.yaml \\
        --weights output/full/model_final.pth --input clip.mp4 --output output/clips

Of each video: DIR/<stem>.mp4 (or .webm), DIR/<stem>.jsonl (one line a frame),
DIR/<stem>.tracks.json and DIR/<stem>.html. Ctrl-C or SIGTERM leaves all of them usable, up to the
frame in work; that is how a camera ends. Exit code: 0; 1 when something of a video was lost; 2 for
a wrong argument; 130 when it was stopped before the end.
"""

import argparse
import sys

from a2d_d2.inference.predict_video import predict_from_arguments
from a2d_d2.inference.writer import FORMATS
from a2d_d2.utils.cli import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="YAML", help="of the model")
    parser.add_argument("--weights", metavar="W", help="its checkpoint; else MODEL.WEIGHTS")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="VIDEO",
        help='videos, folders of videos or of images, patterns ("clips/*.mp4"), webcam:0',
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--format", choices=FORMATS, help="of the video; else mp4 where it can be written, or webm"
    )
    parser.add_argument("--no-video", dest="video", action="store_false", help="draw nothing")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="in seconds")
    parser.add_argument("--end", type=float, metavar="E", help="in seconds")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="K",
        help="detect on every K-th frame; optical flow carries instances between (%(default)s)",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="X",
        help="least actor score of an instance; else TEST.ACTOR_THRESH",
    )
    parser.add_argument(
        "--smoothing",
        type=int,
        default=5,
        metavar="N",
        help="action scores are averaged over N frames of a track; 1: not (%(default)s)",
    )
    parser.add_argument(
        "--min-track-length",
        type=int,
        default=1,
        metavar="N",
        help="drop tracks of fewer frames (%(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="frames at once (%(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the backbones; float16 needs a GPU (%(default)s)",
    )
    parser.add_argument("--device", metavar="D", help="cpu or cuda; else MODEL.DEVICE")
    parser.add_argument("--resume", action="store_true", help="leave out videos that are done")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="0 to machines - 1")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="of the config")
    problems = predict_from_arguments(parser.parse_args())
    for problem in problems:
        print(f"not whole: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    run_tool(main)
