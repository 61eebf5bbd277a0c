"""Actor and action branch, trained one after the other."""

import gc
import json
import os
import weakref

import pytest
import torch

from a2d_d2.config import setup_cfg
from a2d_d2.engine import stages
from a2d_d2.engine.checkpoint import load_last_weights
from a2d_d2.engine.stages import train_stages, training_stages
from a2d_d2.engine.trainer import ActorActionTrainer

CONFIG = "configs/synthetic/R18_FPN.yaml"
SEPARATE = ("MODEL.TRAIN_BRANCH", "separate", "SOLVER.MAX_ITER", "2")
ACTION_BRANCH = ("flow_backbone.", "temporal.", "roi_heads.action_")


@pytest.fixture
def make_cfg(tiny_options):
    def make(*options):
        return setup_cfg(CONFIG, [*tiny_options, *SEPARATE, "TEST.NUM_PICTURES", "0", *options])

    return make


@pytest.fixture
def trained(monkeypatch):
    """(branch, first step) of every training that is begun; ``fail`` is raised in that branch."""
    begun, fail = [], {}
    train = ActorActionTrainer.train

    def spy(trainer):
        branch = trainer.cfg.MODEL.TRAIN_BRANCH
        begun.append((branch, trainer.start_iter))
        if branch in fail:
            raise fail.pop(branch)
        return train(trainer)

    monkeypatch.setattr(ActorActionTrainer, "train", spy)
    return begun, fail


def weights(path):
    return torch.load(path, weights_only=False)["model"]


def test_other_branches_are_one_stage():
    for branch in ("joint", "actor", "action"):
        cfg = setup_cfg(opts=["MODEL.TRAIN_BRANCH", branch])
        assert training_stages(cfg) == [cfg]


def test_the_two_stages(tmp_path):
    options = ["MODEL.TRAIN_BRANCH", "separate", "OUTPUT_DIR", str(tmp_path), "MODEL.WEIGHTS", "w"]
    cfg = setup_cfg(opts=[*options, "MODEL.FLOW.WEIGHTS", "f", "DATASETS.TEST", ("a2d_test",)])
    actor, action = training_stages(cfg)
    assert (actor.MODEL.TRAIN_BRANCH, action.MODEL.TRAIN_BRANCH) == ("actor", "action")
    folder = str(tmp_path / "actor_stage")
    assert [folder, str(tmp_path)] == [actor.OUTPUT_DIR, action.OUTPUT_DIR]
    assert ["w", f"{folder}/model_final.pth"] == [actor.MODEL.WEIGHTS, action.MODEL.WEIGHTS]
    assert action.MODEL.FLOW.WEIGHTS == "f"
    assert actor.DATASETS.TEST == () and action.DATASETS.TEST == ("a2d_test",)
    assert actor.TEST.BEST_METRIC == "" != action.TEST.BEST_METRIC
    assert cfg.MODEL.TRAIN_BRANCH == "separate"
    cfg = setup_cfg(opts=[*options, "TEST.EVAL_PERIOD", "5", "DATASETS.TEST", ("a2d_test",)])
    assert training_stages(cfg)[0].DATASETS.TEST == ("a2d_test",)


def test_both_stages_are_trained_and_the_whole_is_evaluated(make_cfg, trained, tmp_path):
    cfg = make_cfg()
    train_stages(cfg, resume=False)
    output = tmp_path / "output"
    assert trained[0] == [("actor", 0), ("action", 0)]
    first = weights(output / "actor_stage" / "model_final.pth")
    second = weights(output / "model_final.pth")
    assert first and not [name for name in first if name.startswith(ACTION_BRANCH)]
    assert all(torch.equal(second[name], x) for name, x in first.items())
    assert all(name.startswith(ACTION_BRANCH) for name in set(second) - set(first))
    assert not (output / "actor_stage" / "inference").exists()
    assert (output / "inference" / "predictions.json").exists()

    # Evaluated again, from the configuration of the whole.
    before = json.loads((output / "inference" / "metrics.json").read_text())
    model = ActorActionTrainer.build_model(cfg)
    load_last_weights(model, cfg)
    (output / "inference" / "metrics.json").unlink()
    ActorActionTrainer.test(cfg, model)
    assert json.loads((output / "inference" / "metrics.json").read_text()) == before

    # Resumed for longer: the first stage is finished.
    train_stages(make_cfg("SOLVER.MAX_ITER", "4"), resume=True)
    assert trained[0][2:] == [("action", 2)]
    longer = weights(output / "model_final.pth")
    assert all(torch.equal(longer[name], x) for name, x in first.items())
    changed = "roi_heads.action_head.predictor.weight"
    assert not torch.equal(longer[changed], second[changed])


