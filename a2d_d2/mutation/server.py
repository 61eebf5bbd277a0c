"""Runs tests on copies of a project, each time in a fork of a process that imported the libraries.

A script of its own, run by path and without the package that is mutated: ``server.py MODULE ...``
imports the modules, then answers each line of JSON on its input with one on its output.

A question is ``{"root", "package", "tests", "cpu_seconds", "seconds"}``: folder of the copy, the
package whose copy must be the one that the tests import, arguments for pytest, and limits. The
answer is ``{"outcome": "passed" | "failed" | "timed out" | "error", "seconds", "cpu_seconds",
"output"}``.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings

# Exit codes of a child: it imported another package than the copy, or could not be set up.
_WRONG_PACKAGE, _BROKEN = 70, 71
_MEMORY = 16 << 30  # bytes of address space beyond what was in use


def main(modules: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an import prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in ["pytest", *modules]:
            importlib.import_module(module)
    gc.freeze()  # else each child's collector writes to, and so copies, all of the memory
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        for line in sys.stdin:
            answers.write(json.dumps(_run(**json.loads(line))) + "\n")
            answers.flush()


def _run(root: str, package: str, tests: list[str], cpu_seconds: float, seconds: float) -> dict:
    start = time.monotonic()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            code = _BROKEN
            try:
                code = _child(root, package, tests, cpu_seconds, output.fileno())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)  # in no case does it go on as a second server
        status = _wait(child, start + seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what a test may have left running
        output.seek(0)
        text = output.read().decode("utf-8", errors="replace")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = None if status is None else os.waitstatus_to_exitcode(status)
    # Failed are crashes of the interpreter and modules that cannot be imported, too.
    outcomes = {0: "passed", None: "timed out", -signal.SIGXCPU: "timed out"}
    outcome = outcomes.get(code, "error" if code in (_WRONG_PACKAGE, _BROKEN) else "failed")
    return {
        "outcome": outcome,
        "seconds": time.monotonic() - start,
        "cpu_seconds": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime,
        "output": text[-4000:],
    }


def _wait(child: int, end: float) -> int | None:
    """The status of a child; None if it had to be killed at ``end``."""
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _child(root: str, package: str, tests: list[str], cpu_seconds: float, output: int) -> int:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    limit = int(cpu_seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as stream:
            mapped = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MEMORY,) * 2)
    os.chdir(root)
    sys.path.insert(0, root)
    os.environ["PYTHONPATH"] = root
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # each costs time, none is needed
    sys.dont_write_bytecode = True  # a changed file of the same size and second would be missed
    import pytest

    code = int(pytest.main(["-x", "-p", "no:cacheprovider", "--rootdir", root, *tests]))
    loaded = sys.modules.get(package)
    if loaded is not None and not loaded.__file__.startswith(root + os.sep):
        sys.stdout.write(f"{package} was imported from {loaded.__file__}\n")
        sys.stdout.flush()
        return _WRONG_PACKAGE
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    main(sys.argv[1:])
