"""Trainings that are killed, stopped or given a seed end with the same bits as one left alone."""

import os
import signal
import time

import pytest
import torch

from a2d_d2.engine.kills import Trainings, differences, measure_kills
from a2d_d2.engine.non_finite import replay
from a2d_d2.engine.stop import STOPPED

WHOLE = "one_process/whole"  # the training that nobody kills


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    return Trainings(tmp_path_factory.mktemp("trainings"), steps=4)


@pytest.fixture(scope="module")
def killed(trainings):
    """What two kills did to a training; beside it is one that was left alone."""
    variants = ["one process"]
    return measure_kills(trainings, 2, variants=variants, kills_per_run=2, progress=False)


def _log(trainings, name):
    path = trainings.folder / name / "console.log"
    return path.read_text() if path.exists() else ""


def _stop(trainings, name, word, opts=(), flags=()):
    """Begins a training, and sends SIGTERM when its log has the word."""
    process = trainings.begin(name, opts, flags)
    while word not in _log(trainings, name):
        assert process.is_alive(), _log(trainings, name)[-2000:]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    return _exit_code(process)


def _end(trainings, name, opts=(), flags=("--resume",)):
    return _exit_code(trainings.begin(name, opts, flags))


def _exit_code(process):
    process.join(120)
    if process.is_alive():  # a loader's process could keep it
        process.kill()
        process.join()
    return process.exitcode


def test_killed_trainings_end_equal(killed, trainings):
    assert killed["failures"] == []
    assert killed["runs"] == killed["runs_equal"] >= 1
    assert killed["kills"] == 2
    # Of other steps the comparison says so.
    folder = trainings.folder / WHOLE
    kept = sorted(path.name for path in folder.glob("model_0*.pth"))
    assert kept == [f"model_{step:07d}.pth" for step in (1, 2, 3)]
    assert not list(folder.rglob(".tmp-*"))


def test_the_comparison_sees_a_bit(killed, trainings, tmp_path):
    whole, other = trainings.folder / WHOLE, tmp_path / "other"
    other.mkdir()
    for path in whole.rglob("*"):
        target = other / path.relative_to(whole)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    assert list(differences(whole, other)) == []
    data = torch.load(other / "model_final.pth")
    name = "roi_heads.mask_head.predictor.bias"
    value = data["model"][name]
    value[0] = torch.nextafter(value[0], torch.tensor(9.0))
    data["trainer"]["iteration"] += 1
    torch.save(data, other / "model_final.pth")
    (other / "model_best.json").write_text("{}")
    places = [f"model_final.pth: /{place}" for place in (f"model/{name}", "trainer/iteration")]
    assert list(differences(whole, other)) == [*places, "model_best.json"]


def test_sigterm_writes_a_checkpoint_and_a_seed_makes_runs_equal(killed, trainings):
    # The argument is stronger than the key; checkpoints come only from the signal.
    opts, flags = (
        ["SEED", "7", "SOLVER.CHECKPOINT_PERIOD", "100", "TEST.EVAL_PERIOD", "2"],
        ["--seed=1"],
    )
    opts += ["DATALOADER.NUM_WORKERS", "1"]
    assert _stop(trainings, "seeded", "Starting training", opts, flags) == STOPPED == 75
    assert "SIGTERM: stopped after iteration" in _log(trainings, "seeded")
    assert len(list((trainings.folder / "seeded").glob("model_0*.pth"))) == 1
    assert _end(trainings, "seeded", opts, [*flags, "--resume"]) == 0
    assert list(differences(trainings.folder / WHOLE, trainings.folder / "seeded")) == []


def test_sigterm_in_an_evaluation_ends_it_at_once(killed, trainings):
    assert _stop(trainings, "evaluated", "Start inference") == STOPPED
    assert _end(trainings, "evaluated") == 0
    assert list(differences(trainings.folder / WHOLE, trainings.folder / "evaluated")) == []


def test_an_evaluation_that_is_due_comes_first(killed, trainings):
    folder = trainings.folder / "due"
    folder.mkdir()
    data = torch.load(trainings.folder / WHOLE / "model_0000001.pth")
    torch.save(data | {"evaluation_due": True}, folder / "model_0000001.pth")
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    assert _end(trainings, "due") == 0
    log = _log(trainings, "due")
    first, second = (log.index(f"model_{step:07d}.pth", log.index("Starting")) for step in (1, 2))
    assert log.index("Start inference") < second and first < log.index("Start inference")
    assert list(differences(trainings.folder / WHOLE, folder)) == []


def test_a_loss_that_is_not_finite_ends_the_training_and_can_be_replayed(trainings):
    opts = ["MODEL.FLOW.PIXEL_STD", "(1e-45, 1e-45, 1e-45)", "DATALOADER.NUM_WORKERS", "1"]
    assert _end(trainings, "not_finite", opts) == 2
    log = _log(trainings, "not_finite")
    file = trainings.folder / "not_finite" / "non_finite" / "step_0000000.pth"
    last = log.strip().splitlines()[-1]
    assert last.startswith("error: the loss of step 0 is not finite (") and str(file) in last
    assert "Traceback" not in log
    facts, (found,) = replay(file)
    assert facts == {"step": 0, "what": "loss"}
    assert found.module.startswith("flow_backbone.") and not found.inputs_finite
