"""What a frame adds to the scores, on frames of a few pixels."""

import numpy as np
import pytest

from a2d_d2.data.layout import FrameAnnotation
from a2d_d2.evaluation.detection import match_frame
from a2d_d2.evaluation.predictions import encode_mask, parse_entries
from a2d_d2.evaluation.scoring import (
    count_pixels,
    frame_truth,
    score_frame,
    summarize,
    total_confusion,
)
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
CRAWLING, RUNNING = 12, 77  # an adult, a dog
PLACE = {0: 0, CRAWLING: 1 + A2D.joint_ids.index(CRAWLING), RUNNING: 1 + A2D.joint_ids.index(77)}
# Four pixels in a row: an adult, a dog of two, nothing.
TRUTH = np.array([[CRAWLING, RUNNING, RUNNING, 0]])
ANNOTATION = FrameAnnotation(
    TRUTH,
    np.array([TRUTH == CRAWLING, TRUTH == RUNNING]),
    np.array([[0.0, 0, 1, 1], [1, 0, 3, 1]]),
    None,
    [CRAWLING, RUNNING],
    [],
)


def predictions(*columns, score=0.9):
    """Dogs that run, each on some columns of the frame."""
    masks = [np.isin(np.arange(4), place)[None] for place in columns]
    entries = [
        {
            "video_id": "v",
            "frame": 1,
            "actor": "dog",
            "score": score,
            "action_scores": {"running": 1.0},
            "bbox": [place[0], 0, len(place), 1],
            "segmentation": encode_mask(mask),
        }
        for place, mask in zip(columns, masks, strict=True)
    ]
    return parse_entries(list(enumerate(entries)), A2D)


def pixels(counts):
    """{(true id, predicted id): pixels}."""
    n = 1 + len(A2D.joint_ids)
    ids = (0, *A2D.joint_ids)
    return {
        (ids[cell // n], ids[cell % n]): int(number)
        for cell, number in zip(counts.cells.tolist(), counts.pixels, strict=True)
    }


def test_pixels_of_predictions_and_of_a_label_map():
    found = predictions([1, 3])
    assert pixels(count_pixels(ANNOTATION, A2D, predictions=found)) == {
        (CRAWLING, 0): 1,
        (RUNNING, RUNNING): 1,
        (RUNNING, 0): 1,
        (0, RUNNING): 1,
    }
    perfect = {(CRAWLING, CRAWLING): 1, (RUNNING, RUNNING): 2, (0, 0): 1}
    assert pixels(count_pixels(ANNOTATION, A2D, label_map=TRUTH)) == perfect
    # The label map goes before, but the masks are checked.
    both = score_frame(ANNOTATION, A2D, predictions=found, label_map=TRUTH)
    assert pixels(both) == perfect
    assert both.matches is not None
    other = predictions([1])
    other.segmentations[0]["size"] = [2, 2]
    with pytest.raises(ValueError, match="2 x 2, the frame 1 x 4"):
        count_pixels(ANNOTATION, A2D, predictions=other, label_map=TRUTH)


def test_thresholds_are_those_of_painting():
    found = predictions([1, 2], score=0.5)
    assert (RUNNING, RUNNING) not in pixels(score_frame(ANNOTATION, A2D, predictions=found))
    low = score_frame(ANNOTATION, A2D, predictions=found, actor_threshold=0.5)
    assert pixels(low)[RUNNING, RUNNING] == 2


def test_the_confusion_is_the_sum_over_frames():
    frames = [
        count_pixels(ANNOTATION, A2D, label_map=TRUTH),
        count_pixels(ANNOTATION, A2D, predictions=predictions([1, 2], [3])),
    ]
    confusion = total_confusion(frames, A2D)
    assert confusion.shape == (64, 64)
    assert confusion.sum() == 8
    adult, dog = PLACE[CRAWLING], PLACE[RUNNING]
    assert [confusion[dog, dog], confusion[adult, adult], confusion[adult, 0]] == [4, 1, 1]
    assert [confusion[0, 0], confusion[0, dog]] == [1, 1]


def test_the_truth_of_a_frame():
    truth = frame_truth(ANNOTATION, A2D)
    assert truth.boxes.tolist() == [[0, 0, 1, 1], [1, 0, 3, 1]]
    assert truth.actors.tolist() == [A2D.actor_index("adult"), A2D.actor_index("dog")]
    assert truth.actions.tolist() == [A2D.action_index("crawling"), A2D.action_index("running")]
    empty = FrameAnnotation(TRUTH * 0, np.zeros((0, 1, 4), bool), np.zeros((0, 4)), None, [], [])
    assert frame_truth(empty, A2D).actors.shape == (0,)


def test_detection_is_scored_where_every_frame_has_predictions():
    found = predictions([1, 2])
    with_matches = score_frame(ANNOTATION, A2D, predictions=found)
    expected = match_frame(frame_truth(ANNOTATION, A2D), found, A2D)
    for name, value in vars(with_matches.matches).items():
        assert np.array_equal(value, getattr(expected, name))
    scores = summarize([with_matches, with_matches], A2D)
    assert scores["detection"]["actor"]["mAP"] == pytest.approx(100 / 7)
    assert scores["segmentation"]["joint"]["glo"] == 75
    assert scores["per_class"]["detection"]["joint"]["dog-running"] == pytest.approx(100)
    assert scores["per_class"]["segmentation"]["joint"]["dog-running"]["IoU"] == 100
    without = score_frame(ANNOTATION, A2D, label_map=TRUTH)
    assert without.matches is None
    for frames in ([without], [with_matches, without]):
        scores = summarize(frames, A2D)
        assert list(scores) == ["segmentation", "per_class"]
        assert list(scores["per_class"]) == ["segmentation"]
