"""Which runs a suite needs, and the commands of each: ordinary calls of train_net.py."""

import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detectron2.config import CfgNode

from a2d_d2.config import setup_cfg
from a2d_d2.experiments.records import changed_keys, describe_data, digest, file_name, flatten
from a2d_d2.experiments.step_times import StepTimes
from a2d_d2.experiments.systems import System, all_systems, suite_systems
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.repository import repository_path

# The full model, when no base is given.
BASE = "configs/a2d_R101_FPN.yaml"
# Programs of a launcher that take train_net.py as it is: "torchrun", "python -m some.launcher".
_RUNS_SCRIPTS = re.compile(r"torchrun|accelerate|deepspeed|python[\d.]*")
# Options of schedulers whose value is a name, so no program: "srun -p python3".
_NAMING = re.compile(r"-[AJNnpqw]|--(account|job-name|name|nodelist|partition|qos|reservation)")
_UNKNOWN = "<measured>"  # in commands that are shown before the seconds of steps are known
_PYTHON = "{python}"  # of a launcher: this interpreter
# Training examples that take as long as the prediction and the scores of a frame: a guess, of
# little weight once a first run is through (see _SuiteBar).
_EXAMPLES_PER_FRAME = 0.5
# Keys that the runner sets itself, and what sets them.
_TAKEN = {
    "OUTPUT_DIR": "--output",
    "DATASETS.ROOT": "--root",
    "DATASETS.HOLD_OUT": "--hold-out",
    "DATASETS.TRAIN": "the suite",
    "DATASETS.TEST": "the suite",
    "SEED": "--seeds",
}


@dataclass(frozen=True)
class Run:
    """A system with a seed."""

    system: System
    seed: int

    @property
    def name(self) -> str:
        return f"{self.system.name}, seed {self.seed}"


