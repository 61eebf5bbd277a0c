"""Runs mutated files through the readers, in a child process that may crash, hang or starve."""

import faulthandler
import hashlib
import importlib
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import hypothesis
from tqdm import tqdm

from a2d_d2.utils.cli import one_line

# Of one case: seconds of the processor and of the clock until it counts as a hang, and bytes of
# memory beyond what was in use.
MAX_SECONDS, _MAX_WAIT = 20.0, 300.0
MAX_BYTES = 512 << 20
# Of replaying kept cases: how many, how often, and by how many bytes memory may grow.
_KEPT, ROUNDS, MAX_GROWTH = 40, 6, 16 << 20
# Address space that the child may map beyond its own, so that it cannot take the machine with it.
_HEADROOM = 8 << 30


class Target:
    """One kind of file.

    Attributes:
        path: where a case is written before it is read.
    """

    def __init__(self, folder: Path, release: Path):
        """
        Args:
            folder: empty, of this target alone.
            release: a small release that nobody changes.
        """
        self.folder = folder
        self.release = release
        self.path = folder / "case"
        self.prepare()

    def prepare(self) -> None:
        """Makes what the cases are made of."""

    def cases(self) -> hypothesis.strategies.SearchStrategy[bytes]:
        """Contents of the file."""
        raise NotImplementedError

    def is_named(self, message: str) -> bool:
        """Whether a refusal says which file it is about."""
        return str(self.folder) in message

    def read(self, data: bytes) -> bool | None:
        """Reads ``path``, which holds ``data``; gives False if the file is refused without an
        error, as a cache does.

        Raises:
            ValueError: the file is refused.
            AssertionError: it is accepted, but what is read is not what it says.
        """
        raise NotImplementedError


@dataclass
class Figures:
    """What became of the cases of one target.

    Attributes:
        cases: tried.
        rejected: refused with one line.
        accepted: read.
        failures: everything else.
        growth: bytes of memory gained by reading the same files again and again.
        examples: one text for each kind of failure.
    """

    cases: int = 0
    rejected: int = 0
    accepted: int = 0
    failures: int = 0
    growth: int = 0
    examples: dict[str, str] = field(default_factory=dict)


def run_campaign(
    targets: Sequence[str],
    cases: int,
    *,
    seed: int = 0,
    rounds: int = ROUNDS,
    keep: str | os.PathLike | None = None,
    progress: bool = True,
    report: Callable[[str, Figures], None] | None = None,
) -> dict[str, Figures]:
    """Tries ``cases`` files against each target; the same arguments give the same files.

    Args:
        targets: names in :data:`a2d_d2.fuzz.targets.TARGETS`, or "package.module:name" of
            another class like those.
        cases: files for each.
        seed: of their choice.
        rounds: how often some of them are read again, to see whether memory grows; at least 2, or
            0 for not at all.
        keep: folder for the files that failed; None keeps none.
        progress: show a bar, over all targets together.
        report: called with each target's figures when it is done.
    """
    result = {}
    with (
        tempfile.TemporaryDirectory(prefix="a2d_d2-fuzz-") as folder,
        tqdm(total=cases * len(targets), unit="case", disable=not progress) as bar,
    ):
        # Imported here: the child process begins with this module, and has no use for it.
        from a2d_d2.data.synthetic import make_release

        release = Path(folder, "A2D")
        make_release(
            release, 2, 1, seed=1, height=48, width=64, num_frames=6, workers=1, progress=False
        )
        child = None
        for name in targets:
            bar.set_description(name)
            result[name] = figures = Figures()
            while figures.cases < cases:
                if child is None:
                    child = _Child(folder, release, rounds)
                restarts = f"{seed}-{figures.cases}"
                if not child.run(name, cases - figures.cases, restarts, figures, keep, bar):
                    child.stop()
                    child = None
            if report:
                report(name, figures)
        if child is not None:
            child.stop()
    return result


class _Child:
    """The process that reads, seen from the one that watches."""

    def __init__(self, folder: str, release: Path, rounds: int):
        context = multiprocessing.get_context("spawn")
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, self.folder, release, rounds))
        self.process.start()
        other.close()

    def stop(self) -> None:
        self.pipe.close()
        if self.process.is_alive():
            self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def run(
        self,
        name: str,
        cases: int,
        seed: str,
        figures: Figures,
        keep: str | os.PathLike | None,
        bar: tqdm,
    ) -> bool:
        """Adds the figures of up to ``cases`` cases; False if the child did not survive them."""
        self.pipe.send((name, cases, seed))
        try:
            self.pipe.recv()  # when the target is prepared
        except EOFError as error:
            raise OSError(f"target {name} cannot be prepared; its error is above") from error
        while True:
            try:
                lost = None if self.pipe.poll(_MAX_WAIT) else "hang"
                message = None if lost else self.pipe.recv()
            except (EOFError, OSError):
                self.process.join(timeout=10)
                lost = f"crash (exit code {self.process.exitcode})"
                if self.process.exitcode == -signal.SIGPROF:
                    lost = "hang"
                elif self.process.exitcode >= 0:  # no signal ended it
                    raise OSError(f"the child trying {name} failed; its error is above") from None
            if lost:
                self.process.kill()
                self._count(figures, lost, lost, bar)
                self._keep(name, lost, keep)
                return False
            kind, text = message
            if kind == "done":
                figures.growth = max(figures.growth, text)
                if text > MAX_GROWTH:
                    self._count(figures, "memory growth", f"{text >> 20} MiB", None)
                return True
            self._count(figures, kind, text, bar)
            if kind not in ("accepted", "rejected"):
                self._keep(name, kind, keep)

    @staticmethod
    def _count(figures: Figures, kind: str, text: str, bar: tqdm | None) -> None:
        if bar is not None:
            figures.cases += 1
            bar.update()
        if kind == "accepted":
            figures.accepted += 1
        elif kind == "rejected":
            figures.rejected += 1
        else:
            figures.failures += 1
            figures.examples.setdefault(kind, text)

    def _keep(self, name: str, kind: str, keep: str | os.PathLike | None) -> None:
        case = self.folder / "current"
        if keep is None or not case.exists():
            return
        data = case.read_bytes()
        digest = hashlib.sha256(data).hexdigest()[:8]
        words = "".join(c if c.isalnum() else "-" for c in kind)[:60]
        folder = Path(keep, name.rpartition(":")[2])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{words}-{digest}").write_bytes(data)


