"""Steps whose loss or gradient is not finite: left out, kept for replay, and replayed."""

import logging
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from a2d_d2.config import setup_cfg
from a2d_d2.engine.checkpoint import broken_checkpoint
from a2d_d2.engine.precision import autocast, precision
from a2d_d2.engine.step import add_mean, parts_of, training_losses
from a2d_d2.utils.config_files import BASE_KEY, flat_keys, read_keys
from a2d_d2.utils.files import atomic_stream
from a2d_d2.utils.untrusted import MAX_PIXELS
from a2d_d2.utils.weights import CompressedError, load_torch

FOLDER = "non_finite"  # in OUTPUT_DIR
# Objects of a batch, the only ones that a file to replay may hold beside tensors and numbers.
_STRUCTURES = (Instances, Boxes, BitMasks)
_LABEL_SPACE = "DATASETS.LABEL_SPACE"

logger = logging.getLogger(__name__)


class NonFiniteSteps:
    """Leaves out steps that are not finite, up to a number, and keeps each for replay.

    Args:
        folder: where their files go.
        config: text of the configuration.
        max_skipped: of a whole run; the next one ends it.

    Attributes:
        skipped: number of steps left out so far.
    """

    def __init__(self, folder: Path, config: str, max_skipped: int):
        self.folder = folder
        self.config = config
        self.max_skipped = max_skipped
        self.skipped = 0

    def skip(
        self,
        step: int,
        what: str,
        model: nn.Module,
        clips: Sequence[dict],
        generators: dict,
        losses: Mapping[str, Tensor],
    ) -> None:
        """Every process calls this in a step that is left out.

        Args:
            step: number of the step.
            what: "loss" or "gradient", whichever is not finite.
            model: with the weights that the step began with.
            clips: the batch of this process.
            generators: :func:`generator_states` before the forward pass.
            losses: of this process.

        Raises:
            ValueError: too many steps were left out.
        """
        values = {name: loss.item() for name, loss in losses.items()}
        processes = comm.gather({"clips": clips, "generators": generators, "losses": values})
        path = self.folder / f"step_{step:07d}.pth"
        if comm.is_main_process():
            data = {
                "step": step,
                "what": what,
                "config": self.config,
                "weights": {name: value.cpu() for name, value in model.state_dict().items()},
                "processes": processes,
            }
            with atomic_stream(path, durable=True) as stream:
                torch.save(data, stream)
        comm.synchronize()
        message = (
            f"the {what} of step {step} is not finite ("
            + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            + f"); see it with: python tools/replay_batch.py {path}"
        )
        if self.skipped >= self.max_skipped:
            left_out = f", {self.skipped} steps were left out before" if self.skipped else ""
            raise ValueError(
                f"{message}{left_out}; SOLVER.MAX_SKIPPED_STEPS ({self.max_skipped}) lets training "
                "go on without so many such steps"
            )
        self.skipped += 1
        logger.warning(f"left out: {message}")

    def state_dict(self) -> dict:
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict) -> None:
        self.skipped = state["skipped"]


