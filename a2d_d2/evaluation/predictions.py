"""The predictions of a model as a JSON file that anybody can write: one entry per instance.

    [{"video_id": "_0Wwd7bdVl8", "frame": 30, "actor": "dog", "score": 0.97,
      "action_scores": [...], "bbox": [x, y, w, h],
      "segmentation": {"size": [h, w], "counts": "..."}},
     ...]

``frame`` is 1-based. ``score`` is p(actor), finite and not negative, as are the action scores.
``action_scores`` holds one number per action in label order, or maps names of actions to numbers in
any order; an action that is not named has score 0. ``bbox`` is in pixels, 0-based and continuous.
``segmentation`` is a COCO run-length encoding of the frame's size, compressed or not, or null for
an instance without a mask; an empty mask is written as null. Further keys are ignored.
"""

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pycocotools.mask

from a2d_d2.evaluation.detection import FrameDetections
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.files import write_text
from a2d_d2.utils.untrusted import MAX_PIXELS, read_json

if TYPE_CHECKING:  # importing torch would slow every worker process of an evaluation down
    from detectron2.structures import Instances

FrameKey = tuple[str, int]  # video id, 0-based frame


@dataclass(frozen=True)
class FramePredictions(FrameDetections):
    """The predictions of one frame, in the order of the file.

    Attributes:
        segmentations: N run-length encodings that :func:`decode_mask` reads; None without a mask.
    """

    segmentations: list[dict | None]


# ---------------------------------------------------------------- reading


def read_predictions(
    path: str | os.PathLike, label_space: LabelSpace
) -> dict[FrameKey, FramePredictions]:
    """Reads a file of predictions, by (video id, 0-based frame), in ascending order.

    Raises:
        ValueError: the file cannot be read or is wrong; names it and the entry, video and frame.
    """
    return {
        key: parse_entries(entries, label_space, source=str(path))
        for key, entries in load_entries(path).items()
    }


def load_entries(path: str | os.PathLike) -> dict[FrameKey, list[tuple[int, dict]]]:
    """Reads the entries of a file by frame, ascending; checks ``video_id`` and ``frame`` alone.

    Returns:
        (video id, 0-based frame) to the entries of this frame, each with its place in the file,
        counted from 1.

    Raises:
        ValueError: as :func:`read_predictions`.
    """
    value = read_json(path, "predictions")
    if not isinstance(value, list):
        raise ValueError(f"predictions {path}: expected a list of entries")
    frames: dict[FrameKey, list[tuple[int, dict]]] = {}
    for number, entry in enumerate(value, start=1):
        try:
            frames.setdefault(_frame_key(entry), []).append((number, entry))
        except ValueError as error:
            raise ValueError(f"{path}: entry {number}: {error}") from error
    return dict(sorted(frames.items()))


def parse_entries(
    entries: Sequence[tuple[int, dict]],
    label_space: LabelSpace,
    *,
    source: str = "predictions",
    need_masks: bool = False,
) -> FramePredictions:
    """Checks the entries of one frame and turns them into arrays.

    Args:
        entries: of :func:`load_entries`.
        label_space: gives the names and the number of actions.
        source: of the entries, for messages.
        need_masks: whether an entry must have the key ``segmentation`` (null is allowed).

    Raises:
        ValueError: an entry is wrong; names it, its video and frame.
    """
    count = len(entries)
    boxes, scores = np.zeros((count, 4)), np.zeros(count)
    actors = np.zeros(count, dtype=np.intp)
    action_scores = np.zeros((count, label_space.num_actions))
    segmentations = []
    for i, (number, entry) in enumerate(entries):
        where = f"{source}: entry {number}, video {entry['video_id']}, frame {entry['frame']}"
        try:
            actors[i] = label_space.actor_index(_get(entry, "actor"))
            scores[i] = _number(_get(entry, "score"), "score")
            action_scores[i] = _action_scores(_get(entry, "action_scores"), label_space)
            boxes[i] = _box(_get(entry, "bbox"))
            if need_masks and "segmentation" not in entry:
                raise ValueError("no segmentation; null stands for an instance without a mask")
            segmentations.append(entry.get("segmentation"))
            if segmentations[i] is not None:
                check_mask(segmentations[i])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return FramePredictions(boxes, actors, scores, action_scores, segmentations)


