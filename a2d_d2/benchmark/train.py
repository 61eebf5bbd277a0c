"""What a training step costs, beside its parts and the waiting for data."""

import contextlib
import itertools
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from tqdm import tqdm

from a2d_d2.benchmark.clips import generated_clips
from a2d_d2.benchmark.common import (
    check_counts,
    interleave,
    machine,
    machine_line,
    random_model,
    ratio,
    seconds_of,
)
from a2d_d2.benchmark.profiling import profile_calls
from a2d_d2.benchmark.rows import make_row, row_lines
from a2d_d2.data.build import build_train_loader
from a2d_d2.engine.optimizer import build_optimizer
from a2d_d2.engine.precision import autocast, precision
from a2d_d2.engine.trainer import MixedPrecisionTrainer
from a2d_d2.modeling.meta_arch import ActorActionRCNN, ClipBatch, FrameFeatures

# What a step cannot do without, forward and backward: name to what it is.
NEEDED = {
    "appearance_backbone": "appearance backbone",
    "flow_backbone": "flow backbone",
    "temporal_and_fusion": "temporal modules with fusion",
    "heads": "RPN and region heads on annotated frames",
}
# And what it does beside.
BESIDE = {
    "preprocess": "normalising and padding",
    "update": "clipping and the optimiser's update",
}
# Of NEEDED, what a stricter limit leaves out: the backbones and the heads alone.
NOT_STRICT = "temporal_and_fusion"
WAITING = "waiting for data in a step"  # name of a row; its limit is the mean step that is fed
MOST_OF_PARTS = 1.2  # the goals: the step over its parts
MOST_WAITING = 0.05  # and the share of it that waits for data, which is as good as none


