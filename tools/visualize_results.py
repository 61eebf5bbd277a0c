#!/usr/bin/env python3
"""Turns predictions.json into pictures and one HTML page that a browser opens from disk."""

import argparse

from a2d_d2.data.flow import FLOW_METHODS
from a2d_d2.evaluation.rasterize import ACTION_THRESHOLD, ACTOR_THRESHOLD
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.cli import run_tool
from a2d_d2.visualization.results import make_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder that holds videoset.csv")
    parser.add_argument(
        "--predictions", required=True, help="OUTPUT_DIR/inference/predictions.json"
    )
    parser.add_argument("--metrics", default="", help="OUTPUT_DIR/inference/metrics.json: scores")
    parser.add_argument("--training", default="", help="OUTPUT_DIR/metrics.json: training curves")
    parser.add_argument("--output", required=True, help="folder for index.html and frames/*.png")
    parser.add_argument("--num", type=int, default=24, help="number of frames (%(default)s)")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument(
        "--flow-method", default="dis", choices=tuple(FLOW_METHODS), help="of the flow shown"
    )
    parser.add_argument("--label-space", default="", help="YAML file; A2D's if left out")
    parser.add_argument(
        "--actor-threshold",
        type=float,
        default=ACTOR_THRESHOLD,
        help="least actor score that is drawn (%(default)s)",
    )
    parser.add_argument(
        "--action-threshold",
        type=float,
        default=ACTION_THRESHOLD,
        help="least action score that is drawn (%(default)s)",
    )
    args = parser.parse_args()
    if args.num < 1:
        parser.error("--num must be at least 1")
    page = make_report(
        args.root,
        args.predictions,
        args.output,
        LabelSpace.load(args.label_space),
        split=args.split,
        num_frames=args.num,
        metrics_file=args.metrics,
        training_file=args.training,
        flow_method=args.flow_method,
        actor_threshold=args.actor_threshold,
        action_threshold=args.action_threshold,
    )
    print(f"wrote {page}")


if __name__ == "__main__":
    run_tool(main)
