"""The published model: half the size, the same model up to rounding, a card of its facts."""

import hashlib
import json

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from a2d_d2.engine.demo import MINIATURE, settings_digest
from a2d_d2.engine.publish import (
    CARD,
    FACTS,
    WEIGHTS,
    model_card,
    publish_demo_model,
    write_half_weights,
)
from a2d_d2.modeling.start_weights import load_trained_weights
from a2d_d2.utils.repository import REPOSITORY

PUBLISHED = REPOSITORY / "results" / "demo"


def test_rounded_weights_fill_the_model(small_cfg, tmp_path):
    model = build_model(small_cfg())
    DetectionCheckpointer(model, str(tmp_path)).save("model_final")
    count = write_half_weights(tmp_path / "model_final.pth", tmp_path / "half.pth")
    assert count == sum(x.numel() for x in model.state_dict().values())
    sizes = [(tmp_path / name).stat().st_size for name in ("half.pth", "model_final.pth")]
    assert sizes[0] < 0.6 * sizes[1]
    cfg = small_cfg("MODEL.WEIGHTS", str(tmp_path / "half.pth"))
    again = build_model(cfg)
    load_trained_weights(again, cfg)
    for name, value in again.state_dict().items():
        truth = model.state_dict()[name]
        assert value.dtype == truth.dtype, name
        assert torch.allclose(value, truth, rtol=2**-10, atol=1e-7), name


def test_only_a_full_demo_is_published(tmp_path):
    with pytest.raises(ValueError, match=r"summary\.json does not exist"):
        publish_demo_model(tmp_path, tmp_path / "out")
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "demo.json").write_text(json.dumps({"train_videos": MINIATURE.train_videos}))
    with pytest.raises(ValueError, match="another size, seed or configuration"):
        publish_demo_model(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_repository_holds_what_the_card_says():
    facts = json.loads((PUBLISHED / FACTS).read_text())
    data = (PUBLISHED / WEIGHTS).read_bytes()
    assert hashlib.sha256(data).hexdigest() == facts["sha256"]
    assert len(data) <= 20e6
    assert facts["settings_sha256"] == settings_digest(), "run make demo, tools/publish_model.py"
    assert (PUBLISHED / CARD).read_text() == model_card(facts)
