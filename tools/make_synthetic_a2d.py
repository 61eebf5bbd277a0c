#!/usr/bin/env python3
"""Writes a synthetic A2D release in the official layout, or pictures of what it holds."""

import argparse

from a2d_d2.data.synthetic import make_release
from a2d_d2.data.synthetic.pictures import write_pictures
from a2d_d2.utils.cli import check_not_negative, run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", metavar="ROOT", help="folder that gets videoset.csv")
    target.add_argument(
        "--contact-sheet",
        metavar="DIR",
        help="write the pictures of docs/synthetic.md there instead",
    )
    parser.add_argument("--train", type=int, default=3000, metavar="N", help="training videos")
    parser.add_argument("--test", type=int, default=200, metavar="N", help="test videos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, default=128, help="of the frames, in pixels")
    parser.add_argument("--width", type=int, default=160, help="of the frames, in pixels")
    parser.add_argument("--frames", type=int, default=24, help="of each video")
    parser.add_argument("--difficulty", type=float, default=1.0, help="0 easy, 1 default, 2 hard")
    parser.add_argument("--workers", type=int, help="processes; default: every core")
    args = parser.parse_args()
    if args.contact_sheet:
        print(*write_pictures(args.contact_sheet), sep="\n")
        return
    check_not_negative(train=args.train, test=args.test, seed=args.seed)
    if args.train + args.test == 0:
        raise ValueError("--train and --test are both 0: there is no release without videos")
    make_release(
        args.output,
        args.train,
        args.test,
        seed=args.seed,
        height=args.height,
        width=args.width,
        num_frames=args.frames,
        difficulty=args.difficulty,
        workers=args.workers,
    )
    print(f"{args.train} training and {args.test} test videos in {args.output}")


if __name__ == "__main__":
    run_tool(main)
