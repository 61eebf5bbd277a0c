#!/usr/bin/env python3
"""Train or evaluate a model. SIGTERM ends it with a checkpoint and exit code 75. Examples:

    python train_net.py --config-file configs/a2d_R101_FPN.yaml --num-gpus 8 OUTPUT_DIR output/full
    python train_net.py --config-file configs/a2d_R101_FPN.yaml --resume OUTPUT_DIR output/full
    python train_net.py --config-file configs/a2d_R101_FPN.yaml --eval-only \\
        MODEL.WEIGHTS output/full/model_final.pth OUTPUT_DIR output/full
"""

import argparse

import a2d_d2  # noqa: F401 - before Detectron2, whose announcements it keeps quiet

# isort: split
from detectron2.engine import default_argument_parser

from a2d_d2.config import setup_cfg
from a2d_d2.engine.checkpoint import load_last_weights
from a2d_d2.engine.launch import launch_main
from a2d_d2.engine.logs import set_up
from a2d_d2.engine.stages import train_stages
from a2d_d2.engine.trainer import ActorActionTrainer
from a2d_d2.modeling.start_weights import load_trained_weights
from a2d_d2.utils.cli import check_not_negative, run_tool
from a2d_d2.utils.files import make_folder


def main(args: argparse.Namespace) -> None:
    """Trains, or with --eval-only evaluates, in one process of the job."""
    seed = []
    if args.seed is not None:
        check_not_negative(seed=args.seed)  # the key's -1 means none
        seed = ["SEED", str(args.seed)]
    cfg = setup_cfg(args.config_file, [*args.opts, *seed])
    make_folder(cfg.OUTPUT_DIR)
    set_up(cfg, args)
    if args.eval_only:
        model = ActorActionTrainer.build_model(cfg)
        load = load_last_weights if args.resume else load_trained_weights
        load(model, cfg)
        ActorActionTrainer.test(cfg, model)
        return
    train_stages(cfg, resume=args.resume)


def parse_args() -> argparse.Namespace:
    parser = default_argument_parser(__doc__)
    parser.add_argument(
        "--seed", type=int, help="the key SEED: two runs of one seed are equal on the CPU"
    )
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_args()
    run_tool(lambda: launch_main(main, arguments))
