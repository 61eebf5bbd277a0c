"""What streaming costs a frame, beside its parts and the other ways to process a video.

All ways run in turns in one process, with random weights and the same number of detections on every
frame. Seconds are of one frame throughout.
"""

import contextlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor, nn

from a2d_d2.benchmark.common import (
    FRAMES_PER_SECOND,
    Clock,
    check_counts,
    interleave,
    machine,
    machine_line,
    mask_rcnn_cfg,
    moving_frames,
    random_model,
    ratio,
    seconds_of,
    synchronize,
)
from a2d_d2.data.video import write_frames
from a2d_d2.inference.aggregation import HeldFeatures, split_frames, temporal_steps
from a2d_d2.inference.frames import FramePreparer, PreparedFrame
from a2d_d2.inference.source import VideoSource
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.modeling.meta_arch import ActorActionRCNN
from a2d_d2.modeling.system import takes_clips

# What a frame needs once, in the order of the work: name to what it is.
INPUT_PARTS = {
    "decode": "decoding",
    "flow_and_resize": "flow and resizing",
    "normalise": "normalising and padding",
}
NETWORK_PARTS = {
    "appearance_backbone": "appearance backbone",
    "flow_backbone": "flow backbone",
    "temporal_and_fusion": "temporal modules with fusion",
    "detection": "detection (RPN, heads, masks pasted)",
}
WAYS = {
    "streaming": "streaming, with decoding, flow and resizing in its thread",
    "naive": "naive: the whole window of every frame",
    "mask_rcnn": "Mask R-CNN on single frames",
}
# Goals for streaming over the sum of its parts, and over Mask R-CNN.
MOST_OF_PARTS = 1.15
MOST_OF_MASK_RCNN = 2.2


def measure_stream(
    cfg: CfgNode,
    *,
    height: int,
    width: int,
    frames: int,
    repeats: int,
    batch_size: int,
    progress: bool = True,
) -> dict:
    """Measures streaming, its parts, the naive way and Mask R-CNN on a generated video.

    Every way works off ``frames`` frames in each repeat, after a round to warm up. Streaming is
    measured in the middle of the video, when its look-ahead and its queue are full; the temporal
    modules compute what is then missing, each step of theirs once a frame. Its parts and Mask R-CNN
    process as many frames at once as streaming does; the naive way runs clip by clip. The input of
    Mask R-CNN and of the naive way is there already: they neither decode nor compute flow.

    Args:
        cfg: of the model; no weights are loaded. ``TEST.DETECTIONS_PER_IMAGE`` is the number of
            detections on every frame.
        height, width: of the video, in pixels.
        frames: measured in each repeat, a multiple of ``batch_size``.
        repeats: measured; times are medians.
        batch_size: frames that streaming processes at once.
        progress: shows a progress bar.

    Returns:
        What was measured, and :func:`summarise` of it.

    Raises:
        ValueError: a number is out of range, the model takes single frames or has no masks of its
            own, or it does not give the same number of detections in every way.
    """
    check_counts(height=height, width=width, frames=frames, repeats=repeats, batch_size=batch_size)
    if frames % batch_size:
        raise ValueError(f"--frames is {frames}; it must be a multiple of --batch-size")
    _check_system(cfg)
    cfg = cfg.clone()
    cfg.merge_from_list(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0])  # random scores are low
    detections = Detections(cfg.TEST.DETECTIONS_PER_IMAGE)
    model = random_model(cfg)
    predictor = StreamingPredictor.for_model(model, cfg, batch_size=batch_size)
    steady = SteadyState.of(predictor, frames)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        video = Path(folder) / "video.mp4"
        write_frames(video, islice(moving_frames(height, width), steady.length), FRAMES_PER_SECOND)
        baseline = random_model(mask_rcnn_cfg(cfg))
        ways = _other_ways(model, baseline, predictor, video, detections)
        timed = {
            name: _per_frame(way, frames // batch_size, batch_size) for name, way in ways.items()
        }
        timed["streaming"] = lambda: stream_seconds(
            predictor, VideoSource(video), steady, detections
        )
        interleave(timed, 1, description="warming up", progress=progress)
        detections.check(["detection", *WAYS])
        seconds = interleave(timed, repeats, description="measuring", progress=progress)
    window = len(predictor.schedule.offsets)
    return {
        "machine": machine(),
        "model": {
            "depth": cfg.MODEL.RESNETS.DEPTH,
            "window": predictor.schedule.length,
            "computed": window,
            "temporal_radius": predictor.schedule.radius,
            "parameters_millions": sum(p.numel() for p in model.parameters()) / 1e6,
        },
        "frames": {
            "height": height,
            "width": width,
            "measured": frames,
            "batch_size": batch_size,
            "detections": detections.wanted,
        },
        "repeats": repeats,
        **summarise(seconds, window),
    }


def _check_system(cfg: CfgNode) -> None:
    if not takes_clips(cfg):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}: only streaming of a model "
            "of clips is measured, with Mask R-CNN beside it; give such a --config-file"
        )
    if cfg.MODEL.SEGMENTER.NAME or not cfg.MODEL.MASK_ON:
        raise ValueError(
            "the model has no masks of its own; measure one with MODEL.MASK_ON True and without a "
            "MODEL.SEGMENTER.NAME"
        )


