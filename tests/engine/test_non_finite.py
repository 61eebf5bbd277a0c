"""Steps that are not finite change nothing, are kept, and can be done again."""

import importlib.util
import io
import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from a2d_d2.engine import non_finite
from a2d_d2.engine.non_finite import describe, replay
from a2d_d2.utils.cli import run_tool

TOY = Path(__file__).with_name("toy_training.py")
_spec = importlib.util.spec_from_file_location("toy_training", TOY)
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)
NAN = float("nan")


def _state(trainer):
    """Weights, statistics and momentum."""
    momentum = [s["momentum_buffer"].clone() for s in trainer.optimizer.state.values()]
    return [value.clone() for value in trainer.model.state_dict().values()] + momentum


def _make(batches, folder, **options):
    torch.manual_seed(0)
    return toy.make_trainer(toy.Toy(), batches, folder, **options)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (toy.batch(NAN), "loss"),
        (toy.batch(diverged=True), "loss"),
        (toy.batch(root=True), "gradient"),
    ],
)
def test_a_step_that_is_not_finite_changes_nothing(bad, what, tmp_path, package_log):
    good = toy.batch()
    trainer = _make([good, bad, good], tmp_path, max_skipped=1)
    toy.step(trainer, 0)
    before = _state(trainer)
    toy.step(trainer, 1)
    assert all(x.equal(y) for x, y in zip(before, _state(trainer), strict=True))
    assert f"left out: the {what} of step 1 is not finite" in package_log.text
    toy.step(trainer, 2)

    without = _make([good, good], tmp_path / "without")
    toy.step(without, 0)
    toy.step(without, 2)
    assert all(x.equal(y) for x, y in zip(_state(without), _state(trainer), strict=True))
    assert not (tmp_path / "without").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["step_0000001.pth"]


def test_float16_halves_its_scale_down_to_one(tmp_path, package_log):
    trainer = _make([toy.batch()] + [toy.batch(root=True)] * 18, tmp_path, max_skipped=1)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    toy.step(trainer, 0)
    weight = trainer.model.linear.weight.clone()
    for number in range(1, 17):  # 2^16 is halved 16 times
        toy.step(trainer, number)
    assert weight.equal(trainer.model.linear.weight)
    before = _state(trainer)
    assert trainer.scaler.get_scale() == 1 and not any(tmp_path.iterdir())
    toy.step(trainer, 17)
    assert "left out: the gradient of step 17 is not finite" in package_log.text
    assert all(x.equal(y) for x, y in zip(before, _state(trainer), strict=True))
    with pytest.raises(ValueError, match="the gradient of step 18 is not finite"):
        toy.step(trainer, 18)


def test_a_resumed_training_goes_on_with_its_scale(tmp_path):
    """Doubled after 3 steps that are finite, halved after one that is not."""

    def make():
        trainer = _make([toy.batch()] * 2 + [toy.batch(root=True)] + [toy.batch()] * 3, tmp_path)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        return trainer

    def seen(trainer):
        state = trainer.scaler.state_dict()
        return trainer.scaler.get_scale(), state["_growth_tracker"]

    trainer = make()
    for number, expected in enumerate([(8, 1), (8, 2), (4, 0), (4, 1)]):
        toy.step(trainer, number)
        assert seen(trainer) == expected
    saved = io.BytesIO()
    torch.save(trainer.state_dict(), saved)
    saved.seek(0)
    resumed = make()
    assert seen(resumed) == (8, 0)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    assert seen(resumed) == (4, 1)
    for number, expected in enumerate([(4, 2), (8, 0)]):
        toy.step(resumed, number)  # of good batches
        assert seen(resumed) == expected


def test_too_many_end_the_training_also_after_a_restart(tmp_path):
    bad = toy.batch(NAN)
    trainer = _make([bad] * 3, tmp_path, max_skipped=1)
    toy.step(trainer, 0)
    resumed = _make([bad] * 3, tmp_path, max_skipped=1)
    resumed.load_state_dict(trainer.state_dict())
    path = tmp_path / "step_0000001.pth"
    words = f"the loss of step 1 is not finite .*loss_square nan.*replay_batch.py {path}.*1 steps"
    with pytest.raises(ValueError, match=words):
        toy.step(resumed, 1)
    assert path.exists()


