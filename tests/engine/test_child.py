"""Commands as child processes, and the progress that their log tells."""

import os
import signal
import subprocess
import sys
import time

import pytest

from a2d_d2.engine.child import LogReader, StageBar, run_logged

LOG = [
    "  \x1b[32mMAX_ITER\x1b[0m: 40",
    "[01/01 00:00:00 d2.engine.train_loop]: Starting training from iteration 10",
    "[01/01 00:00:01 d2.utils.events]:  eta: 0:00:01  iter: 19  total_loss: 4.25  loss_cls: 1",
    "[01/01 00:00:02 d2.evaluation.evaluator]: Inference done 11/12. Dataloading: 0 s/iter",
]


def test_progress_follows_the_log(capsys):
    with StageBar() as bar:
        for line in LOG[:3]:
            bar.read(line)
        assert (bar.bar.n, bar.bar.total, bar.bar.initial) == (20, 40, 10)
        bar.read(LOG[3])
        assert (bar.stage, bar.bar.n, bar.bar.total) == ("evaluating", 11, 12)
    assert "loss 4.25" in capsys.readouterr().err


def test_the_reader_tells_what_changed():
    reader = LogReader()
    assert [reader.read(line) for line in LOG] == [False, False, True, True]
    assert (reader.stage, reader.done, reader.total, reader.start) == ("evaluating", 11, 12, 10)


def test_output_goes_to_the_log_and_to_the_reader(tmp_path):
    log, lines = tmp_path / "run" / "console.log", []
    code = (
        "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); sys.exit(3)"
    )
    assert run_logged([sys.executable, "-c", code], log, lines.append) == 3
    assert lines == ["out\n", "err\n"]
    run_logged([sys.executable, "-c", "print('again')"], log, lines.append)
    assert log.read_text() == "out\nerr\nagain\n"


def test_a_child_ends_when_its_reader_fails(tmp_path):
    def fail(line):
        raise RuntimeError(line)

    code = "import time; print('here', flush=True); time.sleep(60)"
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="here"):
        run_logged([sys.executable, "-c", code], tmp_path / "log", fail)
    assert time.monotonic() - start < 30


def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from a2d_d2.engine.child import run_logged\n"
        "child = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "run_logged([sys.executable, '-c', child], Path(sys.argv[1]), lambda line: None)\n"
    )
    log = tmp_path / "log"
    parent = subprocess.Popen([sys.executable, "-c", code, str(log)])
    while not (log.exists() and log.read_text().strip()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    child = int(log.read_text())
    for _ in range(200):
        if not _is_running(child):
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child lives on")


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
