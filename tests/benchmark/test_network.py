"""The cost of a training step and of inference beside their parts."""

import json
import time

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from a2d_d2.benchmark import infer, train
from a2d_d2.benchmark.infer import infer_lines, inference_ways, predict_together
from a2d_d2.benchmark.train import TrainingParts, train_lines, waiting_seconds
from a2d_d2.engine.measure import random_clip
from a2d_d2.engine.trainer import MixedPrecisionTrainer

TRAINING = {
    "appearance_backbone": [10.0, 20.0, 10.0],
    "flow_backbone": [10.0, 20.0, 12.0],
    "temporal_and_fusion": [4.0, 8.0, 5.0],
    "heads": [6.0, 12.0, 3.0],  # the sums: 30, 60, 30
    "preprocess": [1.0, 1.0, 1.0],
    "update": [2.0, 3.0, 2.0],
    "step": [33.0, 90.0, 33.0],
}
BATCH = {"frames": 12, "annotated": 4, "loader_processes": 2}


def test_figures_of_training_by_hand():
    waits = {"step": [10.0, 30.0], "waiting": [1.0, 3.0]}
    figures = train.summarise(TRAINING, waits, BATCH)
    assert figures["seconds"]["needed"] == {"median": 30, "repeats": [30, 60, 30]}
    assert figures["waiting_share"] == pytest.approx(0.1)
    step, strict, waiting = figures["rows"]
    assert (step["measured"], step["limit"]) == (33_000, 30_000)
    assert step["ratio"] == pytest.approx(1.1) and step["met"]
    # Without temporal modules 26, 52 and 25: 33 / 26, 90 / 52 and 33 / 25.
    assert (strict["measured"], strict["limit"]) == (33_000, 26_000)
    assert strict["ratio"] == pytest.approx(33 / 25) and not strict["met"]
    assert (waiting["measured"], waiting["limit"]) == (2000, 20_000)
    assert waiting["ratio"] == pytest.approx(0.1) and not waiting["met"]
    without_flow = {name: x for name, x in TRAINING.items() if name != "flow_backbone"}
    figures = train.summarise(without_flow, waits, BATCH)
    assert figures["seconds"]["needed"]["repeats"] == [20, 40, 18]


def test_figures_of_inference_by_hand():
    seconds = {
        "inference": [36.0, 66.0, 36.0],
        "detection": TRAINING["heads"],
        "video": [90.0, 90.0, 90.0],
        "video_together": [60.0, 45.0, 60.0],
        **{name: TRAINING[name] for name in [*infer.NEEDED, "preprocess"] if name in TRAINING},
    }
    frames = {"computed": 3, "video": 9, "video_distinct": 5, "video_annotated": 3}
    frame, strict, video = infer.summarise(seconds, frames)["rows"]
    assert strict["limit"] == 26_000 and strict["ratio"] == pytest.approx(36 / 26)
    assert frame["ratio"] == pytest.approx(1.2) and not frame["met"]
    assert video["ratio"] == 1.5 and video["met"] is None
    assert "5 frames through the backbones instead of 9" in video["limit_name"]


class _Slow(nn.Linear):
    def forward(self, x):
        return {"loss_cls": super().forward(x).sum()}


