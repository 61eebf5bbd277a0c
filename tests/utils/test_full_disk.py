"""Full disks, closed folders, and what killed processes leave behind."""

import os
import subprocess

import numpy as np
import pytest
import torch

from a2d_d2.data.flow import write_flow
from a2d_d2.data.release_writer import write_annotation
from a2d_d2.data.video import write_frames
from a2d_d2.evaluation.predictions import write_predictions
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils import files
from a2d_d2.utils.files import atomic_path, atomic_stream, write_json
from a2d_d2.visualization.canvas import write_picture

NOISE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
MASKS = NOISE.transpose(2, 0, 1) > 127


def _write_checkpoint(path):
    with atomic_stream(path, durable=True) as stream:
        torch.save({"weights": torch.zeros(1000), "more": torch.zeros(50_000)}, stream)


WRITERS = {
    "scores.json": lambda path: write_json(path, list(range(10_000))),
    "predictions.json": lambda path: write_predictions(path, [{"actor": "cat"}] * 1000),
    "model.pth": _write_checkpoint,
    "frame.png": lambda path: write_picture(path, NOISE),
    "flow.png": lambda path: write_flow(path, NOISE[..., :2].astype(np.float32)),
    "00001.mat": lambda path: write_annotation(
        path, MASKS[0] * 11, MASKS, [11, 12, 13], LabelSpace.a2d()
    ),
    "clip.mp4": lambda path: write_frames(path, [NOISE] * 3, 10.0),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_the_old_file_stays(name, tmp_path, full_disk):
    path = tmp_path / name
    path.write_bytes(b"old")
    with (
        full_disk(),
        pytest.raises(OSError, match=f"^cannot write {path}: .*(space|disk)") as error,
    ):
        WRITERS[name](path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    path = tmp_path / "taken" / "scores.json"
    with pytest.raises(OSError, match=f"^cannot write {path}: .*choose a folder"):
        write_json(path, {})


def test_a_folder_that_is_closed_is_named(tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied", str(tmp_path / ".tmp-x"))

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    path = tmp_path / "scores.json"
    with pytest.raises(OSError, match=f"^cannot write {path}: Permission denied; choose a folder"):
        write_json(path, {})


def test_an_error_of_another_file_is_left_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic_path(tmp_path / "x.json"):
        open("/nowhere/at/all")  # noqa: SIM115
    assert os.listdir(tmp_path) == []


def test_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = files._HOST
    kept = {f".tmp-{host}-{os.getppid()}-a.json", f".tmp-elsewhere-{dead.pid}-a.json", ".tmp-a"}
    gone = {f".tmp-{host}-{dead.pid}-a.pth", f".tmp-{host}-{os.getpid()}-a.json"}
    for name in kept | gone:
        (tmp_path / name).write_text("half")
    with atomic_path(tmp_path / "x.json") as temporary, atomic_path(tmp_path / "y.json"):
        assert temporary.exists()
        assert not gone & set(os.listdir(tmp_path))
    assert set(os.listdir(tmp_path)) == kept | {"x.json", "y.json"}
