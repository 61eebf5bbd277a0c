"""Doing the runs of an experiment one after another, from wherever an earlier call stopped.

DIR/cache                    clips and flow
DIR/runs/<system>/seed<k>    a training (OUTPUT_DIR of train_net.py), console.log, test/
DIR/records                  a file for each finished run
DIR/step_seconds.json        seconds a step, of which the lengths of equal_time follow
"""

import contextlib
import fcntl
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from a2d_d2.engine.child import LogReader, run_logged
from a2d_d2.experiments.measure import make_record
from a2d_d2.experiments.plan import Experiment, Run
from a2d_d2.experiments.records import read_record, read_records, write_record
from a2d_d2.experiments.step_times import REFERENCE
from a2d_d2.experiments.systems import all_systems
from a2d_d2.utils.files import write_json

_PATIENCE = 60  # seconds to wait for an earlier call's processes to end


def run_all(experiment: Experiment, runs: Sequence[Run]) -> list[str]:
    """Does the runs that have no record yet.

    Returns:
        one line for each run that failed; the others were done nevertheless.

    Raises:
        ValueError: a record or a folder of ``experiment.output`` was made with other settings, or
            another process is at work there.
    """
    _measure_steps(experiment, runs)
    waiting = [run for run in runs if not _is_recorded(experiment, run)]
    _check_others(experiment)
    if not waiting:
        return []
    failures = []
    with _lock(experiment.output) as lock:
        recorded = [run for run in runs if run not in waiting]
        _prepare(experiment, lock)
        with _suite_bar(experiment, [*recorded, *waiting], len(recorded)) as progress:
            for run in waiting:
                progress.begin(run.name)
                try:
                    _do(experiment, run, progress, lock)
                except (ValueError, OSError) as error:
                    failures.append(f"{run.name}: {' '.join(str(error).split())}")
                    progress.say(f"failed: {failures[-1]}")
                    progress.give_up()
                else:
                    progress.end()
    return failures


def _is_recorded(experiment: Experiment, run: Run) -> bool:
    path = experiment.record_path(run)
    if not path.exists():
        return False
    if read_record(path)["digest"] != experiment.run_digest(run):
        raise ValueError(
            f"{path} was made with other settings (base, options, hold-out or data); choose "
            "another --output, or delete the record to make it again"
        )
    return True


def _check_others(experiment: Experiment) -> None:
    """No record of other systems or seeds may be of another experiment either."""
    folder = experiment.output / "records"
    if folder.is_dir() and any(folder.glob("*.json")):
        (other, *_) = read_records(folder)
        if other["experiment"] != experiment.digest:
            raise ValueError(
                f"{folder} holds records made with other settings (base, options, hold-out or "
                "data); choose another --output"
            )


@contextlib.contextmanager
def _lock(output: Path) -> Iterator[int]:
    """Holds a folder for this process and its children; gives the open file that does."""
    output.mkdir(parents=True, exist_ok=True)
    # Closed at the end, not unlocked: a child that still runs holds it on.
    with open(output / ".lock", "a") as stream:
        for _ in range(_PATIENCE):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(1)
        else:
            raise ValueError(
                f"another process is at work in {output}; wait for it, or choose another --output"
            )
        yield stream.fileno()


def _prepare(experiment: Experiment, lock: int) -> None:
    command = experiment.prepare_command()
    if command is None:
        return
    log = experiment.output / "prepare.log"
    tqdm.write(f"preparing clips and flow in {experiment.cache} (see {log})", file=sys.stderr)
    status = run_logged(command, log, lambda line: None, pass_fds=(lock,))
    if status == 1:  # some clips have faults; training leaves out what it cannot use
        tqdm.write(f"some clips have problems; see {log}", file=sys.stderr)
    elif status:
        raise ValueError(f"preparing clips failed (exit code {status}); see {log}")


def _measure_steps(experiment: Experiment, runs: Sequence[Run]) -> None:
    """Measures the steps of all systems of equal time, once for a folder, if one is among them."""
    longer = [run for run in runs if run.system.longer_of]
    systems = all_systems(experiment.label_space)
    names = [s.longer_of for s in systems.values() if s.longer_of and not s.weights_of]
    if not longer or not experiment.step_times.lacks(names):
        return
    _check_others(experiment)
    names = [REFERENCE, *experiment.step_times.lacks(names)]
    with _lock(experiment.output) as lock:
        _prepare(experiment, lock)
        experiment.step_times.measure(
            {name: experiment.run_config(Run(systems[name], longer[0].seed)) for name in names}
        )


