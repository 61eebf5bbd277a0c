"""The demo: steps that are complete are not run again, other settings are refused."""

import json

import pytest

from a2d_d2.engine import demo
from a2d_d2.engine.demo import MINIATURE, DemoSize, run_demo

SCORES = {
    "segmentation": {k: {"ave": 1, "glo": 2, "mIoU": 3} for k in ("actor", "action", "joint")},
    "detection": {k: {"mAP": 4} for k in ("actor", "action", "joint")},
}


@pytest.fixture
def steps(monkeypatch):
    """Names of the steps that ran; training leaves what it would leave."""
    ran = []

    def step(number, title, command):
        ran.append(number)

    def train(command, log):
        ran.append("train")
        model = log.parent
        (model / "inference").mkdir(parents=True)
        (model / "inference" / "metrics.json").write_text(json.dumps(SCORES))
        (model / "model_final.pth").touch()
        return 60

    monkeypatch.setattr(demo, "_step", step)
    monkeypatch.setattr(demo, "_train", train)
    return ran


def test_training_is_not_repeated_and_the_summary_is_of_the_whole_run(steps, tmp_path, capsys):
    folder = tmp_path / "demo"
    run_demo(folder, MINIATURE)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["training_seconds"] == 60
    assert summary["segmentation"] == SCORES["segmentation"]
    run_demo(folder, MINIATURE)
    assert steps == [1, 2, "train", 4, 1, 2, 4]
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert "index.html" in capsys.readouterr().out


def test_a_folder_of_another_demo_is_refused(steps, tmp_path):
    run_demo(tmp_path / "demo", MINIATURE)
    before = list(steps)
    with pytest.raises(ValueError, match="holds a demo of another size"):
        run_demo(tmp_path / "demo", DemoSize(train_videos=99, test_videos=4))
    with pytest.raises(ValueError, match="choose another folder"):
        run_demo(tmp_path / "demo", MINIATURE, seed=7)
    assert steps == before
