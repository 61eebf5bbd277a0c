"""Signals that must not interrupt a call."""

import os
import signal
import threading

import cv2
import pytest

from a2d_d2.data import video
from a2d_d2.utils.signals import signals_later


class _Stop(Exception):
    pass


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def raising(request):
    """A signal whose handler raises."""

    def handler(number, frame):
        raise _Stop

    before = signal.signal(request.param, handler)
    yield request.param
    assert signal.getsignal(request.param) is handler
    signal.signal(request.param, before)


def test_a_signal_waits_for_the_end_of_the_block(raising):
    seen = []
    with pytest.raises(_Stop), signals_later():
        os.kill(os.getpid(), raising)
        seen.append("all of the block")
    assert seen == ["all of the block"]
    with signals_later():
        pass


def test_without_a_handler_of_python_nothing_changes():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals_later():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_are_left_alone(raising):
    handler, seen = signal.getsignal(raising), []

    def look():
        with signals_later():
            seen.append(signal.getsignal(raising) is handler)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [True]


def test_a_video_is_opened_whole(raising, tmp_path, monkeypatch):
    seen = []

    def open_video(*_):
        os.kill(os.getpid(), raising)
        seen.append("opened")

    monkeypatch.setattr(cv2, "VideoCapture", open_video)
    with pytest.raises(_Stop):
        video._open(tmp_path / "any.mp4")
    assert seen == ["opened"]
