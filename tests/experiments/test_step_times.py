"""Trainings of equal time: how long they are, and where that is kept."""

import json
import shlex
from unittest.mock import Mock

import pytest

from a2d_d2.experiments.plan import plan_lines
from a2d_d2.experiments.runs import run_all
from a2d_d2.experiments.step_times import StepTimes

LONGER = ["tsct", "tshr", "tsmt", "mask_rcnn", "no_mask_grabcut", "no_temporal", "no_flow"]
LONGER += ["separate_training"]
SECONDS = {"full": 0.6, "mask_rcnn": 0.2, "no_temporal": 0.4, "no_flow": 0.3}
SECONDS |= {"tsct": 0.5, "tshr": 0.5, "tsmt": 0.54, "separate_training": 0.75}


def _write(experiment, seconds):
    experiment.output.mkdir(exist_ok=True)
    experiment.step_times.path.write_text(json.dumps({"seconds": seconds}))


def test_steps_are_as_many_as_take_the_time_of_the_full_model(make_experiment):
    options = ("SOLVER.MAX_ITER", "90", "SOLVER.STEPS", "(60, 80)")
    experiment = make_experiment(options=options)
    _write(experiment, SECONDS)
    full, *longer = experiment.plan("equal_time")
    assert full.system.name == "full"
    assert [run.system.name for run in longer] == [f"{name}-equal_time" for name in LONGER]
    assert experiment.run_config(full).SOLVER.MAX_ITER == 90
    steps = [experiment.training_steps(run) for run in longer]
    assert steps == [108, 108, 100, 270, 100, 135, 180, 144]  # the last of two stages
    assert experiment.run_config(longer[5]).SOLVER.STEPS == (90, 120)
    assert experiment.trained(longer[4]) == longer[2]  # GrabCut refines what TSMT finds
    lines = list(plan_lines(experiment, longer))
    assert sum("SOLVER.MAX_ITER 90 " in line and "SOLVER.MAX_ITER 270 " in line for line in lines)
    # The rest is that of the system for equal steps, whose figures stand beside it.
    (short,) = experiment.plan("table3", ["no_flow"])
    same = experiment.run_config(longer[6])
    same.merge_from_list(["SOLVER.MAX_ITER", 90, "SOLVER.STEPS", (60, 80)])
    assert same == experiment.run_config(short)


def test_a_dry_run_before_the_measurement_says_so(make_experiment):
    experiment = make_experiment(options=("SOLVER.MAX_ITER", "90"))
    lines = list(plan_lines(experiment, experiment.plan("equal_time")))
    told = [line for line in lines if "its steps are measured first" in line]
    assert len(told) == len(LONGER)
    assert "step_seconds.json" in told[0]
    commands = [shlex.split(line) for line in lines if "equal_time" in line and line[0] != "#"]
    assert len(commands) == 2 * len(LONGER) - 1  # GrabCut refines what TSMT finds
    for command in commands:
        steps = command.index("<measured>")
        assert command[steps - 3 : steps] == ["SOLVER.MAX_ITER", "90", "SOLVER.MAX_ITER"]
    with pytest.raises(ValueError, match="step_seconds.json is missing"):
        experiment.run_config(experiment.plan("equal_time")[1])


def test_a_dry_run_with_some_systems_measured(make_experiment):
    experiment = make_experiment(options=("SOLVER.MAX_ITER", "90"))
    _write(experiment, {"full": 0.6, "no_flow": 0.3})
    runs = experiment.plan("equal_time", ["no_flow-equal_time", "tsmt-equal_time"])
    tsmt, no_flow = (experiment.train_command(run) for run in runs)
    assert tsmt[-4:] == ["SOLVER.MAX_ITER", "<measured>", "SOLVER.STEPS", "<measured>"]
    assert no_flow[-4:-1] == ["SOLVER.MAX_ITER", "180", "SOLVER.STEPS"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "step_seconds.json is missing; run --suite equal_time"),
        ("{", "step_seconds.json holds no times of steps; delete it"),
        ('{"seconds": {"full": 1}}', "does not say how long a step of no_flow takes"),
        ('{"seconds": {"full": 1, "no_flow": 0}}', "does not say how long a step of no_flow takes"),
    ],
)
def test_a_file_that_does_not_tell_is_named(tmp_path, text, message):
    path = tmp_path / "step_seconds.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        StepTimes(path).factor("no_flow")


def test_steps_are_measured_once_and_kept(make_experiment, monkeypatch):
    monkeypatch.setattr("a2d_d2.experiments.step_times._ROUNDS", 1)
    monkeypatch.setattr("a2d_d2.experiments.step_times._STEPS", 1)
    done = []
    monkeypatch.setattr("a2d_d2.experiments.runs._do", lambda _, run, *__: done.append(run))
    experiment = make_experiment()
    assert run_all(experiment, experiment.plan("equal_time", ["mask_rcnn-equal_time"])) == []
    text = experiment.step_times.path.read_text()
    seconds = json.loads(text)["seconds"]
    assert set(seconds) == set(SECONDS)
    assert min(seconds.values()) > 0
    (run,) = done
    ratio = seconds["full"] / seconds["mask_rcnn"]
    assert experiment.training_steps(run) == round(2 * ratio)  # 2 are those of the full model
    again = make_experiment()
    assert run_all(again, again.plan("equal_time", ["mask_rcnn-equal_time"])) == []
    assert again.step_times.path.read_text() == text


def test_systems_that_a_file_lacks_are_measured_beside_the_reference(tmp_path, monkeypatch):
    """What is known stays, and gives the unit of what is new."""
    path = tmp_path / "step_seconds.json"
    path.write_text(json.dumps({"seconds": {"full": 0.6, "no_flow": 0.3}}))
    now = {("full", 0): [1.1, 1.2, 1.3], ("tsmt", 0): [1.0, 0.9, 1.1]}
    now |= {("separate_training", 0): [0.8, 0.7, 0.9], ("separate_training", 1): [0.4, 0.6, 0.9]}
    monkeypatch.setattr("a2d_d2.experiments.step_times.interleave", lambda ways, *_, **__: now)
    monkeypatch.setattr("a2d_d2.experiments.step_times._Training", lambda *_: Mock())
    times = StepTimes(path)
    assert times.lacks(["no_flow", "tsmt"]) == ["tsmt"]
    stages = "a2d_d2.experiments.step_times.training_stages"
    monkeypatch.setattr(stages, lambda cfg: [cfg] * (2 if cfg == "separate_training" else 1))
    times.measure({name: name for name in ("full", "tsmt", "separate_training")})
    seconds = {"full": 0.6, "no_flow": 0.3, "tsmt": 0.5, "separate_training": 0.7}
    assert json.loads(path.read_text())["seconds"] == seconds
    assert times.lacks(["no_flow", "tsmt"]) == []
    assert times.factor("tsmt") == pytest.approx(1.2)
    assert StepTimes(tmp_path / "none.json").lacks(["tsmt"]) == ["tsmt"]
