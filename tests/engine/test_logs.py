"""Logs of a run on a full disk, and of a step that is written twice."""

import argparse
import errno
import io
import logging
import os
import threading
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from tensorboard.summary.writer.record_writer import RecordWriter

from a2d_d2.engine import logs
from a2d_d2.engine.logs import EventsFile, LogFile, MetricsFile, MetricsHook, StepPrinter
from a2d_d2.engine.trainer import _without_traceback
from a2d_d2.utils import files


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _FullFile(io.StringIO):
    flush = _full


def _written(tmp_path, writers, *, steps=1, max_iter=9):
    """Writes each step; the training ends early."""
    hook = MetricsHook(writers, 1)
    hook.trainer = SimpleNamespace(iter=0, max_iter=max_iter)
    with EventStorage(0) as storage, _without_traceback():
        try:
            for step in range(steps):
                storage.iter = hook.trainer.iter = step
                storage.put_scalar("total_loss", 1.0)
                hook.after_step()
        finally:
            hook.after_train()


def test_a_step_that_was_just_written_can_be_the_last(tmp_path, package_log):
    _written(tmp_path, [StepPrinter(9)], steps=2)  # Detectron2's divides by zero
    lines = [r.getMessage() for r in package_log.records if "iter: " in r.getMessage()]
    assert len(lines) == 2


def test_a_full_disk_leaves_no_config_and_no_log(tmp_path, small_cfg, monkeypatch):
    monkeypatch.setattr(files.Path, "write_bytes", _full)
    cfg = small_cfg("OUTPUT_DIR", str(tmp_path / "run"))
    message = r"^cannot write .*run/config\.yaml: No space left on device; free some space$"
    with pytest.raises(OSError, match=message):
        logs.set_up(cfg, argparse.Namespace(eval_only=True))
    assert os.listdir(tmp_path / "run") == []


def test_a_log_on_a_full_disk_ends_nothing(tmp_path, capsys):
    file = LogFile(tmp_path / "run" / "log.txt")
    logger = logging.Logger("test")
    logger.addHandler(file)
    logger.warning("one")
    file.stream, stream = _FullFile(), file.stream
    logger.warning("two")
    assert capsys.readouterr().err == ""
    file.stream = stream
    logger.warning("three %d", "x")  # a mistake in the code is still reported
    assert "Logging error" in capsys.readouterr().err
    logger.warning("four")
    file.close()
    text = (tmp_path / "run" / "log.txt").read_text()
    assert text.splitlines()[-1].endswith("test WARNING: four") and "one" in text


def test_metrics_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", _full)
    path = tmp_path / "metrics.json"
    message = r"^cannot write .*/metrics\.json: No space left on device; free some space$"
    with pytest.raises(OSError, match=message):
        _written(tmp_path, [MetricsFile(str(path))])
    # Of a training that ended well it is said too.
    hook = MetricsHook([MetricsFile(str(path))], 9)
    hook.trainer = SimpleNamespace(iter=9, max_iter=9)
    with EventStorage(9), pytest.raises(OSError, match=message):
        hook.after_train()


def test_what_ended_a_training_is_told_not_that_its_log_fails_too(tmp_path, monkeypatch):
    hook = MetricsHook([MetricsFile(str(tmp_path / "metrics.json"))], 9)
    hook.trainer = SimpleNamespace(iter=3, max_iter=9)
    monkeypatch.setattr(os, "fsync", _full)
    with EventStorage(3) as storage:
        storage.put_scalar("total_loss", 1.0)
        hook.after_train()
    assert hook._writers[0]._file_handle.closed


@pytest.mark.parametrize("method", ["write", "flush"])
def test_tensorboard_on_a_full_disk(method, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(RecordWriter, method, _full)
    report = threading.excepthook
    with pytest.raises(OSError, match=r"^cannot write .*/events\.out\.tfevents: No space left on"):
        _written(tmp_path, [EventsFile(str(tmp_path))])
    assert threading.excepthook is report
    assert "Traceback" not in capsys.readouterr().err
    assert [path for path in tmp_path.iterdir() if not path.stat().st_size] == []


def test_tensorboard_has_what_was_written(tmp_path):
    _written(tmp_path, [EventsFile(str(tmp_path))], steps=2)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("events.out.tfevents.") and b"total_loss" in file.read_bytes()