def generator_states() -> dict:
    """The states of the random generators of python, numpy and torch, in plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_generators(states: dict) -> None:
    """Undoes what was drawn since :func:`generator_states`."""
    name, keys, *rest = states["numpy"]
    random.setstate(states["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@dataclass(frozen=True)
class Replayed:
    """One process's part of a step, done again.

    Attributes:
        losses: name to value.
        stored: the losses that the training saw.
        module: the first module whose output is not finite, with its class; None if all are.
        output: where in that output, and how much of it.
        inputs_finite: whether what went into that module is finite.
        gradient: the first parameter, in the order of the backward pass, whose gradient is not
            finite; None if all are.
        weights: names of the weights that are not finite before the step.
    """

    losses: dict[str, float]
    stored: dict[str, float]
    module: str | None
    output: str
    inputs_finite: bool
    gradient: str | None
    weights: list[str]

    @property
    def is_finite(self) -> bool:
        return self.gradient is None and all(map(math.isfinite, self.losses.values()))


def describe(replayed: Replayed, rank: int) -> list[str]:
    """What was found, in lines."""
    lines = [f"process {rank}:"]
    for name, value in replayed.losses.items():
        stored = replayed.stored.get(name, math.nan)
        is_same = value == stored or (math.isnan(value) and math.isnan(stored))
        was = "" if is_same else f" (in training {stored:.6g})"
        lines.append(f"  {name} {value:.6g}{was}")
    if replayed.weights:
        lines.append(f"  weights that were not finite before the step: {replayed.weights[0]}, ...")
    if replayed.module is not None:
        what = "finite" if replayed.inputs_finite else "not finite either"
        lines.append(
            f"  first output that is not finite: {replayed.module}, {replayed.output}; "
            f"its input is {what}"
        )
    elif not replayed.is_finite:
        lines.append("  every module's output is finite")
    if replayed.gradient is not None:
        lines.append(f"  first gradient that is not finite: {replayed.gradient}")
    if replayed.is_finite:
        lines.append("  all is finite here")
    return lines


def replay(path: Path, config_file: str = "", opts: Sequence[str] = ()) -> tuple[dict, list]:
    """Does a step of :class:`NonFiniteSteps` again, with its weights, batch and random state.

    Args:
        path: of its file.
        config_file: instead of the configuration in the file.
        opts: KEY VALUE pairs over it (``MODEL.DEVICE cpu``, ``SOLVER.AMP.ENABLED False``).

    Returns:
        "step" and "what" of the file, and a :class:`Replayed` for each process of the training.

    Raises:
        ValueError: the file is not one of those, or the model is another.
    """
    data = _read(path)
    cfg = setup_cfg(config_file, opts) if config_file else _stored_cfg(data["config"], opts, path)
    model = build_model(cfg).train()
    try:
        replayed = [_replay(model, data["weights"], each, cfg) for each in data["processes"]]
    except Exception as error:  # what is no batch of this model may fail anywhere in it
        raise ValueError(
            f"cannot replay {path}: its weights or its batch are not those of this configuration "
            f"({type(error).__name__}: {error}); give the training's with --config-file"
        ) from error
    return {"step": data["step"], "what": data["what"]}, replayed


def _stored_cfg(text: str, opts: Sequence[str], path: Path) -> CfgNode:
    """The configuration in a file of a batch, which opens no other file."""
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder, "config.yaml")
        stored.write_text(text, encoding="utf-8", errors="replace")
        try:
            keys = dict(flat_keys(read_keys(stored), stored))
            if BASE_KEY in keys:
                raise ValueError(f"its configuration has a {BASE_KEY}, which a training never does")
            if keys.get(_LABEL_SPACE) and _LABEL_SPACE not in opts[::2]:
                raise ValueError(
                    f"its classes are in another file; if you trust it, add {_LABEL_SPACE} "
                    f"{keys[_LABEL_SPACE]}"
                )
            return setup_cfg(str(stored), opts)
        except ValueError as error:
            message = str(error).replace(f"{folder}/", "")
            raise ValueError(f"cannot replay {path}: {message}") from error


def _read(path: Path) -> dict:
    problem = broken_checkpoint(path)
    if problem is not None:
        raise ValueError(f"cannot read {path}: {problem}")
    torch.serialization.add_safe_globals([*_STRUCTURES])
    try:
        data = load_torch(path)
    except CompressedError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    except Exception as error:  # pickle raises what it likes
        raise ValueError(f"cannot read {path}: it holds more than a batch") from error
    if not _is_batch(data):
        raise ValueError(f"{path} holds no batch to replay; a training writes them to {FOLDER}/")
    for process in data["processes"]:
        clips = [clip for clip in process["clips"] if isinstance(clip, dict)]
        if problem := _too_large(clips, path.stat().st_size):
            raise ValueError(f"cannot replay {path}: its batch has {problem}")
    return data


def _is_batch(data) -> bool:
    """Whether a file holds what :meth:`NonFiniteSteps.skip` writes, as far as that can be seen."""
    return (
        _has(data, step=int, what=str, config=str, weights=dict, processes=list)
        and data["what"] in ("loss", "gradient")
        and _are(data["weights"], Tensor)
        and len(data["processes"]) > 0
        and all(
            _has(each, clips=list, generators=dict, losses=dict) and _are(each["losses"], float)
            for each in data["processes"]
        )
    )


def _too_large(clips: Sequence[dict], size: int) -> str | None:
    """Why a batch takes more memory than a file of ``size`` bytes can mean; None if it does not."""
    frames, keys, height, width = 0, 0, 32, 32  # pixels to which a model pads smaller frames
    for clip in clips:
        for name in ("image", "flow"):
            array = clip.get(name)
            if isinstance(array, Tensor) and array.ndim >= 3:  # ([F,] 3, H, W)
                *counts, _, h, w = array.shape
                if h * w > MAX_PIXELS:
                    return f"frames of {w} x {h} pixels; more than {MAX_PIXELS} are not read"
                frames += math.prod(counts)
                height, width = max(height, h), max(width, w)
        rows = [clip.get(name) for name in ("key_positions", "neighbours")]
        keys += max([len(x) for x in rows if isinstance(x, list) or getattr(x, "ndim", 0)] or [0])
    if keys > frames > 0:
        return f"{keys} key frames of {frames} frames"
    if frames * height * width > size:  # each pixel takes some bytes
        return "frames that have, padded to one size, more pixels than the file has bytes"
    return None


def _has(value, **types: type) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(k), t) for k, t in types.items())


def _are(values: dict, of: type) -> bool:
    return all(
        isinstance(name, str) and name.isprintable() and isinstance(value, of)
        for name, value in values.items()
    )


def _replay(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    process: Mapping,
    cfg: CfgNode,
) -> Replayed:
    model.load_state_dict(weights)
    model.zero_grad()
    set_generators(process["generators"])
    found, gradients = [], []
    names = {module: name or "the model" for name, module in model.named_modules()}

    def look(module: nn.Module, inputs: tuple, output) -> None:
        if found:
            return
        faults = list(_faults(output))
        if faults:
            name = f"{names[module]} ({type(module).__name__})"
            found.append((name, faults[0], not any(_faults(inputs))))

    def watch(name: str):
        def hook(gradient: Tensor) -> None:
            if not gradient.isfinite().all():
                gradients.append(name)

        return hook

    hooks = [module.register_forward_hook(look) for module in names]
    hooks += [p.register_hook(watch(n)) for n, p in model.named_parameters() if p.requires_grad]
    means = {}
    with EventStorage():
        for part in parts_of(process["clips"], cfg.SOLVER.ACCUMULATE):
            with autocast(model.device.type, precision(cfg)):
                losses = training_losses(model, part)
            total = sum(losses.values())
            if total.requires_grad:
                (total / cfg.SOLVER.ACCUMULATE).backward()
            if not total.isfinite():  # the training came no further either
                means = losses
                break
            add_mean(means, losses, cfg.SOLVER.ACCUMULATE)
    for hook in hooks:
        hook.remove()
    module, output, inputs_finite = found[0] if found else (None, "", True)
    return Replayed(
        losses={name: loss.item() for name, loss in means.items()},
        stored=process["losses"],
        module=module,
        output=output,
        inputs_finite=inputs_finite,
        gradient=gradients[0] if gradients else None,
        weights=[name for name, value in weights.items() if not value.isfinite().all()],
    )


def _faults(value, place: str = "") -> Iterator[str]:
    """Where ``value`` holds numbers that are not finite, and how many, in words."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and not value.isfinite().all():
            bad = int((~value.isfinite()).sum())
            yield f"{place.lstrip('.') or 'output'}: {bad} of {value.numel()} values"
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _faults(part, f"{place}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from _faults(part, f"{place}.{number}")
    elif isinstance(value, Instances):
        yield from _faults(value.get_fields(), place)
    elif isinstance(value, (Boxes, ImageList)):
        yield from _faults(value.tensor, place)
