"""The order of work, with commands that only leave their traces."""

import fcntl
import shutil
from pathlib import Path

import pytest

from a2d_d2.experiments import runs
from a2d_d2.experiments.records import read_record
from a2d_d2.experiments.runs import run_all


@pytest.fixture
def commands(monkeypatch, make_record):
    """What ran, by script and folder; a folder named in ``commands.failing`` fails."""

    class Commands(list):
        failing = set()

    ran = Commands()

    def run_logged(command, log, read, *, pass_fds=()):
        assert pass_fds
        words = list(map(str, command))
        if words[1].endswith("prepare_clips.py"):
            ran.append("prepare")
            return 0
        folder = Path(words[max(i for i, w in enumerate(words) if w == "OUTPUT_DIR") + 1])
        kind = "train" if "--resume" in words else "test"
        run = folder.parent.name if kind == "test" else folder.name
        system = (folder.parents[1] if kind == "test" else folder.parent).name
        ran.append(f"{kind} {system} {run}")
        read("Starting training from iteration 0")
        read("eta: 0:00:01  iter: 0  total_loss: 4.25  loss_cls: 1")
        return -9 if f"{kind} {system}" in ran.failing else 0

    def record_of(experiment, run, *, progress):
        return make_record(
            run.system.name,
            run.seed,
            experiment=experiment.digest,
            digest=experiment.run_digest(run),
        )

    monkeypatch.setattr(runs, "run_logged", run_logged)
    monkeypatch.setattr(runs, "make_record", record_of)
    return ran


def test_what_is_shared_is_done_once(make_experiment, commands):
    experiment = make_experiment(seeds=(0, 1))
    assert run_all(experiment, experiment.plan("table3", ["full", "no_mask_grabcut"])) == []
    expected = ["prepare", "train full seed0", "test full seed0", "train full seed1"]
    expected += ["test full seed1", "train tsmt seed0", "test no_mask_grabcut seed0"]
    assert commands == [*expected, "train tsmt seed1", "test no_mask_grabcut seed1"]
    commands.clear()
    run_all(experiment, experiment.plan("table2", ["full", "tsmt"]))
    assert commands == ["prepare", "test tsmt seed0", "test tsmt seed1"]


def test_finished_runs_are_never_touched_again(make_experiment, commands):
    experiment = make_experiment()
    plan = experiment.plan("table1")
    run_all(experiment, plan)
    path = experiment.record_path(plan[0])
    before = path.stat().st_mtime_ns
    shutil.rmtree(experiment.output / "runs")
    commands.clear()
    assert run_all(experiment, plan) == []
    assert commands == []
    assert path.stat().st_mtime_ns == before
    assert not (experiment.output / "runs").exists()


def test_a_stopped_call_goes_on_after_the_last_complete_command(make_experiment, commands):
    experiment = make_experiment()
    plan = experiment.plan("table1")
    commands.failing = {"test full"}
    (failure,) = run_all(experiment, plan)
    assert failure.startswith("full, seed 0: killed by signal 9; see ")
    assert failure.endswith("runs/full/seed0/console.log")
    assert not experiment.record_path(plan[0]).exists()
    commands.clear()
    commands.failing = set()
    assert run_all(experiment, plan) == []
    assert commands == ["prepare", "test full seed0"]
    assert experiment.record_path(plan[0]).exists()


def test_other_runs_go_on_when_one_fails(make_experiment, commands, capsys):
    experiment = make_experiment()
    commands.failing = {"train no_flow"}
    plan = experiment.plan("table3", ["no_temporal", "no_flow", "separate_training"])
    (failure,) = run_all(experiment, plan)
    assert failure.startswith("no_flow, seed 0: ")
    assert "test no_flow seed0" not in commands
    assert "test separate_training seed0" in commands
    shown = capsys.readouterr().err
    assert "run 3/3 (separate_training, seed 0)" in shown
    assert f"failed: {failure}" in shown


