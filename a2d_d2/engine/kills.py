"""Trainings killed with SIGKILL and resumed, against one that was left alone.

Each training is train_net.py itself, in a process of its own that a server forks, so that it need
not import everything again.
"""

import json
import multiprocessing
import os
import random
import runpy
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

# Not used here: what train_net.py imports, for the server to have.
import a2d_d2.engine.launch
import a2d_d2.engine.stages  # noqa: F401
from a2d_d2.data.synthetic import make_release
from a2d_d2.utils.repository import REPOSITORY

CONFIG = "configs/synthetic/R18_FPN.yaml"
# A network and a training of seconds, over CONFIG, with all that a restart has to restore.
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_ACTION_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.WARMUP_ITERS": 1,
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "TEST.DETECTIONS_PER_IMAGE": 5,
    "SEED": 1,
}
KILLED = {
    "INPUT.COLOR_JITTER": 0.2,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "TEST.NUM_PICTURES": 0,
}
# Ways to train, which are killed in turn: KEY VALUE pairs and flags of each.
VARIANTS = {
    "one process": ([], []),
    "loader processes": (["DATALOADER.NUM_WORKERS", "2"], []),
    "two processes": ([], ["--num-gpus=2"]),
    "two stages": (["MODEL.TRAIN_BRANCH", "separate"], []),
}


class Trainings:
    """Short trainings on a small release, each in a process of its own.

    Args:
        folder: for the release and what the trainings write.
        steps: of each; an evaluation comes after half of them and at the end.
        opts: KEY VALUE pairs for train_net.py.
    """

    def __init__(self, folder: Path, steps: int, opts: Sequence[str] = ()):
        self.folder = folder
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload([__name__])
        root = folder / "A2D"
        made = self._server.Process(target=make_tiny_release, args=(root,))
        made.start()
        made.join()
        values = TINY | KILLED | {"SOLVER.MAX_ITER": steps, "TEST.EVAL_PERIOD": max(1, steps // 2)}
        self._opts = [str(x) for pair in values.items() for x in pair]
        self._opts += ["DATASETS.ROOT", str(root), *opts]

    def begin(
        self, name: str, opts: Sequence[str] = (), flags: Sequence[str] = ("--resume",)
    ) -> multiprocessing.Process:
        """Starts train_net.py on the folder ``name``; its output goes to console.log there."""
        output = self.folder / name
        arguments = [*flags, "--config-file", CONFIG, *self._opts, *opts, "OUTPUT_DIR", str(output)]
        process = self._server.Process(target=_train_net, args=(arguments, output / "console.log"))
        process.start()
        return process


def make_tiny_release(root: Path) -> None:
    """Writes a release of 4 training and 2 test videos of 12 frames of 64x80 pixels."""
    make_release(root, 4, 2, seed=3, height=64, width=80, num_frames=12, workers=1, progress=False)


def measure_kills(
    trainings: Trainings,
    kills: int,
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    seed: int = 0,
    kills_per_run: int = 5,
    progress: bool = True,
) -> dict:
    """Kills trainings at random moments and compares what they end with.

    Args:
        trainings: of which one of each variant is left alone, and others are killed.
        kills: number of kills in all, which the variants share.
        variants: names of VARIANTS.
        seed: of the moments. (The machine decides what a training does at that moment.)
        kills_per_run: number of kills after which a training may go on to its end.
        progress: show a bar.

    Returns:
        "kills", "runs", "runs_equal", "while_writing_a_checkpoint" and
        "before_the_first_checkpoint" (numbers of kills), "failures" (what a run ended with that
        differs, or why it did not end, a line each), in all and for each of the "variants"; "seed",
        "seconds".

    Raises:
        OSError: a training that is left alone failed.
    """
    start = time.perf_counter()
    moments = random.Random(seed)
    found = {}
    with tqdm(total=kills, unit="kill", disable=not progress) as bar:
        for number, name in enumerate(variants):
            share = kills // len(variants) + (number < kills % len(variants))
            found[name] = _kill(trainings, name, share, moments, kills_per_run, bar)
    first, *others = found.values()
    total = {key: sum((of[key] for of in others), value) for key, value in first.items()}
    took = round(time.perf_counter() - start)
    return total | {"variants": found, "seed": seed, "seconds": took}


def _kill(
    trainings: Trainings,
    variant: str,
    kills: int,
    moments: random.Random,
    kills_per_run: int,
    bar: tqdm,
) -> dict:
    """The figures of one variant, as of :func:`measure_kills`."""
    opts, flags = VARIANTS[variant]
    folder = trainings.folder / variant.replace(" ", "_")

    def begin(output: Path) -> multiprocessing.Process:
        name = str(output.relative_to(trainings.folder))
        return trainings.begin(name, opts, [*flags, "--resume"])

    start = time.perf_counter()
    whole = folder / "whole"
    process = begin(whole)
    process.join()
    if process.exitcode:
        reason = f"exit code {process.exitcode}, see {whole / 'console.log'}"
        raise OSError(f"the training that nobody kills failed ({reason})")
    duration = time.perf_counter() - start
    failures, done, writing, early, runs, equal = [], 0, 0, 0, 0, 0
    bar.set_description(variant)
    while done < kills:
        output = folder / f"killed_{runs:03d}"
        runs += 1
        for left in range(min(kills_per_run, kills - done), -1, -1):
            process = begin(output)
            process.join(moments.uniform(0, duration / 2) if left else None)
            if not process.is_alive():
                break
            process.kill()
            process.join()
            done += 1
            writing += any(output.rglob(".tmp-*.pth"))
            early += not any(output.rglob("last_checkpoint"))
            bar.update()
        problems = [f"exit code {process.exitcode}, see {output / 'console.log'}"]
        if process.exitcode == 0:
            problems = list(differences(whole, output))
        equal += not problems
        failures += [f"{variant}, {output.name}: {problem}" for problem in problems]
    return {
        "kills": done,
        "runs": runs,
        "runs_equal": equal,
        "while_writing_a_checkpoint": writing,
        "before_the_first_checkpoint": early,
        "failures": failures,
    }


def _train_net(arguments: Sequence[str], log: Path) -> None:
    """The process of a training: ends as train_net.py does."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.chdir(REPOSITORY)
    multiprocessing.set_start_method("fork", force=True)  # of loaders: the server's is its own
    os.environ["OMP_NUM_THREADS"] = "1"  # of further processes
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # flow depends on it, and a loader's process has one thread
    sys.argv = ["train_net.py", *arguments]
    runpy.run_path("train_net.py", run_name="__main__")


def differences(whole: Path, other: Path) -> Iterator[str]:
    """Names what two trainings left that is not equal bit for bit.

    Weights, state of optimiser, schedule and scaler, the best model, and the scores.
    """
    for name in ("model_final.pth", "model_best.pth"):
        first, second = (torch.load(f / name, weights_only=True) for f in (whole, other))
        yield from (f"{name}: {place}" for place in _unequal(first, second))
    for name in ("inference/metrics.json", "inference/predictions.json", "model_best.json"):
        first, second = (json.loads((f / name).read_text(encoding="utf-8")) for f in (whole, other))
        if first != second:
            yield name


def _unequal(first, second, place: str = "") -> Iterator[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys(), key=str):
            yield from _unequal(first.get(key), second.get(key), f"{place}/{key}")
    elif isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        yield from _unequal(dict(enumerate(first)), dict(enumerate(second)), place)
    elif isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if first.dtype != second.dtype or not torch.equal(first, second):
            yield place
    elif first != second:
        yield place