def decode_mask(segmentation: dict) -> np.ndarray:
    """The (H, W) bool mask of a COCO run-length encoding, compressed or not.

    pycocotools crashes the interpreter on some malformed encodings, so this is done here.

    Raises:
        ValueError: the encoding is malformed.
    """
    runs = check_mask(segmentation)
    height, width = segmentation["size"]
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def compress_mask(segmentation: dict) -> dict:
    """The same mask as :func:`encode_mask` writes it, which pycocotools is safe to read.

    Raises:
        ValueError: the encoding is malformed.
    """
    runs = check_mask(segmentation)
    if not runs[1:].all():  # runs of no pixels, which pycocotools would keep
        return encode_mask(decode_mask(segmentation))
    size = list(segmentation["size"])
    encoded = pycocotools.mask.frPyObjects({"size": size, "counts": runs.tolist()}, *size)
    return {"size": size, "counts": encoded["counts"].decode("ascii")}


def check_mask(segmentation) -> np.ndarray:
    """The lengths of the runs: outside, inside, outside, ... in column-major order.

    Raises:
        ValueError: it is no COCO run-length encoding that pycocotools could read safely.
    """
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise ValueError("segmentation must be a run-length encoding with size and counts")
    size, counts = segmentation["size"], segmentation["counts"]
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(map(_is_length, size))):
        raise ValueError("segmentation: size must be [height, width]")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"segmentation: {size[0]} x {size[1]} pixels are larger than any frame")
    if isinstance(counts, str | bytes):
        runs = _decompress(counts.encode() if isinstance(counts, str) else counts)
    elif isinstance(counts, list) and all(map(_is_length, counts)):
        runs = np.array(counts, dtype=np.int64)
    else:
        raise ValueError("segmentation: counts must be a string or a list of lengths")
    total = size[0] * size[1]
    if ((runs < 0) | (runs > total)).any() or runs.sum() != total:
        raise ValueError(
            f"segmentation: the runs do not add up to its size, {size[0]} x {size[1]} pixels"
        )
    return runs


def _decompress(text: bytes) -> np.ndarray:
    """Run lengths of COCO's compressed string.

    A number is written in groups of five bits, lowest first, one per character from "0" on; bit 5
    says that another group follows, bit 4 of the last group is the sign. From the fourth run on it
    is the difference to the run two before.
    """
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if ((codes < 0) | (codes > 63)).any() or (len(codes) and codes[-1] & 32):
        raise ValueError("segmentation: counts is not a compressed run-length encoding")
    ends = np.flatnonzero(~codes & 32)
    starts = np.append(0, ends[:-1] + 1)[: len(ends)]
    lengths = ends - starts + 1
    if lengths.max(initial=0) > 8:
        raise ValueError("segmentation: a run is longer than any frame")
    places = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << places, starts) if len(ends) else codes
    runs -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def _frame_key(entry) -> FrameKey:
    if not isinstance(entry, dict):
        raise ValueError("expected an object")
    video_id, frame = _get(entry, "video_id"), _get(entry, "frame")
    if not isinstance(video_id, str):
        raise ValueError("video_id must be a string")
    if not isinstance(frame, int) or isinstance(frame, bool) or frame < 1:
        raise ValueError(f"video {video_id}: frame must be an integer from 1 up")
    return video_id, frame - 1


def _get(entry: dict, key: str):
    if key not in entry:
        raise ValueError(f"no {key}")
    return entry[key]


