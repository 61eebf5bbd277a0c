"""The operations of a model, and a training on paper."""

import json

import pytest
import torch
from torch import nn

from a2d_d2.benchmark.plan import count_operations, plan, plan_lines

GIVEN = {
    "teraflops": 2.0,
    "gigabytes": 1.0,
    "clip_seconds": None,
    "load_seconds": 0.1,
    "clip_kib": 1000.0,
}
TRAINING = {"clips": 1000, "batch": 16}


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
        self.roi_heads = _Stream(5, 2)

    def forward(self, clips):
        return self.roi_heads(self.backbone(clips[0]["image"])).sum()


def test_operations_by_hand():
    counts = count_operations(_Model(), {"image": torch.zeros(2, 3, 8, 10), "instances": []})
    pixels = 2 * 2 * 8 * 10 * 9  # two operations, two frames, nine taps
    assert counts["inference"] == {
        "backbone": pixels * (3 * 4 + 4 * 5),
        "roi_heads": pixels * 5 * 2,
    }
    assert counts["training"] == pixels * (3 * 4 + 3 * 4 * 5)  # the first layer is frozen


def test_a_plan_by_hand():
    one = plan(1, TRAINING, 1e12, 4e9, GIVEN)
    assert one == {
        "gpus": 1,
        "batch": 16,
        "steps": 63,  # 62.5
        "compute_seconds": 8.0,  # 16 clips of half a second
        "exchange_seconds": 0.0,
        "hours": pytest.approx(63 * 8 / 3600),
        "loader_cores": pytest.approx(0.2),
        "cache_mb": pytest.approx(2 * 1.024),
    }
    four = plan(4, TRAINING, 1e12, 4e9, GIVEN)
    assert four["compute_seconds"] == 2.0
    assert four["exchange_seconds"] == pytest.approx(2 * 3 / 4 * 4)
    assert four["loader_cores"] == pytest.approx(4 * 0.1 / 8)
    many = plan(32, TRAINING, 1e12, 4e9, GIVEN | {"clip_seconds": 3.0})
    assert (many["batch"], many["steps"], many["compute_seconds"]) == (32, 32, 3.0)


def test_the_command_plans(benchmark, tmp_path):
    path = tmp_path / "plan.json"
    options = ("--gpus", "1", "8", "--clip-seconds", "0.5", "--json", str(path))
    status, printed, _ = benchmark("plan", *options, "SOLVER.IMS_PER_BATCH", "8")
    assert status == 0
    result = json.loads(path.read_text())
    assert printed.splitlines() == plan_lines(result)
    assert [one["compute_seconds"] for one in result["plans"]] == [4.0, 0.5]
    counts = result["operations"]["inference"]
    assert counts["backbone"] == counts["flow_backbone"] > counts["temporal"] > 0
    assert "loader_cores" not in result["plans"][0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--gpus", "0"), "error: --gpus is 0; it must be at least 1"),
        (("--teraflops", "0"), "error: --teraflops is 0; it must be above 0"),
    ],
)
def test_a_wrong_argument_is_one_line(benchmark, arguments, message):
    status, _, (error,) = benchmark("plan", *arguments)
    assert status == 2
    assert error.startswith(message)
