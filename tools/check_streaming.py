#!/usr/bin/env python3
"""Compare streaming with running the model on every clip on its own. Example:

    python tools/check_streaming.py video.mp4 other.mp4 \\
        --config-file configs/synthetic/R18_FPN.yaml --weights model_final.pth KEY VALUE ...

Prints the largest difference of scores, of boxes as a share of the frame's longer side, and of
masks as a share of its pixels; the exit code is 1 when one is above 1e-4.
"""

import argparse
import functools
import itertools
import operator
import shlex
import sys
from dataclasses import asdict

from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from a2d_d2.benchmark.common import machine
from a2d_d2.config import setup_cfg
from a2d_d2.data.video import grab_past_damage, iter_frames
from a2d_d2.inference.check import ClipWise, Difference, check_video
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import check_writable, write_json

TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage="%(prog)s VIDEO [VIDEO ...] --config-file C [options] [KEY VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--config-file", required=True, metavar="C")
    parser.add_argument("--weights", metavar="W", help="its checkpoint; else MODEL.WEIGHTS")
    parser.add_argument("--json", metavar="OUT", help="write the differences there, too")
    parser.add_argument("--max-frames", type=int, metavar="N", help="of each video (default: all)")
    parser.add_argument("--batch-size", type=int, default=4, help="frames (default %(default)s)")
    parser.add_argument(
        "--every", type=int, default=1, help="detect on every k-th frame (default %(default)s)"
    )
    args, opts = parser.parse_known_args()
    if unknown := [opt for opt in opts if opt.startswith("--")]:
        parser.error(f"unknown option {unknown[0]}")
    if args.max_frames is not None and args.max_frames < 1:
        raise ValueError(f"--max-frames is {args.max_frames}; it must be at least 1")
    if args.json:
        check_writable(args.json)
    for video in args.videos:
        next(iter_frames(video))  # says what is wrong before the model is built
    setup_logger(name="a2d_d2")
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    cfg = setup_cfg(args.config_file, [*weights, *opts])
    predictor = StreamingPredictor.from_config(cfg, batch_size=args.batch_size, every=args.every)
    clip_wise = ClipWise(cfg, predictor)
    overall, videos = Difference(), {}
    for video in args.videos:
        frames = check_video(video, predictor, clip_wise, args.max_frames)
        with tqdm(frames, desc=video, unit="frame", leave=False) as bar:
            of_video = functools.reduce(operator.or_, bar, Difference())
        pasts = itertools.islice(grab_past_damage(video), args.max_frames)
        note = "; nothing after its first damage was compared" if any(n for _, n in pasts) else ""
        print(f"{video}: {of_video}{note}", flush=True)
        overall |= of_video
        videos[video] = asdict(of_video)
    print(f"overall: {overall}")
    if overall.instances == 0:
        raise ValueError("nothing was detected, so nothing was compared; give other videos")
    if args.json:
        figures = {"tolerance": TOLERANCE, "videos": videos, "overall": asdict(overall)}
        given = {"command": shlex.join(["python", "tools/check_streaming.py", *sys.argv[1:]])}
        given |= {"config_file": args.config_file, "weights": cfg.MODEL.WEIGHTS, "options": opts}
        write_json(args.json, {**given, "machine": machine(), **figures})
    return int(overall.largest > TOLERANCE)


if __name__ == "__main__":
    run_tool(main)
