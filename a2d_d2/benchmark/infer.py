"""What inference costs: an annotated frame beside its parts, and those of a video together."""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from detectron2.modeling import detector_postprocess
from torch import nn

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
from a2d_d2.benchmark.train import with_sums
from a2d_d2.data.build import build_test_loader
from a2d_d2.modeling.meta_arch import ActorActionRCNN

# What a frame cannot do without: name to what it is.
NEEDED = {
    "appearance_backbone": "appearance backbone",
    "flow_backbone": "flow backbone",
    "temporal_and_fusion": "temporal modules with fusion",
    "detection": "RPN, heads and masks pasted",
}
BESIDE = {"preprocess": "normalising and padding"}
MOST_OF_PARTS = 1.15  # the goal: inference over its parts


def measure_infer(
    config_file: str,
    options: Sequence[str],
    *,
    height: int,
    width: int,
    repeats: int,
    profile: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict:
    """Measures inference on annotated frames of a generated release, and the network's parts.

    Args:
        config_file, options: of the model; no weights are loaded.
        height, width: of the release's videos, in pixels.
        repeats: of each way; times are medians.
        profile: a folder that gets a profile of one frame; None makes none.
        progress: shows progress bars.

    Returns:
        What was measured, and :func:`summarise` of it.

    Raises:
        ValueError: a number is out of range, or the configuration is wrong or not of a model of
            clips.
    """
    check_counts(height=height, width=width, repeats=repeats)
    size = {"height": height, "width": width}
    with generated_clips(config_file, options, **size, progress=progress) as cfg, torch.no_grad():
        clips = [clip for batch in build_test_loader(cfg, "a2d_test") for clip in batch]
    video = [clip for clip in clips if clip["video_id"] == clips[0]["video_id"]]
    middle = video[len(video) // 2]
    model = random_model(cfg)
    with torch.no_grad():
        ways = inference_ways(model, middle)
        ways["video"] = lambda: [model([clip]) for clip in video]
        ways["video_together"] = lambda: predict_together(model, video)
        timed = {name: _timed(way) for name, way in ways.items()}
        interleave(timed, 1, description="warming up", progress=progress)
        seconds = interleave(timed, repeats, description="measuring", progress=progress)
        if profile is not None:
            profile_calls(ways["inference"], profile, "inference")
        detections = len(model([middle])[0]["instances"])
    frames = {
        "height": middle["image"].shape[2],
        "width": middle["image"].shape[3],
        "computed": len(middle["image"]),
        "detections": detections,
        "video": sum(len(clip["image"]) for clip in video),
        "video_distinct": len({i for clip in video for i in clip["frame_indices"]}),
        "video_annotated": len(video),
    }
    result = {"machine": machine(), "release": size, "frames": frames, "repeats": repeats}
    return result | summarise(seconds, frames)


def _timed(function: Callable) -> Callable[[], float]:
    return lambda: seconds_of(function)


def inference_ways(model: ActorActionRCNN, clip: dict) -> dict[str, Callable]:
    """The whole, "inference", and the names of NEEDED and BESIDE, to what computes them.

    What a part needs of the parts before it is computed here, once.
    """
    batch = model.preprocess([clip])
    features = model.extract_features(batch.images, batch.flow)
    fused = model.aggregate(features, batch.neighbours)
    appearance = {level: x[batch.keys] for level, x in features.appearance.items()}

    def detect() -> None:
        for found in model.detect(appearance, fused, batch.key_sizes):
            detector_postprocess(found, clip["height"], clip["width"])

    ways = {
        "inference": lambda: model([clip]),
        "appearance_backbone": lambda: model.backbone(batch.images),
        "flow_backbone": lambda: model.flow_backbone(batch.flow),
        "temporal_and_fusion": lambda: model.aggregate(features, batch.neighbours),
        "detection": detect,
        "preprocess": lambda: model.preprocess([clip]),
    }
    if model.flow_backbone is None:
        del ways["flow_backbone"]
    return ways


def predict_together(model: nn.Module, clips: Sequence[dict]) -> list[dict]:
    """Inference on the annotated frames of one video, each of their frames computed once.

    Args:
        model: an ActorActionRCNN in evaluation mode.
        clips: of the same video, with one annotated frame each.

    Returns:
        What ``model`` gives for the clips, to rounding.
    """
    place: dict[int, int] = {}
    images, flows, keys, neighbours = [], [], [], []
    for clip in clips:
        for i, frame in enumerate(clip["frame_indices"]):
            if frame not in place:
                place[frame] = len(images)
                images.append(clip["image"][i])
                flows.append(clip["flow"][i] if "flow" in clip else None)
        places = torch.tensor([place[frame] for frame in clip["frame_indices"]])
        (key,) = clip["key_positions"]
        keys.append(places[key])
        around = clip["neighbours"]
        neighbours.append(torch.where(around < 0, around, places[around]))
    together = {
        "image": torch.stack(images),
        "key_positions": [0],
        "neighbours": neighbours[0],
    }
    if flows[0] is not None:
        together["flow"] = torch.stack(flows)
    batch = model.preprocess([together])
    features = model.extract_features(batch.images, batch.flow)
    fused = model.aggregate(features, torch.cat(neighbours).to(model.device))
    appearance = {level: x[torch.stack(keys)] for level, x in features.appearance.items()}
    found = model.detect(appearance, fused, batch.key_sizes * len(clips))
    return [
        {"instances": detector_postprocess(x, clip["height"], clip["width"])}
        for x, clip in zip(found, clips, strict=True)
    ]


def summarise(seconds: Mapping[str, Sequence[float]], frames: Mapping) -> dict:
    """Medians and ratios of what was measured.

    Args:
        seconds: "inference", the names of NEEDED and BESIDE, "video" and "video_together", one a
            repeat; no "flow_backbone" without a flow stream.
        frames: "computed" for one annotated frame; "video" for all of a video, of these
            "video_distinct"; "video_annotated".

    Returns:
        "seconds": name to "median" and "repeats", with the sums "needed" and "strict"; "rows" of
        the table.
    """
    seconds = with_sums(seconds, NEEDED)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [
        make_row(
            "inference on an annotated frame",
            1000 * medians["inference"],
            "ms",
            limit=1000 * medians["needed"],
            limit_name=f"the backbones over {frames['computed']} frames, temporal modules and "
            "detection",
            ratio=ratio(seconds["inference"], seconds["needed"]),
            most_ratio=MOST_OF_PARTS,
        ),
        make_row(
            "inference on an annotated frame, by a stricter limit",
            1000 * medians["inference"],
            "ms",
            limit=1000 * medians["strict"],
            limit_name="the same without the temporal modules",
            ratio=ratio(seconds["inference"], seconds["strict"]),
            most_ratio=MOST_OF_PARTS,
        ),
        make_row(
            f"{frames['video_annotated']} annotated frames of a video one by one",
            1000 * medians["video"],
            "ms",
            limit=1000 * medians["video_together"],
            limit_name=f"together: {frames['video_distinct']} frames through the backbones instead "
            f"of {frames['video']}",
            ratio=ratio(seconds["video"], seconds["video_together"]),
        ),
    ]
    return {
        "seconds": {
            name: {"median": medians[name], "repeats": values} for name, values in seconds.items()
        },
        "rows": rows,
    }


def infer_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_infer` for a person to read."""
    frames, seconds = result["frames"], result["seconds"]
    lines = [
        machine_line(result["machine"]),
        f"frames of {frames['height']}x{frames['width']} pixels, {frames['detections']} detections "
        "on the annotated one, random weights",
        f"milliseconds an annotated frame, medians of {result['repeats']}:",
    ]
    titles = {
        **{name: f"  {title}" for name, title in NEEDED.items()},
        "needed": "sum of these parts",
        "strict": "the same without the temporal modules",
        **{name: f"  {title}" for name, title in BESIDE.items()},
        "inference": "all of it",
    }
    lines += [
        f"  {title:<62}{1000 * seconds[name]['median']:10.1f}"
        for name, title in titles.items()
        if name in seconds
    ]
    return [*lines, *row_lines(result["rows"])]
