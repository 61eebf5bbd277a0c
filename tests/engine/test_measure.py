"""The clip on which steps are measured."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from a2d_d2.config import setup_cfg
from a2d_d2.engine.measure import measure, random_clip


def test_the_clip_is_one_that_the_model_takes(tiny_options):
    cfg = setup_cfg("configs/synthetic/R18_FPN.yaml", tiny_options)
    clip = random_clip(cfg, 64, 96)
    assert clip["image"].shape == clip["flow"].shape == (3, 3, 64, 96)
    assert clip["neighbours"].tolist() == [[0, 1, 2]]
    assert clip["key_positions"] == [1]
    model = build_model(cfg).train()
    with EventStorage(0):
        losses = model([clip])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_action"] > 0


def test_a_model_of_single_frames_is_refused():
    options = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"]
    cfg = setup_cfg(opts=[*options, "MODEL.ROI_HEADS.NAME", "CanonicalROIHeads"])
    with pytest.raises(ValueError, match="GeneralizedRCNN: only a model of clips is measured"):
        measure(cfg, 64, 96, repeats=1, stand_ins=False)


def test_steps_of_training_and_inference_are_measured(tiny_options):
    cfg = setup_cfg("configs/synthetic/R18_FPN.yaml", tiny_options)
    result = measure(cfg, 64, 96, repeats=1, stand_ins=False)
    assert result["frames"] == {"height": 64, "width": 96, "computed": 3}
    model = build_model(cfg)
    parameters = sum(p.numel() for p in model.parameters())
    assert result["parameters_millions"] == pytest.approx(parameters / 1e6)
    for stream in ("appearance", "flow"):  # which this config starts at random
        weights = result["start_weights"][stream]
        assert (weights["loaded"], weights["total"]) == (0, len(weights["left"]))
    for name in ("inference", "training", "mask_rcnn_inference"):
        assert 0 < result[f"{name}_seconds"] < 100
    assert 0.05 < result["inference_peak_gib"] <= result["training_peak_gib"] < 64
