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
