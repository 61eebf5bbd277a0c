"""The reliability table, from results files as the tools write them."""

import json

import pytest

from a2d_d2.utils.readme import take_over_coverage
from a2d_d2.utils.reliability import NOT_RUN, reliability_block

KILLS = {
    "kills": 50,
    "runs": 10,
    "runs_equal": 10,
    "while_writing_a_checkpoint": 7,
    "before_the_first_checkpoint": 3,
    "failures": [],
    "variants": {"one process": {}, "two stages": {}},
}
FUZZ = {
    "total": {"cases": 900, "rejected": 700, "accepted": 199, "failures": 1},
    "targets": {"flow": {}, "video": {}},
}
RUN = {
    "entry": "python3.10:torch==2.4.0",
    "passed": True,
    "seconds": 9,
    "versions": {"python": "3.10.13", "torch": "2.4.0"},
    "tests": 812,
    "failures": 0,
    "errors": 0,
    "skipped": 2,
}
MUTANTS = {
    "mutants": 500,
    "tried": 500,
    "killed": 460,
    "timed_out": 3,
    "survived": 37,
    "explained": 37,
    "unexplained": 0,
    "modules": {"a.py": {}, "b.py": {}},
}
COVERAGE = {"percent": 91.26, "lines": 6000, "covered": 5476, "files": {}}


def cells(**results):
    """Tried and result of each row, by its command."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in reliability_block(results).splitlines()[2:]
    ]
    assert [len(row) for row in rows] == [4] * 5
    return {row[3].strip("`"): row[1:3] for row in rows}


def test_missing_files_are_said():
    assert set(map(tuple, cells().values())) == {(NOT_RUN, NOT_RUN)}
    some = cells(coverage=COVERAGE)
    assert some.pop("make coverage") == ["6000 lines of the package", "91.3 % run by tests"]
    assert set(map(tuple, some.values())) == {(NOT_RUN, NOT_RUN)}


def test_figures():
    found = cells(kills=KILLS, fuzz=FUZZ, mutants=MUTANTS)
    tried, result = found["tools/measure_kills.py"]
    assert tried.startswith("50 kills (SIGKILL) at random moments of 10 trainings, 7 of them")
    assert tried.endswith(" (one process, two stages)")
    assert result == "50 of 50 kills survived, bit for bit"
    tried, result = found["tools/fuzz.py"]
    assert tried == "900 damaged files of 2 kinds"
    assert result == "1 failures; 700 refused with one line, 199 read"
    tried, result = found["tools/mutate.py"]
    assert tried.startswith("500 changes") and "in 2 modules" in tried and "(of" not in tried
    assert result.startswith("463 noticed; 37 survived, 37 of them explained")


def test_what_is_not_whole_is_not_said_to_be():
    found = cells(kills=KILLS | {"runs_equal": 9}, mutants=MUTANTS | {"tried": 20})
    assert found["tools/measure_kills.py"][1] == "9 of 10 trainings ended bit for bit equal"
    assert found["tools/mutate.py"][0].endswith("(of 500)")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "810 passed"),
        ({"passed": False, "failures": 2, "errors": 1}, "807 passed, 3 failed"),
        ({"passed": False}, "810 passed, but not the command"),
        ({"passed": False, "stopped": "before the tests"}, "stopped before the tests"),
    ],
)
def test_versions(changes, expected):
    newest = RUN | {"versions": {"python": "3.13.0", "torch": "2.14.1"}}
    tried, result = cells(matrix={"runs": [RUN | changes, newest]})["tools/test_matrix.sh"]
    assert tried == "Python 3.10.13, torch 2.4.0; Python 3.13.0, torch 2.14.1"
    assert result == f"{expected}; 810 passed"


def test_coverage_is_taken_over(tmp_path):
    report = tmp_path / "coverage.json"
    summary = {"percent_covered": 91.2567, "num_statements": 6000, "covered_lines": 5476}
    files = {"b.py": {"summary": {"percent_covered": 50.04}}, "a.py": {"summary": summary}}
    report.write_text(json.dumps({"totals": summary, "files": files}))
    take_over_coverage(report, tmp_path)
    kept = json.loads((tmp_path / "results" / "reliability" / "coverage.json").read_text())
    assert kept == COVERAGE | {"files": {"a.py": 91.3, "b.py": 50.0}}
    for text in ("{}", "[]", "{"):
        report.write_text(text)
        with pytest.raises(ValueError, match=r"coverage\.json: "):
            take_over_coverage(report, tmp_path)
