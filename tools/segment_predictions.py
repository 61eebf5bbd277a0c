#!/usr/bin/env python3
"""Give saved predictions masks by a class-agnostic segmenter: two-stage refinement. Example:

    python tools/segment_predictions.py --root datasets/A2D/Release --split test \\
        --predictions output/boxes/inference/predictions.json --output segmented.json

Every entry gets a mask from its box, in place of the one it may have, or null below --min-score.
"""

import argparse

from a2d_d2.label_space import LabelSpace
from a2d_d2.segmenters import MIN_SCORE
from a2d_d2.segmenters.files import segment_predictions
from a2d_d2.utils.cli import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder that holds videoset.csv")
    parser.add_argument("--split", required=True, choices=["train", "test"])
    parser.add_argument("--predictions", required=True, metavar="P.json", help="to read")
    parser.add_argument("--output", required=True, metavar="Q.json", help="to write")
    parser.add_argument(
        "--segmenter",
        default="GrabCutSegmenter",
        metavar="NAME",
        help="registered name, or package.module:name (default %(default)s)",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=MIN_SCORE,
        help="entries of a lower actor score get no mask (default %(default)s)",
    )
    parser.add_argument("--cache", help="folder that tools/prepare_clips.py wrote")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--label-space", metavar="YAML", help="classes; by default those of A2D")
    args = parser.parse_args()
    done = segment_predictions(
        args.root,
        args.split,
        args.predictions,
        args.output,
        LabelSpace.load(args.label_space),
        segmenter=args.segmenter,
        min_score=args.min_score,
        cache=args.cache,
        workers=args.workers,
    )
    print(
        f"{args.output}: {done.num_masks} of {done.num_entries} entries of {done.num_videos} videos"
        " have a mask"
    )


if __name__ == "__main__":
    run_tool(main)
