"""Runs the tests of modules on every mutant of them, in copies of the project."""

import functools
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from a2d_d2.mutation import server
from a2d_d2.mutation.operators import Mutant, mutants
from a2d_d2.mutation.plan import Module
from a2d_d2.utils.files import write_json
from a2d_d2.utils.parallel import default_workers

# Parts of a project that tests of modules need; what is not there is left out.
COPIED = ("configs", "tests", "tools", "pyproject.toml", "train_net.py")
# Limits of a run, from those of the tests without any change.
_CPU_FACTOR, _CPU_EXTRA, _WAIT_FACTOR, _WAIT_EXTRA = 3, 10, 20, 120


class _Worker:
    """A copy of the project, and the process that runs tests on it."""

    def __init__(self, root: Path, package: str, folder: Path, libraries: Sequence[str]):
        self.package, self.folder = package, folder
        ignore = shutil.ignore_patterns("__pycache__")
        for name in (package, *COPIED):
            if (root / name).is_dir():
                shutil.copytree(root / name, folder / name, ignore=ignore)
            elif (root / name).exists():
                shutil.copy(root / name, folder / name)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)  # it may hold the original of the package
        self._process = subprocess.Popen(
            [sys.executable, server.__file__, *libraries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=environment,
            text=True,
        )

    def run(self, tests: Sequence[str], cpu_seconds: float, seconds: float) -> dict:
        """The answer of a2d_d2.mutation.server."""
        question = {
            "root": str(self.folder),
            "package": self.package,
            "tests": list(tests),
            "cpu_seconds": cpu_seconds,
            "seconds": seconds,
        }
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or "null")
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise OSError("the process that runs the tests ended; its error is above")
        if answer["outcome"] == "error":
            raise OSError(f"pytest failed on {' '.join(tests)}: {answer['output'].strip()}")
        return answer

    def try_mutant(self, module: Module, mutant: Mutant, limits: tuple[float, float]) -> dict:
        path = self.folder / module.path
        original = path.read_text(encoding="utf-8")
        try:
            path.write_text(mutant.source, encoding="utf-8")
            return self.run(module.tests, *limits)
        finally:
            path.write_text(original, encoding="utf-8")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def run_campaign(
    root: Path,
    modules: Sequence[Module],
    record: Path,
    *,
    package: str,
    libraries: Sequence[str] = (),
    limit: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, dict]:
    """Tries the mutants of modules and keeps what became of each in ``record``, a JSON file.

    A result that is there already is kept, if it was of the same module and tests. Ctrl-C waits for
    the mutants in work.

    Args:
        root: the project's folder; it is copied, and nothing in it is changed.
        modules: what to mutate, and the tests.
        record: ``{path of module: {"digest", "seconds", "outcomes": {id: outcome}}}``; outcomes are
            "killed", "survived" and "timed out".
        package: top name of the modules.
        libraries: imported once for each worker.
        limit: at most so many mutants of a module, spread over it.
        workers: processes; None uses every core.
        progress: show a bar.

    Returns:
        what ``record`` holds of ``modules``.

    Raises:
        OSError: the tests fail without any change, or cannot be run.
        ValueError: a module or ``record`` cannot be read.
    """
    known = _read_record(record)
    work = []
    for module in modules:
        digest = _digest(root, module)
        if known.get(module.path, {}).get("digest") != digest:
            known[module.path] = {"digest": digest, "seconds": 0.0, "outcomes": {}}
        done = known[module.path]["outcomes"]
        chosen = module_mutants(root, module, limit)
        work += [(module, mutant) for mutant in chosen if mutant.id not in done]
    if work:
        workers = min(default_workers() if workers is None else workers, len(work))
        with tempfile.TemporaryDirectory(prefix="a2d_d2-mutants-") as folder:
            _run_all(
                [
                    functools.partial(
                        _Worker, root.absolute(), package, Path(folder, str(i)), libraries
                    )
                    for i in range(workers)
                ],
                work,
                known,
                record,
                progress,
            )
    return {module.path: known[module.path] for module in modules}