def test_the_share_of_waiting():
    def batches():
        for _ in range(5):
            time.sleep(0.02)
            yield torch.ones(1, 1)

    model = _Slow(1, 1)
    trainer = MixedPrecisionTrainer(model, batches(), torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.iter = 0
    seconds = waiting_seconds(trainer, 3, progress=False)
    assert len(seconds["step"]) == len(seconds["waiting"]) == 3
    for step, waiting in zip(seconds["step"], seconds["waiting"], strict=True):
        assert 0.02 <= waiting <= step


@pytest.mark.parametrize("options", [(), ("MODEL.FLOW.ENABLED", False)])
def test_the_parts_of_a_step_are_all_of_its_gradients(small_cfg, options):
    cfg = small_cfg(*options, "INPUT.CLIP.LENGTH", 3)
    model = build_model(cfg).train()
    parts = TrainingParts(model, cfg, [random_clip(cfg, 64, 64)])
    weights = {name: x.clone() for name, x in model.named_parameters()}
    ways = parts.ways()
    assert ("flow_backbone" in ways) == (not options)
    learned = {name for name, x in model.named_parameters() if x.requires_grad}
    reached = set()
    for name in train.NEEDED:
        if name in ways:
            assert ways[name]() > 0
            reached |= {name for name, x in model.named_parameters() if x.grad is not None}
    assert reached == learned
    for name in ("preprocess", "update", "step"):
        assert ways[name]() > 0
    # A learning rate of 0: every repeat computes the same.
    assert all(x.equal(weights[name]) for name, x in model.named_parameters())


@pytest.fixture
def video(small_cfg):
    """Three clips of one video, overlapping, the first and the last cut off at its ends."""
    cfg = small_cfg("INPUT.CLIP.LENGTH", 3)
    whole = random_clip(cfg, 64, 64)
    frames = torch.cat([whole["image"], random_clip(cfg, 64, 64, seed=1)["image"]])
    flows = torch.cat([whole["flow"], random_clip(cfg, 64, 64, seed=1)["flow"]])
    clips = []
    for indices, key, neighbours in (
        ([0, 1], 0, [-1, 0, 1]),
        ([1, 2, 3], 1, [0, 1, 2]),
        ([2, 3, 4], 1, [0, 1, 2]),
        ([4, 5], 1, [0, 1, -1]),
    ):
        clip = {"image": frames[indices], "flow": flows[indices], "frame_indices": indices}
        clip |= {"key_positions": [key], "neighbours": torch.tensor([neighbours])}
        clips.append(clip | {"height": 64, "width": 64})
    return clips


@pytest.mark.parametrize("has_flow", [True, False])
def test_a_video_together_gives_what_its_frames_give_one_by_one(small_model, video, has_flow):
    model = small_model("MODEL.FLOW.ENABLED", has_flow).eval()
    if not has_flow:
        video = [{name: x for name, x in clip.items() if name != "flow"} for clip in video]
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with torch.no_grad():
        together = predict_together(model, video)
        alone = [model([clip])[0] for clip in video]
    assert seen == [6, 2, 3, 3, 2]
    for one, other in zip(together, alone, strict=True):
        assert len(one["instances"]) > 0
        for name, value in other["instances"].get_fields().items():
            found = one["instances"].get(name)
            if name == "pred_boxes":
                value, found = value.tensor, found.tensor
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)


def test_the_parts_of_inference_run(small_model, video):
    model = small_model("MODEL.FLOW.ENABLED", False).eval()
    with torch.no_grad():
        ways = inference_ways(model, video[1])
        for way in ways.values():
            way()
    assert "flow_backbone" not in ways


def test_the_commands_measure_and_profile(benchmark, tmp_path):
    common = ("--repeats", "1", "--threads", "1", "--profile", str(tmp_path / "profile"))
    for name, extra, lines in (
        ("train", ("--steps", "1"), train_lines),
        ("infer", (), infer_lines),
    ):
        path = tmp_path / f"{name}.json"
        options = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "SOLVER.IMS_PER_BATCH", "2")
        status, printed, _ = benchmark(
            name, *common, *extra, "--json", str(path), *options, "DATALOADER.NUM_WORKERS", "0"
        )
        assert status == 0
        result = json.loads(path.read_text())
        assert printed.splitlines() == lines(result)
        assert len(result["rows"]) == 3
        assert result["command"].startswith(f"python tools/benchmark.py {name} --config-file ")
    for name in ("train_step", "inference"):
        assert "aten::" in (tmp_path / "profile" / f"{name}.txt").read_text()
        trace = json.loads((tmp_path / "profile" / f"{name}.json").read_text())
        assert len(trace["traceEvents"]) > 100


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("train", "--steps", "0"), "error: --steps is 0; it must be at least 1"),
        (("infer", "--repeats", "0"), "error: --repeats is 0; it must be at least 1"),
        (("train", "MODEL.TRAIN_BRANCH", "actor"), "error: MODEL.META_ARCHITECTURE ActorActionRCN"),
    ],
)
def test_a_wrong_argument_is_one_line(benchmark, arguments, message):
    status, _, (error,) = benchmark(*arguments)
    assert status == 2
    assert error.startswith(message)