@pytest.fixture
def replay_toy(monkeypatch, small_cfg, tmp_path):
    """replay_toy(batch): trains on it, which ends the training; gives the file."""

    def build(cfg):
        return toy.Toy()

    monkeypatch.setattr(non_finite, "build_model", build)

    def make(clips):
        trainer = _make([clips], tmp_path / "bad", config=small_cfg().dump())
        with pytest.raises(ValueError, match="not finite"):
            toy.step(trainer, 7)
        return tmp_path / "bad" / "step_0000007.pth"

    return make


def test_replay_finds_the_module(replay_toy):
    facts, (found,) = replay(replay_toy(toy.batch(NAN)))
    assert facts == {"step": 7, "what": "loss"}
    assert math.isnan(found.losses["loss_square"]) and math.isnan(found.stored["loss_square"])
    assert found.module == "linear (Linear)"
    assert found.output == "output: 12 of 12 values" and not found.inputs_finite
    assert found.weights == [] and not found.is_finite


def test_replay_finds_the_gradient(replay_toy):
    facts, (found,) = replay(replay_toy(toy.batch(root=True)))
    assert facts["what"] == "gradient"
    assert found.losses == found.stored and all(map(math.isfinite, found.losses.values()))
    assert found.module is None
    assert found.gradient.startswith("norm.")  # the last layer is the first to get one
    lines = describe(found, 0)
    assert "  every module's output is finite" in lines
    assert lines[-1].startswith("  first gradient that is not finite: norm.")


def test_replay_finds_a_weight(replay_toy):
    path = replay_toy(toy.batch(NAN))
    data = torch.load(path, weights_only=False)
    data["weights"]["norm.weight"][1] = math.inf
    data["processes"][0]["clips"] = toy.batch()
    torch.save(data, path)
    _, (found,) = replay(path)
    assert found.module == "norm (BatchNorm1d)" and found.inputs_finite
    assert found.output == "output: 4 of 12 values"
    assert found.weights == ["norm.weight"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": 5}, "no batch to replay"),
        ({"what": None}, "no batch to replay"),
        ({"weights": [1], "processes": []}, "no batch to replay"),
        ({"weights": {"linear.weight": 3}}, "no batch to replay"),
        ({"processes": 7}, "no batch to replay"),
        ({"processes": [{"clips": 5}]}, "no batch to replay"),
        ({"processes": [{"clips": [], "generators": {}, "losses": {}}]}, "KeyError"),
        ({"config": "_BASE_: /etc/passwd"}, "_BASE_, which a training never does"),
        ({"config": "DATASETS: {LABEL_SPACE: /etc/x}"}, "add DATASETS.LABEL_SPACE /etc/x"),
        ({"config": "MODEL: {WEIGHT: x}"}, "bad configuration file config.yaml: there is no key"),
        ({"weights": {}}, "not those of this configuration .RuntimeError"),
    ],
)
def test_an_altered_file_is_refused_in_a_line_and_opens_no_other(replay_toy, changes, words):
    path = replay_toy(toy.batch(NAN))
    torch.save(torch.load(path, weights_only=False) | changes, path)
    with pytest.raises(ValueError, match=f"{path}.*{words}"):
        replay(path)


def test_a_compressed_file_is_refused(replay_toy):
    path = replay_toy(toy.batch(NAN))
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, part in parts.items():
            target.writestr(name, part)
    with pytest.raises(ValueError, match=f"cannot read {path}: .*compressed parts.*torch.save"):
        replay(path)


