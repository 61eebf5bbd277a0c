"""Two systems from release to page, one of them killed in the middle of its training."""

import json
import signal
import subprocess
import sys
import time

import torch

from a2d_d2.experiments.outputs import write_outputs
from a2d_d2.experiments.records import read_record
from a2d_d2.experiments.runs import run_all


def _kill_in_training(experiment, run):
    """Starts the tool and kills it once the first of two steps has its checkpoint."""
    command = [sys.executable, "tools/run_experiments.py", "--suite=table1"]
    command += [f"--root={experiment.root}", f"--output={experiment.output}"]
    command += [f"--base={experiment.base}", f"--hold-out={experiment.hold_out}"]
    folder = experiment.folder(run)
    with subprocess.Popen([*command, *experiment.options]) as process:
        while not (folder / "last_checkpoint").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (folder / "trained.json").exists()
    assert (folder / "last_checkpoint").read_text() == "model_0000000.pth"


def test_a_killed_experiment_ends_with_the_same_figures(make_experiment, tmp_path):
    whole = make_experiment(output=tmp_path / "whole")
    plan = whole.plan("table1")
    assert run_all(whole, plan) == []

    killed = make_experiment(output=tmp_path / "killed")
    _kill_in_training(killed, plan[0])
    assert run_all(killed, killed.plan("table3", ["full", "mask_rcnn"])) == []
    log = (killed.folder(plan[0]) / "console.log").read_text()
    assert "Starting training from iteration 1" in log  # it went on, not anew

    first, second = (read_record(experiment.record_path(plan[0])) for experiment in (whole, killed))
    assert first == second
    weights, again = (
        torch.load(e.folder(plan[0]) / "model_final.pth", weights_only=False)["model"]
        for e in (whole, killed)
    )
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert [step for step, _ in first["validation"]["segmentation/joint/mIoU"]] == [1, 2]
    assert first["training"]["steps"] == 2
    assert set(first["figures"]) == {"official", "med-vt", "coco", "default thresholds"}
    assert 0 < first["figures"]["official"]["segmentation"]["actor"]["glo"] <= 100

    page = write_outputs(killed.output, killed.root)
    results = json.loads((killed.output / "results.json").read_text())
    assert list(results["systems"]) == ["full", "mask_rcnn"]
    assert (killed.output / "qualitative.png").stat().st_size > 1000
    assert 'id="frames"' in page.read_text()
    # On another machine the records alone give the same results.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (killed.output / "records").rename(elsewhere / "records")
    write_outputs(elsewhere, None)
    assert json.loads((elsewhere / "results.json").read_text()) == results


def test_the_tool_makes_tables_of_records_alone(make_record, make_experiment, tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    (records / "full-seed0.json").write_text(json.dumps(make_record("full")))
    make_experiment()  # goes to the repository
    command = [sys.executable, "tools/run_experiments.py", f"--output={tmp_path}"]
    done = subprocess.run([*command, "--tables-only"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tables.md").exists()
    assert done.stdout == f"Written to {tmp_path / 'index.html'}\n"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --root is missing")