def test_a_record_of_other_settings_is_refused(make_experiment, commands):
    experiment = make_experiment()
    run_all(experiment, experiment.plan("table1"))
    commands.clear()
    other = make_experiment(options=(*experiment.options, "SOLVER.BASE_LR", "0.5"))
    with pytest.raises(ValueError, match=r"full-seed0\.json was made with other settings"):
        run_all(other, other.plan("table1"))
    # Another system in the same folder is refused too: one table must not mix them.
    with pytest.raises(ValueError, match="records holds records made with other settings"):
        run_all(other, other.plan("table3", ["no_flow"]))
    assert commands == []
    (run,) = experiment.plan("table1")
    assert read_record(experiment.record_path(run))["digest"] == experiment.run_digest(run)


def test_a_folder_of_other_settings_is_refused(make_experiment, commands):
    experiment = make_experiment()
    commands.failing = {"train full"}
    run_all(experiment, experiment.plan("table1"))
    commands.failing = set()
    commands.clear()
    other = make_experiment(options=(*experiment.options, "SOLVER.BASE_LR", "0.5"))
    (failure,) = run_all(other, other.plan("table1"))
    assert "runs/full/seed0 holds a run with other settings; delete it" in failure
    assert commands == ["prepare"]


def test_two_calls_do_not_work_in_one_folder(make_experiment, commands, monkeypatch):
    monkeypatch.setattr(runs, "_PATIENCE", 1)
    experiment = make_experiment()
    experiment.output.mkdir()
    with open(experiment.output / ".lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is at work in"):
            run_all(experiment, experiment.plan("table1"))
    assert commands == []
    run_all(experiment, experiment.plan("table1"))
    assert commands


@pytest.mark.parametrize("status", [1, 2])
def test_clips_with_faults_do_not_stop_the_suite(make_experiment, commands, monkeypatch, status):
    inner = runs.run_logged

    def run_logged(command, *rest, **options):
        done = inner(command, *rest, **options)
        return status if commands[-1] == "prepare" else done

    monkeypatch.setattr(runs, "run_logged", run_logged)
    experiment = make_experiment()
    if status == 1:
        assert run_all(experiment, experiment.plan("table1")) == []
    else:
        with pytest.raises(ValueError, match=r"preparing clips failed \(exit code 2\); see .*log"):
            run_all(experiment, experiment.plan("table1"))


def test_the_bar_counts_the_steps_of_all_runs(tmp_path):
    bar = runs._SuiteBar([10, 20, 20], [3, 3, 3])
    with bar:
        bar.begin("a")
        bar.trained()
        bar.end()
        bar.begin("b")
        bar.follow(tmp_path)
        bar.read("  MAX_ITER: 10")
        bar.read("Starting training from iteration 4")
        bar.read("eta: 0:00:01  iter: 5  total_loss: 4.25  loss_cls: 1")
        assert (bar.bar.n, bar.bar.total) == (13 + 6, 59)
        # The second of two stages counts on from the first.
        (tmp_path / "actor_stage").mkdir()
        (tmp_path / "actor_stage" / "model_final.pth").touch()
        bar.follow(tmp_path)
        bar.read("  MAX_ITER: 10")
        bar.read("Starting training from iteration 0")
        bar.read("eta: 0:00:01  iter: 2  total_loss: 4.25  loss_cls: 1")
        assert bar.bar.n == 13 + 10 + 3
        bar.read("Inference done 3/9")  # of the validation videos: it is part of the training
        assert bar.bar.postfix == "evaluating 3/9"
        assert bar.bar.n == 13 + 10 + 3
        bar.trained()
        assert bar.bar.n == 13 + 20
        bar.end()
        assert bar.bar.n == 13 + 23


def test_the_second_stage_goes_on_where_it_was_stopped(tmp_path):
    (tmp_path / "actor_stage").mkdir()
    (tmp_path / "actor_stage" / "model_final.pth").touch()
    bar = runs._SuiteBar([20], [3])
    with bar:
        bar.begin("a")
        bar.follow(tmp_path)
        bar.read("  MAX_ITER: 10")
        bar.read("Starting training from iteration 4")
        bar.read("eta: 0:00:01  iter: 5  total_loss: 4.25  loss_cls: 1")
        assert (bar.bar.n, bar.bar.n - bar.bar.initial) == (16, 2)


