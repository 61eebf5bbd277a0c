"""The demo: every step of the project on a small generated release, as a user would type them."""

import hashlib
import json
import re
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from a2d_d2.config import setup_cfg
from a2d_d2.data.synthetic.generate import GENERATOR_VERSION
from a2d_d2.engine.child import StageBar, run_logged
from a2d_d2.evaluation.tables import paper_tables
from a2d_d2.experiments.records import changed_keys, digest, flatten
from a2d_d2.utils.files import write_json
from a2d_d2.utils.parallel import default_workers
from a2d_d2.utils.repository import REPOSITORY, repository_path

CONFIG = "configs/synthetic/R18_FPN.yaml"
TRAINING_TIME = re.compile(r"Total training time: (?:(\d+) days?, )?(\d+):(\d+):(\d+)")


@dataclass(frozen=True)
class DemoSize:
    """How much the demo generates and trains."""

    train_videos: int
    test_videos: int
    options: tuple[str, ...] = ()  # KEY VALUE pairs for train_net.py


# Of the release. The small config and the default difficulty were settled on releases of other
# seeds.
SEED = 5
FULL = DemoSize(train_videos=2000, test_videos=160)
MINIATURE = DemoSize(
    train_videos=12, test_videos=4, options=("SOLVER.MAX_ITER", "12", "SOLVER.WARMUP_ITERS", "4")
)


def run_demo(output: Path, size: DemoSize, seed: int = SEED) -> None:
    """Runs the demo in the folder ``output``; a step that is complete there is not run again.

    Steps: release, clip cache, training with evaluation at its end, page. Stopped anywhere, the
    next call goes on where this one was, inside the training too. Scores and times of a run that
    was not stopped are kept in ``summary.json``.

    Raises:
        ValueError: a step failed; names its command.
    """
    start = time.perf_counter()
    root, cache, model, report = (output / n for n in ("A2D", "cache", "model", "report"))
    python, config = sys.executable, repository_path(CONFIG)
    inference = model / "inference"
    is_fresh = not output.exists()
    training_seconds = None
    _claim(output, size, seed)

    release = [python, repository_path("tools/make_synthetic_a2d.py")]
    release += [f"--output={root}", f"--seed={seed}"]
    release += [f"--train={size.train_videos}", f"--test={size.test_videos}"]
    _step(1, "Generate a release in A2D's layout", release)

    prepare = [python, repository_path("tools/prepare_clips.py")]
    prepare += [f"--root={root}", f"--cache={cache}", f"--config-file={config}"]
    _step(2, "Decode the clips and compute optical flow once", prepare)

    train = [python, repository_path("train_net.py"), "--config-file", config, "--resume"]
    train += ["DATASETS.ROOT", str(root), "INPUT.CLIP.CACHE", str(cache)]
    train += ["OUTPUT_DIR", str(model), *size.options]
    _announce(3, "Train the two-stream model from scratch, then evaluate it", train)
    if (model / "model_final.pth").exists() and (inference / "metrics.json").exists():
        print("Already trained.")
    else:
        training_seconds = _train(train, model / "console.log")

    look = [python, repository_path("tools/visualize_results.py")]
    look += [f"--root={root}", f"--output={report}"]
    look += [f"--predictions={inference / 'predictions.json'}"]
    look += [f"--metrics={inference / 'metrics.json'}", f"--training={model / 'metrics.json'}"]
    _step(4, "Make pictures and a page of results", look)

    scores = json.loads((inference / "metrics.json").read_text(encoding="utf-8"))
    if is_fresh:
        summary = {
            "train_videos": size.train_videos,
            "test_videos": size.test_videos,
            "cores": default_workers(),
            "training_seconds": training_seconds,
            "total_seconds": round(time.perf_counter() - start),
            **scores,
        }
        write_json(output / "summary.json", summary)
    print(f"\nScores on {size.test_videos} held-out synthetic videos (percent)\n")
    print(paper_tables(scores))
    print(
        f"""
Open      {report / "index.html"}   the page: scores, curves, pictures
Release   {root}
Model     {model / "model_final.pth"}
Scores    {inference / "metrics.json"}
Log       {model / "console.log"}

Next:
  See what the network is fed    {python} {repository_path("tools/visualize_data.py")} \\
                                     --config-file {config} \\
                                     --output {output / "data"} DATASETS.ROOT {root}
  Score your own predictions     {python} {repository_path("tools/evaluate.py")} --help
  Train on the real A2D          README.md, "Train on A2D"
"""
    )


def _config_digest() -> str:
    """SHA-256 of the configuration files that the demo trains with."""
    texts = (
        (REPOSITORY / path).read_text(encoding="utf-8")
        for path in (CONFIG, "configs/Base-A2D.yaml")
    )
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def settings_digest() -> str:
    """SHA-256 of what decides the figures of the full demo: configuration and release.

    Unlike :func:`demo_settings` it does not depend on comments.
    """
    settings = {
        "config": changed_keys(flatten(setup_cfg(str(REPOSITORY / CONFIG)))),
        "generator": GENERATOR_VERSION,
        "size": asdict(FULL),
        "seed": SEED,
    }
    return digest(settings)


def demo_settings(size: DemoSize, seed: int) -> dict:
    """What tells the folder of one demo from that of another."""
    return {
        **asdict(size),
        "options": list(size.options),
        "seed": seed,
        "config": _config_digest(),
    }


def full_demo_summary(demo: Path) -> dict:
    """The summary of a full demo that was run in one go, with the present settings.

    Raises:
        ValueError: ``demo`` is not the folder of one.
    """
    summary, settings = demo / "summary.json", demo / "demo.json"
    if not summary.exists():
        raise ValueError(f"{summary} does not exist; run make demo in a new folder, in one go")
    if json.loads(settings.read_text(encoding="utf-8")) != demo_settings(FULL, SEED):
        raise ValueError(
            f"{demo} was made with another size, seed or configuration than the demo has now; run "
            "make demo in a new folder, in one go"
        )
    return json.loads(summary.read_text(encoding="utf-8"))


def _claim(output: Path, size: DemoSize, seed: int) -> None:
    """Notes in ``output`` what it is for; a folder of another demo is refused, not mixed up."""
    settings = demo_settings(size, seed)
    path = output / "demo.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{output} holds a demo of another size, seed or configuration; delete it, or choose "
            "another folder (make demo DEMO=folder)"
        )
    write_json(path, settings)


def _announce(number: int, title: str, command: list[str]) -> None:
    print(f"\n[{number}/4] {title}\n$ {shlex.join(command)}", flush=True)


def _step(number: int, title: str, command: list[str]) -> None:
    _announce(number, title, command)
    status = subprocess.run(command).returncode
    if status:
        raise ValueError(f"step {number} failed (exit code {status}): {shlex.join(command)}")


def _train(command: list[str], log: Path) -> int | None:
    """Runs the training command, its output in ``log``, a progress bar on the console.

    Returns:
        Seconds that the training steps took, evaluation not counted; None if there was none.
    """
    seconds = None

    def read(line: str) -> None:
        nonlocal seconds
        bar.read(line)
        if match := TRAINING_TIME.search(line):
            days, hours, minutes, rest = (int(n or 0) for n in match.groups())
            seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest

    with StageBar() as bar:
        status = run_logged(command, log, read)
    if status:
        raise ValueError(f"training failed (exit code {status}); see {log}")
    return seconds
