"""What switches, and ways that were tried, cost and gain: without and with them, in turns."""

import functools
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.transforms import ResizeTransform
from detectron2.layers.mask_ops import _do_paste_mask
from detectron2.modeling import detector_postprocess
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import Tensor, nn

from a2d_d2.benchmark.clips import check_takes_clips, generated_clips
from a2d_d2.benchmark.common import (
    MIB,
    check_counts,
    interleave,
    machine,
    machine_line,
    moving_frames,
    peak_bytes,
    peak_gpu_bytes,
    random_model,
    ratio,
    resident_bytes,
    seconds_of,
    set_threads,
)
from a2d_d2.benchmark.memory import in_new_process
from a2d_d2.benchmark.train import make_trainer
from a2d_d2.config import setup_cfg
from a2d_d2.data.clip_cache import FRAME_FORMATS
from a2d_d2.data.mapper import ClipDatasetMapper
from a2d_d2.engine.measure import random_clip
from a2d_d2.engine.precision import autocast
from a2d_d2.evaluation.predictions import encode_mask
from a2d_d2.modeling.meta_arch import ActorActionRCNN
from a2d_d2.modeling.roi_heads import fused_name
from a2d_d2.modeling.temporal import temporal_radius

DETECTIONS = 100  # on a frame, A2D's TEST.DETECTIONS_PER_IMAGE
FRAMES = 4  # that the heads see together


def _plain_input(model: ActorActionRCNN) -> None:
    for backbone in filter(None, (model.backbone, model.flow_backbone)):
        backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))


def _channels_last_weights(model: ActorActionRCNN) -> None:
    for backbone in filter(None, (model.backbone, model.flow_backbone)):
        backbone.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Trial:
    """Two ways of a training step.

    Attributes:
        what: differs.
        kept: whether the project has it, and why.
        before, after: KEY VALUE pairs, or what changes the model in place.
        equal: whether both give the same; None measures it.
    """

    what: str
    kept: str
    before: tuple[str, ...] | Callable[[nn.Module], None] = ()
    after: tuple[str, ...] | Callable[[nn.Module], None] = ()
    equal: str | None = None


TRIALS = (
    Trial(
        "bf16: SOLVER.AMP.ENABLED",
        "switch; off where the paper's recipe is followed",
        ("SOLVER.AMP.ENABLED", "False"),
        ("SOLVER.AMP.ENABLED", "True"),
    ),
    Trial(
        "MODEL.BACKBONE.RECOMPUTE",
        "switch; off",
        ("MODEL.BACKBONE.RECOMPUTE", "False"),
        ("MODEL.BACKBONE.RECOMPUTE", "True"),
    ),
    Trial(
        "SOLVER.ACCUMULATE {clips}: a clip at a time",
        "switch; 1",
        ("SOLVER.ACCUMULATE", "1"),
        ("SOLVER.ACCUMULATE", "{clips}"),
        equal="no: losses and batch norm are of each part",
    ),
    Trial(
        "frozen stages: MODEL.BACKBONE.FREEZE_AT 0 to 2",
        "switch; 2 with start weights, 0 from scratch",
        ("MODEL.BACKBONE.FREEZE_AT", "0"),
        ("MODEL.BACKBONE.FREEZE_AT", "2"),
        equal="no: fewer weights learn",
    ),
    Trial("frames in channels-last", "yes, always", before=_plain_input),
    Trial("weights in channels-last too", "no", after=_channels_last_weights),
)


@dataclass(frozen=True)
class Size:
    """What the network sees: ``clips`` of frames of ``height`` x ``width`` pixels."""

    height: int
    width: int
    clips: int

    def batch(self, cfg: CfgNode) -> list[dict]:
        """Clips of noise with one annotated frame each."""
        return [random_clip(cfg, self.height, self.width, seed) for seed in range(self.clips)]


