"""SIGTERM, a scheduler's warning: a training ends with a checkpoint, and --resume goes on."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from a2d_d2.engine.ranks import any_process

# Exit code of a training that was stopped: EX_TEMPFAIL of sysexits.h, "try again".
STOPPED = 75
# Seconds from the signal until the process ends, whatever it does. Schedulers wait 30 or more.
DEADLINE = 20


class Stopped(SystemExit):
    """The training ends here; what it has done is in a checkpoint."""

    def __init__(self):
        super().__init__(STOPPED)


class StopRequest:
    """Notes SIGTERM while it is entered.

    Args:
        deadline: seconds after which the process ends even if it is stuck: in a step that takes too
            long, or waiting for a process that is gone. Its last checkpoint stays.

    Attributes:
        requested: whether the signal came.
    """

    def __init__(self, deadline: float = DEADLINE):
        self.deadline = deadline
        self.requested = False
        self._at_once = False
        self._left = threading.Event()

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            # The interpreter sees a signal between two steps of its own only. A thread hears of it
            # even while the process waits in a library.
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._left.clear()
            threading.Thread(target=self._watch, daemon=True).start()
            self._handler = signal.signal(signal.SIGTERM, self._hear)
            self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_):
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup)
            signal.signal(signal.SIGTERM, self._handler)
            self._left.set()
            self._writer.close()  # ends the thread

    def check(self) -> None:
        """Raises Stopped in all processes if any has heard the signal."""
        self.requested = any_process(self.requested)
        if self.requested:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """In this block, which can take long and loses nothing, the signal raises Stopped."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def _hear(self, number, frame) -> None:
        self.requested = True
        if self._at_once:
            self._at_once = False
            raise Stopped

    def _watch(self) -> None:
        with self._reader as reader:
            while data := reader.recv(1):
                if data[0] == signal.SIGTERM and not self._left.wait(self.deadline):
                    os.write(
                        sys.__stderr__.fileno(),
                        b"SIGTERM: no step ended in time; --resume takes the last checkpoint\n",
                    )
                    os._exit(STOPPED)


@contextlib.contextmanager
def passing_on() -> Iterator[threading.Event]:
    """In this block SIGTERM goes to the processes that this one has started, and is waited for.

    Gives an event that says whether it came.
    """
    came = threading.Event()

    def send(number, frame) -> None:
        came.set()
        for child in multiprocessing.active_children():
            child.terminate()

    before = signal.signal(signal.SIGTERM, send)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