def _frames(*shape):
    return {"image": torch.zeros(*shape, dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        ([{"flow": torch.zeros(1).expand(9000, 9000)}], "more values than are stored for them"),
        ([_frames(1, 3, 8192, 1), _frames(1, 3, 1, 8192)], "padded to one size"),  # 2 x 2^26
        ([_frames(3, 200, 200)] * 50, "padded to one size"),  # 2 000 000; 120 000 bytes are stored
        ([_frames(1, 3, 1, 1)] * 1000, "padded to one size"),  # 1 024 000
        ([_frames(2, 3, 64, 64) | {"key_positions": [0, 1, 1]}], "3 key frames of 2 frames"),
        ([_frames(2, 3, 64, 64) | {"neighbours": torch.zeros(4, 1)}], "4 key frames of 2 frames"),
        # What a training may write comes as far as the model, which wants "x".
        ([_frames(2, 3, 64, 64) | {"key_positions": [0, 1]}], "KeyError"),
        ([_frames(3, 64, 64) | {"neighbours": torch.tensor(0)}], "KeyError"),
    ],
)
def test_a_batch_that_is_larger_than_its_file_is_refused(replay_toy, clips, words):
    path = replay_toy(toy.batch(NAN))
    data = torch.load(path, weights_only=False)
    data["processes"][0]["clips"] = clips
    torch.save(data, path)
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=f"{path}.*{words}"):
        replay(path)


def test_a_frame_is_as_large_as_elsewhere(replay_toy, monkeypatch):
    monkeypatch.setattr(non_finite, "MAX_PIXELS", 64 * 48 - 1)
    path = replay_toy([each | _frames(3, 48, 64) for each in toy.batch(NAN)])
    with pytest.raises(ValueError, match=f"{path}.*frames of 64 x 48 pixels; more than 3071 are"):
        replay(path)
    monkeypatch.setattr(non_finite, "MAX_PIXELS", 64 * 48)
    assert replay(path)[0] == {"step": 7, "what": "loss"}


def test_a_batch_of_something_else_is_refused(replay_toy):
    path = replay_toy(toy.batch(NAN))
    data = torch.load(path, weights_only=False)
    data["processes"][0]["clips"] = [{"x": "text"}]
    torch.save(data, path)
    with pytest.raises(ValueError, match=f"{path}.*its batch are not those"):
        replay(path)


def test_generators_are_set_back():
    import random

    import numpy as np

    states = non_finite.generator_states()
    draws = [random.random(), np.random.random(), torch.rand(1).item()]  # noqa: NPY002
    non_finite.set_generators(states)
    assert draws == [random.random(), np.random.random(), torch.rand(1).item()]  # noqa: NPY002


def test_the_command(replay_toy, monkeypatch, capsys, tmp_path):
    path = Path(__file__).parents[2] / "tools" / "replay_batch.py"
    spec = importlib.util.spec_from_file_location("replay_batch", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["replay_batch.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_tool(tool.main)
        return end.value.code, capsys.readouterr()

    saved = replay_toy(toy.batch(NAN))
    code, (out, _) = run(saved)
    assert code == 1
    assert out.splitlines()[:3] == [
        "step 7: the loss was not finite",
        "process 0:",
        "  loss_square nan",
    ]
    assert "linear (Linear), output: 12 of 12 values; its input is not finite either" in out

    other = tmp_path / "other.pth"
    torch.save({"model": {}}, other)
    for file, words in [(other, "no batch to replay"), (tmp_path / "none.pth", "No such file")]:
        code, (_, err) = run(file)
        assert code == 2 and err.startswith("error: ") and words in err and str(file) in err


def test_two_processes_agree(tmp_path):
    done = subprocess.run([sys.executable, TOY, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["weights"][0] == first["weights"][2] != first["weights"][3]
    for seen in (first, second):
        assert seen["mean"][0] == seen["mean"][2] != seen["mean"][3]
        assert seen["skipped"] == 2
        assert (seen["stopped"], seen["code"]) == (3, 75)
    assert first["mean"][3] == first["shared"] == second["shared"] != second["mean"][3]
    data = torch.load(tmp_path / "non_finite" / "step_0000001.pth", weights_only=True)
    finite = [math.isfinite(process["losses"]["loss_square"]) for process in data["processes"]]
    assert finite == [True, False]
    data = torch.load(tmp_path / "non_finite" / "step_0000002.pth", weights_only=True)
    assert list(data["processes"][1]["losses"]) == ["proposals"]
