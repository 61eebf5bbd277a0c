import numpy as np
import pytest

from a2d_d2.evaluation.predictions import FramePredictions, encode_mask
from a2d_d2.evaluation.rasterize import rasterize_instances
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
CLIMBING, CRAWLING, FLYING = 0, 1, 3


def predictions(*found):
    """Of (columns of a 1 x 4 frame or None, actor, score, {action: score})."""
    action_scores = np.zeros((len(found), 9))
    masks = []
    for row, (columns, _, _, named) in zip(action_scores, found, strict=True):
        for action, score in named.items():
            row[action] = score
        mask = np.isin(np.arange(4), columns)[None]
        masks.append(None if columns is None else encode_mask(mask))
    return FramePredictions(
        np.zeros((len(found), 4)),
        np.array([A2D.actor_index(f[1]) for f in found], dtype=int),
        np.array([f[2] for f in found]),
        action_scores,
        masks,
    )


def paint(*found, **thresholds):
    return rasterize_instances(predictions(*found), (1, 4), A2D, **thresholds)[0].tolist()


def test_the_surest_lies_on_top():
    dog = ([0, 1, 2], "dog", 0.9, {CRAWLING: 0.8})
    adult = ([1, 2, 3], "adult", 0.8, {CLIMBING: 0.9})
    assert paint(dog, adult) == paint(adult, dog) == [72, 72, 72, 11]


def test_of_equal_scores_the_later_lies_on_top():
    dog = ([0, 1], "dog", 0.9, {CRAWLING: 0.8})
    adult = ([1, 2], "adult", 0.9, {CLIMBING: 0.8})
    assert paint(dog, adult) == [72, 11, 11, 0]
    assert paint(adult, dog) == [72, 72, 11, 0]


def test_thresholds_include_their_value():
    assert paint(([0], "dog", 0.7, {CRAWLING: 0.3})) == [72, 0, 0, 0]
    assert paint(([0], "dog", 0.699, {CRAWLING: 0.9})) == [0, 0, 0, 0]
    assert paint(([0], "dog", 0.9, {CRAWLING: 0.299})) == [0, 0, 0, 0]
    low = ([0], "dog", 0.2, {CRAWLING: 0.1})
    assert paint(low, actor_threshold=0.2, action_threshold=0.1) == [72, 0, 0, 0]


def test_only_valid_actions_are_painted():
    # Adults do not fly; and the best valid action has to reach the threshold by itself.
    assert paint(([0], "adult", 0.9, {FLYING: 0.6, CRAWLING: 0.4})) == [12, 0, 0, 0]
    assert paint(([0], "adult", 0.9, {FLYING: 0.8, CRAWLING: 0.2})) == [0, 0, 0, 0]


def test_of_equal_actions_the_first_is_painted():
    assert paint(([0], "adult", 0.9, {CRAWLING: 0.5, CLIMBING: 0.5})) == [11, 0, 0, 0]


def test_nothing_to_paint():
    assert paint() == [0, 0, 0, 0]
    assert paint((None, "adult", 0.9, {CLIMBING: 0.9})) == [0, 0, 0, 0]


def test_masks_must_have_the_size_of_the_frame():
    found = predictions(([0], "adult", 0.1, {}))
    with pytest.raises(ValueError, match=r"1 x 4, the frame 4 x 1 \(height x width\)"):
        rasterize_instances(found, (4, 1), A2D)


def test_painting_equals_assigning_the_masks():
    random = np.random.default_rng(0)
    for share in (0.02, 0.5, 1.0):
        masks = random.random((4, 7, 9)) < share
        masks[0, 0, 0] = True  # an encoding that begins inside
        found = FramePredictions(
            np.zeros((4, 4)),
            np.array([0, 1, 5, 6]),
            np.array([0.9, 0.8, 0.95, 0.7]),
            np.eye(9)[[CLIMBING, CLIMBING, 8, 8]],
            [encode_mask(mask) for mask in masks],
        )
        expected = np.zeros((7, 9), dtype=int)
        for i in (3, 1, 0, 2):
            pair = found.actors[i], found.action_scores[i].argmax()
            if A2D.valid[pair]:
                expected[masks[i]] = A2D.joint_id(*pair)
        painted = rasterize_instances(found, (7, 9), A2D)
        assert painted.flags.c_contiguous and painted.dtype == A2D.label_map_dtype
        np.testing.assert_array_equal(painted, expected)
