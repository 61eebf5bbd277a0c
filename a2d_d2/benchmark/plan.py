"""A plan on paper: what a whole training asks of 1, 8 and 64 GPUs.

It follows from the operations of a step, counted by fvcore, what autograd keeps for it, the bytes
that processes exchange, and figures that were measured elsewhere and are given. docs/scaling.md
explains the formula.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.utils.analysis import FlopCountAnalysis
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn

from a2d_d2.benchmark.clips import check_takes_clips
from a2d_d2.benchmark.common import (
    check_counts,
    kept_bytes,
    machine,
    machine_line,
    random_model,
)
from a2d_d2.benchmark.train import WAITING
from a2d_d2.config import setup_cfg
from a2d_d2.engine.measure import random_clip
from a2d_d2.engine.optimizer import build_optimizer
from a2d_d2.engine.precision import precision
from a2d_d2.modeling.temporal import temporal_radius
from a2d_d2.utils.untrusted import read_json

# The parts of the network whose operations are counted.
PARTS = ("backbone", "flow_backbone", "temporal", "proposal_generator", "roi_heads")
# Each parameter, its gradient and each of the optimiser's states of it have 4 bytes.
PARAMETER_BYTES = 4
TEST_FRAMES = 2365  # annotated, of A2D's test split
MOST_FILLED = 0.9  # of a GPU's memory: workspaces and what lies between tensors need the rest
LIMITS = {"compute": "the GPUs", "exchange": "the links", "load": "the loaders"}


def measure_plan(
    config_file: str,
    options: Sequence[str],
    *,
    height: int,
    width: int,
    gpus: Sequence[int],
    teraflops: float,
    gigabytes: float,
    memory_gib: float,
    clip_seconds: float | None = None,
    load_seconds: float | None = None,
    clip_kib: float | None = None,
    measured: str | os.PathLike | None = None,
    step: str | os.PathLike | None = None,
    infer: str | os.PathLike | None = None,
) -> dict:
    """Counts the operations and the memory of a model, and plans its training.

    Args:
        config_file, options: of the model; no weights are loaded. SOLVER.IMS_PER_BATCH and MAX_ITER
            give the clips of the training.
        height, width: of the frames, in pixels.
        gpus: numbers to plan for.
        teraflops: of one GPU, 10^12 floating-point operations a second, reached and not promised.
        gigabytes: that one GPU sends a second to the others while it receives as many.
        memory_gib: of one GPU.
        clip_seconds: measured, of one clip in a training step on one device; None takes it from
            ``step``.
        load_seconds: measured, of one core for one clip; None takes it from ``measured``.
        clip_kib: measured, of a clip's files in the cache; None takes it from ``measured``.
        measured: what ``tools/benchmark.py data`` or ``all`` wrote; None leaves out what is not
            given.
        step: what ``tools/benchmark.py train`` wrote on one device; operations and memory are then
            those of its frames. None plans with the bound from the operations alone, unless
            ``clip_seconds`` is given.
        infer: what ``tools/benchmark.py infer`` wrote there; without it evaluating takes the share
            of a step that its operations have.

    Returns:
        "machine" that counted; "model", "operations", "training", "given", and "plans", one for
        each number of GPUs.

    Raises:
        ValueError: a number is out of range, ``measured``, ``step`` or ``infer`` has no clip of
            that size, or the configuration is wrong or not of a model of clips.
    """
    check_counts(height=height, width=width, gpus=min(gpus, default=0))
    given = {
        "teraflops": teraflops,
        "gigabytes": gigabytes,
        "memory_gib": memory_gib,
        "clip_seconds": clip_seconds,
        "load_seconds": load_seconds,
        "clip_kib": clip_kib,
    }
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} is {value:g}; it must be above 0")
    cfg = setup_cfg(config_file, options)
    check_takes_clips(cfg)
    frames = 2 * temporal_radius(cfg) + 1
    if measured is not None:
        loading = read_loading(measured, height, width, frames)
        given |= {name: loading[name] for name in loading if given[name] is None}
    size = {"height": height, "width": width}
    if infer is not None:
        given["frame_seconds"] = read_inference(infer, config_file, **size)
    if step is not None and clip_seconds is None:
        of_step = read_step(step, config_file, **size)
        size = {side: of_step.pop(side) for side in size}
        given |= of_step
    model = random_model(cfg)
    clip = random_clip(cfg, **size)
    operations = count_operations(model, clip, sampled_regions(cfg))
    model.train()
    with EventStorage(0):
        kept = kept_bytes(lambda: model([clip]), model)
    counted = {
        "model": {
            "parameters": sum(p.numel() for p in model.parameters()),
            "parameters_trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            # Momentum; or two moments.
            "states": 2 if isinstance(build_optimizer(cfg, model), torch.optim.AdamW) else 1,
            **size,
            "frames": frames,
            "regions": sampled_regions(cfg),
            "kept_bytes": kept,
            "precision": str(precision(cfg) or torch.float32).removeprefix("torch."),
        },
        "operations": operations,
        "training": {
            "clips": cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.MAX_ITER,
            "batch": cfg.SOLVER.IMS_PER_BATCH,
            "evaluations": max(1, -(-cfg.SOLVER.MAX_ITER // (cfg.TEST.EVAL_PERIOD or math.inf))),
            "loaders": max(1, cfg.DATALOADER.NUM_WORKERS),
        },
    }
    return {
        "machine": machine(),
        **counted,
        "given": given,
        "plans": [plan(number, counted, given) for number in gpus],
    }


def read_loading(
    path: str | os.PathLike, height: int, width: int, frames: int
) -> dict[str, float | None]:
    """What loading a clip of so many frames costs, in proportion to one that was measured.

    Returns:
        "load_seconds" of a core, and "clip_kib" of files (None where the measurement has none).

    Raises:
        ValueError: the file cannot be read, or has no clip of that size.
    """
    what = "figures of loading"
    result = read_json(path, what)
    try:
        clips = result.get("stages", {}).get("data", result)["clips"]
        name = f"training clip of {height}x{width}"
        (clip,) = (x for title, x in clips.items() if title.split(",")[0] == name)
        share = frames / clip["frames"]
        kib = clip.get("kib")
        seconds = share * clip["load_ms"] / 1000
        return {"load_seconds": seconds, "clip_kib": None if kib is None else share * kib}
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"{what} {path} have no clip of {height}x{width}; write them with tools/benchmark.py "
            f"data --full-height {height} --full-width {width} --json {path}"
        ) from error


def read_step(path: str | os.PathLike, config_file: str, height: int, width: int) -> dict:
    """What one clip takes in the training steps of a measurement that the loader fed.

    Returns:
        "clip_seconds"; "device", the machine in words; "height" and "width" of the network's
        frames, padded.

    Raises:
        ValueError: the file cannot be read, or is of another model or size.
    """
    result = _read_figures(path, "train", config_file, height, width)
    try:
        batch = result["batch"]
        (row,) = (row for row in result["rows"] if row["name"] == WAITING)
        device = f"{result['machine']['device']}, {batch['precision']}"
        return {
            "clip_seconds": _positive(row["limit"] / 1000 / batch["clips"]),
            "device": f"{device}, {batch['clips']} at once",
            "height": batch["height"],
            "width": batch["width"],
        }
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{path} holds no figures of training steps") from error


def read_inference(path: str | os.PathLike, config_file: str, height: int, width: int) -> float:
    """Seconds of inference on one annotated frame that were measured; raises as read_step does."""
    result = _read_figures(path, "infer", config_file, height, width)
    try:
        return _positive(result["seconds"]["inference"]["median"])
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no figures of inference") from error


def _read_figures(
    path: str | os.PathLike, command: str, config_file: str, height: int, width: int
) -> dict:
    result = read_json(path, f"figures of {command}")
    try:
        release = result["release"]
        of_size = (release["height"], release["width"]) == (height, width)
        of_model = os.path.basename(result["config_file"]) == os.path.basename(config_file)
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path} holds no figures of {command}") from error
    if not (of_size and of_model):
        raise ValueError(
            f"figures of {command} {path} are not of {config_file} on {height}x{width}; write them "
            f"with tools/benchmark.py {command} --config-file {config_file} --height {height} "
            f"--width {width} --json {path}"
        )
    return result


def _positive(seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise ValueError("no time")
    return seconds


def sampled_regions(cfg: CfgNode) -> dict[str, int]:
    """Regions of an annotated frame that a training step samples: "all", and at most "foreground".

    The box head sees all of them, the others the foreground.
    """
    heads = cfg.MODEL.ROI_HEADS
    sampled = heads.BATCH_SIZE_PER_IMAGE
    return {"all": sampled, "foreground": int(sampled * heads.POSITIVE_FRACTION)}


def count_operations(model: nn.Module, clip: dict, regions: Mapping[str, int]) -> dict:
    """Floating-point operations of a clip with one annotated frame, two for a multiply-add.

    Args:
        model: in evaluation mode.
        clip: of the model.
        regions: of :func:`sampled_regions`.

    Returns:
        "inference": part of PARTS to operations of the forward pass; "training": of forward and
        backward. A layer that learns counts three times there (the output, the gradients of its
        input and of its weights), a frozen one once; a region head as often as it has ``regions``
        in training for those that it had at inference.
    """
    clip = {name: clip[name] for name in clip if name != "instances"}
    seen = {}

    def count_regions(name: str):
        return lambda _, inputs: seen.__setitem__(name, len(inputs[0]))

    hooks = [
        head.register_forward_pre_hook(count_regions(f"roi_heads.{name}"))
        for name, head in model.roi_heads.named_children()
    ]
    with torch.no_grad():
        counter = FlopCountAnalysis(model.eval(), [clip])
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counts = counter.by_module()
    for hook in hooks:
        hook.remove()
    # The model is within the adapter that makes a trace of it.
    by_module = Counter({name.removeprefix("model."): n for name, n in counts.items()})
    inference = {name: 2 * by_module[name] for name in PARTS if by_module[name]}
    training = 0
    for name, module in model.named_modules():
        own = by_module[name] - sum(by_module[f"{name}.{x}"] for x, _ in module.named_children())
        if not own or name.split(".")[0] not in PARTS:
            continue
        if name.startswith("roi_heads."):
            head = ".".join(name.split(".")[:2])
            kind = "all" if head.startswith("roi_heads.box_") else "foreground"
            own *= regions[kind] / seen[head]
        learns = any(p.requires_grad for p in module.parameters())
        training += 2 * own * (3 if learns else 1)
    return {"inference": inference, "training": round(training)}


def plan(gpus: int, counted: Mapping, given: Mapping[str, float | None]) -> dict:
    """What a training on a number of GPUs asks for.

    Args:
        gpus: data-parallel processes. Each has at least one clip: the batch grows to their number.
        counted: "model", "operations" and "training" of :func:`measure_plan`.
        given: as :func:`measure_plan` takes them.

    Returns:
        "batch", "steps"; "compute_seconds" and "exchange_seconds" of a step (a ring all-reduce
        sends the gradients twice, less a share), not overlapped; "evaluation_hours" of inference in
        all evaluations; "hours" of these and all steps; "accumulate", the least SOLVER.ACCUMULATE
        whose "memory_gib" a GPU has (None where no clip fits); "first", of LIMITS, which takes most
        of a step. Where the figures for them are given, "loader_cores", busy cores a GPU, and
        "cache_mb", megabytes read a second by all; where the loaders are slower than the rest, a
        step takes as long as they do.
    """
    model, training = counted["model"], counted["training"]
    operations = counted["operations"]["training"]
    trained = PARAMETER_BYTES * model["parameters_trained"]
    batch = max(training["batch"], gpus)
    clips = -(-batch // gpus)  # of the process that has the most
    steps = -(-training["clips"] // batch)
    clip_seconds = operations / (given["teraflops"] * 1e12)
    if given["clip_seconds"] is not None:
        clip_seconds = given["clip_seconds"]
    seconds = {
        "compute": clips * clip_seconds,
        "exchange": 2 * (gpus - 1) / gpus * trained / (given["gigabytes"] * 1e9),
    }
    if given["load_seconds"] is not None:
        seconds["load"] = clips * given["load_seconds"] / training["loaders"]
    step = max(seconds["compute"] + seconds["exchange"], seconds.get("load", 0))
    inference = given.get("frame_seconds")
    if inference is None:
        inference = clip_seconds * sum(counted["operations"]["inference"].values()) / operations
    evaluation = training["evaluations"] * -(-TEST_FRAMES // gpus) * inference / 3600
    held = PARAMETER_BYTES * model["parameters"] + (1 + model["states"]) * trained
    memory = {
        parts: (held + clips // parts * model["kept_bytes"]) / 2**30
        for parts in range(1, clips + 1)
        if clips % parts == 0
    }
    fitting = [n for n, gib in memory.items() if gib <= MOST_FILLED * given["memory_gib"]]
    accumulate = min(fitting, default=None)
    result = {
        "gpus": gpus,
        "batch": batch,
        "steps": steps,
        "compute_seconds": seconds["compute"],
        "exchange_seconds": seconds["exchange"],
        "evaluation_hours": evaluation,
        "hours": steps * step / 3600 + evaluation,
        "accumulate": accumulate,
        "memory_gib": memory[accumulate or clips],
        "first": max(seconds, key=seconds.get),
    }
    if given["load_seconds"] is not None:
        result["loader_cores"] = clips * given["load_seconds"] / step
    if given["clip_kib"] is not None:
        result["cache_mb"] = batch * given["clip_kib"] * 1024 / step / 1e6
    return result


def plan_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_plan` for a person to read."""
    model, operations, given = result["model"], result["operations"], result["given"]
    training, regions = result["training"], model["regions"]
    measured = given["clip_seconds"] is not None
    time = f"bound at {given['teraflops']:g} TFLOP/s (assumed)"
    if measured:
        time = f"{given['clip_seconds']:.3g} s ({given.get('device', 'given')})"
    loading = [
        f"{given[name] * factor:.0f} {unit}"
        for name, factor, unit in (("load_seconds", 1000, "ms of a core"), ("clip_kib", 1, "KiB"))
        if given[name] is not None
    ]
    lines = [
        f"counted on {machine_line(result['machine'])}",
        f"one clip of {model['frames']} frames of {model['height']}x{model['width']} pixels, one "
        "of them annotated, in 10^9 operations (two a multiply-add):",
        *(
            f"  {name:<20}{count / 1e9:10.1f}  forward"
            for name, count in operations["inference"].items()
        ),
        f"  {'training':<20}{operations['training'] / 1e9:10.1f}  with region heads on "
        f"{regions['all']} regions, {regions['foreground']} of them foreground",
        f"{model['parameters_trained'] / 1e6:.1f} million parameters learn, in "
        f"{model['precision']}; for the backward pass a clip keeps "
        f"{model['kept_bytes'] / 2**30:.2f} GiB",
        f"{training['clips']} clips in all, {training['evaluations']} evaluations of {TEST_FRAMES} "
        f"frames; {training['loaders']} loader processes a GPU",
        f"time of a clip: {time}; {given['gigabytes']:g} GB/s between GPUs and "
        f"{given['memory_gib']:g} GiB a GPU (assumed); loading a clip: "
        f"{', '.join(loading) or 'not known'}",
        "",
    ]
    columns = {
        "gpus": ("GPUs", "d"),
        "batch": ("clips in a batch", "d"),
        "steps": ("steps", "d"),
        "compute_seconds": ("computing, s a step", ".3f"),
        "exchange_seconds": ("exchanging, s a step", ".3f"),
        "loader_cores": ("loader cores a GPU", ".2f"),
        "cache_mb": ("cache, MB/s", ".0f"),
        "first": ("first to saturate", "s"),
        "accumulate": ("SOLVER.ACCUMULATE", ""),
        "memory_gib": ("GiB a GPU", ".1f"),
        "hours": ("hours" if measured else "hours, at least", ".2f"),
        "evaluation_hours": ("of these evaluating", ".2f"),
    }
    shown = {name: column for name, column in columns.items() if name in result["plans"][0]}
    named = [
        one | {"first": LIMITS[one["first"]], "accumulate": one["accumulate"] or "none fits"}
        for one in result["plans"]
    ]
    rows = [[format(one[name], digits) for name, (_, digits) in shown.items()] for one in named]
    headers = [title for title, _ in shown.values()]
    return [*lines, *tabulate(rows, headers, "github", disable_numparse=True).splitlines()]
