"""The largest difference between two ways to detect."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from a2d_d2.inference.check import Difference, difference


def make_instances(*rows, masks=True):
    """Detections on 10 x 20 pixels: (actor, score, action scores, x1, columns of the mask)."""
    instances = Instances((10, 20))
    instances.pred_classes = torch.tensor([x[0] for x in rows], dtype=torch.int64)
    instances.scores = torch.tensor([x[1] for x in rows])
    instances.action_scores = torch.tensor([x[2] for x in rows]).reshape(-1, 2)
    boxes = [[x[3], 1.0, x[3] + 5, 8.0] for x in rows]
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    if masks:
        instances.pred_masks = torch.zeros(len(rows), 10, 20, dtype=torch.bool)
        for mask, row in zip(instances.pred_masks, rows, strict=True):
            mask[:, : row[4]] = True
    return instances


DOG, CAT = (6, 0.9, [0.2, 0.8], 3.0, 4), (5, 0.9, [0.5, 0.5], 3.0, 4)


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ([DOG, CAT], [DOG, CAT], (2, 0, 0, 0)),
        ([DOG, CAT], [CAT, DOG], (2, 0, 0, 0)),  # in another order
        ([], [], (0, 0, 0, 0)),
        ([DOG], [(6, 0.8, [0.2, 0.8], 3.0, 4)], (1, 0.1, 0, 0)),
        ([DOG], [(6, 0.9, [0.5, 0.5], 3.0, 4)], (1, 0.3, 0, 0)),
        ([DOG], [(6, 0.9, [0.2, 0.8], 3.5, 5)], (1, 0, 0.5, 10 / 200)),
        ([DOG], [CAT], (1, 0.9, 0, 0)),
        ([DOG, (6, 0.3, [1.0, 0.0], 3.0, 4)], [DOG], (2, 0.3, 0, 0)),
        ([DOG], [(6, 0.4, [1.0, 0.0], 3.0, 4), DOG], (1, 0.4, 0, 0)),
        ([], [DOG], (0, 0.9, 0, 0)),
    ],
)
def test_by_hand(first, second, expected):
    found = difference(make_instances(*first), make_instances(*second))
    assert found.frames == 1
    values = (found.instances, found.scores, found.boxes, found.masks)
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_without_masks():
    pair = make_instances(DOG, masks=False), make_instances(DOG, masks=False)
    assert difference(*pair) == Difference(1, 1)


def test_over_several_frames_the_largest_counts():
    both = Difference(1, 3, 0.1, 0.0, 0.3) | Difference(2, 1, 0.0, 0.2, 0.1)
    assert both == Difference(3, 4, 0.1, 0.2, 0.3)
    assert both.largest == 0.3
    assert str(both) == (
        "3 frames, 4 instances; largest difference: scores 1.0e-01, boxes 2.0e-01 px, "
        "masks 3.0e-01 of the frame"
    )
