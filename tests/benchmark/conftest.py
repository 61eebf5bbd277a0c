"""The command on a small model."""

import runpy
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/benchmark.py"
SIZE = ("--height", "64", "--width", "80")
OPTIONS = [
    *("INPUT.MIN_SIZE_TEST", 64, "INPUT.CLIP.LENGTH", 3, "TEST.DETECTIONS_PER_IMAGE", 3),
]


@pytest.fixture
def benchmark(small_cfg, tmp_path, monkeypatch, capsys):
    """benchmark(command, *arguments): what tools/benchmark.py does for a small model.

    It gives the exit code, standard output, and the last line of standard error.
    """
    config = tmp_path / "config.yaml"
    config.write_text(small_cfg(*OPTIONS).dump())

    def call(command, *arguments):
        command = ["benchmark.py", command, "--config-file", str(config), *SIZE, *arguments]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name="__main__")
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err.strip().splitlines()[-1:]

    return call
