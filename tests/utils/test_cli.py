"""What command lines share."""

import subprocess
import sys

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