def test_tests_and_scoring_are_part_of_the_time_left(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    bar = runs._SuiteBar([10, 10], [3, 3])
    with bar:
        for name, start in (("a", 0), ("b", 40)):
            bar.begin(name)
            bar.follow(tmp_path)
            now[0] = start + 10
            bar.read("eta: 0:00:01  iter: 9  total_loss: 4.25  loss_cls: 1")
            bar.trained()
            bar.follow(tmp_path)
            now[0] = start + 30
            bar.read("Inference done 5/9")  # of two test sets
            bar.read("Inference done 9/9")
            bar.read("Inference done 1/9")
            before = 13 if name == "b" else 0
            assert bar.bar.n == before + 10 + 2  # two thirds of the test, then come scores
            now[0] = start + 40
            if name == "a":
                bar.end()
                assert bar.bar.n == 13
                assert "[00:40<00:40," in str(bar.bar)  # as long again as the first run
        assert bar.bar.n < bar.bar.total
        bar.end()
        assert bar.bar.n == bar.bar.total == 26


def test_a_run_that_failed_says_nothing_of_the_speed(tmp_path):
    bar = runs._SuiteBar([10, 10], [3, 3])
    with bar:
        bar.begin("a")
        bar.give_up()
        assert (bar.bar.n, bar.bar.initial) == (13, 13)


def test_a_training_that_systems_share_counts_once(make_experiment):
    experiment = make_experiment()  # 2 steps of 2 clips
    experiment.__dict__["data"] = {"frames": {"train": 8, "val": 6, "test": 10}}
    runs_of_all = experiment.plan("all")
    bar = runs._suite_bar(experiment, runs_of_all, 0)
    by_name = {run.system.name: i for i, run in enumerate(runs_of_all)}
    expected = [2] * 16
    expected[by_name["no_mask_grabcut"]] = 0  # TSMT's
    expected[by_name["separate_training"]] = 4
    assert bar.steps == expected
    # Half a training example for each frame: 10 of them, and the 6 held-out ones.
    assert bar.tests == [4 if name == "no_mask_grabcut" else 3 for name in by_name]
    (alone,) = experiment.plan("table3", ["no_mask_grabcut"])
    assert runs._suite_bar(experiment, [alone], 0).steps == [2]


def test_what_earlier_calls_did_counts_but_not_in_the_speed(tmp_path):
    bar = runs._SuiteBar([10, 20, 30], [3, 3, 3], 1)
    with bar:
        assert (bar.bar.n, bar.bar.initial, bar.bar.total) == (13, 13, 69)
        bar.begin("b")
        assert bar.bar.desc.startswith("run 2/3 (b)")
        bar.follow(tmp_path)
        bar.read("  MAX_ITER: 20")
        bar.read("Starting training from iteration 15")
        bar.read("eta: 0:00:01  iter: 17  total_loss: 4.25  loss_cls: 1")
        assert (bar.bar.n, bar.bar.n - bar.bar.initial) == (31, 3)


def test_a_second_call_shows_the_progress_of_all_runs(make_experiment, commands, capsys):
    experiment = make_experiment(seeds=(0, 1))
    experiment.__dict__["data"] = {"frames": {"train": 8, "val": 6, "test": 10}}
    commands.failing = {"train no_flow"}
    plan = experiment.plan("table3", ["full", "no_flow"])
    assert len(run_all(experiment, plan)) == 2
    commands.failing = set()
    capsys.readouterr()
    assert run_all(experiment, plan) == []
    shown = capsys.readouterr().err
    assert "run 3/4 (no_flow, seed 0)" in shown and "run 4/4 (no_flow, seed 1)" in shown
    assert "10/20" in shown and "20/20" in shown  # 2 steps, and 3 for the test