# ---------------------------------------------------------------- streaming


@dataclass(frozen=True)
class SteadyState:
    """Which results of a video to measure.

    Attributes:
        first: the first result, 0-based, of a full batch, of which all before it were made with
            a full window. The clock starts when it comes, and its batch is done.
        frames: how many results later the clock stops.
        length: frames of a video that does not end before the background thread needs it to.
    """

    first: int
    frames: int
    length: int

    @classmethod
    def of(cls, predictor: StreamingPredictor, frames: int) -> "SteadyState":
        """For ``frames`` results, a multiple of the predictor's ``batch_size``."""
        batch_size, offsets = predictor.batch_size, predictor.schedule.offsets
        # Batch b, from 0 on, completes the windows of frames b * batch_size - look_ahead and on.
        batch = -(-(offsets[-1] - offsets[0]) // batch_size)
        first = batch * batch_size - predictor.look_ahead
        length = (batch + 1) * batch_size + frames + 2 * batch_size + 1
        return cls(first, frames, length)


class Detections:
    """Sees to it that every way has the same number of detections on every frame.

    Attributes:
        wanted: that number.
    """

    def __init__(self, wanted: int):
        self.wanted = wanted
        self._found = defaultdict(set)

    def note(self, way: str, frames: Iterable[Instances]) -> None:
        """Takes down what a way found on some frames."""
        self._found[way].update(len(x) for x in frames)

    def check(self, ways: Iterable[str]) -> None:
        """ValueError when one of ``ways`` has found another number."""
        for way in ways:
            if self._found[way] != {self.wanted}:
                counts = " to ".join(str(f(self._found[way], default=0)) for f in (min, max))
                raise ValueError(
                    f"{way} found {counts} instances a frame instead of {self.wanted}; set "
                    "TEST.DETECTIONS_PER_IMAGE lower"
                )


def stream_seconds(
    predictor: StreamingPredictor,
    frames: Iterable,
    steady: SteadyState,
    detections: Detections,
    clock: Clock = time.perf_counter,
) -> float:
    """Seconds a frame of streaming a video, from the first result of a batch to that of another.

    Both times the background thread is as far ahead, so what it does in between is the work of as
    many frames.
    """
    start = None
    with contextlib.closing(predictor.predict(frames)) as results:
        for result in results:
            detections.note("streaming", [result.instances])
            if result.index == steady.first:
                synchronize()
                start = clock()
            elif result.index == steady.first + steady.frames:
                synchronize()
                return (clock() - start) / steady.frames
    raise AssertionError("the video is shorter than what is to be measured")


# ---------------------------------------------------------------- the other ways


def _other_ways(
    model: ActorActionRCNN,
    baseline: nn.Module,
    predictor: StreamingPredictor,
    video: Path,
    detections: Detections,
) -> dict[str, Callable]:
    """The parts, the naive way and Mask R-CNN: name to what processes a batch of frames.

    What a part needs of the parts before it is computed here, once.
    """
    schedule, batch_size = predictor.schedule, predictor.batch_size
    first = max(1, -schedule.offsets[0])  # the first frame with a full window and one before it
    numbers = range(first, first + batch_size)
    windows = [schedule.window(key, None) for key in numbers]
    prepare = FramePreparer(predictor.resize, predictor.flow_method, lambda _: True)
    decoded = list(islice(VideoSource(video), windows[-1].frames[-1] + 1))
    prepared = [prepare(*item) for item in decoded]
    keys = prepared[first : first + batch_size]
    clip = _clip(keys, 0, [0])
    batch = model.preprocess([clip])
    everything = model.preprocess([_clip(prepared, 0, [0])])
    features = model.extract_features(everything.images, everything.flow)
    held = HeldFeatures(temporal_steps(model, schedule))
    held.add(range(len(prepared)), split_frames(features))
    held.aggregate(range(first), len(prepared))  # what frames before these leave
    appearance = {level: x[first : first + batch_size] for level, x in features.appearance.items()}
    clips = [
        _clip([prepared[i] for i in window.frames], window.keys[0], window.neighbours[0])
        for window in windows
    ]
    single_frames = [
        {"image": key.image, "height": clip["height"], "width": clip["width"]} for key in keys
    ]

    def aggregate() -> dict[str, Tensor]:
        return model.fuse(held.copy().aggregate(numbers, len(prepared)))

    fused = aggregate()

    def detect() -> None:
        found = model.detect(appearance, fused, batch.key_sizes * batch_size)
        pasted = [detector_postprocess(x, clip["height"], clip["width"]) for x in found]
        detections.note("detection", [x.to("cpu") for x in pasted])

    def naive() -> None:
        for clip in clips:
            detections.note("naive", [model([clip])[0]["instances"].to("cpu")])

    def mask_rcnn() -> None:
        outputs = baseline(single_frames)
        detections.note("mask_rcnn", [output["instances"].to("cpu") for output in outputs])

    ways = {
        "decode": lambda: list(islice(VideoSource(video), batch_size)),
        "flow_and_resize": lambda: [prepare(*item) for item in decoded[:batch_size]],
        "normalise": lambda: model.preprocess([clip]),
        "appearance_backbone": lambda: model.backbone(batch.images),
        "flow_backbone": lambda: model.flow_backbone(batch.flow),
        "temporal_and_fusion": aggregate,
        "detection": detect,
        "naive": naive,
        "mask_rcnn": mask_rcnn,
    }
    if model.flow_backbone is None:
        del ways["flow_backbone"]
    return ways


def _per_frame(function: Callable, batches: int, batch_size: int) -> Callable[[], float]:
    """A function that calls another for every batch, and gives its seconds a frame."""

    def measure() -> float:
        seconds = seconds_of(lambda: [function() for _ in range(batches)])
        return seconds / (batches * batch_size)

    return measure


def _clip(frames: Sequence[PreparedFrame], key: int, neighbours: Sequence[int]) -> dict:
    """A clip as :meth:`ActorActionRCNN.forward` takes it; ``key`` and ``neighbours`` in it."""
    height, width = frames[0].frame.shape[:2]
    has_flow = frames[0].motion is not None
    return {
        "image": torch.stack([x.image for x in frames]),
        "flow": torch.stack([x.motion for x in frames]) if has_flow else None,
        "key_positions": [key],
        "neighbours": torch.tensor([neighbours]),
        "height": height,
        "width": width,
    }


# ---------------------------------------------------------------- figures


def summarise(seconds: Mapping[str, Sequence[float]], window: int) -> dict:
    """Medians, sums and ratios of what was measured.

    Args:
        seconds: a frame, by the names of INPUT_PARTS, NETWORK_PARTS and WAYS, one a repeat. A
            model without a flow stream has no "flow_backbone".
        window: how many frames the naive way computes for one.

    Returns:
        "seconds": name to "median" and "repeats", with the sums "input" and "network";
        "ratios": name to "median", and its goal, "at_most", with "met", or its "limit".
    """
    seconds = {name: list(values) for name, values in seconds.items()}
    seconds["input"] = _sum(seconds[name] for name in INPUT_PARTS)
    seconds["network"] = _sum(seconds[name] for name in NETWORK_PARTS if name in seconds)
    everything = _sum([seconds["input"], seconds["network"]])
    streaming = seconds["streaming"]
    return {
        "seconds": {
            name: {"median": statistics.median(values), "repeats": values}
            for name, values in seconds.items()
        },
        "ratios": {
            "streaming_to_parts": _with_goal(ratio(streaming, seconds["network"]), MOST_OF_PARTS),
            "streaming_to_parts_and_input": {"median": ratio(streaming, everything)},
            "naive_to_streaming": {"median": ratio(seconds["naive"], streaming), "limit": window},
            "streaming_to_mask_rcnn": _with_goal(
                ratio(streaming, seconds["mask_rcnn"]), MOST_OF_MASK_RCNN
            ),
        },
    }


def _sum(parts: Iterable[Sequence[float]]) -> list[float]:
    """The sum within each repeat."""
    return [sum(values) for values in zip(*parts, strict=True)]


def _with_goal(median: float, at_most: float) -> dict:
    return {"median": median, "at_most": at_most, "met": median <= at_most}


def stream_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_stream` for a person to read."""
    model, frames, ratios = result["model"], result["frames"], result["ratios"]
    lines = [
        machine_line(result["machine"]),
        f"ResNet-{model['depth']}, T = {model['window']} ({model['computed']} frames computed), "
        f"temporal radius {model['temporal_radius']}, {model['parameters_millions']:.0f} million "
        f"parameters, random weights; frames of {frames['height']}x{frames['width']} pixels, "
        f"{frames['batch_size']} at once, {frames['detections']} detections on every frame in "
        "every way",
        f"milliseconds a frame, medians of {result['repeats']} over {frames['measured']} frames:",
    ]
    rows = [
        *((f"  {title}", name) for name, title in NETWORK_PARTS.items()),
        ("sum of these parts", "network"),
        *((f"  {title}", name) for name, title in INPUT_PARTS.items()),
        ("sum of the input's parts, not in the sum above", "input"),
        *((title, name) for name, title in WAYS.items()),
    ]
    for title, name in rows:
        if name in result["seconds"]:
            lines.append(f"  {title:<62}{1000 * result['seconds'][name]['median']:10.1f}")
    lines.append("ratios, medians of those within a repeat:")
    titles = {
        "streaming_to_parts": "streaming / sum of the network's parts",
        "streaming_to_parts_and_input": "streaming / sum with the input's parts",
        "naive_to_streaming": "naive / streaming",
        "streaming_to_mask_rcnn": "streaming / Mask R-CNN",
    }
    for name, title in titles.items():
        figure, note = ratios[name], ""
        if "at_most" in figure:
            verdict = "met" if figure["met"] else "missed"
            note = f"  (goal: at most {figure['at_most']:g}; {verdict})"
        elif "limit" in figure:
            note = f"  (limit: near {figure['limit']})"
        lines.append(f"  {title:<62}{figure['median']:10.2f}{note}")
    return lines
