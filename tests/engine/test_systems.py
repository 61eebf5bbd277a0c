"""Every system of the paper's tables, small, through training and evaluation."""

import json
from pathlib import Path

import pytest
import torch

from a2d_d2.config import setup_cfg, system_options
from a2d_d2.engine.stages import train_stages
from a2d_d2.engine.trainer import ActorActionTrainer
from a2d_d2.evaluation.predictions import read_predictions
from a2d_d2.label_space import LabelSpace

CONFIGS = Path(__file__).parents[2] / "configs"
SYNTHETIC = str(CONFIGS / "synthetic" / "R18_FPN.yaml")
RPN_AND_BOXES = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
FULL = RPN_AND_BOXES | {"loss_mask", "loss_action"}
LOSSES = {
    "ablations/no_flow": FULL,
    "ablations/no_mask_grabcut": RPN_AND_BOXES | {"loss_action"},
    "ablations/no_temporal": FULL,
    "ablations/separate_training": set(),  # in the last stage one, which is the total
    "baselines/mask_rcnn": RPN_AND_BOXES | {"loss_mask"},
    "baselines/tsct": RPN_AND_BOXES,
    "baselines/tshr": RPN_AND_BOXES | {"loss_action"},
    "baselines/tsmt": RPN_AND_BOXES | {"loss_action"},
} | {f"zero_shot/{actor}": FULL for actor in LabelSpace.a2d().actors}


def system_files():
    folders = ("ablations", "baselines", "zero_shot")
    return [f"{x}/{path.stem}" for x in folders for path in sorted((CONFIGS / x).glob("*.yaml"))]


def test_no_system_is_left_out():
    assert set(LOSSES) == set(system_files())


@pytest.mark.parametrize("name", LOSSES)
def test_a_system_trains_and_is_evaluated(name, tiny_options, tmp_path):
    cfg = setup_cfg(
        SYNTHETIC,
        [
            *system_options(CONFIGS / f"{name}.yaml"),
            *tiny_options,
            *("SOLVER.MAX_ITER", "1", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
        ],
    )
    train_stages(cfg, resume=False)
    output = tmp_path / "output"
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    (line,) = [line for line in lines if "total_loss" in line]
    losses = {key: line[key] for key in line if key.startswith("loss_")}
    assert set(losses) == LOSSES[name]
    assert torch.tensor([*losses.values(), line["total_loss"]]).isfinite().all()

    scores = json.loads((output / "inference" / "metrics.json").read_text())
    assert set(scores["detection"]) == {"actor", "action", "joint"}
    assert len(list((output / "inference" / "frames").glob("*.png"))) == 1
    frames = read_predictions(output / "inference" / "predictions.json", LabelSpace.a2d())
    assert frames
    has_masks = cfg.MODEL.MASK_ON or bool(cfg.MODEL.SEGMENTER.NAME)
    has_pairs = cfg.MODEL.CLASSES == "pairs"
    # The scores of label maps tell nothing of a detector without masks.
    assert cfg.TEST.BEST_METRIC.split("/")[0] == ("segmentation" if has_masks else "detection")
    masks = [mask for frame in frames.values() for mask in frame.segmentations]
    assert any(mask is not None for mask in masks) == has_masks  # empty ones are None as well
    for frame in frames.values():
        assert (frame.action_scores[~LabelSpace.a2d().valid[frame.actors]] == 0).all()
        assert ((frame.action_scores > 0).sum(axis=1) == 1).all() == has_pairs


def test_a_detector_of_actors_finds_all_valid_actions_equally_likely(tiny_options, tmp_path):
    options = [*system_options(CONFIGS / "baselines" / "mask_rcnn.yaml"), *tiny_options]
    options += ["MODEL.CLASSES", "actors", "SOLVER.MAX_ITER", "1"]
    cfg = setup_cfg(SYNTHETIC, [*options, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"])
    train_stages(cfg, resume=False)
    path = tmp_path / "output" / "inference" / "predictions.json"
    valid = LabelSpace.a2d().valid
    for frame in read_predictions(path, LabelSpace.a2d()).values():
        expected = valid[frame.actors] / valid[frame.actors].sum(axis=1, keepdims=True)
        assert frame.action_scores == pytest.approx(expected)
    # The least of them, 1 of 8, must not fail the threshold of the label maps.
    (evaluator, _) = ActorActionTrainer.build_evaluator(cfg, "a2d_test")._evaluators
    assert evaluator.thresholds["action_threshold"] == 0
