import pytest
import torch
from detectron2.structures import Boxes, Instances

from a2d_d2.label_space import LabelSpace
from a2d_d2.modeling.classes import (
    model_label_space,
    num_region_classes,
    pair_index,
    pair_targets,
    with_actions,
)

# Pairs by hand: 0 = (0, 0), 1 = (0, 1), 2 = (1, 1), 3 = (1, 2).
VALID = torch.tensor([[True, True, False], [False, True, True]])


def detections(classes, scores):
    return Instances(
        (8, 8),
        pred_boxes=Boxes(torch.arange(4.0 * len(classes)).reshape(-1, 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
    )


def test_pairs_are_counted_in_the_label_spaces_order():
    assert pair_index(VALID).tolist() == [[0, 1, -1], [-1, 2, 3]]
    space = LabelSpace.a2d()
    index = pair_index(torch.tensor(space.valid))
    assert [index[pair].item() for pair in space.valid_pairs] == list(range(43))
    assert (index == -1).sum() == 63 - 43
    assert num_region_classes(space, "pairs") == 43
    assert num_region_classes(space, "actors") == 7


def test_targets_become_pairs():
    masks = torch.ones(3, 8, 8)
    targets = Instances((8, 8), gt_masks=masks)
    targets.gt_classes, targets.gt_actions = torch.tensor([1, 0, 1]), torch.tensor([2, 1, 1])
    pairs = pair_targets(targets, pair_index(VALID))
    assert pairs.gt_classes.tolist() == [3, 1, 2]
    assert not pairs.has("gt_actions") and pairs.gt_masks is masks
    assert targets.gt_classes.tolist() == [1, 0, 1] and targets.gt_actions.tolist() == [2, 1, 1]
    assert pair_targets(targets[:0], pair_index(VALID)).gt_classes.shape == (0,)


def test_a_detected_pair_has_its_score_as_actor_and_as_pair():
    found = detections([3, 0, 1], [0.5, 0.25, 0.125])
    result = with_actions(found, VALID, "pairs")
    assert result.pred_classes.tolist() == [1, 0, 0]
    assert result.action_scores.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert result.pred_actions.tolist() == [2, 0, 1]
    assert result.scores.tolist() == [0.5, 0.25, 0.125]
    assert torch.equal(result.pred_boxes.tensor, found.pred_boxes.tensor)
    assert found.pred_classes.tolist() == [3, 0, 1] and not found.has("action_scores")


def test_the_valid_actions_of_a_detected_actor_are_equally_likely():
    result = with_actions(detections([1, 0], [0.5, 0.25]), VALID, "actors")
    assert result.pred_classes.tolist() == [1, 0]
    assert result.action_scores.tolist() == [[0, 0.5, 0.5], [0.5, 0.5, 0]]
    assert result.pred_actions.tolist() == [1, 0]


@pytest.mark.parametrize("classes", ["actors", "pairs"])
def test_no_detection(classes):
    result = with_actions(detections([], []), VALID, classes)
    assert result.action_scores.shape == (0, 3)
    assert result.pred_actions.shape == result.pred_classes.shape == (0,)


def test_class_counts_must_be_those_of_the_classes(small_cfg):
    assert model_label_space(small_cfg()) == LabelSpace.a2d()
    pairs = ["MODEL.CLASSES", "pairs"]
    assert model_label_space(small_cfg(*pairs, "MODEL.ROI_HEADS.NUM_CLASSES", 43)).num_actors == 7
    with pytest.raises(ValueError, match=r"are \(7, 9\), but DATASETS.LABEL_SPACE has 43 pairs"):
        model_label_space(small_cfg(*pairs))