@dataclass(frozen=True)
class Experiment:
    """What all runs of a folder share.

    Attributes:
        root: of the release.
        output: DIR, which gets cache, runs, records, tables and pictures.
        base: configuration file of the full model.
        seeds: one run of every system for each.
        hold_out: K of DATASETS.HOLD_OUT; with 0 nothing is chosen and defaults are used.
        options: KEY VALUE pairs of the user, for every run.
        launcher: words before each train_net.py command. A word {python} stands for this Python;
            without it, and without a program that runs scripts (torchrun, accelerate, a Python),
            this Python comes last.
    """

    root: Path
    output: Path
    base: str
    seeds: tuple[int, ...] = (0,)
    hold_out: int = 20
    options: tuple[str, ...] = ()
    launcher: str = ""

    def __post_init__(self):
        if len(self.options) % 2:
            raise ValueError(f"KEY VALUE pairs are wanted, got {shlex.join(self.options)}")
        for key in self.options[::2]:
            if key in _TAKEN:
                raise ValueError(f"{key} cannot be given here: it is set by {_TAKEN[key]}")
        if min(self.seeds, default=-1) < 0 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"--seeds must be different numbers from 0 up, not {self.seeds}")
        if self.hold_out < 0:
            raise ValueError(f"--hold-out is {self.hold_out}; it must be at least 0 (none)")
        try:
            words = shlex.split(self.launcher)
        except ValueError as error:
            raise ValueError(
                f"--launcher {self.launcher} cannot be split into words: {error}"
            ) from error
        if words and re.fullmatch("-[a-z]*c", words[-1]):
            raise ValueError(
                f"--launcher {self.launcher} ends with {words[-1]}, after which a shell takes one "
                'word alone; write sh -c \'exec "$0" "$@"\', or leave the shell out'
            )

    # ---------------------------------------------------------------- settings

    @cached_property
    def base_config(self) -> CfgNode:
        """Of the full model, the user's options included."""
        return setup_cfg(self.base, [*self._shared_options(), *self.options])

    @cached_property
    def label_space(self) -> LabelSpace:
        return LabelSpace.load(self.base_config.DATASETS.LABEL_SPACE)

    @cached_property
    def data(self) -> dict:
        """See :func:`a2d_d2.experiments.records.describe_data`."""
        return describe_data(self.root, self.label_space, self.hold_out)

    @cached_property
    def digest(self) -> str:
        """Of what all runs of the folder share: base, user's options and data."""
        config = flatten(self.base_config)
        return self._digest({key: value for key, value in config.items() if key != "SEED"})

    def run_config(self, run: Run) -> CfgNode:
        """The final configuration of a run's evaluation (and, its own weights, its training)."""
        return setup_cfg(self.base, self._options(run.system, run.seed))

    def run_digest(self, run: Run) -> str:
        """Of everything that decides a run's figures."""
        return self._digest(flatten(self.run_config(run)))

    def _digest(self, config: dict) -> str:
        return digest(
            {
                "config": changed_keys(config),
                "data": self.data,
                "label_space": self.label_space.to_dict(),
            }
        )

    # ---------------------------------------------------------------- runs

    def plan(self, suite: str, names: Sequence[str] = ()) -> list[Run]:
        """The runs of a suite, or those of the systems named ``names`` in it, each once.

        Raises:
            ValueError: no such suite, it has no such system, or the user's options would change
                what a system is.
        """
        systems = suite_systems(suite, self.label_space)
        known = [system.name for system in systems]
        for name in names:
            if name not in known:
                raise ValueError(f"suite {suite} has no system {name!r}; it has {', '.join(known)}")
        runs = [
            Run(system, seed)
            for system in systems
            if not names or system.name in names
            for seed in self.seeds
        ]
        pairs = ((run.system, self.trained(run).system) for run in runs)
        for system in dict.fromkeys(system for pair in pairs for system in pair):
            keys = system.options()[::2]
            for key in self.options[::2]:
                if key in keys:
                    raise ValueError(
                        f"{key} cannot be given here: it is part of what makes the system "
                        f"{system.name}; train another value by a run of train_net.py of its own"
                    )
        return runs

    @cached_property
    def step_times(self) -> StepTimes:
        """What decides the steps of systems that are trained for the full model's time."""
        return StepTimes(self.output / "step_seconds.json")

    def trained(self, run: Run) -> Run:
        """The run whose training gives the weights of ``run``, mostly itself."""
        if not run.system.weights_of:
            return run
        return Run(all_systems(self.label_space)[run.system.weights_of], run.seed)

    def folder(self, run: Run) -> Path:
        name, _, seed = file_name(run.system.name, run.seed).rpartition("-")
        return self.output / "runs" / name / seed

    def record_path(self, run: Run) -> Path:
        return self.output / "records" / f"{file_name(run.system.name, run.seed)}.json"

    def test_splits(self, run: Run) -> list[str]:
        """What a run's test command predicts: "val" too where its training did not."""
        return ["val", "test"] if run.system.weights_of and self.hold_out else ["test"]

    def predictions(self, run: Run, split: str) -> Path:
        """Where predictions.json of "val" or "test" lies once the commands are through."""
        if split == "val" and not run.system.weights_of:
            return self.folder(run) / "inference" / "predictions.json"
        inference = self.folder(run) / "test" / "inference"
        if len(self.test_splits(run)) > 1:
            inference /= f"a2d_{split}"
        return inference / "predictions.json"

    # ---------------------------------------------------------------- commands

    @property
    def cache(self) -> Path | None:
        """The clip cache that the runner makes; None if the user has one."""
        return None if "INPUT.CLIP.CACHE" in self.options[::2] else self.output / "cache"

    def prepare_command(self) -> list[str] | None:
        """Decodes all clips once; None if the user has a cache."""
        if self.cache is None:
            return None
        cfg = self.base_config
        command = [sys.executable, repository_path("tools/prepare_clips.py")]
        command += ["--root", str(self.root), "--cache", str(self.cache)]
        command += ["--method", cfg.INPUT.FLOW_METHOD]
        command += ["--length", str(cfg.INPUT.CLIP.LENGTH)]
        return [*command, "--stride", str(cfg.INPUT.CLIP.STRIDE)]

    def train_command(self, run: Run) -> list[str]:
        """Trains ``run``, and at the end evaluates it on the held-out videos."""
        assert not run.system.weights_of
        folder = self.folder(run)
        return [
            *self._train_net("--resume"),
            *self._options(run.system, run.seed, folder, ["a2d_val"] if self.hold_out else []),
        ]

    def test_command(self, run: Run) -> list[str]:
        """Evaluates the final weights on the test videos."""
        splits = [f"a2d_{split}" for split in self.test_splits(run)]
        weights = self.folder(self.trained(run)) / "model_final.pth"
        options = self._options(run.system, run.seed, self.folder(run) / "test", splits)
        return [*self._train_net("--eval-only"), *options, "MODEL.WEIGHTS", str(weights)]

    def training_steps(self, run: Run) -> int:
        """Steps of the training, of both stages if there are two."""
        cfg = self.run_config(self.trained(run))
        return cfg.SOLVER.MAX_ITER * (2 if cfg.MODEL.TRAIN_BRANCH == "separate" else 1)

    def test_steps(self, run: Run) -> int:
        """About how many training steps take as long as the test of ``run`` and its scores."""
        frames = sum(self.data["frames"][split] for split in self.test_splits(run))
        return math.ceil(frames * _EXAMPLES_PER_FRAME / self.base_config.SOLVER.IMS_PER_BATCH)

    def _shared_options(self) -> list[str]:
        options = ["DATASETS.ROOT", str(self.root), "DATASETS.HOLD_OUT", str(self.hold_out)]
        return options if self.cache is None else [*options, "INPUT.CLIP.CACHE", str(self.cache)]

    def _options(
        self, system: System, seed: int, folder: Path | None = None, tests: Sequence[str] = ()
    ) -> list[str]:
        options = self._shared_options()
        if folder is not None:
            options += ["DATASETS.TEST", repr(tuple(tests)), "OUTPUT_DIR", str(folder)]
        options += ["SEED", str(seed), *system.options(), *self.options]
        if system.longer_of:
            trained = all_systems(self.label_space)[system.longer_of]
            name = trained.weights_of or trained.name
            if folder is not None and self.step_times.lacks([name]):
                options += ["SOLVER.MAX_ITER", _UNKNOWN, "SOLVER.STEPS", _UNKNOWN]
            else:
                options += self._longer(name)
        if folder is not None and not tests:
            options += ["TEST.EVAL_PERIOD", "0", "TEST.BEST_METRIC", ""]
        return options

    def _longer(self, name: str) -> list[str]:
        """The options that make a training of the system ``name`` as long as the full model's."""
        solver = self.base_config.SOLVER
        factor = self.step_times.factor(name)
        steps = tuple(round(step * factor) for step in solver.STEPS)
        return [
            *("SOLVER.MAX_ITER", str(round(solver.MAX_ITER * factor))),
            *("SOLVER.STEPS", repr(steps)),
        ]

    def _train_net(self, mode: str) -> list[str]:
        words = shlex.split(self.launcher)
        prefix = [sys.executable if word == _PYTHON else word for word in words]
        programs = (
            os.path.basename(word)
            for before, word in zip(["", *words], words, strict=False)
            if not _NAMING.fullmatch(before)
        )
        if _PYTHON not in words and not any(map(_RUNS_SCRIPTS.fullmatch, programs)):
            prefix.append(sys.executable)
        return [*prefix, repository_path("train_net.py"), "--config-file", self.base, mode]


def plan_lines(experiment: Experiment, runs: Sequence[Run]) -> Iterator[str]:
    """Every command of the runs, one a line, under a comment that says what it is for."""
    if experiment.prepare_command():
        yield "# clips and flow, shared by all runs"
        yield shlex.join(experiment.prepare_command())
    trained = set()
    for run in runs:
        wanted = ", ".join(run.system.suites)
        yield f"# {run.name}: for {wanted}"
        source = experiment.trained(run)
        train, test = experiment.train_command(source), experiment.test_command(run)
        if _UNKNOWN in test:
            yield f"# (its steps are measured first: {experiment.step_times.path})"
        if source not in trained:
            trained.add(source)
            yield shlex.join(train)
        else:
            yield f"# (weights of {source.name})"
        yield shlex.join(test)
