"""A plan on paper: what a whole training asks of 1, 8 and 64 GPUs.

It follows from the operations of a step, counted by fvcore, the bytes that processes exchange, and
figures that were measured elsewhere and are given. docs/scaling.md explains the formula.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from detectron2.utils.analysis import FlopCountAnalysis
from tabulate import tabulate
from torch import nn

from a2d_d2.benchmark.clips import check_takes_clips
from a2d_d2.benchmark.common import check_counts, random_model
from a2d_d2.config import setup_cfg
from a2d_d2.engine.measure import random_clip
from a2d_d2.modeling.temporal import temporal_radius

# The parts of the network whose operations are counted.
PARTS = ("backbone", "flow_backbone", "temporal", "proposal_generator", "roi_heads")
# Each parameter's gradient has 4 bytes.
GRADIENT_BYTES = 4


def measure_plan(
    config_file: str,
    options: Sequence[str],
    *,
    height: int,
    width: int,
    gpus: Sequence[int],
    teraflops: float,
    gigabytes: float,
    clip_seconds: float | None = None,
    load_seconds: float | None = None,
    clip_kib: float | None = None,
) -> dict:
    """Counts the operations of a model, and plans its training.

    Args:
        config_file, options: of the model; no weights are loaded. SOLVER.IMS_PER_BATCH and MAX_ITER
            give the clips of the training.
        height, width: of the frames, in pixels.
        gpus: numbers to plan for.
        teraflops: of one GPU, 10^12 floating-point operations a second, reached and not promised.
        gigabytes: that one GPU sends a second to the others while it receives as many.
        clip_seconds: measured, of one clip in a training step on one device; None plans with the
            bound from the operations alone.
        load_seconds: measured, of one core for one clip; None leaves it out.
        clip_kib: measured, of a clip's files in the cache; None leaves it out.

    Returns:
        "model", "operations", "training" and "plans", one for each number of GPUs.

    Raises:
        ValueError: a number is out of range, or the configuration is wrong or not of a model of
            clips.
    """
    check_counts(height=height, width=width, gpus=min(gpus, default=0))
    for name, value in {"teraflops": teraflops, "gigabytes": gigabytes}.items():
        if value <= 0:
            raise ValueError(f"--{name} is {value:g}; it must be above 0")
    cfg = setup_cfg(config_file, options)
    check_takes_clips(cfg)
    model = random_model(cfg)
    operations = count_operations(model, random_clip(cfg, height, width))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    training = {
        "clips": cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.MAX_ITER,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
    }
    given = {
        "teraflops": teraflops,
        "gigabytes": gigabytes,
        "clip_seconds": clip_seconds,
        "load_seconds": load_seconds,
        "clip_kib": clip_kib,
    }
    return {
        "model": {
            "parameters_trained": trained,
            "height": height,
            "width": width,
            "temporal_radius": temporal_radius(cfg),
        },
        "operations": operations,
        "training": training,
        "given": given,
        "plans": [
            plan(number, training, operations["training"], trained * GRADIENT_BYTES, given)
            for number in gpus
        ],
    }


def count_operations(model: nn.Module, clip: dict) -> dict:
    """Floating-point operations of a clip with one annotated frame, two for a multiply-add.

    Returns:
        "inference": part of PARTS to operations of the forward pass; "training": of forward and
        backward of what is known to be computed in it, a lower bound. A layer that learns counts
        three times there (the output, the gradients of its input and of its weights), a frozen one
        once. The region heads are left out: their work depends on what is sampled.
    """
    clip = {name: clip[name] for name in clip if name != "instances"}
    with torch.no_grad():
        counter = FlopCountAnalysis(model.eval(), [clip])
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counts = counter.by_module()
    # The model is within the adapter that makes a trace of it.
    by_module = Counter({name.removeprefix("model."): n for name, n in counts.items()})
    inference = {name: 2 * by_module[name] for name in PARTS if by_module[name]}
    training = 0
    for name, module in model.named_modules():
        if name.split(".")[0] in PARTS and not name.startswith("roi_heads"):
            children = [f"{name}.{child}" for child, _ in module.named_children()]
            own = by_module[name] - sum(by_module[child] for child in children)
            learns = any(p.requires_grad for p in module.parameters())
            training += 2 * own * (3 if learns else 1)
    return {"inference": inference, "training": training}


def plan(
    gpus: int,
    training: Mapping[str, int],
    clip_operations: float,
    gradient_bytes: float,
    given: Mapping[str, float | None],
) -> dict:
    """What a training on a number of GPUs asks for.

    Args:
        gpus: data-parallel processes. Each has at least one clip: the batch grows to their number.
        training: "clips" in all, and in a "batch".
        clip_operations: of a clip in training.
        gradient_bytes: of all gradients.
        given: as :func:`measure_plan` takes them.

    Returns:
        "batch", "steps"; "compute_seconds" and "exchange_seconds" of a step (a ring all-reduce
        sends the gradients twice, less a share), not overlapped; "hours" of all steps at that;
        "loader_cores", busy cores a GPU, and "cache_mb", megabytes read a second by all, where the
        figures for them are given.
    """
    batch = max(training["batch"], gpus)
    clips = -(-batch // gpus)  # of the process that has the most
    steps = -(-training["clips"] // batch)
    clip_seconds = given["clip_seconds"] or clip_operations / (given["teraflops"] * 1e12)
    compute = clips * clip_seconds
    exchange = 2 * (gpus - 1) / gpus * gradient_bytes / (given["gigabytes"] * 1e9)
    step = compute + exchange
    result = {
        "gpus": gpus,
        "batch": batch,
        "steps": steps,
        "compute_seconds": compute,
        "exchange_seconds": exchange,
        "hours": steps * step / 3600,
    }
    if given["load_seconds"] is not None:
        result["loader_cores"] = clips * given["load_seconds"] / step
    if given["clip_kib"] is not None:
        result["cache_mb"] = batch * given["clip_kib"] * 1024 / step / 1e6
    return result


def plan_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_plan` for a person to read."""
    model, operations, given = result["model"], result["operations"], result["given"]
    source = "measured" if given["clip_seconds"] else f"bound at {given['teraflops']:g} TFLOP/s"
    lines = [
        f"one clip of {2 * model['temporal_radius'] + 1} frames of {model['height']}x"
        f"{model['width']} pixels, one of them annotated, in 10^9 operations (two a multiply-add):",
        *(
            f"  {name:<20}{count / 1e9:10.1f}  forward"
            for name, count in operations["inference"].items()
        ),
        f"  {'training, at least':<20}{operations['training'] / 1e9:10.1f}  without region heads",
        f"{model['parameters_trained'] / 1e6:.1f} million parameters learn; "
        f"{result['training']['clips']} clips in all; time of a clip: {source}; "
        f"{given['gigabytes']:g} GB/s between GPUs",
        "",
    ]
    columns = {
        "gpus": ("GPUs", "d"),
        "batch": ("clips in a batch", "d"),
        "steps": ("steps", "d"),
        "compute_seconds": ("computing, s a step", ".3f"),
        "exchange_seconds": ("exchanging, s a step", ".3f"),
        "hours": ("hours", ".1f"),
        "loader_cores": ("loader cores a GPU", ".1f"),
        "cache_mb": ("cache, MB/s", ".0f"),
    }
    shown = {name: column for name, column in columns.items() if name in result["plans"][0]}
    rows = [
        [format(one[name], digits) for name, (_, digits) in shown.items()]
        for one in result["plans"]
    ]
    headers = [title for title, _ in shown.values()]
    return [*lines, *tabulate(rows, headers, "github", disable_numparse=True).splitlines()]