class Step:
    """A training step on the same batch again and again, with a learning rate of 0."""

    def __init__(self, cfg: CfgNode, size: Size, change: Callable[[nn.Module], None] | None = None):
        self.model = random_model(cfg).train()
        if change is not None:
            change(self.model)
        self.batch = size.batch(cfg)
        self.trainer = make_trainer(self.model, cfg, itertools.repeat(self.batch))

    def __call__(self) -> None:
        with EventStorage(0) as self.trainer.storage:
            self.trainer.run_step()

    def gradient(self) -> Tensor:
        """Of the last step, all of it in one vector."""
        return torch.cat([x.grad.flatten() for x in self.model.parameters() if x.grad is not None])

    @torch.no_grad()
    def features(self) -> Tensor:
        """Of the appearance backbone, all of them in one vector."""
        clips = self.model.preprocess(self.batch)
        with autocast(self.trainer.device_type, self.trainer.precision):
            return _in_one(self.model.backbone(clips.images))


@dataclass(frozen=True)
class StepMemory:
    """The peak of a training step in a process of its own, less what was taken before it."""

    config_file: str
    options: tuple[str, ...]
    size: Size
    threads: int

    def __call__(self) -> float:
        """MiB."""
        set_threads(self.threads)
        step = Step(setup_cfg(self.config_file, self.options), self.size)
        on_gpu = torch.cuda.is_available()
        before = torch.cuda.memory_allocated() if on_gpu else resident_bytes()
        step()
        step()  # the optimiser has its state
        return ((peak_gpu_bytes() if on_gpu else peak_bytes()) - before) / MIB


def measure_options(
    config_file: str,
    options: Sequence[str],
    *,
    height: int,
    width: int,
    full_height: int,
    full_width: int,
    repeats: int,
    threads: int,
    progress: bool = True,
) -> dict:
    """Measures TRIALS, and what reading a clip and detecting are made of, each without and with.

    Args:
        config_file, options: of the model; no weights are loaded.
        height, width: of the frames that the network sees, in pixels.
        full_height, full_width: of the videos that are read, and of the masks that are pasted.
        repeats: of each way; times are medians, ratios those within a repeat.
        threads: of the network.
        progress: shows progress bars.

    Returns:
        "trials": rows of :func:`compare`; "detection": milliseconds of its parts; and what was
        measured.

    Raises:
        ValueError: a number is out of range, or the configuration is wrong or not of a model of
            clips.
        OSError: a process died, most likely out of memory.
    """
    sizes = {"height": height, "width": width}
    full = {"full_height": full_height, "full_width": full_width}
    check_counts(**sizes, **full, repeats=repeats)
    set_threads(threads)
    cfg = setup_cfg(config_file, options)
    check_takes_clips(cfg)
    size = Size(height, width, cfg.SOLVER.IMS_PER_BATCH)
    run = functools.partial(compare, repeats=repeats, progress=progress)
    memory = {}  # each configuration once
    trials = [
        _training(trial, config_file, tuple(options), size, threads, memory, run)
        for trial in TRIALS
    ]
    with torch.no_grad():
        trials += _inference(cfg, size, run)
    cv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # as in a loader's process
    try:
        trials.append(_flow_row(config_file, options, full_height, full_width, run))
        trials += _reduced_rows(full_height, full_width, run)
    finally:
        cv2.setNumThreads(cv_threads)
    with torch.no_grad():
        rows, detection = _detection(
            config_file, options, size, (full_height, full_width), repeats, run
        )
    return {
        "machine": machine(),
        "sizes": sizes | full | {"clips": size.clips},
        "repeats": repeats,
        "trials": trials + rows,
        "detection": detection,
    }


