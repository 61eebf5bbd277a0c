"""A network without a mask head, evaluated with a segmenter (section 4.3)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from a2d_d2.config import setup_cfg
from a2d_d2.engine.trainer import ActorActionTrainer
from a2d_d2.evaluation.predictions import encode_mask
from a2d_d2.evaluation.score_files import evaluate_files
from a2d_d2.label_space import LabelSpace
from a2d_d2.segmenters.files import segment_predictions

ROOT = Path(__file__).parents[2]
CONFIG = "configs/synthetic/R18_FPN.yaml"
TWO_STAGE = ["MODEL.MASK_ON", "False", "MODEL.SEGMENTER.NAME", "GrabCutSegmenter"]


@pytest.fixture
def segment_again(tiny_release, tmp_path):
    """segment_again(file, min_score): the text of a file of predictions after the tool's work."""

    def run(path, min_score):
        entries = json.loads(path.read_text())
        full = encode_mask(np.ones((64, 80), bool))
        boxes, masks = tmp_path / "boxes.json", tmp_path / "masks.json"
        boxes.write_text(json.dumps([entry | {"segmentation": full} for entry in entries]))
        options = {"min_score": min_score, "workers": 0, "progress": False}
        segment_predictions(tiny_release, "test", boxes, masks, LabelSpace.a2d(), **options)
        return masks.read_text()

    return run


def test_live_masks_are_those_of_the_saved_predictions(
    tiny_release, tiny_options, tmp_path, segment_again
):
    options = [*tiny_options, *TWO_STAGE]
    cfg = setup_cfg(CONFIG, options)
    torch.manual_seed(0)
    model = build_model(cfg)
    DetectionCheckpointer(model, str(tmp_path)).save("weights")
    ActorActionTrainer.test(cfg, model)
    live = tmp_path / "output" / "inference"
    path = live / "predictions.json"
    entries = json.loads(path.read_text())
    assert len({entry["segmentation"]["counts"] for entry in entries}) > len(entries) / 2
    assert path.read_text() == segment_again(path, 0.05)
    assert len(list((live / "frames").glob("*.png"))) == 1

    # With half of the detections below the threshold.
    min_score = sorted(entry["score"] for entry in entries)[len(entries) // 2]
    options += ["MODEL.SEGMENTER.MIN_SCORE", str(min_score)]
    found = ActorActionTrainer.test(setup_cfg(CONFIG, options), model)
    assert path.read_text() == segment_again(path, min_score)
    entries = json.loads(path.read_text())
    with_mask = [entry["segmentation"] is not None for entry in entries]
    assert with_mask == [entry["score"] >= min_score for entry in entries]
    assert 0 < sum(with_mask) < len(entries)

    # Scored as it ran and from the file, entries without a mask included.
    metrics = json.loads((live / "metrics.json").read_text())
    assert metrics == evaluate_files(
        tiny_release, "test", LabelSpace.a2d(), predictions=path, progress=False
    )
    assert found["detection"]["actor/mAP"] == metrics["detection"]["actor"]["mAP"]

    # In two processes.
    command = [sys.executable, "train_net.py", "--config-file", CONFIG, "--eval-only"]
    command += ["--num-gpus", "2", *options, "MODEL.WEIGHTS", str(tmp_path / "weights.pth")]
    command += ["OUTPUT_DIR", str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    of_two = tmp_path / "two" / "inference" / "predictions.json"
    assert len(json.loads(of_two.read_text())) == len(entries)
    assert of_two.read_text() == segment_again(of_two, min_score)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["MODEL.SEGMENTER.NAME", "GrabCutSegmenter"], r"MODEL\.MASK_ON .*MODEL\.SEGMENTER\.NAME"),
        ([*TWO_STAGE[:3], "SharpMask"], "no segmenter 'SharpMask'"),
        ([*TWO_STAGE[:3], "no_such_module:thing"], "cannot import no_such_module"),
    ],
)
def test_a_mistake_shows_before_training(tiny_options, options, words):
    cfg = setup_cfg(CONFIG, [*tiny_options, *options])
    with pytest.raises(ValueError, match=words):
        ActorActionTrainer(cfg)
