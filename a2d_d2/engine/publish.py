"""The demo's model as a small file that the repository carries, with a card of what it is."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import torch

from a2d_d2.config import setup_cfg
from a2d_d2.data.synthetic.generate import GENERATOR_VERSION
from a2d_d2.engine.demo import CONFIG, full_demo_summary, settings_digest
from a2d_d2.evaluation.tables import markdown_table
from a2d_d2.utils.files import atomic_stream, write_bytes, write_json, write_text
from a2d_d2.utils.repository import REPOSITORY, repository_path
from a2d_d2.utils.weights import load_torch

WEIGHTS, FACTS, CARD = "R18_FPN.pth", "model.json", "MODEL_CARD.md"


def publish_demo_model(demo: Path, output: Path) -> None:
    """Writes weights, facts and card of a full demo's model into the folder ``output``.

    The weights are rounded to half precision; the scores are those of the rounded ones, on the
    demo's test videos.

    Raises:
        ValueError: ``demo`` is not the folder of a full demo with the present settings, or the
            evaluation failed.
    """
    summary = full_demo_summary(demo)
    # Nothing is published before it is scored.
    evaluated = demo / "published"
    weights = evaluated / WEIGHTS
    num_parameters = write_half_weights(demo / "model" / "model_final.pth", weights)
    command = [sys.executable, repository_path("train_net.py"), "--config-file"]
    command += [repository_path(CONFIG), "--eval-only", "MODEL.WEIGHTS", str(weights)]
    command += ["DATASETS.ROOT", str(demo / "A2D"), "INPUT.CLIP.CACHE", str(demo / "cache")]
    command += ["OUTPUT_DIR", str(evaluated)]
    if status := subprocess.run(command).returncode:
        raise ValueError(f"the evaluation failed (exit code {status})")
    scores = json.loads((evaluated / "inference" / "metrics.json").read_text(encoding="utf-8"))
    data = weights.read_bytes()
    facts = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "megabytes": round(len(data) / 1e6, 1),
        "parameters": num_parameters,
        "settings_sha256": settings_digest(),
        "generator": GENERATOR_VERSION,
        "train_videos": summary["train_videos"],
        "test_videos": summary["test_videos"],
        "cores": summary["cores"],
        "training_seconds": summary["training_seconds"],
        "segmentation": scores["segmentation"],
        "detection": scores["detection"],
    }
    write_bytes(output / WEIGHTS, data)
    write_json(output / FACTS, facts)
    write_text(output / CARD, model_card(facts))


def write_half_weights(source: Path, target: Path) -> int:
    """Writes the weights of a checkpoint, and nothing else of it, in half precision.

    Whole numbers (counters) stay as they are. A model that loads the file gets single precision
    again, each weight rounded to 11 bits.

    Returns:
        The number of values.
    """
    weights = load_torch(source)["model"]
    half = {
        name: value.half() if value.is_floating_point() else value
        for name, value in weights.items()
    }
    with atomic_stream(target) as stream:
        torch.save({"model": half}, stream)
    return sum(value.numel() for value in half.values())


def model_card(facts: dict) -> str:
    """The card of the facts that :func:`publish_demo_model` wrote, in Markdown."""
    cfg = setup_cfg(str(REPOSITORY / CONFIG))
    clip, solver = cfg.INPUT.CLIP, cfg.SOLVER
    minutes = facts["training_seconds"] / 60
    return f"""# Model card: {WEIGHTS}

The small two-stream model (`{CONFIG}`: ResNet-18, T = {clip.LENGTH}, stride
{clip.STRIDE}) as `make demo` trained it. {facts["parameters"] / 1e6:.1f} million values in half
precision, {facts["megabytes"]} MB, SHA-256 `{facts["sha256"]}`.

```
python tools/predict_video.py --config-file {CONFIG} \\
    --weights results/demo/{WEIGHTS} --input VIDEO --output output/videos
```

- **Data.** {facts["train_videos"]} videos of the synthetic release (version {facts["generator"]} of
  the generator, default difficulty): drawn figures of the seven actors of A2D with its nine
  actions. No photograph, no real video and no start weights were used.
- **Budget.** {solver.MAX_ITER} steps of {solver.IMS_PER_BATCH} clips with {solver.OPTIMIZER},
  {minutes:.1f} minutes on {facts["cores"]} CPU cores.
- **Scores** of these rounded weights on {facts["test_videos"]} other videos of the same release, in
  percent:

{markdown_table(facts)}

- **Limits.** It knows the synthetic world only: of real video it says nothing of use. One run, one
  seed. The scores are not comparable with A2D's.
- **Origin.** Made by this project from data that this project draws.

Written by `python tools/publish_model.py --demo demo`, from `{FACTS}`.
"""
