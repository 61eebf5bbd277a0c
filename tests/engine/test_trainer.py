"""Training, resuming and evaluating through train_net.py."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from a2d_d2.config import setup_cfg
from a2d_d2.engine import trainer
from a2d_d2.engine.trainer import (
    ActorActionTrainer,
    BestModelWriter,
    ResumableBestCheckpointer,
    drop_half_line,
    has_unused_levels,
)

ROOT = Path(__file__).parents[2]


def _train_net(*arguments, expect=0):
    command = [sys.executable, "train_net.py", "--config-file", "configs/synthetic/R18_FPN.yaml"]
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def _steps(output):
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [line["iteration"] for line in lines if "total_loss" in line]


def test_train_resume_and_evaluate(tiny_options, tmp_path):
    output = tmp_path / "output"
    _train_net(*tiny_options)
    first = torch.load(output / "model_final.pth", weights_only=False)
    assert first["iteration"] == 3
    scores = json.loads((output / "inference" / "metrics.json").read_text())
    assert set(scores["segmentation"]["joint"]) == {"ave", "glo", "mIoU"}
    assert (output / "inference" / "predictions.json").exists()
    assert len(list((output / "inference" / "frames").glob("*.png"))) == 1
    assert (output / "model_best.pth").exists()

    # Longer, resumed: goes on at step 4 with the optimiser's state.
    resumed = _train_net("--resume", *tiny_options, "SOLVER.MAX_ITER", 6)
    second = torch.load(output / "model_final.pth", weights_only=False)
    assert second["iteration"] == 5
    assert "Starting training from iteration 4" in resumed.stdout
    steps = [state["step"] for state in _optimizer_states(second)]
    assert {int(step) for step in steps} == {6}

    # The trained weights alone, evaluated again, give the scores of the training's end.
    trained = json.loads((output / "inference" / "metrics.json").read_text())
    again = tmp_path / "again"
    done = _train_net(
        *("--eval-only", *tiny_options, "OUTPUT_DIR", again),
        *("MODEL.WEIGHTS", output / "model_final.pth"),
    )
    assert json.loads((again / "inference" / "metrics.json").read_text()) == trained
    assert "Semantic segmentation\nApproach" in done.stdout  # Table 1, then Table 2
    assert "Detection (mAP)\nMethod" in done.stdout
    assert "appearance stream: " in done.stdout


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(tiny_options, tmp_path):
    """Stopped after 2 of 4 steps: same batches, augmentation, sampled regions, optimiser."""
    options = ["DATASETS.TEST", "()", "TEST.BEST_METRIC", "", "SOLVER.CHECKPOINT_PERIOD", "1"]
    options += ["SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "(3,)"]
    whole, stopped = tmp_path / "output", tmp_path / "stopped"
    _train_net(*tiny_options, *options)
    _train_net(*tiny_options, *options, "OUTPUT_DIR", stopped, "SOLVER.MAX_ITER", 2)
    _train_net("--resume", *tiny_options, *options, "OUTPUT_DIR", stopped)
    first, second = (
        torch.load(folder / "model_final.pth", weights_only=False)["model"]
        for folder in (whole, stopped)
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def _optimizer_states(checkpoint):
    return checkpoint["trainer"]["_trainer"]["optimizer"]["state"].values()


@pytest.mark.parametrize(
    "config, options, expected",
    [
        ("configs/a2d_R101_FPN.yaml", [], False),
        ("configs/synthetic/R18_FPN.yaml", [], True),  # p3 and p4 of the flow backbone
        ("configs/synthetic/R18_FPN.yaml", ["MODEL.FLOW.ENABLED", "False"], False),
        ("configs/synthetic/R18_FPN.yaml", ["MODEL.TRAIN_BRANCH", "actor"], False),
    ],
)
def test_processes_look_for_unused_parameters_only_where_a_level_is(config, options, expected):
    assert has_unused_levels(setup_cfg(str(ROOT / config), options)) is expected


def test_two_processes_train_together(tiny_options, tmp_path):
    _train_net("--num-gpus", 2, *tiny_options, "SOLVER.MAX_ITER", 2)
    assert torch.load(tmp_path / "output" / "model_final.pth", weights_only=False)["iteration"] == 1
    scores = json.loads((tmp_path / "output" / "inference" / "metrics.json").read_text())
    assert 0 <= scores["segmentation"]["actor"]["glo"] <= 100


def test_two_processes_train_both_stages(tiny_options, tmp_path):
    output = tmp_path / "output"
    options = [*tiny_options, "MODEL.TRAIN_BRANCH", "separate", "SOLVER.MAX_ITER", 1]
    _train_net("--num-gpus", 2, *options)
    first, second = (
        torch.load(path / "model_final.pth", weights_only=False)["model"]
        for path in (output / "actor_stage", output)
    )
    assert 0 < len(first) < len(second)
    assert all(second[name].equal(x) for name, x in first.items())
    scores = json.loads((output / "inference" / "metrics.json").read_text())
    _train_net("--eval-only", "--resume", *options, "TEST.NUM_PICTURES", 0)
    assert json.loads((output / "inference" / "metrics.json").read_text()) == scores


def test_torchrun_trains_too(tiny_options, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "train_net.py", "--config-file"]
    command += ["configs/synthetic/R18_FPN.yaml", *tiny_options, "SOLVER.MAX_ITER", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "World size: 2" in done.stdout
    assert (tmp_path / "output" / "inference" / "metrics.json").exists()


def test_the_best_score_survives_a_restart(tmp_path):
    def hook(start, score):
        made = ResumableBestCheckpointer(0, BestModelWriter(nn.Linear(1, 1), str(tmp_path)), "s")
        made.trainer = SimpleNamespace(
            start_iter=start,
            iter=start,
            max_iter=start + 1,
            storage=SimpleNamespace(latest=lambda: {"s": (score, start)}),
        )
        made.before_train()
        made.after_train()
        return made

    hook(0, 40.0)
    first = torch.load(tmp_path / "model_best.pth", weights_only=False)
    assert hook(1, 30.0).best_metric == 40.0  # a worse model does not replace it
    again = torch.load(tmp_path / "model_best.pth", weights_only=False)
    assert again["model"]["weight"].equal(first["model"]["weight"])
    assert hook(2, 50.0).best_metric == 50.0
    assert not (tmp_path / "last_checkpoint").exists()


def test_a_score_is_never_noted_before_its_weights_are_there(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    made = ResumableBestCheckpointer(0, BestModelWriter(nn.Linear(1, 1), str(tmp_path)), "s")
    storage = SimpleNamespace(latest=lambda: {"s": (40.0, 1)})
    made.trainer = SimpleNamespace(start_iter=0, iter=1, max_iter=2, storage=storage)
    (tmp_path / "model_best.json").write_text('{"score": 99.0, "iteration": 7}')
    made.before_train()  # a new run: what an older one reached does not count
    assert not (tmp_path / "model_best.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            made.after_train()
    assert [path.name for path in tmp_path.iterdir()] == ["model_best.pth"]
    made.best_iter = made.best_metric = None
    made.after_train()
    assert json.loads((tmp_path / "model_best.json").read_text())["score"] == 40.0


@pytest.mark.parametrize(
    "damaged",
    [
        *("{", "5", '{"score": []}', '{"score": 1}'),
        '{"score": 1.0, "iteration": Infinity}',
        '{"score": NaN, "iteration": 3}',
        '{"score": -Infinity, "iteration": 3}',
        '{"score": 1' + "0" * 400 + ', "iteration": 3}',
    ],
)
def test_a_damaged_best_score_is_one_line(damaged, tmp_path):
    made = ResumableBestCheckpointer(0, BestModelWriter(nn.Linear(1, 1), str(tmp_path)), "s")
    made.trainer = SimpleNamespace(start_iter=1)
    (tmp_path / "model_best.json").write_text(damaged)
    with pytest.raises(ValueError, match=r"model_best\.json is damaged: .*; without the file"):
        made.before_train()


@pytest.mark.parametrize("state", [{"iteration": 7}, {"iteration": "7"}])
def test_state_of_another_training_is_one_line(state, tiny_options, tmp_path):
    made = ActorActionTrainer(setup_cfg(str(ROOT / "configs/synthetic/R18_FPN.yaml"), tiny_options))
    made.checkpointer.save("model_0000007", iteration=7)
    path = tmp_path / "output" / "model_0000007.pth"
    torch.save(torch.load(path) | {"trainer": state}, path)
    with pytest.raises(ValueError, match=r"cannot go on from .*model_0000007\.pth: .*resume with"):
        made.resume_or_load(resume=True)


@pytest.mark.parametrize(
    ("saved", "other", "words"),
    [
        ("ADAMW", ["SOLVER.OPTIMIZER", "SGD"], "another one, without dampening"),
        ("SGD", ["SOLVER.OPTIMIZER", "ADAMW"], "another one, without betas"),
        ("SGD", ["MODEL.BACKBONE.FREEZE_AT", 2], "parameter group"),
    ],
)
def test_another_optimizer_is_one_line(saved, other, words, tiny_options, tmp_path):
    def make(*options):
        config = str(ROOT / "configs/synthetic/R18_FPN.yaml")
        return ActorActionTrainer(setup_cfg(config, [*tiny_options, *options]))

    first = make("SOLVER.OPTIMIZER", saved)
    first.iter = 7
    first.checkpointer.save("model_0000007", iteration=7)
    make("SOLVER.OPTIMIZER", saved).resume_or_load(resume=True)
    with pytest.raises(ValueError, match=rf"cannot go on from .*0007\.pth: .*{words}.*resume with"):
        make("SOLVER.OPTIMIZER", saved, *other).resume_or_load(resume=True)


def test_half_a_line_of_the_log_is_cut_off(tmp_path):
    log = tmp_path / "metrics.json"
    drop_half_line(str(log))
    assert not log.exists()
    for before, after in [
        (b'{"a": 1}\n{"a"', b'{"a": 1}\n'),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b"{", b""),
    ]:
        log.write_bytes(before)
        drop_half_line(str(log))
        assert log.read_bytes() == after


def test_a_users_mistake_in_training_is_one_line_of_the_log(package_log, monkeypatch):
    monkeypatch.delenv("A2D_D2_DEBUG", raising=False)
    log = logging.getLogger("detectron2.engine.train_loop")
    for error in (OSError("cannot write x: No space left on device"), RuntimeError("a bug")):
        try:
            with trainer._without_traceback():
                try:
                    raise error
                except Exception:
                    log.exception("Exception during training:")
                    raise
        except type(error):
            pass
    mistake, bug = package_log.records
    assert mistake.exc_info is None
    assert mistake.getMessage() == "training ends: cannot write x: No space left on device"
    assert bug.exc_info is not None


def test_deterministic_kernels_are_asked_for_by_the_key(tiny_options, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *a, **k: asked.append((a, k)))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    config = str(ROOT / "configs/synthetic/R18_FPN.yaml")
    ActorActionTrainer(setup_cfg(config, tiny_options))
    assert asked == []
    ActorActionTrainer(setup_cfg(config, [*tiny_options, "SOLVER.DETERMINISTIC", "True"]))
    assert asked == [((True,), {"warn_only": True})]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["MODEL.FLOW.ENABELD", "False"], ["MODEL.FLOW.ENABELD"]),
        (["DATASETS.ROOT", "/nowhere"], ["/nowhere", "videoset.csv"]),
        (["MODEL.WEIGHTS", "/nowhere/model.pth"], ["/nowhere/model.pth", "MODEL.WEIGHTS"]),
        (["DATASETS.LABEL_SPACE", "/nowhere.yaml"], ["/nowhere.yaml"]),
        (["--num-gpus", "2", "DATASETS.ROOT", "/nowhere"], ["/nowhere", "videoset.csv"]),
        (["--eval-only"], ["MODEL.WEIGHTS is empty"]),
        (["--seed=-5"], ["--seed is -5; it must be at least 0"]),
        (["MODEL.CLASSES", "pairs"], ["MODEL.CLASSES", "ActorActionROIHeads"]),
    ],
)
def test_a_users_mistake_is_one_line(tiny_options, options, words):
    flags = options[: options.index("DATASETS.ROOT")] if "--num-gpus" in options else []
    flags = options[:1] if options[0] in ("--eval-only", "--seed=-5") else flags
    done = _train_net(*flags, *tiny_options, *options[len(flags) :], expect=2)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert all(word in last for word in words), last
    assert "Traceback" not in done.stderr
