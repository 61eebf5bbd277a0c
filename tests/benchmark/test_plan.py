"""The operations of a model, and a training on paper."""

import json

import pytest
import torch
from torch import nn

from a2d_d2.benchmark.plan import (
    count_operations,
    plan,
    plan_lines,
    read_inference,
    read_loading,
    read_step,
)
from a2d_d2.benchmark.train import WAITING

GIVEN = {
    "teraflops": 2.0,
    "gigabytes": 1.0,
    "memory_gib": 31.0,
    "clip_seconds": None,
    "load_seconds": 0.1,
    "clip_kib": 1000.0,
}
COUNTED = {
    "model": {"parameters": 2**30, "parameters_trained": 10**9, "states": 1, "kept_bytes": 2**30},
    "operations": {"inference": {"backbone": 1e11, "temporal": 1e11}, "training": 1e12},
    "training": {"clips": 1000, "batch": 16, "evaluations": 2, "loaders": 4},
}


class _Stream(nn.Conv2d):
    """A convolution with a layer of its own, as Detectron2's have their norms."""

    def __init__(self, channels_in, channels_out):
        super().__init__(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm = nn.Identity()


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(_Stream(3, 4), _Stream(4, 5))
        self.backbone[0].requires_grad_(False)
        self.roi_heads = nn.ModuleDict({"box_head": _Stream(5, 2), "mask_head": _Stream(5, 4)})

    def forward(self, clips):
        regions = self.backbone(clips[0]["image"])
        boxes = self.roi_heads["box_head"](regions)
        return boxes.sum() + self.roi_heads["mask_head"](regions[:1]).sum()


def test_operations_by_hand():
    clip = {"image": torch.zeros(2, 3, 8, 10), "instances": []}
    counts = count_operations(_Model(), clip, {"all": 7, "foreground": 3})
    pixels = 2 * 8 * 10 * 9  # two operations, nine taps
    assert counts["inference"] == {
        "backbone": 2 * pixels * (3 * 4 + 4 * 5),  # two frames
        "roi_heads": pixels * (2 * 5 * 2 + 5 * 4),
    }
    streams = 2 * pixels * (3 * 4 + 3 * 4 * 5)  # the first layer is frozen
    assert counts["training"] == streams + 3 * pixels * (7 * 5 * 2 + 3 * 5 * 4)


def test_a_plan_by_hand():
    one = plan(1, COUNTED, GIVEN)
    evaluation = 2 * 2365 * 0.1 / 3600  # a fifth of the operations of training
    held = 4 + 8e9 / 2**30  # GiB: parameters; gradients and momentum
    assert one == {
        "gpus": 1,
        "batch": 16,
        "steps": 63,  # 62.5
        "compute_seconds": 8.0,  # 16 clips of half a second
        "exchange_seconds": 0.0,
        "evaluation_hours": pytest.approx(evaluation),
        "hours": pytest.approx(63 * 8 / 3600 + evaluation),
        "accumulate": 1,  # 27.5 of 27.9 GiB
        "memory_gib": pytest.approx(held + 16),
        "first": "compute",
        "loader_cores": pytest.approx(0.2),
        "cache_mb": pytest.approx(2 * 1.024),
    }
    four = plan(4, COUNTED, GIVEN)
    assert (four["first"], four["accumulate"]) == ("exchange", 1)
    assert four["compute_seconds"] == 2.0
    assert four["exchange_seconds"] == pytest.approx(2 * 3 / 4 * 4)
    assert four["loader_cores"] == pytest.approx(4 * 0.1 / 8)
    many = plan(32, COUNTED, GIVEN | {"clip_seconds": 3.0})
    assert (many["batch"], many["steps"], many["compute_seconds"]) == (32, 32, 3.0)


def test_a_plan_of_little_memory_and_slow_loaders():
    small = plan(1, COUNTED, GIVEN | {"memory_gib": 20.0})
    assert small["accumulate"] == 4  # 4 clips: 15.5 GiB of 18
    assert small["memory_gib"] == pytest.approx(4 + 8e9 / 2**30 + 4)
    assert plan(1, COUNTED, GIVEN | {"memory_gib": 13.0})["accumulate"] is None
    slow = plan(1, COUNTED, GIVEN | {"load_seconds": 4.0, "clip_kib": None})
    assert slow["first"] == "load" and "cache_mb" not in slow
    hours = slow["hours"] - slow["evaluation_hours"]
    assert hours == pytest.approx(63 * 16 * 4.0 / 4 / 3600)  # four processes
    assert slow["loader_cores"] == pytest.approx(4)


def test_the_command_plans(benchmark, tmp_path):
    path = tmp_path / "plan.json"
    measured = tmp_path / "data.json"
    clip = {"frames": 5, "load_ms": 50.0, "kib": 100.0}
    measured.write_text(json.dumps({"clips": {"training clip of 64x80, resized": clip}}))
    options = ("--gpus", "1", "8", "--clip-seconds", "0.5", "--json", str(path))
    options += ("--measured", str(measured), "--clip-kib", "7")
    status, printed, _ = benchmark("plan", *options, "SOLVER.IMS_PER_BATCH", "8")
    assert status == 0
    result = json.loads(path.read_text())
    assert printed.splitlines() == plan_lines(result)
    assert [one["compute_seconds"] for one in result["plans"]] == [4.0, 0.5]
    counts = result["operations"]["inference"]
    assert counts["backbone"] == counts["flow_backbone"] > counts["temporal"] > 0
    # Three of five frames; what is given stays.
    assert result["given"]["load_seconds"] == pytest.approx(0.03)
    assert result["given"]["clip_kib"] == 7
    assert result["model"]["kept_bytes"] > 0 and result["machine"]["torch"]


def test_loading_is_read_from_the_figures_of_all_stages(tmp_path):
    path = tmp_path / "all.json"
    clips = {"training clip of 64x80": {"frames": 4, "load_ms": 8.0}}  # older: no KiB
    path.write_text(json.dumps({"stages": {"data": {"clips": clips}}}))
    assert read_loading(path, 64, 80, 2) == {"load_seconds": 0.004, "clip_kib": None}
    for text in ("[]", "{}", json.dumps({"clips": {"training clip of 64x81": clips}})):
        path.write_text(text)
        with pytest.raises(ValueError, match="all.json have no clip of 64x80; write them with"):
            read_loading(path, 64, 80, 2)


def test_a_clip_takes_as_long_as_in_a_measured_step(benchmark, tmp_path):
    path, out = tmp_path / "train.json", tmp_path / "plan.json"
    step = {"config_file": "configs/a2d_R101_FPN.yaml", "machine": {"device": "NVIDIA X"}}
    batch = {"clips": 8, "precision": "bf16", "height": 96, "width": 128}
    step |= {"release": {"height": 64, "width": 80}, "batch": batch}
    step["rows"] = [{"name": "training step", "limit": 9}, {"name": WAITING, "limit": 2000.0}]
    step["seconds"] = {"inference": {"median": 0.5}}
    path.write_text(json.dumps(step))
    config = "elsewhere/a2d_R101_FPN.yaml"
    found = read_step(path, config, 64, 80)
    expected = {"clip_seconds": 0.25, "device": "NVIDIA X, bf16, 8 at once"}
    assert found == expected | {"height": 96, "width": 128}
    assert read_inference(path, config, 64, 80) == 0.5
    for change, message in (
        ({"release": {"height": 64, "width": 96}}, "are not of elsewhere/.* on 64x80; write them"),
        ({"config_file": "configs/a2d_R50_FPN.yaml"}, "are not of elsewhere/.* on 64x80; write"),
        ({"batch": {"clips": 0, "precision": "bf16"}}, "train.json holds no figures of training"),
        ({"rows": []}, "train.json holds no figures of training steps"),
        ({"release": 3}, "train.json holds no figures of train"),
    ):
        path.write_text(json.dumps(step | change))
        with pytest.raises(ValueError, match=message):
            read_step(path, config, 64, 80)
    path.write_text(json.dumps(step | {"seconds": {"inference": {"median": -1}}}))
    with pytest.raises(ValueError, match="train.json holds no figures of inference"):
        read_inference(path, config, 64, 80)
    path.write_text(json.dumps(step | {"config_file": "config.yaml"}))
    options = ("--gpus", "1", "--step", str(path), "--infer", str(path), "--json", str(out))
    status, printed, _ = benchmark("plan", *options, "SOLVER.IMS_PER_BATCH", "8")
    assert status == 0 and "0.25 s (NVIDIA X, bf16, 8 at once)" in printed
    assert "frames of 96x128 pixels" in printed
    (planned,) = json.loads(out.read_text())["plans"]
    assert planned["compute_seconds"] == 2.0
    assert planned["evaluation_hours"] == pytest.approx(2365 * 0.5 / 3600)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--gpus", "0"), "error: --gpus is 0; it must be at least 1"),
        (("--teraflops", "0"), "error: --teraflops is 0; it must be above 0"),
        (("--clip-seconds", "-3"), "error: --clip-seconds is -3; it must be above 0"),
        (("--clip-seconds", "0"), "error: --clip-seconds is 0; it must be above 0"),
        (("--load-seconds", "nan"), "error: --load-seconds is nan; it must be above 0"),
        (("--clip-kib", "-1"), "error: --clip-kib is -1; it must be above 0"),
        (("--step", "no.json"), "error: cannot read figures of train no.json: No such"),
        (("--measured", "no.json"), "error: cannot read figures of loading no.json: No such file"),
    ],
)
def test_a_wrong_argument_is_one_line(benchmark, arguments, message):
    status, _, (error,) = benchmark("plan", *arguments)
    assert status == 2
    assert error.startswith(message)