def compare(
    what: str,
    before: Callable[[], object],
    after: Callable[[], object],
    *,
    equal: str | Callable[[], str],
    kept: str,
    mib: Sequence[float] | None = None,
    repeats: int,
    progress: bool,
) -> dict:
    """Two ways in turns, as a row.

    Args:
        what: differs.
        before, after: without and with it.
        equal: whether both give the same, and else how far they are apart; what tells it is called
            last.
        kept: whether the project has it, and why.
        mib: of both.
        repeats: after one to warm up.
        progress: shows a progress bar.

    Returns:
        "what", "before_ms", "after_ms" (medians), "ratio" (the median of after to before), "mib"
        (None without), "equal", "kept".
    """
    ways = {
        "before": lambda: seconds_of(before),
        "after": lambda: seconds_of(after),
    }
    interleave(ways, 1, description=f"{what}: warming up", progress=progress)
    seconds = interleave(ways, repeats, description=what, progress=progress)
    return {
        "what": what,
        **{f"{name}_ms": 1000 * statistics.median(values) for name, values in seconds.items()},
        "ratio": ratio(seconds["after"], seconds["before"]),
        "mib": None if mib is None else list(mib),
        "equal": equal if isinstance(equal, str) else equal(),
        "kept": kept,
    }


def _training(
    trial: Trial,
    config_file: str,
    options: tuple[str, ...],
    size: Size,
    threads: int,
    memory: dict[str, float],
    run: Callable,
) -> dict:
    steps, mib = [], []
    for way in (trial.before, trial.after):
        change, more = (way, ()) if callable(way) else (None, way)
        more = (*options, *(text.format(clips=size.clips) for text in more))
        cfg = setup_cfg(config_file, more)
        if (key := cfg.dump()) not in memory:
            memory[key] = in_new_process(StepMemory(config_file, more, size, threads))
        mib.append(memory[key])
        steps.append(Step(cfg, size, change))
    changed = callable(trial.before) or callable(trial.after)
    return run(
        f"training step, {trial.what.format(clips=size.clips)}",
        *steps,
        equal=trial.equal or (lambda: _equality(*steps)),
        kept=trial.kept,
        mib=None if changed else mib,
    )


def _equality(before: Step, after: Step) -> str:
    # Rounding decides which proposals are drawn, and with them the gradient: features tell more.
    if before.gradient().equal(after.gradient()):
        return "yes, bit by bit"
    return _difference(before.features(), after.features())


def _difference(before: Tensor, after: Tensor) -> str:
    share = float((after - before).norm() / before.norm())
    return f"features to {share:.0e} of their norm"