def measure_train(
    config_file: str,
    options: Sequence[str],
    *,
    height: int,
    width: int,
    repeats: int,
    steps: int,
    profile: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict:
    """Measures training steps on a generated release, the network's parts and the wait for data.

    The step and its parts see the same batch again and again, the first that the loader gives, with
    a learning rate of 0. Then further steps are fed by the loader.

    Args:
        config_file, options: of the model; no weights are loaded.
        height, width: of the release's videos, in pixels.
        repeats: of the step and of each part; times are medians.
        steps: fed by the loader, after two to warm up.
        profile: a folder that gets a profile of the step; None makes none.
        progress: shows progress bars.

    Returns:
        What was measured, and :func:`summarise` of it.

    Raises:
        ValueError: a number is out of range, or the configuration is wrong or not of a model of
            clips.
    """
    check_counts(height=height, width=width, repeats=repeats, steps=steps)
    size = {"height": height, "width": width}
    with generated_clips(config_file, options, **size, progress=progress) as cfg:
        loader = build_train_loader(cfg)
        batch = next(iter(loader))
        model = random_model(cfg).train()
        parts = TrainingParts(model, cfg, batch)
        ways = parts.ways()
        interleave(ways, 1, description="warming up", progress=progress)
        seconds = interleave(ways, repeats, description="measuring", progress=progress)
        waits = waiting_seconds(make_trainer(model, cfg, loader), steps, progress)
        if profile is not None:
            profile_calls(lambda: parts.step(), profile, "train_step")
    frames = parts.batch.images
    result = {
        "machine": machine(),
        "release": size,
        "batch": {
            "clips": len(batch),
            "frames": len(frames),
            "annotated": len(parts.batch.keys),
            "height": frames.shape[2],
            "width": frames.shape[3],
            "precision": str(precision(cfg) or torch.float32).removeprefix("torch."),
            "loader_processes": cfg.DATALOADER.NUM_WORKERS,
        },
        "repeats": repeats,
    }
    return result | summarise(seconds, waits, result["batch"])


def make_trainer(
    model: nn.Module, cfg: CfgNode, batches: Iterable[list[dict]]
) -> MixedPrecisionTrainer:
    """The trainer that train_net.py has, with a learning rate of 0: each step costs the same."""
    optimizer = build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    trainer = MixedPrecisionTrainer(
        model,
        batches,
        optimizer,
        precision=precision(cfg),
        max_grad_norm=cfg.SOLVER.MAX_GRAD_NORM,
        accumulate=cfg.SOLVER.ACCUMULATE,
        seed=0,
    )
    trainer.iter = 0
    return trainer


class TrainingParts:
    """The parts of the training step of one batch, and the whole.

    Attributes:
        batch: what the network computes.
    """

    def __init__(self, model: ActorActionRCNN, cfg: CfgNode, clips: list[dict]):
        self.model = model
        self.clips = clips
        self.trainer = make_trainer(model, cfg, itertools.repeat(clips))
        self.batch: ClipBatch = model.preprocess(clips)
        self.region_levels = cfg.MODEL.ROI_HEADS.IN_FEATURES
        self.levels = {*self.region_levels, *cfg.MODEL.RPN.IN_FEATURES}
        with torch.no_grad(), self._autocast():
            features = model.extract_features(self.batch.images, self.batch.flow)
            fused = model.aggregate(features, self.batch.neighbours)
        self.features = FrameFeatures(_leaves(features.appearance), _leaves(features.motion))
        self.key_features = _leaves({k: x[self.batch.keys] for k, x in features.appearance.items()})
        self.fused = _leaves(fused)

    def ways(self) -> dict[str, Callable[[], float]]:
        """The whole, "step", and the names of NEEDED and BESIDE, to what gives their seconds."""
        functions = {
            "step": self.step,
            "appearance_backbone": lambda: self._backbone(
                self.model.backbone, self.batch.images, self.levels
            ),
            "flow_backbone": lambda: self._backbone(
                self.model.flow_backbone, self.batch.flow, self.region_levels
            ),
            "temporal_and_fusion": self._aggregate,
            "heads": self._heads,
            "preprocess": lambda: self.model.preprocess(self.clips),
        }
        if self.model.flow_backbone is None:
            del functions["flow_backbone"]
        return {name: self._timed(function) for name, function in functions.items()} | {
            "update": self._update_seconds
        }

    def step(self) -> None:
        """A whole step of the trainer."""
        with EventStorage(0) as storage:
            self.trainer.storage = storage
            self.trainer.run_step()

    def _timed(self, function: Callable[[], None]) -> Callable[[], float]:
        def seconds() -> float:
            self.trainer.optimizer.zero_grad()
            return seconds_of(function)

        return seconds

    def _backbone(self, backbone: nn.Module, frames: Tensor, levels: Iterable[str]) -> None:
        with self._autocast():
            pyramid = backbone(frames)
        _backward(pyramid[level] for level in pyramid if level in levels)

    def _aggregate(self) -> None:
        with self._autocast():
            fused = self.model.aggregate(self.features, self.batch.neighbours)
        _backward(fused.values())

    def _heads(self) -> None:
        batch = self.batch
        with EventStorage(0):
            _, losses = self.model.run_heads(
                self.key_features, self.fused, batch.key_sizes, batch.targets
            )
        sum(losses.values()).backward()

    def _update_seconds(self) -> float:
        """Of clipping and the update with gradients that are all there."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.full_like(parameter, 1e-3)
        return seconds_of(self.trainer.update)

    def _autocast(self) -> contextlib.AbstractContextManager:
        return autocast(self.trainer.device_type, self.trainer.precision)


def _leaves(features: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Features where the backward pass ends."""
    if features is None:
        return None
    return {name: x.detach().requires_grad_() for name, x in features.items()}


def _backward(outputs: Iterable[Tensor]) -> None:
    outputs = [x for x in outputs if x.requires_grad]
    torch.autograd.backward(outputs, [torch.full_like(x, 1e-3) for x in outputs])


def waiting_seconds(
    trainer: MixedPrecisionTrainer, steps: int, progress: bool
) -> dict[str, list[float]]:
    """Seconds of each step that a loader feeds, "step", and of it those that it waits, "waiting".

    The first two are left out: the loader's processes start there.
    """
    seconds = {"step": [], "waiting": []}
    with EventStorage(0) as storage:
        trainer.storage = storage
        for _ in tqdm(range(steps + 2), desc="with the loader", unit="step", disable=not progress):
            seconds["step"].append(seconds_of(trainer.run_step))
            seconds["waiting"].append(storage.latest()["data_time"][0])
    return {name: values[2:] for name, values in seconds.items()}


def summarise(
    seconds: Mapping[str, Sequence[float]],
    waits: Mapping[str, Sequence[float]],
    batch: Mapping,
) -> dict:
    """Medians and ratios of what was measured.

    Args:
        seconds: "step" and the names of NEEDED and BESIDE, one a repeat; no "flow_backbone"
            without a flow stream.
        waits: of :func:`waiting_seconds`.
        batch: "frames" and "annotated", how many the step computes, and "loader_processes".

    Returns:
        "seconds": name to "median" and "repeats", with the sums "needed" and, without the temporal
        modules, "strict"; "fed": ``waits``; "waiting_share"; "rows" of the table.
    """
    seconds = with_sums(seconds, NEEDED)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    share = sum(waits["waiting"]) / sum(waits["step"])
    rows = [
        make_row(
            "training step",
            1000 * medians["step"],
            "ms",
            limit=1000 * medians["needed"],
            limit_name=f"forward and backward of the backbones over {batch['frames']} frames, of "
            f"temporal modules and heads on {batch['annotated']}",
            ratio=ratio(seconds["step"], seconds["needed"]),
            most_ratio=MOST_OF_PARTS,
        ),
        make_row(
            "training step, by a stricter limit",
            1000 * medians["step"],
            "ms",
            limit=1000 * medians["strict"],
            limit_name="the same without the temporal modules",
            ratio=ratio(seconds["step"], seconds["strict"]),
            most_ratio=MOST_OF_PARTS,
        ),
        make_row(
            WAITING,
            1000 * statistics.mean(waits["waiting"]),
            "ms",
            limit=1000 * statistics.mean(waits["step"]),
            limit_name=f"the step that waits, with {batch['loader_processes']} loader processes",
            ratio=share,
            most_ratio=MOST_WAITING,
        ),
    ]
    return {
        "seconds": {
            name: {"median": medians[name], "repeats": values} for name, values in seconds.items()
        },
        "fed": {name: list(values) for name, values in waits.items()},
        "waiting_share": share,
        "rows": rows,
    }


def with_sums(
    seconds: Mapping[str, Sequence[float]], parts: Iterable[str]
) -> dict[str, list[float]]:
    """Seconds with the sums of each repeat's parts: "needed", and "strict" without NOT_STRICT."""
    parts = [name for name in parts if name in seconds]
    sums = {"needed": parts, "strict": [name for name in parts if name != NOT_STRICT]}
    return {name: list(values) for name, values in seconds.items()} | {
        total: [sum(values) for values in zip(*(seconds[name] for name in names), strict=True)]
        for total, names in sums.items()
    }


def train_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_train` for a person to read."""
    batch, seconds = result["batch"], result["seconds"]
    lines = [
        machine_line(result["machine"]),
        f"{batch['clips']} clips in a batch, {batch['frames']} frames of {batch['height']}x"
        f"{batch['width']} pixels, {batch['annotated']} of them annotated; {batch['precision']}, "
        "random weights",
        f"milliseconds a step, medians of {result['repeats']}:",
    ]
    titles = {
        **{name: f"  {title}" for name, title in NEEDED.items()},
        "needed": "sum of these parts, forward and backward",
        "strict": "the same without the temporal modules",
        **{name: f"  {title}" for name, title in BESIDE.items()},
        "step": "a whole step",
    }
    lines += [
        f"  {title:<62}{1000 * seconds[name]['median']:10.1f}"
        for name, title in titles.items()
        if name in seconds
    ]
    return [*lines, *row_lines(result["rows"])]
