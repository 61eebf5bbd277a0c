"""Numbers that the tools cannot work with are named before any work."""

import runpy
import sys

import pytest

from a2d_d2.utils.repository import REPOSITORY


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "measure_kills --kills 1 --kills-per-run 0",
            "--kills-per-run is 0; it must be at least 1",
        ),
        ("measure_kills --kills 0", "--kills is 0"),
        ("fuzz --cases -1", "--cases is -1"),
        ("mutate --json OUT --limit -1", "--limit is -1"),
        (
            "make_synthetic_a2d --output OUT --train -1 --test 1",
            "--train is -1; it must be at least 0",
        ),
        ("make_synthetic_a2d --output OUT --train 1 --test -2", "--test is -2"),
        ("make_synthetic_a2d --output OUT --train 1 --seed -5", "--seed is -5"),
        ("demo --output OUT --seed -5", "--seed is -5; it must be at least 0"),
        ("measure_kills --work OUT --seed -5", "--seed is -5"),
        ("evaluate --root R --split test --predictions P --output OUT --actor-threshold nan", None),
        ("visualize_results --root R --predictions P --output OUT --actor-threshold nan", None),
    ],
)
def test_numbers_that_cannot_be(command, words, tmp_path, monkeypatch, capsys):
    tool, *arguments = command.split()
    out = tmp_path / "out"
    arguments = [str(out) if word == "OUT" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(REPOSITORY / "tools" / f"{tool}.py"), run_name="__main__")
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith("error: " + (words or "--actor-threshold is nan; it must be a number"))
    assert not out.exists()
