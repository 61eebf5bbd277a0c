"""What a training says of where and with what it was started."""

import argparse
import json
import logging

import pytest
import torch

from a2d_d2.engine import logs, provenance
from a2d_d2.experiments.measure import training_origin


@pytest.fixture
def start(small_cfg, tmp_path, monkeypatch):
    """Sets a run up as train_net.py does, as of a revision."""
    cfg = small_cfg("OUTPUT_DIR", str(tmp_path))
    # Its loggers would keep the standard output of this test.
    monkeypatch.setattr(logs, "setup_logger", lambda **_: logging.Logger("of this test"))

    def make(revision, *, resume=False, eval_only=False):
        code = {"revision": revision, "dirty": False}
        monkeypatch.setattr(provenance, "describe_code", lambda: code)
        logs.set_up(cfg, argparse.Namespace(resume=resume, eval_only=eval_only))
        path = tmp_path / "provenance.json"
        return json.loads(path.read_text()) if path.exists() else None

    return make


def test_every_start_is_kept_until_a_run_begins_anew(start, tmp_path):
    assert start("a", eval_only=True) is None
    (first,) = start("a")
    assert first["versions"]["torch"] == torch.__version__ and first["processes"] == 1
    assert [s["code"]["revision"] for s in start("b", resume=True)] == ["a", "b"]
    origin = training_origin(tmp_path)
    assert origin["code"]["revision"] == "b"
    assert [s["code"]["revision"] for s in origin["starts"]] == ["a", "b"]
    assert [s["code"]["revision"] for s in start("c")] == ["c"]
    start("c", resume=True)
    assert set(training_origin(tmp_path)) == {"code", "versions", "machine", "processes"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"5",
        b"[5]",
        b"[[]]",
        b'[{"code": {}}]',
        b"\xff",
        pytest.param(b"[" * 9**5, id="deep"),
    ],
)
def test_a_broken_file_begins_anew(content, start, tmp_path):
    (tmp_path / "provenance.json").write_bytes(content)
    assert [s["code"]["revision"] for s in start("a", resume=True)] == ["a"]


def test_a_training_of_older_code_has_this_process(tmp_path):
    assert training_origin(tmp_path) == provenance.describe_start()