def test_killed_between_the_stages(make_cfg, trained, tmp_path):
    begun, fail = trained
    fail["action"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train_stages(make_cfg(), resume=False)
    folder = tmp_path / "output" / "actor_stage"
    first = weights(folder / "model_final.pth")
    train_stages(make_cfg(), resume=True)
    assert begun == [("actor", 0), ("action", 0), ("action", 0)]
    second = weights(tmp_path / "output" / "model_final.pth")
    assert all(torch.equal(second[name], x) for name, x in first.items())


def test_killed_within_the_first_stage(make_cfg, trained, monkeypatch, tmp_path):
    begun, fail = trained
    step = ActorActionTrainer.run_step

    def die_at_the_second(trainer):
        if trainer.iter == 1:
            raise KeyboardInterrupt
        step(trainer)

    monkeypatch.setattr(ActorActionTrainer, "run_step", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_stages(make_cfg("SOLVER.CHECKPOINT_PERIOD", "1"), resume=False)
    monkeypatch.setattr(ActorActionTrainer, "run_step", step)
    fail["action"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train_stages(make_cfg(), resume=True)
    assert begun == [("actor", 0), ("actor", 1), ("action", 0)]


def test_killed_while_the_final_model_is_written(make_cfg, trained, tmp_path):
    begun, fail = trained
    fail["action"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train_stages(make_cfg(), resume=False)
    folder = tmp_path / "output" / "actor_stage"
    whole = weights(folder / "model_final.pth")
    (folder / "model_final.pth").write_bytes(b"half of it")
    (folder / "last_checkpoint").write_text("model_0000001.pth")  # of the same last step
    fail["action"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train_stages(make_cfg(), resume=True)
    assert begun == [("actor", 0), ("action", 0), ("action", 0)]
    again = torch.load(folder / "model_final.pth", weights_only=False)
    assert again["iteration"] == 1
    assert all(torch.equal(again["model"][name], x) for name, x in whole.items())


def test_a_new_run_forgets_an_older_one_in_its_folder(make_cfg, trained, tmp_path):
    begun, fail = trained
    output = tmp_path / "output"
    (output / "actor_stage").mkdir(parents=True)
    for folder in (output, output / "actor_stage"):
        (folder / "last_checkpoint").write_text("model_final.pth")
    fail["actor"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        train_stages(make_cfg(), resume=False)
    assert begun == [("actor", 0)]
    assert not list(output.rglob("last_checkpoint"))


def test_a_resumed_new_run_does_not_end_with_an_older_one(make_cfg, trained, tmp_path):
    begun, fail = trained
    train_stages(make_cfg("SOLVER.MAX_ITER", "1", "SEED", "1"), resume=False)
    fail["actor"] = KeyboardInterrupt()
    new = make_cfg("SOLVER.MAX_ITER", "1", "SEED", "2")
    with pytest.raises(KeyboardInterrupt):
        train_stages(new, resume=False)
    train_stages(new, resume=True)
    assert begun == [("actor", 0), ("action", 0)] + [("actor", 0)] * 2 + [("action", 0)]


@pytest.mark.parametrize("branch", ["joint", "separate"])
def test_a_new_run_forgets_an_older_one_before_it_reads_anything(make_cfg, tmp_path, branch):
    output = tmp_path / "output"
    output.mkdir()
    for name in ("last_checkpoint", "recent_checkpoints.json"):
        (output / name).write_text('["model_final.pth"]')
    with pytest.raises(ValueError, match=r"videoset\.csv"):
        options = ("MODEL.TRAIN_BRANCH", branch, "DATASETS.ROOT", "no/such/release")
        train_stages(make_cfg(*options), resume=False)
    assert os.listdir(output) == []


def test_a_fault_in_the_test_data_shows_before_the_first_stage(make_cfg, trained):
    with pytest.raises(ValueError, match=r"videoset\.csv"):
        train_stages(make_cfg("DATASETS.ROOT", "no/such/release"), resume=False)
    assert trained[0] == []


def test_the_trainer_of_one_stage_refuses_two(make_cfg):
    with pytest.raises(ValueError, match=r"separate is two trainings; a2d_d2\.engine\.stages"):
        ActorActionTrainer(make_cfg())


def test_memory_of_a_stage_is_given_back(make_cfg, monkeypatch):
    """The trainer of the first stage is gone when that of the second is made."""
    alive = []

    class Spy(ActorActionTrainer):
        def __init__(self, cfg):
            gc.collect()
            assert not [x for x in alive if x() is not None]
            super().__init__(cfg)
            alive.append(weakref.ref(self))

    monkeypatch.setattr(stages, "ActorActionTrainer", Spy)
    train_stages(make_cfg("SOLVER.MAX_ITER", "1"), resume=False)
    assert len(alive) == 2
