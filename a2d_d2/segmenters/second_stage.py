"""The second stage of two-stage refinement (section 4.3), on the detections of a running model."""

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances

from a2d_d2.evaluation.predictions import written_boxes_and_scores
from a2d_d2.segmenters.base import MIN_SCORE, Segmenter, build_segmenter, segment_detections


class SecondStage:
    """Gives the detections of a frame masks by a class-agnostic segmenter.

    It works on any detector's ``pred_boxes`` and ``scores``. Boxes and scores are those that
    ``predictions.json`` gets, to the last bit, so that ``tools/segment_predictions.py`` makes the
    same masks from that file.
    """

    @configurable
    def __init__(self, segmenter: Segmenter, *, min_score: float = MIN_SCORE):
        """
        Args:
            segmenter: as :mod:`a2d_d2.segmenters` documents it.
            min_score: detections with a lower score get no mask.
        """
        self.segmenter = segmenter
        self.min_score = min_score

    @classmethod
    def from_config(cls, cfg):
        if cfg.MODEL.MASK_ON:
            raise ValueError(
                "MODEL.MASK_ON and MODEL.SEGMENTER.NAME both make masks; set MODEL.MASK_ON False,"
                " or leave MODEL.SEGMENTER.NAME empty"
            )
        return {
            "segmenter": build_segmenter(cfg.MODEL.SEGMENTER.NAME),
            "min_score": cfg.MODEL.SEGMENTER.MIN_SCORE,
        }

    def __call__(self, instances: Instances, frame: np.ndarray) -> Instances:
        """
        Args:
            instances: detections of the frame, in its resolution, on any device.
            frame: (H, W, 3) uint8, BGR.

        Returns:
            The detections on the CPU, with ``pred_masks`` (N, H, W) bool; all False stands for no
            mask.
        """
        assert instances.image_size == frame.shape[:2], "detections are of another resolution"
        instances = instances.to("cpu")
        boxes, scores = written_boxes_and_scores(instances)
        masks = segment_detections(self.segmenter, frame, boxes, scores, min_score=self.min_score)
        instances.pred_masks = torch.from_numpy(masks)
        return instances


class SegmentingEvaluator(DatasetEvaluator):
    """Runs the second stage, once, before the evaluators that see its masks.

    Args:
        evaluator: gets the detections with masks; ``DatasetEvaluators`` for several.
        second_stage: applied to the key frame of each clip.
    """

    def __init__(self, evaluator: DatasetEvaluator, second_stage: SecondStage):
        self.evaluator = evaluator
        self.second_stage = second_stage

    def reset(self) -> None:
        self.evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """
        Args:
            inputs: clips of the mapper, with "frame": the key frame as it was read.
            outputs: one ``{"instances": Instances}`` per clip, in the frame's resolution.
        """
        outputs = [
            output | {"instances": self.second_stage(output["instances"], clip["frame"])}
            for clip, output in zip(inputs, outputs, strict=True)
        ]
        self.evaluator.process(inputs, outputs)

    def evaluate(self) -> dict | None:
        return self.evaluator.evaluate()
