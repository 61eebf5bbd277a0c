"""What scoring costs: the figures of segmentation and of detection, of what is in memory.

Reading annotations, parsing predictions and gathering them over processes are not in it.
"""

import statistics
from collections.abc import Mapping

import numpy as np

from a2d_d2.benchmark.common import (
    check_counts,
    interleave,
    machine,
    machine_line,
    ratio,
    seconds_of,
)
from a2d_d2.benchmark.rows import make_row, row_lines
from a2d_d2.evaluation.detection import FrameDetections, FrameTruth, box_iou, detection_scores
from a2d_d2.evaluation.predictions import FramePredictions, encode_mask
from a2d_d2.evaluation.rasterize import rasterize_instances
from a2d_d2.evaluation.segmentation import pixel_confusion, segmentation_scores
from a2d_d2.label_space import LabelSpace

LEAST_FRAMES_A_SECOND = 400
MOST_SECONDS = 10
NUM_PAINTED = 3  # instances with a mask in each frame


def measure_eval(
    *,
    height: int,
    width: int,
    label_maps: int,
    frames: int,
    detections: int,
    repeats: int,
    space: LabelSpace,
    progress: bool = True,
) -> dict:
    """Measures the official protocol on random frames, in this process.

    Args:
        height, width: of the label maps.
        label_maps: how many frames segmentation is measured on.
        frames: how many frames detection is measured on; A2D's test split has 2365.
        detections: on each of them.
        repeats: figures are medians.
        space: the labels.
        progress: shows a progress bar.

    Raises:
        ValueError: a number is out of range.
    """
    check_counts(
        height=height,
        width=width,
        label_maps=label_maps,
        frames=frames,
        detections=detections,
        repeats=repeats,
    )
    random = np.random.default_rng(0)
    painted = [_painted(random, height, width, space) for _ in range(label_maps)]
    truths = [
        rasterize_instances(_painted(random, height, width, space), (height, width), space).astype(
            np.int32  # as annotations are read
        )
        for _ in range(label_maps)
    ]
    maps = [rasterize_instances(x, (height, width), space) for x in painted]
    width_of_joint = space.max_id + 1
    joint = [
        (truth.astype(np.intp) * width_of_joint + label_map).ravel()
        for truth, label_map in zip(truths, maps, strict=True)
    ]
    scenes = [_detected(random, height, width, detections, space) for _ in range(frames)]

    def segmentation(predicted) -> None:
        pairs = zip(truths, predicted, strict=True)
        segmentation_scores(sum(pixel_confusion(*pair, space) for pair in pairs), space)

    ways = {
        "nine_figures": lambda: segmentation(maps),
        "painted": lambda: segmentation(
            rasterize_instances(x, (height, width), space) for x in painted
        ),
        "bincount": lambda: [np.bincount(cells, minlength=width_of_joint**2) for cells in joint],
        "detection": lambda: detection_scores(*zip(*scenes, strict=True), space),
        "iou": lambda: [box_iou(truth.boxes, found.boxes) for truth, found in scenes],
    }
    timed = {name: lambda way=way: seconds_of(way) for name, way in ways.items()}
    interleave(timed, 1, description="warming up", progress=progress)
    seconds = interleave(timed, repeats, description="measuring", progress=progress)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {name: label_maps / medians[name] for name in ("nine_figures", "painted", "bincount")}
    titles = {
        "nine_figures": "nine figures of label maps in memory",
        "painted": f"nine figures of {NUM_PAINTED} instances a frame in memory",
    }
    return {
        "machine": machine(),
        "frames": {
            "height": height,
            "width": width,
            "label_maps": label_maps,
            "detection": frames,
            "detections": detections,
        },
        "repeats": repeats,
        "rows": [
            *(
                make_row(
                    title,
                    rates[name],
                    "frames/s",
                    limit=rates["bincount"],
                    limit_name="bincount of the joint map",
                    ratio=ratio(seconds[name], seconds["bincount"]),
                    at_least=LEAST_FRAMES_A_SECOND,
                )
                for name, title in titles.items()
            ),
            make_row(
                f"detection mAP of {frames} frames in memory, {detections} detections each",
                medians["detection"],
                "s",
                limit=medians["iou"],
                limit_name="IoU with the truth",
                ratio=ratio(seconds["detection"], seconds["iou"]),
                at_most=MOST_SECONDS,
            ),
        ],
    }


def _painted(
    random: np.random.Generator, height: int, width: int, space: LabelSpace
) -> FramePredictions:
    """Ellipses with scores above the thresholds."""
    y, x = np.ogrid[:height, :width]
    segmentations = []
    for _ in range(NUM_PAINTED):
        center_y, center_x = random.uniform(0.2, 0.8, 2) * (height, width)
        radius_y, radius_x = random.uniform(0.1, 0.3, 2) * (height, width)
        mask = ((y - center_y) / radius_y) ** 2 + ((x - center_x) / radius_x) ** 2 < 1
        segmentations.append(encode_mask(mask))
    actors, actions = _random_pairs(random, NUM_PAINTED, space)
    return FramePredictions(
        np.zeros((NUM_PAINTED, 4)),
        actors,
        random.uniform(0.8, 1, NUM_PAINTED),
        np.eye(space.num_actions)[actions],
        segmentations,
    )


def _detected(
    random: np.random.Generator, height: int, width: int, count: int, space: LabelSpace
) -> tuple[FrameTruth, FrameDetections]:
    """One to six true boxes, two of three times one, and detections scattered about them."""
    truths = int(random.choice([1, 1, 1, 1, 2, 6]))
    low = random.uniform(0, 0.7, (truths, 2)) * (width, height)
    boxes = np.hstack([low, low + random.uniform(0.1, 0.3, (truths, 2)) * (width, height)])
    found = boxes[random.integers(0, truths, count)] + random.normal(0, 0.03 * height, (count, 4))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    return FrameTruth(boxes, *_random_pairs(random, truths, space)), FrameDetections(
        found,
        random.integers(0, space.num_actors, count),
        random.random(count),
        random.dirichlet(np.ones(space.num_actions), count),
    )


def _random_pairs(
    random: np.random.Generator, count: int, space: LabelSpace
) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(space.valid_pairs)[random.integers(0, len(space.valid_pairs), count)]
    return pairs[:, 0], pairs[:, 1]


def eval_lines(result: Mapping) -> list[str]:
    """The result of :func:`measure_eval` for a person to read."""
    frames = result["frames"]
    return [
        machine_line(result["machine"]),
        f"{frames['label_maps']} label maps of {frames['height']}x{frames['width']} pixels; medians"
        f" of {result['repeats']}; one process; no file is read or parsed",
        *row_lines(result["rows"]),
    ]
