"""Checkpoints of a run that may be killed at any moment."""

import json
import os
import zipfile

import pytest
import torch
from torch import nn

from a2d_d2.engine import checkpoint
from a2d_d2.engine.checkpoint import RunCheckpointer, broken_checkpoint, load_last_weights


def _checkpointer(folder, kept=0):
    return RunCheckpointer(nn.Linear(100, 30), str(folder), kept=kept)


def _write(folder, *steps, kept=0):
    for step in steps:
        _checkpointer(folder, kept).save(f"model_{step:07d}", iteration=step)


def _damage(path):
    """One bit of a weight."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_last_ones_are_kept_over_restarts(tmp_path):
    _write(tmp_path, 0, 1, 2, kept=2)
    _checkpointer(tmp_path, 2).save("model_final", iteration=2)
    _write(tmp_path, 3, kept=2)
    _checkpointer(tmp_path).save("model_best")
    names = {"model_0000002.pth", "model_0000003.pth", "model_final.pth", "model_best.pth"}
    assert {path.name for path in tmp_path.glob("*.pth")} == names
    _write(tmp_path, 4)  # keeps all
    assert len(list(tmp_path.glob("*.pth"))) == 5


def test_a_broken_checkpoint_is_passed_over_with_a_line(tmp_path, package_log):
    _write(tmp_path, 0, 1, 2)
    paths = [tmp_path / f"model_{step:07d}.pth" for step in range(3)]
    assert _checkpointer(tmp_path).find_last() == str(paths[2])
    assert package_log.records[-1].levelname != "WARNING"
    torch.load(paths[2])
    _damage(paths[2])
    torch.load(paths[2])  # does not notice
    paths[1].write_bytes(paths[1].read_bytes()[:-500])
    assert _checkpointer(tmp_path).find_last() == str(paths[0])
    (line,) = [r.getMessage() for r in package_log.records if r.levelname == "WARNING"]
    assert f"{paths[2]} is broken (wrong checksum" in line
    assert f"{paths[1]} is broken (cut off" in line
    assert f"going on from {paths[0]}" in line
    paths[0].write_bytes(b"")
    with pytest.raises(ValueError, match="there is no other checkpoint; begin anew without --res"):
        _checkpointer(tmp_path).find_last()


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert _checkpointer(tmp_path).find_last() is None


def test_the_tag_can_be_set_back_by_hand(tmp_path):
    _write(tmp_path, 0, 1, 2)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth\n")
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000001.pth")
    _damage(tmp_path / "model_0000001.pth")
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000000.pth")


class _RunsCode:
    def __reduce__(self):
        return os.mkdir, ("code_ran",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"model": {}, "optimizer": _RunsCode()}, "is broken (not a checkpoint of tensors and pl"),
        ({"model": {}, "iteration": 5}, 'is not of this training (it has no "trainer")'),
        ([5], 'is not of this training (it has no "model")'),
        ({"model": {"bias": 5}, "trainer": {}}, "not of this model (it lacks 2 tensors, weight f"),
        ({"model": nn.Linear(9, 30).state_dict(), "trainer": {}}, "lacks 1 tensors, weight first"),
    ],
)
def test_a_whole_file_of_something_else_is_passed_over(
    content, problem, tmp_path, package_log, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    state = torch.optim.SGD([torch.zeros(1)], lr=1)
    run = RunCheckpointer(nn.Linear(100, 30), str(tmp_path), trainer=state)
    run.save("model_0000000", iteration=0)
    run.save("model_0000001", iteration=1)
    torch.save(content, tmp_path / "model_0000001.pth")
    assert run.find_last() == str(tmp_path / "model_0000000.pth")
    (line,) = [r.getMessage() for r in package_log.records if r.levelname == "WARNING"]
    assert problem in line and str(tmp_path / "model_0000001.pth") in line
    assert not (tmp_path / "code_ran").exists()


def test_a_compressed_checkpoint_is_passed_over(tmp_path, package_log):
    _write(tmp_path, 0, 1)
    path = tmp_path / "model_0000001.pth"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000000.pth")
    assert f"{path} is broken (it stands for more than it holds)" in package_log.text


def test_damaged_names_of_checkpoints(tmp_path, package_log):
    _write(tmp_path, 0, 1)
    (tmp_path / "last_checkpoint").write_bytes(b"\xff\xfe")
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000001.pth")
    assert f"{tmp_path}/\\xff\\xfe is broken" in package_log.text
    (tmp_path / "last_checkpoint").write_bytes(b"a\0b")
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000001.pth")
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "last_checkpoint").mkdir()
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000001.pth")
    (tmp_path / "last_checkpoint").rmdir()
    (tmp_path / "last_checkpoint").write_text("model_0000000.pth")
    for damaged in ("5", "[5, null]", '{"a": 1}', "[" * 100_000, '["../x.pth"]', "\xff"):
        (tmp_path / "recent_checkpoints.json").write_text(damaged, encoding="latin1")
        assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000000.pth")
    _write(tmp_path, 2)
    names = json.loads((tmp_path / "recent_checkpoints.json").read_text())
    assert names == ["model_0000002.pth"]


def test_the_last_whole_checkpoint_is_evaluated(tmp_path, small_cfg, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        checkpoint, "load_trained_weights", lambda model, cfg: loaded.append(cfg.MODEL.WEIGHTS)
    )
    cfg = small_cfg("OUTPUT_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="holds no checkpoint: nothing was trained"):
        load_last_weights(nn.Linear(100, 30), cfg)
    _write(tmp_path, 0, 1)
    _damage(tmp_path / "model_0000001.pth")
    load_last_weights(nn.Linear(100, 30), cfg)
    assert loaded == [str(tmp_path / "model_0000000.pth")]


def test_killed_before_the_first_tag(tmp_path):
    _write(tmp_path, 0)
    (tmp_path / "last_checkpoint").unlink()
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000000.pth")


def test_a_checkpoint_of_another_program_is_found(tmp_path):
    torch.save({"model": nn.Linear(100, 30).state_dict()}, tmp_path / "model_0000009.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000009.pth")


def test_a_new_run_forgets_but_deletes_nothing(tmp_path, package_log):
    _checkpointer(tmp_path).forget()
    assert not package_log.records
    _write(tmp_path, 0)
    _checkpointer(tmp_path).forget()
    assert "checkpoints of an older run" in package_log.text
    assert os.listdir(tmp_path) == ["model_0000000.pth"]
    assert _checkpointer(tmp_path).find_last() is None


def test_a_full_disk_leaves_the_one_before(tmp_path, full_disk):
    _write(tmp_path, 0)
    message = r"^cannot write .*model_0000001\.pth: .*; free some sp"
    with full_disk(), pytest.raises(OSError, match=message):
        _write(tmp_path, 1)
    assert _checkpointer(tmp_path).find_last() == str(tmp_path / "model_0000000.pth")
    assert json.loads((tmp_path / "recent_checkpoints.json").read_text()) == ["model_0000000.pth"]
    assert len(os.listdir(tmp_path)) == 3


def test_what_is_no_checkpoint(tmp_path):
    assert broken_checkpoint(tmp_path / "none.pth") == "No such file or directory"
    (tmp_path / "text.pth").write_text("weights")
    assert broken_checkpoint(tmp_path / "text.pth") == "cut off, or no checkpoint"


def test_all_files_of_a_checkpoint_are_on_the_disk_before_they_have_their_names(
    tmp_path, monkeypatch
):
    kept = []
    monkeypatch.setattr("a2d_d2.utils.files._synchronize", lambda path: kept.append(path.name))
    _write(tmp_path, 0)
    files = [name for name in kept if name.startswith(".tmp-")]
    assert len(files) == len(os.listdir(tmp_path)) == 3