def _do(experiment: Experiment, run: Run, progress: "_SuiteBar", lock: int) -> None:
    """Trains unless that is done, tests unless that is done, then writes the record."""
    source = experiment.trained(run)
    folder, training = experiment.folder(run), experiment.folder(source)
    for of_run in {training: source, folder: run}.items():
        _claim(experiment, *of_run)

    def command(words: list[str], log: Path, done: Path) -> None:
        if done.exists():
            return
        progress.follow(training)
        status = run_logged(words, log, progress.read, pass_fds=(lock,))
        if status:
            raise ValueError(f"{words_of(status)}; see {log}")
        write_json(done, {"done": True})

    command(experiment.train_command(source), training / "console.log", training / "trained.json")
    progress.trained()
    command(experiment.test_command(run), folder / "console.log", folder / "tested.json")
    progress.note("scoring")
    record = make_record(experiment, run, progress=False)
    write_record(experiment.output / "records", record)


def words_of(status: int) -> str:
    """An exit code in words."""
    return f"killed by signal {-status}" if status < 0 else f"exit code {status}"


def _claim(experiment: Experiment, folder: Path, run: Run) -> None:
    """Notes what a folder is for, before anything is in it; one of other settings is refused."""
    path = folder / "run.json"
    settings = {"digest": experiment.run_digest(run)}
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{folder} holds a run with other settings; delete it, or choose another --output"
        )
    write_json(path, settings)


def _suite_bar(experiment: Experiment, runs: Sequence[Run], done: int) -> "_SuiteBar":
    """Of runs, the first ``done`` of which have their records; a shared training counts once."""
    steps, trained = [], set()
    for run in runs:
        source = experiment.trained(run)
        steps.append(0 if source in trained else experiment.training_steps(run))
        trained.add(source)
    return _SuiteBar(steps, [experiment.test_steps(run) for run in runs], done)


class _SuiteBar:
    """One bar over all runs in training steps, with the run and its stage beside it.

    The speed, of which the time left follows, is the average since the start. It contains what
    evaluation and scoring took, however far from the truth the steps are that stand for them.

    Args:
        steps: of each run's training; 0 where another run's is used.
        tests: steps that stand for each run's test and its scores.
        done: number of runs, the first ones, that earlier calls did: they count in the progress,
            and not in the speed.
    """

    def __init__(self, steps: Sequence[int], tests: Sequence[int], done: int = 0):
        self.steps = steps
        self.tests = tests
        self.number = done
        self.bar = None
        self.log = LogReader()
        self.training = None
        self.is_new = True
        self.is_trained = False

    def __enter__(self):
        self.bar = tqdm(
            total=self._before(len(self.steps)),
            initial=self._before(self.number),
            unit="step",
            smoothing=0,  # the average
            dynamic_ncols=True,
        )
        return self

    def __exit__(self, *_):
        self.bar.close()

    def begin(self, name: str) -> None:
        self.number += 1
        self.is_trained = False
        self.bar.set_description(f"run {self.number}/{len(self.steps)} ({name})")

    def follow(self, training: Path) -> None:
        """A new command begins; ``training`` is the folder of its training."""
        self.log = LogReader()
        self.training = training
        self.is_new = True

    def read(self, line: str) -> None:
        if not self.log.read(line):
            return
        if self.log.stage == "training":
            is_second = (self.training / "actor_stage" / "model_final.pth").exists()
            before = (self.log.total or 0) if is_second else 0  # the first of two stages
            if self.is_new:
                self._skip(min(before + self.log.start, self._steps))
            self.is_new = False
            self._move(min(before + self.log.done, self._steps))
            self.note(f"loss {self.log.loss}")
        else:
            if self.is_trained:  # scoring is the last third
                part = self.log.done / (self.log.total or 1)
                self._move(self._steps + int(self._test * part * 2 / 3))
            self.note(f"evaluating {self.log.done}/{self.log.total}")

    def note(self, text: str) -> None:
        self.bar.set_postfix_str(text)

    def trained(self) -> None:
        """The training of the run is through, by this call or an earlier one; its test begins."""
        self.is_trained = True
        self._skip(self._steps)

    def end(self) -> None:
        """The run is recorded."""
        self._move(self._steps + self._test)
        self.note("")

    def give_up(self) -> None:
        """The run failed."""
        self._skip(self._steps + self._test)
        self.note("")

    def say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)

    @property
    def _steps(self) -> int:
        return self.steps[self.number - 1]

    @property
    def _test(self) -> int:
        return self.tests[self.number - 1]

    def _before(self, number: int) -> int:
        """The length of the first ``number`` runs."""
        return sum(self.steps[:number]) + sum(self.tests[:number])

    def _move(self, done: int) -> None:
        """To ``done`` of this run's length, never back: of several test sets each starts anew."""
        self.bar.update(max(0, self._before(self.number - 1) + done - self.bar.n))

    def _skip(self, done: int) -> None:
        """Moves over steps that were not done now: they say nothing of the speed."""
        place = self._before(self.number - 1) + done
        self.bar.initial += place - self.bar.n
        self.bar.n = self.bar.last_print_n = place
        self.bar.refresh()
