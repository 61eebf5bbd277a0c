"""train_net.py and other commands as child processes: output in a log, progress in a bar."""

import ctypes
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

_COLORS = re.compile(r"\x1b\[[\d;]*m")
_START = re.compile(r"Starting training from iteration (\d+)")
_LENGTH = re.compile(r"MAX_ITER: (\d+)")
_TRAINING = re.compile(r"eta: .* iter: (\d+) .*total_loss: ([\d.]+)")
_EVALUATION = re.compile(r"Inference done (\d+)/(\d+)")
_PR_SET_PDEATHSIG = 1


def run_logged(
    command: Sequence[str],
    log: Path,
    read: Callable[[str], None],
    *,
    pass_fds: Sequence[int] = (),
) -> int:
    """Runs a command to its end, its output appended to ``log``.

    The child is terminated when this process dies, even if that was killed (on Linux).

    Args:
        command: program and arguments.
        log: file for standard output and error.
        read: gets each line of the output as it comes.
        pass_fds: open files that the child keeps open.

    Returns:
        The exit code.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "a", encoding="utf-8") as stream,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=pass_fds,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        ) as process,
    ):
        try:
            for line in process.stdout:
                stream.write(line)
                stream.flush()
                read(line)
        except BaseException:
            process.terminate()
            raise
    return process.returncode


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class LogReader:
    """Follows the log of train_net.py.

    Attributes:
        stage: "training", "evaluating" or "" before both.
        start: the step that the training began with.
        done, total: steps or frames of the stage; ``total`` None while unknown.
        loss: the last total loss, as the log spells it.
    """

    def __init__(self):
        self.stage = ""
        self.start = 0
        self.done = 0
        self.total = None
        self.loss = ""
        self._max_iter = None

    def read(self, line: str) -> bool:
        """Takes a line in; whether ``stage`` or ``done`` may have changed."""
        if match := _START.search(line):
            self.start = int(match[1])
        elif match := _LENGTH.search(_COLORS.sub("", line)):
            self._max_iter = int(match[1])
        elif match := _TRAINING.search(line):
            self.stage, self.total, self.done = "training", self._max_iter, int(match[1]) + 1
            self.loss = match[2]
            return True
        elif match := _EVALUATION.search(line):
            self.stage, self.done, self.total = "evaluating", int(match[1]), int(match[2])
            return True
        return False


class StageBar:
    """A progress bar for the training, then one for the evaluation, fed with lines of the log."""

    def __init__(self):
        self.bar = None
        self.stage = ""
        self.log = LogReader()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def read(self, line: str) -> None:
        if not self.log.read(line):
            return
        is_training = self.log.stage == "training"
        if self.log.stage != self.stage:
            self.__exit__()
            self.stage = self.log.stage
            self.bar = tqdm(
                total=self.log.total,
                initial=self.log.start if is_training else 0,
                desc=self.stage,
                unit="step" if is_training else "frame",
            )
        self.bar.set_postfix_str(f"loss {self.log.loss}" if is_training else "", refresh=False)
        self.bar.update(self.log.done - self.bar.n)
