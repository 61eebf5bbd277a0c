"""Switches and what was tried, without and with each."""

import json
import math

import pytest
import torch
from detectron2.structures import Boxes, Instances

from a2d_d2.benchmark import options
from a2d_d2.benchmark.options import TRIALS, Size, Step, compare, options_lines, paste
from a2d_d2.utils.readme import options_block


def test_a_row_by_hand(monkeypatch):
    monkeypatch.setattr(options, "seconds_of", lambda function: function())
    # The first of each is to warm up; the second repeat goes backwards.
    before, after = iter([9.0, 1.0, 4.0, 2.0]), iter([9.0, 0.5, 1.0, 1.0])
    told = {"equal": lambda: "yes", "kept": "no", "mib": (4, 2.0), "repeats": 3, "progress": False}
    row = compare("it", lambda: next(before), lambda: next(after), **told)
    assert (row["before_ms"], row["after_ms"], row["ratio"]) == (2000, 1000, 0.5)
    assert (row["mib"], row["equal"], row["kept"]) == ([4, 2.0], "yes", "no")


def test_how_far_features_are_apart():
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.05])
    assert options._difference(one, other) == "features to 1e-02 of their norm"


def test_a_step_is_that_of_its_configuration(small_cfg):
    """The same weights and draws each time; what is recomputed is as it was."""
    size = Size(64, 64, 2)
    steps = [Step(small_cfg("MODEL.BACKBONE.RECOMPUTE", x), size) for x in (False, False, True)]
    for step in (*steps, steps[0]):
        step()
    once, again, recomputed = (step.gradient() for step in steps)
    assert once.norm() > 0 and once.equal(again)
    assert options._equality(*steps[:2]) == "yes, bit by bit"
    torch.testing.assert_close(recomputed, once, rtol=1e-4, atol=1e-5)


def test_pasting_again_and_again_gives_the_same():
    found = Instances((4, 4), pred_boxes=Boxes(torch.tensor([[1.0, 1, 3, 3]])))
    found.pred_masks = torch.ones(1, 1, 2, 2)
    first, second = (paste(found, (8, 8)) for _ in range(2))
    assert first.pred_masks.sum() == 16 and second.pred_masks.equal(first.pred_masks)
    assert found.pred_boxes.tensor.tolist() == [[1, 1, 3, 3]]


@pytest.fixture
def quick(monkeypatch):
    """Memory is measured in this process, and few boxes are detected."""
    monkeypatch.setattr(options, "DETECTIONS", 5)
    monkeypatch.setattr(options, "in_new_process", lambda function: function())


def test_the_command(benchmark, quick, tmp_path):
    path = tmp_path / "options.json"
    size = ("--full-height", "64", "--full-width", "80", "--repeats", "1", "--threads", "1")
    status, printed, _ = benchmark(
        "options", *size, "--json", str(path), "SOLVER.IMS_PER_BATCH", "2"
    )
    assert status == 0
    result = json.loads(path.read_text())
    assert printed.splitlines() == options_lines(result)
    rows = {row["what"]: row for row in result["trials"]}
    assert len(rows) == len(result["trials"]) == len(TRIALS) + 9
    for row in rows.values():
        assert row["before_ms"] > 0 and row["after_ms"] > 0 and math.isfinite(row["ratio"])
        assert row["equal"] and row["kept"].startswith(("yes", "no", "switch"))
    for row in result["trials"]:
        if "frames that count" in row["what"] or "together" in row["what"]:
            assert row["equal"] == "yes, to rounding"
    assert sum(row["mib"] is not None for row in result["trials"]) == 4 + 2
    assert 0 < result["detection"]["detections"] <= 5
    assert set(result["detection"]["milliseconds"]) == {
        *("RPN", "boxes and actors", "masks", "actions", "pasting")
    }
    assert options_block(result).endswith(f"Written by `{result['command']}`.")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--repeats", "0"), "error: --repeats is 0; it must be at least 1"),
        (("--full-width", "0"), "error: --full-width is 0; it must be at least 1"),
        (("MODEL.TRAIN_BRANCH", "actor"), "error: MODEL.META_ARCHITECTURE ActorActionRCN"),
    ],
)
def test_a_wrong_argument_is_one_line(benchmark, arguments, message):
    status, _, (error,) = benchmark("options", *arguments)
    assert status == 2
    assert error.startswith(message)
