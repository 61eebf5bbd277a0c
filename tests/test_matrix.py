"""tools/test_matrix.sh on a toy checkout, whose Makefile only pretends to install and to test."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from a2d_d2.utils.repository import REPOSITORY

SCRIPT = REPOSITORY / "tools" / "test_matrix.sh"
MAKEFILE = r"""
test:
	mkdir -p $(VENV)/bin
	printf '#!/bin/sh\nexec {python} "$$@"\n' > $(VENV)/bin/python
	chmod +x $(VENV)/bin/python
	cp $(CONSTRAINTS) {out}/used-$(notdir $(VENV)).txt
	echo '<a><testsuite tests="7" failures="0" errors="0" skipped="1"/></a>' \
		> $(patsubst --junitxml=%,%,$(filter --junitxml=%,$(PYTEST_ARGS)))
	test ! -e broken
"""


def run(*arguments, script=SCRIPT, **options):
    return subprocess.run(["bash", script, *arguments], capture_output=True, text=True, **options)


@pytest.fixture
def checkout(tmp_path):
    """A toy project under git, and a folder for results."""
    root, out = tmp_path / "project", tmp_path / "out"
    (root / "tools").mkdir(parents=True)
    out.mkdir()
    shutil.copy(SCRIPT, root / "tools")
    (root / "constraints.txt").write_text("numpy==2.4.6\ntorch==2.14.1\ntorchvision==0.29.1\n")
    (root / "Makefile").write_text(MAKEFILE.format(python=sys.executable, out=out))
    commit(root)
    return root, out


def commit(root):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", root]
    for command in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "m"]):
        subprocess.run([*git, *command], check=True)
    return subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def matrix(checkout, *entries):
    root, out = checkout
    # Of a checkout in a hook or another worktree, git tells its place by these; of the call that
    # runs this test, make its variables.
    foreign = ("GIT_", "MAKE", "MFLAGS", "PYTEST_ARGS")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return run(
        *("--json", out / "matrix.json", "--work", out / "work", *entries),
        script=root / "tools" / SCRIPT.name,
        env=environment,
    )


def test_entries_are_installed_tested_and_recorded(checkout):
    root, out = checkout
    entries = [sys.executable, f"{sys.executable}:torch==2.4.0,torchvision==0.19.0"]
    done = matrix(checkout, *entries)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "matrix.json").read_text())
    name = os.path.basename(sys.executable)  # and no folder of this machine
    assert [one["entry"] for one in record["runs"]] == [
        name,
        f"{name}:torch==2.4.0,torchvision==0.19.0",
    ]
    for one in record["runs"]:
        assert one["passed"]
        assert (one["tests"], one["failures"], one["skipped"]) == (7, 0, 1)
        assert one["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert {"torch", "numpy"} < set(one["versions"])
    first, second = sorted(out.glob("used-*.txt"), key=lambda path: len(path.name))
    assert first.read_text() == (root / "constraints.txt").read_text()
    assert second.read_text() == "numpy==2.4.6\ntorch==2.4.0\ntorchvision==0.19.0\n"

    # What fails is recorded too; what another commit passed is not kept.
    (root / "broken").touch()
    after = commit(root)
    done = matrix(checkout, sys.executable)
    assert done.returncode == 1
    assert f"FAILED: {sys.executable}" in done.stderr
    again = json.loads((out / "matrix.json").read_text())
    assert again["commit"] == after != record["commit"]
    assert [(one["entry"], one["passed"]) for one in again["runs"]] == [(name, False)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry-run", "python9.9"], "error: there is no interpreter python9.9"),
        (["--dry-run", f"{sys.executable}:torch=2"], "is not PYTHON or PYTHON:NAME==VERSION"),
        (["--json"], "error: --json needs a value"),
        (["--jsno", "x"], "error: unknown option --jsno"),
        (["--work", str(REPOSITORY / "w"), sys.executable], "error: --work lies in the checkout"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_dry_run_says_what_would_be_done(checkout):
    root, out = checkout
    done = matrix(checkout, "--dry-run", f"{sys.executable}:torch==2.4.0")
    assert done.returncode == 0
    assert "< torch==2.14.1" in done.stdout and "> torch==2.4.0" in done.stdout
    assert not list(out.iterdir())
