"""SIGTERM as a training hears it, and what passes it on."""

import argparse
import multiprocessing
import os
import signal
import time

import pytest
from torch.multiprocessing import ProcessExitedException

from a2d_d2.engine import launch
from a2d_d2.engine.stop import STOPPED, Stopped, StopRequest, passing_on


def _terminate_this():
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_signal_is_noted_and_acted_on_at_the_end_of_a_step():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.check()
        _terminate_this()
        assert stop.requested
        with pytest.raises(Stopped) as end:
            stop.check()
    assert end.value.code == STOPPED == 75
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_signal_ends_what_can_take_long_at_once():
    with StopRequest() as stop:
        with pytest.raises(Stopped), stop.at_once():
            _terminate_this()
            raise AssertionError("not reached")
        with pytest.raises(Stopped), stop.at_once():  # it came before
            raise AssertionError("not reached")
    with StopRequest() as stop:
        with stop.at_once():
            pass
        _terminate_this()  # raises nothing here
    assert stop.requested


def _stuck():
    with StopRequest(deadline=0.2) as stop:
        _terminate_this()
        while stop.requested:
            time.sleep(0.01)


def _waits(ready):
    with StopRequest() as stop:
        ready.set()
        while not stop.requested:
            time.sleep(0.01)
        stop.check()


def test_a_stuck_process_ends_all_the_same():
    process = multiprocessing.get_context("fork").Process(target=_stuck)
    process.start()
    process.join(20)
    assert process.exitcode == STOPPED


def test_the_signal_is_passed_on_to_every_process():
    context = multiprocessing.get_context("fork")
    ready = [context.Event() for _ in range(2)]
    with passing_on():
        processes = [context.Process(target=_waits, args=(event,)) for event in ready]
        for process in processes:
            process.start()
        assert all(event.wait(20) for event in ready)
        _terminate_this()
        for process in processes:
            process.join(20)
    assert [process.exitcode for process in processes] == [STOPPED, STOPPED]


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        (STOPPED, Stopped, None),
        (1, ProcessExitedException, None),
        (-signal.SIGKILL, ValueError, r"process 3 was killed \(SIGKILL; out of memory\?\)"),
    ],
)
def test_stopped_processes_stop_the_command(monkeypatch, code, expected, words):
    with pytest.raises(expected, match=words):
        _launch_whose_process_ends(monkeypatch, code)


def test_the_signal_before_a_process_listens_stops_the_command(monkeypatch):
    with pytest.raises(Stopped):
        _launch_whose_process_ends(monkeypatch, -signal.SIGTERM, _terminate_this)


def _launch_whose_process_ends(monkeypatch, code, before=lambda: None):
    def fail(*_, **__):
        before()
        name = signal.Signals(-code).name if code < 0 else None
        raise ProcessExitedException(
            "ended", error_index=3, error_pid=1, exit_code=code, signal_name=name
        )

    monkeypatch.setattr(launch, "launch", fail)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    args = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch.launch_main(lambda args: None, args)
