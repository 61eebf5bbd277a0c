"""Atomic writes and the parallel map."""

import json
import os
import signal
import subprocess
import sys

import pytest

from a2d_d2.utils.cli import run_tool
from a2d_d2.utils.files import atomic_path, make_folder, write_json, write_json_rows
from a2d_d2.utils.parallel import parallel_map


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "deep" / "scores.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize("name", ["file", "file/x", "file/x/y"])
def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path, name):
    (tmp_path / "file").touch()
    path = tmp_path / name
    with pytest.raises(OSError, match=f"^cannot write {path}: .*; choose a folder that can be"):
        make_folder(path)
    make_folder(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


@pytest.mark.parametrize("rows", [[], [1], [{"a": [1, 2]}, "\n}", None]])
def test_rows_of_json_are_written_one_by_one(tmp_path, rows):
    path = tmp_path / "tracks.json"
    head = {"name": "\n}", "nested": {"a": []}}
    write_json_rows(path, head, "rows", iter(rows))
    assert json.loads(path.read_text()) == {**head, "rows": rows}


def test_rows_of_json_that_break_off_leave_the_old_file(tmp_path):
    path = tmp_path / "tracks.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError):
        write_json_rows(path, {"b": 2}, "rows", (1 // (2 - i) for i in range(3)))
    assert json.loads(path.read_text()) == {"a": 1} and len(list(tmp_path.iterdir())) == 1


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "x.png") as temporary:
        assert temporary.suffix == ".png"


@pytest.mark.parametrize("workers", [1, 2])
def test_parallel_map_keeps_the_order(workers):
    items = list(range(40))
    assert list(parallel_map(str, items, workers=workers, progress=False)) == list(map(str, items))


def _die(_):
    os._exit(1)


def test_a_dead_worker_is_an_error_not_a_hang():
    with pytest.raises(OSError, match="a worker process died"):
        list(parallel_map(_die, [1, 2], workers=2, progress=False))


_KILLED = f"""
import os
from a2d_d2.utils.parallel import parallel_map

def kill(process):
    os.kill(process, {int(signal.SIGKILL)})

if __name__ == "__main__":
    list(parallel_map(kill, [os.getpid()] * 2, workers=2, progress=False))
"""


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_KILLED)
    # Returns when no process holds the pipes any more.
    done = subprocess.run([sys.executable, script], capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL


def test_parallel_map_of_nothing():
    assert list(parallel_map(str, [], progress=False)) == []


@pytest.mark.parametrize(
    "error", [ValueError("clip.mp4 is\nbroken"), OSError("clip.mp4 is broken")]
)
def test_a_users_mistake_is_one_line(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: clip.mp4 is broken\n"


def test_the_traceback_of_a_mistake_can_be_had(monkeypatch):
    def main():
        raise ValueError("clip.mp4 is broken")

    monkeypatch.setenv("A2D_D2_DEBUG", "1")
    with pytest.raises(ValueError, match="clip.mp4 is broken"):
        run_tool(main)
