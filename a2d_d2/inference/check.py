"""Whether streaming says what running the model on every clip on its own says."""

import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import islice

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances

from a2d_d2.data.mapper import build_mapper
from a2d_d2.data.video import iter_frames
from a2d_d2.inference.streaming import StreamingPredictor
from a2d_d2.inference.types import FrameResult
from a2d_d2.modeling.classes import with_actions


@dataclass(frozen=True)
class Difference:
    """How far the detections of one way are from those of the other.

    Attributes:
        frames: compared.
        instances: compared.
        scores: largest difference of an actor or action score; of an instance that only one way
            has, its actor score.
        boxes: largest difference of a coordinate, as a share of the frame's longer side: in pixels
            it would grow with the frame, as the rounding of float32 does.
        masks: largest share of a frame's pixels in which two masks differ.
        pixels: ``boxes`` in pixels.
    """

    frames: int = 0
    instances: int = 0
    scores: float = 0.0
    boxes: float = 0.0
    masks: float = 0.0
    pixels: float = 0.0

    def __or__(self, other: "Difference") -> "Difference":
        """The difference over the frames of both."""
        return Difference(
            self.frames + other.frames,
            self.instances + other.instances,
            *map(max, astuple(self)[2:], astuple(other)[2:]),
        )

    @property
    def largest(self) -> float:
        return max(self.scores, self.boxes, self.masks)

    def __str__(self) -> str:
        return (
            f"{self.frames} frames, {self.instances} instances; largest difference: scores "
            f"{self.scores:.1e}, boxes {self.boxes:.1e} of the longer side ({self.pixels:.1e} px), "
            f"masks {self.masks:.1e} of the frame"
        )


class ClipWise:
    """The naive way: a clip for each frame, by the mapper of evaluation, and a whole forward pass.

    Args:
        cfg: of the model.
        predictor: whose model is run, and whose segmenter gives boxes masks.
    """

    def __init__(self, cfg: CfgNode, predictor: StreamingPredictor):
        cfg = cfg.clone()
        cfg.merge_from_list(["INPUT.CLIP.CACHE", ""])  # frames and flow are stored rounded there
        self.mapper = build_mapper(cfg, is_train=False)
        self.predictor = predictor
        self.classes = cfg.MODEL.CLASSES

    @torch.no_grad()
    def detect(self, path: str | os.PathLike, result: FrameResult) -> Instances:
        """The detections on the frame that ``result`` is of, in its size, on the CPU."""
        height, width = result.frame.shape[:2]
        names = ("file_name", "video_id", "frame_index", "image_id", "height", "width")
        values = (str(path), "", result.index, 0, height, width)
        clip = self.mapper(dict(zip(names, values, strict=True)) | {"label_map_file": ""})
        (output,) = self.predictor.model([clip])
        instances = output["instances"].to("cpu")
        if not instances.has("action_scores"):
            valid = torch.tensor(self.predictor.label_space.valid)
            instances = with_actions(instances, valid, self.classes)
        if self.predictor.second_stage is not None:
            instances = self.predictor.second_stage(instances, result.frame)
        return instances


def check_video(
    path: str | os.PathLike,
    predictor: StreamingPredictor,
    clip_wise: ClipWise,
    max_frames: int | None = None,
) -> Iterator[Difference]:
    """Yields the difference on each frame that has detections.

    Args:
        path: of the video.
        max_frames: how many frames are compared; None for all.

    Raises:
        VideoError: the video is missing or cannot be decoded.
    """
    frames = ((0.0, frame) for frame in iter_frames(path))
    for result in islice(predictor.predict(frames), max_frames):
        if result.instances is not None:
            yield difference(result.instances, clip_wise.detect(path, result))


def difference(first: Instances, second: Instances) -> Difference:
    """Compares the detections of a frame.

    Each of ``first`` is paired with the nearest of ``second`` of the same actor: which of two that
    score the same is listed first may differ.
    """
    height, width = first.image_size
    scores, pixels, masks = 0.0, 0.0, 0.0
    rest = torch.ones(len(second), dtype=torch.bool)
    for i in range(len(first)):
        box_distances = _distance(second.pred_boxes.tensor, first.pred_boxes.tensor[i])
        score_distances = (second.scores - first.scores[i]).abs()
        eligible = rest & (second.pred_classes == first.pred_classes[i])
        distances = torch.where(eligible, box_distances + score_distances, torch.inf)
        if not eligible.any():
            scores = max(scores, float(first.scores[i]))
            continue
        j = int(distances.argmin())
        rest[j] = False
        actions = _distance(second.action_scores[j], first.action_scores[i])
        scores = max(scores, float(score_distances[j]), float(actions))
        pixels = max(pixels, float(box_distances[j]))
        if first.has("pred_masks"):
            differing = (first.pred_masks[i] != second.pred_masks[j]).sum()
            masks = max(masks, float(differing) / (height * width))
    if rest.any():
        scores = max(scores, float(second.scores[rest].max()))
    return Difference(1, len(first), scores, pixels / max(height, width), masks, pixels)


def _distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Largest difference along the last axis."""
    return (first - second).abs().amax(dim=-1)