def _number(value, name: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e300:
        return float(value)
    raise ValueError(f"{name} must be a finite number, not negative")


def _action_scores(value, label_space: LabelSpace) -> list[float]:
    if isinstance(value, dict):
        for name in value:
            label_space.action_index(name)
        value = [value.get(name, 0.0) for name in label_space.actions]
    if not isinstance(value, list) or len(value) != label_space.num_actions:
        raise ValueError(
            f"action_scores must be a list of {label_space.num_actions} numbers, or map names"
        )
    return [_number(v, f"action score {i + 1}") for i, v in enumerate(value)]


def _box(value) -> tuple[float, float, float, float]:
    """XYXY of [x, y, w, h]."""
    numbers = value if isinstance(value, list) and len(value) == 4 else [None]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers) or not all(
        abs(v) < 1e9 for v in numbers
    ):
        raise ValueError("bbox must be four finite numbers, [x, y, width, height]")
    x, y, width, height = map(float, numbers)
    if width < 0 or height < 0:
        raise ValueError("bbox has a negative width or height")
    return x, y, x + width, y + height


def _is_length(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 30


# ---------------------------------------------------------------- writing


def instances_to_json(
    instances: "Instances", video_id: str, frame_index: int, label_space: LabelSpace
) -> list[dict]:
    """The entries of the predictions of one frame.

    Args:
        instances: with ``pred_boxes``, ``scores``, ``pred_classes``, ``action_scores`` and, if the
            model makes masks, ``pred_masks`` of the frame's size. On any device.
        video_id, frame_index: of the frame; 0-based.
        label_space: gives the names.
    """
    instances = instances.to("cpu")
    rows = detection_rows(
        instances.pred_classes.tolist(),
        instances.scores.float().numpy(),
        instances.action_scores.float().numpy(),
        instances.pred_boxes.tensor.float().numpy(),
        instances.pred_masks.numpy() if instances.has("pred_masks") else None,
        label_space,
    )
    return [{"video_id": video_id, "frame": frame_index + 1} | row for row in rows]


def detection_rows(
    actors: Sequence[int],
    scores: np.ndarray,
    action_scores: np.ndarray,
    corners: np.ndarray,
    masks: Iterable[np.ndarray | None] | None,
    label_space: LabelSpace,
) -> list[dict]:
    """``actor``, ``score``, ``action_scores``, ``bbox`` and ``segmentation`` of N instances.

    Args:
        actors: N 0-based indices.
        scores, action_scores: (N,) and (N, |Y|) float32.
        corners: (N, 4) float32, XYXY.
        masks: N masks (H, W) bool, each may be None; None for no masks at all.
        label_space: gives the names.
    """
    rows = zip(
        actors,
        _shortest(scores),
        _shortest(action_scores),
        _written_boxes(corners),
        itertools.repeat(None) if masks is None else masks,
        strict=False,
    )
    return [
        {
            "actor": label_space.actors[actor],
            "score": score,
            "action_scores": of_actions,
            "bbox": box,
            "segmentation": None if mask is None else segmentation_of(mask),
        }
        for actor, score, of_actions, box, mask in rows
    ]


def written_boxes_and_scores(instances: "Instances") -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) XYXY and scores (N,) as whoever reads the written file gets them.

    They differ from the model's in the last digits: the file has widths and heights, and as few
    decimals as tell float32 values apart.

    Args:
        instances: on the CPU, with ``pred_boxes`` and ``scores``.
    """
    corners = instances.pred_boxes.tensor.float().numpy()
    boxes = np.array([_box(box) for box in _written_boxes(corners)]).reshape(-1, 4)
    return boxes, np.array(_shortest(instances.scores.float().numpy()))


def _written_boxes(corners: np.ndarray) -> list[list[float]]:
    """[x, y, w, h] of each (N, 4) float32 XYXY."""
    return _shortest(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1))


def write_predictions(path: str | os.PathLike, entries: Sequence[dict]) -> None:
    """Writes entries to ``path``, one a line, atomically."""
    write_text(path, "[" + ",\n ".join(map(json.dumps, entries)) + "]\n")


def segmentation_of(mask: np.ndarray) -> dict | None:
    """The ``segmentation`` of an (H, W) bool mask: None if it is empty."""
    return encode_mask(mask) if mask.any() else None


def encode_mask(mask: np.ndarray) -> dict:
    """The compressed COCO run-length encoding of an (H, W) mask, its counts as a string."""
    encoded = pycocotools.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def _shortest(values: np.ndarray) -> list:
    """Floats with the fewest digits that tell float32 values apart; nested lists."""
    return values.astype(str).astype(np.float64).tolist()