# ---------------------------------------------------------------- in the child


def _serve(pipe: Connection, folder: Path, release: Path, rounds: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.disable()
    warnings.simplefilter("ignore")
    mapped = _memory("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _HEADROOM,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    made = {}
    while True:
        try:
            name, cases, seed = pipe.recv()
        except EOFError:
            return
        if name not in made:
            own = folder / name.rpartition(":")[2]
            own.mkdir()
            made[name] = _target_class(name)(own, release)
        pipe.send(("prepared", ""))
        kept = _try_all(made[name], cases, seed, pipe, folder)
        pipe.send(("done", _growth(made[name], kept, rounds)))


def _target_class(name: str) -> type:
    """A class of a2d_d2.fuzz.targets, or that of "package.module:name"."""
    module, _, attribute = name.rpartition(":")
    if module:
        return getattr(importlib.import_module(module), attribute)
    # Imported here: the watching process has no use for it.
    from a2d_d2.fuzz.targets import TARGETS

    return TARGETS[name]


def _try_all(target: Target, cases: int, seed: str, pipe: Connection, folder: Path) -> list[bytes]:
    """Tries all cases, sends what became of each and gives some of them."""
    kept, left = [], cases

    @hypothesis.seed(int(hashlib.sha256(f"{target.folder.name}-{seed}".encode()).hexdigest(), 16))
    @hypothesis.settings(
        max_examples=2 * cases,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(target.cases())
    def try_one(data):
        nonlocal left
        if left == 0:
            return
        left -= 1
        (folder / "current").write_bytes(data)
        if len(kept) < _KEPT:
            kept.append(data)
        pipe.send(try_case(target, data))

    try_one()
    return kept


def try_case(target: Target, data: bytes) -> tuple[str, str]:
    """("accepted" or "rejected" or the kind of failure, text)."""
    before, peak = _memory("VmRSS"), _memory("VmHWM")
    # The signal's default action ends a process even within a decoder that does not return.
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    result = _outcome(target, data)
    signal.setitimer(signal.ITIMER_PROF, 0)
    used = _memory("VmHWM") - before
    if _memory("VmHWM") > peak and used > MAX_BYTES:
        return "memory", f"{used >> 20} MiB for a file of {len(data)} bytes"
    return result


def _outcome(target: Target, data: bytes) -> tuple[str, str]:
    target.path.write_bytes(data)
    try:
        return ("rejected" if target.read(data) is False else "accepted"), ""
    except ValueError as error:
        text = one_line(error)
        if not text or not text.isprintable():
            return "message without words", repr(text)
        if not target.is_named(text):
            return "message without the file", f"{text}\n{traceback.format_exc(limit=-4)}"
        return "rejected", text
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} {Path(where.filename).name} {where.name}"
        return kind, traceback.format_exc(limit=-8)[-3000:]


def _growth(target: Target, kept: Sequence[bytes], rounds: int) -> int:
    """Bytes of memory that reading the same files over and over takes."""
    after = [0, 0]
    end = time.monotonic() + 10
    for number in range(rounds):
        for data in kept:
            _outcome(target, data)
        after.append(_memory("VmRSS"))
        if time.monotonic() > end and number >= 2:
            break
    # The first rounds fill what is kept once.
    return max(0, after[-1] - after[min(3, len(after) - 1)])


def _memory(field_name: str) -> int:
    """A figure of this process, in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as stream:
            for line in stream:
                if line.startswith(field_name + ":"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def print_figures(name: str, figures: Figures) -> None:
    """Prints a target's line, and below it an example of each kind of failure."""
    growth = f"{figures.growth / 2**20:.1f} MiB"
    tqdm.write(
        f"{name:<12} {figures.cases:>7} cases {figures.rejected:>7} rejected "
        f"{figures.accepted:>7} accepted {figures.failures:>5} failures, growth {growth}"
    )
    for kind, text in figures.examples.items():
        tqdm.write(f"  {kind}: {text}")


def as_json(figures: Mapping[str, Figures], cases: int, seed: int) -> dict:
    """The figures of :func:`run_campaign` as they are written."""
    total = {
        key: sum(getattr(each, key) for each in figures.values())
        for key in ("cases", "rejected", "accepted", "failures")
    }
    return {
        "cases_per_target": cases,
        "seed": seed,
        "total": total,
        "targets": {name: asdict(each) for name, each in figures.items()},
    }
