"""The reliability table of the README, from the files of ``results/reliability``."""

from collections.abc import Mapping

from tabulate import tabulate

NOT_RUN = "not run"


def reliability_block(results: Mapping[str, dict]) -> str:
    """One row for each kind of trial: what was tried, what came of it, and by which command.

    Args:
        results: name of a file without its suffix to what it holds; those that are missing are
            said to be not run.
    """
    rows = [
        (claim, *(write(results[name]) if name in results else (NOT_RUN, NOT_RUN)), f"`{command}`")
        for name, claim, command, write in _ROWS
    ]
    headers = ("claim", "tried", "result", "command")
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _kills(result: Mapping) -> tuple[str, str]:
    tried = (
        f"{result['kills']} kills (SIGKILL) at random moments of {result['runs']} trainings, "
        f"{result['while_writing_a_checkpoint']} of them while a checkpoint was being written "
        f"({', '.join(result['variants'])})"
    )
    if result["runs_equal"] == result["runs"]:
        return tried, f"{result['kills']} of {result['kills']} kills survived, bit for bit"
    return tried, f"{result['runs_equal']} of {result['runs']} trainings ended bit for bit equal"


def _fuzz(result: Mapping) -> tuple[str, str]:
    total = result["total"]
    tried = f"{total['cases']} damaged files of {len(result['targets'])} kinds"
    return tried, (
        f"{total['failures']} failures; {total['rejected']} refused with one line, "
        f"{total['accepted']} read"
    )


def _matrix(result: Mapping) -> tuple[str, str]:
    tried, became = [], []
    for run in result["runs"]:
        versions = run["versions"]
        name = f"Python {versions.get('python', '?')}, torch {versions.get('torch', '?')}"
        tried.append(name)
        if "stopped" in run:
            became.append(f"stopped {run['stopped']}")
            continue
        wrong = run["failures"] + run["errors"]
        good = run["tests"] - wrong - run["skipped"]
        became.append(f"{good} passed" + (f", {wrong} failed" if wrong else ""))
        if not run["passed"] and not wrong:
            became[-1] += ", but not the command"
    return "; ".join(tried), "; ".join(became)


def _coverage(result: Mapping) -> tuple[str, str]:
    return f"{result['lines']} lines of the package", f"{result['percent']:.1f} % run by tests"


def _mutants(result: Mapping) -> tuple[str, str]:
    tried = (
        f"{result['tried']} changes of one operator or number in {len(result['modules'])} modules "
        "of metrics and losses"
    )
    if result["tried"] < result["mutants"]:
        tried += f" (of {result['mutants']})"
    noticed = result["killed"] + result["timed_out"]
    return tried, (
        f"{noticed} noticed; {result['survived']} survived, {result['explained']} of them "
        "explained as changing no result"
    )


# Name of the results file, what it is about, the command that writes it, and its row.
_ROWS = (
    (
        "kills",
        "a killed training goes on as if nothing had happened (CPU)",
        "tools/measure_kills.py",
        _kills,
    ),
    ("fuzz", "bad input is refused with one line", "tools/fuzz.py", _fuzz),
    ("matrix", "`make test` passes on the supported versions", "tools/test_matrix.sh", _matrix),
    ("coverage", "tests run the package", "make coverage", _coverage),
    ("mutants", "tests notice wrong metrics and losses", "tools/mutate.py", _mutants),
)


def coverage_figures(report: Mapping) -> dict:
    """What is kept of the JSON report of ``coverage``.

    Returns:
        "percent", "lines", "covered" and "files", the percentage of each.

    Raises:
        ValueError: it is no such report.
    """
    try:
        totals = report["totals"]
        return {
            "percent": round(totals["percent_covered"], 2),
            "lines": totals["num_statements"],
            "covered": totals["covered_lines"],
            "files": {
                path: round(one["summary"]["percent_covered"], 1)
                for path, one in sorted(report["files"].items())
            },
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no report of coverage's `json` command ({error!r})") from error