def _in_one(pyramid: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([x.float().flatten() for x in pyramid.values()])


def _inference(cfg: CfgNode, size: Size, run: Callable) -> list[dict]:
    """bf16, and the frames outside the receptive field."""
    model = random_model(cfg)
    (clip,) = Size(size.height, size.width, 1).batch(cfg)
    batch = model.preprocess([clip])

    def half(function: Callable, *inputs):
        with autocast(model.device.type, torch.bfloat16):
            return function(*inputs)

    radius = temporal_radius(cfg)
    # The clip with a frame more at both ends, as of a longer window.
    whole = clip | {"key_positions": [radius + 1], "neighbours": clip["neighbours"] + 1}
    for name in ("image", "flow"):
        frame = clip[name][:1].flip(-1)
        whole[name] = torch.cat([frame, clip[name], frame])
    return [
        run(
            "inference, bf16",
            lambda: model([clip]),
            lambda: half(model, [clip]),
            equal=lambda: _difference(
                _in_one(model.backbone(batch.images)),
                _in_one(half(model.backbone, batch.images)),
            ),
            kept="no: evaluation is float32",
        ),
        run(
            f"inference, the {2 * radius + 1} frames that count instead of all of T = "
            f"{2 * radius + 3}",
            lambda: model([whole]),
            lambda: model([clip]),
            equal=lambda: _same_detections(model([whole]), model([clip])),
            kept="yes, always",
        ),
    ]


def _same_detections(before: Sequence[dict], after: Sequence[dict]) -> str:
    """Whether the scores of both are the same to rounding."""
    scores = [torch.cat([x["instances"].scores for x in found]) for found in (before, after)]
    if len(scores[0]) == len(scores[1]) and torch.allclose(*scores, rtol=1e-4, atol=1e-5):
        return "yes, to rounding"
    return f"no: {len(scores[0])} and {len(scores[1])} detections, other scores"


# ---------------------------------------------------------------- reading


def _flow_row(
    config_file: str, options: Sequence[str], height: int, width: int, run: Callable
) -> dict:
    progress = run.keywords["progress"]
    with generated_clips(
        config_file, options, height=height, width=width, progress=progress
    ) as cfg:
        without = cfg.clone()
        without.defrost()
        without.INPUT.CLIP.CACHE = ""
        mappers = [ClipDatasetMapper(x, is_train=False) for x in (without, cfg)]
        record = DatasetCatalog.get(cfg.DATASETS.TEST[0])[-1]
        decoded, cached = (mapper(record) for mapper in mappers)

        units = {"image": "grey levels (JPEG)", "flow": "pixels of flow"}
        apart = [
            f"{(decoded[name].float() - cached[name].float()).abs().mean():.1g} {unit}"
            for name, unit in units.items()
            if name in cached
        ]
        return run(
            f"loading a clip of {len(cached['image'])} frames of {height}x{width}: from the cache "
            "instead of decoding and flow on the fly",
            *(functools.partial(mapper, record) for mapper in mappers),
            equal=f"no: {', '.join(apart)} on average",
            kept="yes, where there is a cache",
        )


def _reduced_rows(height: int, width: int, run: Callable) -> list[dict]:
    """A JPEG decoded at half its size, and resized to what the network sees."""
    suffix, parameters = FRAME_FORMATS["frames-jpeg95"]
    _, data = cv2.imencode(suffix, next(moving_frames(height, width)), parameters)

    def read(flag: int, size: tuple[int, int]) -> np.ndarray:
        image = cv2.imdecode(data, flag)
        return ResizeTransform(*image.shape[:2], *size).apply_image(image)

    rows = []
    for name, scale in (("the smallest that A2D is trained at", 0.8), ("half", 0.5)):
        size = round(scale * height), round(scale * width)
        full, reduced = (
            functools.partial(read, flag, size)
            for flag in (cv2.IMREAD_COLOR, cv2.IMREAD_REDUCED_COLOR_2)
        )
        apart = np.abs(full().astype(int) - reduced())
        rows.append(
            run(
                f"reading a JPEG of {height}x{width} at {size[0]}x{size[1]} ({name}): "
                "IMREAD_REDUCED_COLOR_2 instead of IMREAD_COLOR, then a resize",
                full,
                reduced,
                equal=f"no: {apart.mean():.1f} grey levels on average, at most {apart.max()}",
                kept="no: A2D's frames are never resized to half or less",
            )
        )
    return rows


# ---------------------------------------------------------------- detection


def paste(found: Instances, output: tuple[int, int]) -> Instances:
    """Detections at the output size (height, width); ``found`` stays as it is."""
    fresh = found[:]
    fresh.pred_boxes = found.pred_boxes.clone()  # which are scaled in place
    return detector_postprocess(fresh, *output)


def _detection(
    config_file: str,
    options: Sequence[str],
    size: Size,
    output: tuple[int, int],
    repeats: int,
    run: Callable,
) -> tuple[list[dict], dict]:
    """Rows, and how detection splits: "detections", and milliseconds by part, medians."""
    more = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    more += ["TEST.DETECTIONS_PER_IMAGE", str(DETECTIONS)]
    cfg = setup_cfg(config_file, [*options, *more])
    model = random_model(cfg)
    heads = model.roi_heads
    batch = model.preprocess(Size(size.height, size.width, FRAMES).batch(cfg))
    pyramids = model.extract_features(batch.images, batch.flow)
    fused = model.aggregate(pyramids, batch.neighbours)
    appearance = {level: x[batch.keys] for level, x in pyramids.appearance.items()}
    features = appearance | {fused_name(level): x for level, x in fused.items()}

    def detect(frames: slice) -> list:
        kept = [{level: x[frames] for level, x in y.items()} for y in (appearance, fused)]
        return model.detect(*kept, batch.key_sizes[frames])

    one = {name: x[:1] for name, x in features.items()}
    images = ImageList(batch.images[batch.keys[:1]], batch.key_sizes[:1])
    proposals, _ = model.proposal_generator(images, one, None)
    (found,) = detect(slice(0, 1))
    pasted = paste(found, output)
    bare = found[:]
    bare.remove("pred_masks")
    parts = {
        "RPN": lambda: model.proposal_generator(images, one, None),
        "boxes and actors": lambda: heads._forward_box(one, proposals),
        "masks": lambda: heads._forward_mask(one, [found[:]]),
        "actions": lambda: heads._forward_action(one, [found[:]]),
        "pasting": lambda: paste(found, output),
    }
    timed = {name: functools.partial(seconds_of, part) for name, part in parts.items()}
    interleave(timed, 1, description="detection: warming up", progress=run.keywords["progress"])
    seconds = interleave(timed, repeats, description="detection", progress=run.keywords["progress"])
    split = {name: 1000 * statistics.median(values) for name, values in seconds.items()}

    masks = pasted.pred_masks
    boxes = pasted.pred_boxes.tensor
    probabilities = found.pred_masks
    title = f"{len(found)} masks of {output[0]}x{output[1]}"

    def at_once() -> Tensor:
        return _do_paste_mask(probabilities, boxes, *output, skip_empty=False)[0] >= 0.5

    def encode() -> list[dict]:
        return [encode_mask(mask) for mask in masks.cpu().numpy()]

    sizes = [x.numel() * x.element_size() / MIB for x in (masks, probabilities)]
    runs = sum(len(x["counts"]) for x in encode()) / MIB
    whole = functools.partial(paste, found, output)
    # Postprocessing drops empty boxes; without any both ways paste the same masks.
    valid = len(pasted) == len(found)
    rows = [
        run(
            f"heads on {FRAMES} frames: together instead of one by one",
            lambda: [detect(slice(i, i + 1)) for i in range(FRAMES)],
            lambda: detect(slice(FRAMES)),
            equal=lambda: _same_detections(
                [{"instances": detect(slice(i, i + 1))[0]} for i in range(FRAMES)],
                [{"instances": x} for x in detect(slice(FRAMES))],
            ),
            kept="yes, in training; a test frame comes alone",
        ),
        run(
            f"{title} pasted all at once instead of each within its box",
            whole,
            at_once,
            equal=lambda: "yes, bit by bit" if valid and at_once().equal(masks) else "no",
            kept="no, on the CPU",
        ),
        run(
            f"{title} left as probabilities inside their boxes instead of pasted",
            whole,
            functools.partial(paste, bare, output),
            equal="yes, once pasted",
            kept="no: predictions hold every mask",
            mib=sizes,
        ),
        run(
            f"{title}: pasted and encoded as RLE instead of pasted alone",
            whole,
            lambda: (whole(), encode()),
            equal="yes, bit by bit",
            kept="yes: until they are scored",
            mib=[sizes[0], runs],
        ),
    ]
    return rows, {"detections": len(found), "milliseconds": split}


def options_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_options` for a person to read."""
    sizes, detection = result["sizes"], result["detection"]
    cells = [
        (
            trial["what"],
            f"{trial['before_ms']:.3g} ms",
            f"{trial['after_ms']:.3g} ms",
            f"{trial['ratio']:.2g}",
            " to ".join(f"{x:.3g}" for x in trial["mib"]) if trial["mib"] else "",
            trial["equal"],
            trial["kept"],
        )
        for trial in result["trials"]
    ]
    headers = ("what", "before", "after", "after / before", "MiB", "equal", "kept")
    split = ", ".join(f"{name} {x:.3g} ms" for name, x in detection["milliseconds"].items())
    return [
        machine_line(result["machine"]),
        f"{sizes['clips']} clips of {sizes['height']}x{sizes['width']} pixels in a training step, "
        f"one in inference, random weights; medians of {result['repeats']} repeats in turns. MiB: "
        "the peak of a training step beside library and model, or what masks take.",
        "",
        *tabulate(cells, headers, tablefmt="github", disable_numparse=True).splitlines(),
        "",
        f"Detection with {detection['detections']} boxes on a frame: {split}.",
    ]
