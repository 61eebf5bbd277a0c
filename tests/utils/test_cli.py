"""What command lines share."""

import subprocess
import sys

import pytest

from a2d_d2.utils.cli import split_options

LOGS_TO = """
import logging, sys
from a2d_d2.utils.cli import run_tool

def main():
    logger = logging.getLogger("a2d_d2.anything")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    for number in range(3):
        logger.warning("line %d", number)
    logger.warning("no number: %d", "x")
    sys.stdout = None  # nothing is left to flush
    return 3

run_tool(main)
"""


def test_a_log_that_cannot_be_written_is_said_once():
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-u", "-c", LOGS_TO], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 3
    lines = result.stderr.splitlines()
    (said,) = [number for number, line in enumerate(lines) if "No space left" in line]
    assert said == 0 and lines[0].endswith("lines of the log to <stdout> are lost")
    # A mistake in the program keeps its traceback.
    assert lines[1] == "--- Logging error ---" and "TypeError" in result.stderr


@pytest.mark.parametrize(
    ("words", "values", "options"),
    [
        ("0 1 2 SOLVER.MAX_ITER 2", "0 1 2", "SOLVER.MAX_ITER 2"),
        ("no_flow mask_rcnn SEED 3", "no_flow mask_rcnn", "SEED 3"),
        ("no_flow solver.max_iter 2", "no_flow", "solver.max_iter 2"),
        ("zero_shot-a.b no_flow-equal_time", "zero_shot-a.b no_flow-equal_time", ""),
        ("0 1.5 x -1", "0 1.5 x -1", ""),
        ("", "", ""),
    ],
)
def test_options_begin_at_the_first_key(words, values, options):
    assert split_options("--any", words.split()) == (values.split(), options.split())


def test_a_flag_without_its_own_words_is_named():
    with pytest.raises(ValueError, match=r"--seeds has no value before SOLVER\.MAX_ITER"):
        split_options("--seeds", ["SOLVER.MAX_ITER", "2"])
