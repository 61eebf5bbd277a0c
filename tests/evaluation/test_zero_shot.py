"""Zero-shot figures, by hand."""

import numpy as np
import pytest

from a2d_d2.evaluation.detection import FrameTruth, detection_scores
from a2d_d2.evaluation.predictions import FramePredictions
from a2d_d2.evaluation.zero_shot import actor_precision, performance_ratio, with_equal_actions
from a2d_d2.label_space import LabelSpace

SPACE = LabelSpace.from_dict(
    {
        "actors": ["cat", "dog"],
        "actions": ["run", "sit", "none"],
        "valid": {"cat": ["run", "none"]},
    }
)


def test_precision_of_an_actor_counts_its_valid_actions_with_none():
    pairs = {"cat-run": 40.0, "cat-none": 20.0, "dog-run": 9.0, "dog-sit": 0.0, "dog-none": 90.0}
    assert actor_precision(pairs, "cat", SPACE) == 30.0
    assert actor_precision(pairs, "dog", SPACE) == 33.0
    with pytest.raises(ValueError, match="cow"):
        actor_precision(pairs, "cow", SPACE)


def test_ratio():
    assert performance_ratio(10.0, 40.0) == 0.25
    assert performance_ratio(0.0, 40.0) == 0.0
    assert performance_ratio(10.0, 0.0) is None


def test_equal_actions_score_chance():
    # Two cats found with certainty, one running: a detector that knows the action has AP 100 in
    # both pairs. Knowing nothing, both detections rank alike for both pairs: the truth of a pair is
    # the first or the second of two.
    boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    truth = FrameTruth(boxes, np.array([0, 0]), np.array([0, 2]))
    known = FramePredictions(
        boxes,
        np.array([0, 0]),
        np.array([0.9, 0.9]),
        np.array([[1.0, 0, 0], [0, 0, 1.0]]),
        [{"size": [1, 1]}, None],
    )
    pairs = detection_scores([truth], [known], SPACE)[1]["joint"]
    assert actor_precision(pairs, "cat", SPACE) == pytest.approx(100)
    equal = with_equal_actions(known, SPACE)
    assert equal.action_scores.tolist() == [[0.5, 0, 0.5], [0.5, 0, 0.5]]
    assert equal.segmentations == [None, None]
    pairs = detection_scores([truth], [equal], SPACE)[1]["joint"]
    assert (pairs["cat-run"], pairs["cat-none"]) == (pytest.approx(100), pytest.approx(50))
    assert actor_precision(pairs, "cat", SPACE) == pytest.approx(75)
