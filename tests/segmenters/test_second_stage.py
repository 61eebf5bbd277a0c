import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.structures import Boxes, Instances

from a2d_d2.config import add_a2d_config
from a2d_d2.evaluation.predictions import instances_to_json
from a2d_d2.label_space import LabelSpace
from a2d_d2.segmenters import MIN_SCORE, GrabCutSegmenter
from a2d_d2.segmenters.second_stage import SecondStage, SegmentingEvaluator

A2D = LabelSpace.a2d()


@pytest.fixture
def detections(ellipse):
    """The ellipse, a box beside it, and the ellipse again with a score that is too low."""
    instances = Instances((64, 80))
    boxes = np.stack([ellipse.box, [0, 40, 12, 60], ellipse.box])
    instances.pred_boxes = Boxes(torch.from_numpy(boxes).float())
    instances.scores = torch.tensor([0.9, 0.3, 0.04])
    instances.pred_classes = torch.tensor([6, 5, 6])
    instances.action_scores = torch.full((3, 9), 0.1)
    return instances


class Watcher(DatasetEvaluator):
    """Notes what it is given."""

    def __init__(self, task):
        self.task = task
        self.calls = []

    def reset(self):
        self.calls.append("reset")

    def process(self, inputs, outputs):
        self.calls.append((inputs, outputs))

    def evaluate(self):
        return {self.task: {"score": 1.0}}


def test_masks_are_those_of_the_segmenter(ellipse, detections):
    found = SecondStage(GrabCutSegmenter())(detections, ellipse.image)
    assert found.image_size == (64, 80) and len(found) == 3
    assert found.pred_masks.dtype == torch.bool
    masks = found.pred_masks.numpy()
    expected = GrabCutSegmenter()(ellipse.image, detections.pred_boxes.tensor.numpy())
    assert (masks[:2] == expected[:2]).all() and masks[:2].any(axis=(1, 2)).all()
    assert not masks[2].any()
    assert (masks[0] & ellipse.mask).sum() > 0.9 * (masks[0] | ellipse.mask).sum()
    assert found.scores.tolist() == detections.scores.tolist()
    assert not detections.has("pred_masks")  # the argument is left alone
    written = [e["segmentation"] for e in instances_to_json(found, "v", 0, A2D)]
    assert [s is None for s in written] == [False, False, True]


def test_no_detections(ellipse, detections):
    found = SecondStage(None)(detections[:0], ellipse.image)
    assert found.pred_masks.shape == (0, 64, 80)


def test_boxes_and_scores_are_those_of_the_file(ellipse, detections):
    """A score that float32 rounds below the threshold counts by the digits that are written."""
    seen = []

    def note(image, boxes):
        seen.append(boxes)
        return np.zeros((len(boxes), *image.shape[:2]), bool)

    detections.scores = torch.tensor([0.7, 0.699, 0.701])
    assert float(detections.scores[0]) < 0.7
    detections.pred_boxes.tensor[0, 2] = 63.8
    SecondStage(note, min_score=0.7)(detections, ellipse.image)
    entries = instances_to_json(detections, "v", 0, A2D)
    x, y, w, h = entries[0]["bbox"]
    assert seen[0].tolist() == [[x, y, x + w, y + h], ellipse.box.tolist()]


def test_evaluators_share_one_segmentation(ellipse, detections):
    calls = []

    def segment(image, boxes):
        calls.append(len(boxes))
        return np.ones((len(boxes), *image.shape[:2]), bool)

    watchers = [Watcher("a"), Watcher("b")]
    evaluator = SegmentingEvaluator(DatasetEvaluators(watchers), SecondStage(segment))
    evaluator.reset()
    clips = [{"frame": ellipse.image}, {"frame": ellipse.image}]
    outputs = [{"instances": detections, "more": 1}, {"instances": detections[:0]}]
    evaluator.process(clips, outputs)
    assert calls == [2]
    for watcher in watchers:
        reset, (inputs, given) = watcher.calls
        assert reset == "reset" and inputs is clips
        assert [len(x["instances"].pred_masks) for x in given] == [3, 0]
        assert given[0]["more"] == 1
    assert evaluator.evaluate() == {"a": {"score": 1.0}, "b": {"score": 1.0}}


# ---------------------------------------------------------------- configuration


def make_cfg(*options):
    cfg = get_cfg()
    add_a2d_config(cfg)
    cfg.merge_from_list(list(options))
    return cfg


def test_keys():
    assert make_cfg().MODEL.SEGMENTER.MIN_SCORE == MIN_SCORE
    stage = SecondStage(
        make_cfg(
            *("MODEL.MASK_ON", False, "MODEL.SEGMENTER.NAME", "GrabCutSegmenter"),
            *("MODEL.SEGMENTER.MIN_SCORE", 0.3),
        )
    )
    assert isinstance(stage.segmenter, GrabCutSegmenter) and stage.min_score == 0.3


def test_mask_head_and_segmenter_exclude_each_other():
    with pytest.raises(ValueError, match=r"MODEL\.MASK_ON .*MODEL\.SEGMENTER\.NAME"):
        SecondStage(make_cfg("MODEL.SEGMENTER.NAME", "GrabCutSegmenter"))


def test_a_wrong_name_in_the_configuration():
    options = ["MODEL.MASK_ON", False, "MODEL.SEGMENTER.NAME", "SharpMask"]
    with pytest.raises(ValueError, match="no segmenter 'SharpMask'; give GrabCutSegmenter"):
        SecondStage(make_cfg(*options))


def test_a_frame_of_another_size_is_a_mistake_of_the_caller(detections):
    with pytest.raises(AssertionError, match="another resolution"):
        SecondStage(None)(detections, np.zeros((32, 40, 3), np.uint8))
