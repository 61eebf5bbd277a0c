"""The Dockerfile against the Makefile and the README, since no image is built in the tests."""

import fnmatch
import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
MAKEFILE = (REPOSITORY / "Makefile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and line[0] != "#"
]


def test_the_steps_are_the_readme_s_two_commands():
    steps = [
        shlex.split(argument)
        for instruction, argument in INSTRUCTIONS
        if instruction == "RUN" and argument.startswith("make")
    ]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    block = readme.split("\n## Two commands\n")[1].split("```")[1]
    commands = [line.partition("#")[0].split() for line in block.strip().splitlines()]
    assert steps == commands and len(steps) == 2
    for _, target in steps:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


def test_the_environment_is_where_the_makefile_puts_it():
    (workdir,) = (argument for instruction, argument in INSTRUCTIONS if instruction == "WORKDIR")
    (venv,) = re.findall(r"^VENV \?= (.+)$", MAKEFILE, re.MULTILINE)
    assert ["ENV", f"PATH={workdir}/{venv}/bin:${{PATH}}"] in INSTRUCTIONS


def test_what_the_steps_call_is_installed_before():
    instructions = [" ".join(x) for x in INSTRUCTIONS]
    assert 'ARG PACKAGES="git make"' in instructions
    install = next(i for i, x in enumerate(instructions) if "apt-get install" in x)
    assert install < instructions.index("COPY . .") < instructions.index("RUN make demo")


def test_all_that_the_steps_need_is_copied():
    ignored = [
        line.removeprefix("**/")
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line and line[0] not in "#!"
    ]
    needed = ["Makefile", "README.md", "constraints.txt", "pyproject.toml", "setup.py"]
    needed += ["a2d_d2", "configs", "docs", "results", "tests", "tools", "train_net.py"]
    for path in needed:
        assert (REPOSITORY / path).exists()
        assert not any(fnmatch.fnmatch(path, pattern) for pattern in ignored), path
    for path in (".git", ".venv", "output", "demo", "demo-miniature"):
        assert any(fnmatch.fnmatch(path, pattern) for pattern in ignored), path
