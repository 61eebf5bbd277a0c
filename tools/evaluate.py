#!/usr/bin/env python3
"""Score predictions, label maps or both against the annotations of a release.

By A2D's official protocol, or another one; figures of different protocols are not comparable.

Reads only videoset.csv and Annotations/mat of the release. Example:

    python tools/evaluate.py --root datasets/A2D/Release --split test \\
        --predictions output/full/inference/predictions.json --output scores.json
"""

import argparse
from pathlib import Path

from a2d_d2.evaluation.protocols import PROTOCOLS
from a2d_d2.evaluation.rasterize import ACTION_THRESHOLD, ACTOR_THRESHOLD
from a2d_d2.evaluation.score_files import evaluate_files
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder that holds videoset.csv")
    parser.add_argument("--split", required=True, choices=["train", "test"])
    parser.add_argument("--predictions", metavar="P.json", help="list of predicted instances")
    parser.add_argument(
        "--label-maps", metavar="DIR", help="folder of <video>/<%%05d>.png, one channel, joint ids"
    )
    parser.add_argument("--output", required=True, metavar="M.json", help="scores in percent")
    parser.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default="official",
        help="A2D's own (%(default)s, the default), MED-VT's per-frame IoU, COCO's box and mask AP",
    )
    parser.add_argument("--label-space", metavar="YAML", help="classes; by default those of A2D")
    parser.add_argument(
        "--actor-threshold",
        type=float,
        default=ACTOR_THRESHOLD,
        help="least actor score of an instance painted into a label map (default %(default)s)",
    )
    parser.add_argument(
        "--action-threshold",
        type=float,
        default=ACTION_THRESHOLD,
        help="least score of its best action (default %(default)s)",
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    args = parser.parse_args()
    for path in (args.predictions, args.label_space):
        if path and Path(path).resolve() == Path(args.output).resolve():
            raise ValueError(f"--output {args.output} would replace what is read")
    for folder in (args.root, args.label_maps):
        if folder and Path(args.output).resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError(f"--output {args.output} lies in {folder}, among the data to score")
    Path(args.output).unlink(missing_ok=True)  # no old scores are left if this run fails
    scores = evaluate_files(
        args.root,
        args.split,
        LabelSpace.load(args.label_space),
        predictions=args.predictions,
        label_maps=args.label_maps,
        actor_threshold=args.actor_threshold,
        action_threshold=args.action_threshold,
        protocol=args.protocol,
        workers=args.workers,
        progress=not args.no_progress,
    )
    write_json(args.output, scores)
    print(f"{PROTOCOLS[args.protocol].tables(scores)}\n\nWritten to {args.output}")


if __name__ == "__main__":
    run_tool(main)