def module_mutants(root: Path, module: Module, limit: int | None = None) -> list[Mutant]:
    """The mutants of a module: all, or ``limit`` that are spread over it."""
    source = (root / module.path).read_text(encoding="utf-8")
    found = mutants(source, module.path, module.names)
    if limit is None or limit >= len(found):
        return found
    return [found[i * len(found) // limit] for i in range(limit)]


def _run_all(
    starts: Sequence[Callable[[], _Worker]],
    work: Sequence[tuple[Module, Mutant]],
    known: dict[str, dict],
    record: Path,
    progress: bool,
) -> None:
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    lock, limits = threading.Lock(), {}
    started = []
    executor = ThreadPoolExecutor(len(starts))
    try:
        for start in starts:
            started.append(start())
            idle.put(started[-1])
        for module in {module.path: module for module, _ in work}.values():
            base = started[0].run(module.tests, 3600, 3600)
            if base["outcome"] != "passed":
                tests = " ".join(module.tests)
                raise OSError(f"without any change {tests} {base['outcome']}: {base['output']}")
            limits[module.path] = (
                _CPU_FACTOR * base["cpu_seconds"] + _CPU_EXTRA,
                _WAIT_FACTOR * base["seconds"] + _WAIT_EXTRA,
            )

        with tqdm(total=len(work), unit="mutant", disable=not progress) as bar:
            counts = {"killed": 0, "survived": 0, "timed out": 0}

            def try_one(item: tuple[Module, Mutant]) -> None:
                module, mutant = item
                worker = idle.get()
                try:
                    answer = worker.try_mutant(module, mutant, limits[module.path])
                finally:
                    idle.put(worker)
                outcome = {"passed": "survived", "failed": "killed"}.get(
                    answer["outcome"], answer["outcome"]
                )
                with lock:
                    entry = known[module.path]
                    entry["outcomes"][mutant.id] = outcome
                    entry["seconds"] = round(entry["seconds"] + answer["seconds"], 1)
                    write_json(record, known)
                    counts[outcome] += 1
                    bar.set_postfix(counts, refresh=False)
                    bar.set_description(Path(module.path).stem, refresh=False)
                    bar.update()

            for _ in executor.map(try_one, work):
                pass
    finally:
        executor.shutdown(cancel_futures=True)
        for worker in started:
            worker.close()


def _digest(root: Path, module: Module) -> str:
    """Of what outcomes depend on: module, tests, the fixtures beside them, settings of pytest."""
    folders = {folder for test in module.tests for folder in (root / test).parents}
    fixtures = [f / "conftest.py" for f in sorted(folders) if f.is_relative_to(root)]
    files = [root / name for name in (module.path, *module.tests)]
    digest = hashlib.sha256()
    for file in [*files, *(f for f in (*fixtures, root / "pyproject.toml") if f.exists())]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _read_record(record: Path) -> dict[str, dict]:
    if not record.exists():
        return {}
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        for one in known.values():
            one["digest"], one["seconds"] + 0.0, dict(one["outcomes"])
        return known
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{record} is no record of mutants ({error!r}); remove it") from error


def read_explanations(path: Path) -> dict[str, str]:
    """Why survivors change nothing that matters: id to reason.

    Args:
        path: JSON, a list of ``{"id", "module", "diff", "reason"}``.

    Raises:
        ValueError: the file is something else, or a reason is missing.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        reasons = {entry["id"]: entry["reason"].strip() for entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} is not a list of {{"id", "module", "diff", "reason"}} ({error!r})'
        ) from error
    for key, reason in reasons.items():
        if not reason:
            raise ValueError(f"{path} gives no reason for {key}")
    return reasons


def summarize(
    root: Path,
    modules: Sequence[Module],
    outcomes: Mapping[str, dict],
    reasons: Mapping[str, str],
) -> dict:
    """What the tests of each module noticed.

    Returns:
        "mutants" (all there are), "tried", "killed", "timed_out", "survived", of these
        "explained" and "unexplained", "stale_explanations" (ids that no module has), "seconds",
        and "modules": the same for each, with its "tests" and the "survivors": "id", "line",
        "function", "diff" and "reason" (None without).
    """
    result = {}
    all_ids = set()
    for module in modules:
        found = {mutant.id: mutant for mutant in module_mutants(root, module)}
        all_ids |= set(found)
        of_module = {k: v for k, v in outcomes[module.path]["outcomes"].items() if k in found}
        survivors = [found[key] for key in of_module if of_module[key] == "survived"]
        survivors.sort(key=lambda mutant: mutant.line)
        values = list(of_module.values())
        explained = sum(mutant.id in reasons for mutant in survivors)
        result[module.path] = {
            "tests": list(module.tests),
            "mutants": len(found),
            "tried": len(values),
            "killed": values.count("killed"),
            "timed_out": values.count("timed out"),
            "survived": len(survivors),
            "explained": explained,
            "unexplained": len(survivors) - explained,
            "seconds": outcomes[module.path]["seconds"],
            "survivors": [
                {
                    "id": mutant.id,
                    "line": mutant.line,
                    "function": mutant.function,
                    "diff": mutant.diff,
                    "reason": reasons.get(mutant.id),
                }
                for mutant in survivors
            ],
        }
    counted = ("mutants", "tried", "killed", "timed_out", "survived", "explained", "unexplained")
    return {
        **{key: sum(one[key] for one in result.values()) for key in counted},
        "stale_explanations": sorted(set(reasons) - all_ids),
        "seconds": round(sum(one["seconds"] for one in result.values())),
        "modules": result,
    }
