import numpy as np
import pycocotools.mask
import pytest

from a2d_d2.evaluation.detection import (
    FrameDetections,
    FrameTruth,
    average_precision,
    box_iou,
    detection_scores,
)
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
ADULT, BABY = 0, 1
CLIMBING, CRAWLING, NONE = 0, 1, 8


def frame_truth(*instances):
    """Of (box, actor, action)."""
    boxes, actors, actions = zip(*instances, strict=True) if instances else ([], [], [])
    return FrameTruth(
        np.array(boxes, float).reshape(-1, 4), np.array(actors, int), np.array(actions, int)
    )


def frame_detections(*found):
    """Of (box, actor, score, {action: score})."""
    boxes, actors, scores, named = zip(*found, strict=True) if found else ([], [], [], [])
    action_scores = np.zeros((len(found), 9))
    for row, values in zip(action_scores, named, strict=True):
        for action, score in values.items():
            row[action] = score
    boxes = np.array(boxes, float).reshape(-1, 4)
    return FrameDetections(boxes, np.array(actors, int), np.array(scores, float), action_scores)


def test_one_detection_per_level_by_hand():
    box = [0, 0, 10, 10]
    truth = [frame_truth((box, ADULT, CLIMBING), ([20, 0, 30, 10], BABY, NONE))]
    found = [frame_detections((box, ADULT, 0.9, {CLIMBING: 0.6, CRAWLING: 0.4}))]
    means, per_class = detection_scores(truth, found, A2D)
    assert per_class["actor"]["adult"] == pytest.approx(100)
    assert per_class["actor"]["baby"] == 0
    assert per_class["action"]["climbing"] == pytest.approx(100)
    assert means["actor"]["mAP"] == pytest.approx(100 / 7)
    assert means["action"]["mAP"] == pytest.approx(100 / 8)
    assert means["joint"]["mAP"] == pytest.approx(100 / 43)
    assert [len(per_class[level]) for level in ("actor", "action", "joint")] == [7, 9, 43]


def test_none_counts_among_the_pairs_only():
    box = [0, 0, 10, 10]
    truth = [frame_truth((box, BABY, NONE))]
    found = [frame_detections((box, BABY, 1.0, {NONE: 1.0}))]
    means, per_class = detection_scores(truth, found, A2D)
    assert per_class["action"]["none"] == pytest.approx(100)
    assert means["action"]["mAP"] == 0
    assert means["joint"]["mAP"] == pytest.approx(100 / 43)


def test_all_actors_compete_for_an_action():
    box = [0, 0, 10, 10]
    truth = [frame_truth((box, ADULT, CLIMBING))]
    found = [
        frame_detections((box, ADULT, 0.5, {CLIMBING: 0.5}), (box, BABY, 0.9, {CLIMBING: 0.9}))
    ]
    _, per_class = detection_scores(truth, found, A2D)
    # Under "climbing" the baby's box suppresses the adult's, and is right: the actor is no matter.
    assert per_class["action"]["climbing"] == pytest.approx(100)
    assert per_class["joint"]["adult-climbing"] == pytest.approx(100)
    assert per_class["joint"]["baby-climbing"] == 0


def test_an_action_score_changes_the_order():
    right, wrong = [0, 0, 10, 10], [50, 50, 60, 60]
    truth = [frame_truth((right, ADULT, CLIMBING))]
    found = [
        frame_detections((right, ADULT, 0.5, {CLIMBING: 1.0}), (wrong, ADULT, 0.8, {CLIMBING: 0.5}))
    ]
    _, per_class = detection_scores(truth, found, A2D)
    assert per_class["actor"]["adult"] == pytest.approx(50)
    assert per_class["joint"]["adult-climbing"] == pytest.approx(100)


def test_a_detected_pair_stands_for_the_other_pairs_with_score_0():
    """Which can only flatter a detector that tells no actions apart."""
    box, cat = [0, 0, 10, 10], A2D.actor_index("cat")
    running, eating = (A2D.actions.index(name) for name in ("running", "eating"))
    # Ten cats, five of which run and five eat; all are found, and said to run.
    truth = [frame_truth((box, cat, action)) for action in [running] * 5 + [eating] * 5]
    found = [frame_detections((box, cat, score, {running: 1})) for score in [0.9] * 5 + [0.8] * 5]
    means, per_class = detection_scores(truth, found, A2D)
    # The five that run come first: precision 1 up to recall 1.
    assert per_class["joint"]["cat-running"] == pytest.approx(100)
    # All ten stand there with score 0, in the order of the frames: five false, then five true. The
    # precision rises from 1/6 to 5/10 at recall 1, which counts for all recalls before. Of
    # detections of this pair alone there are none.
    assert per_class["joint"]["cat-eating"] == pytest.approx(50)
    assert average_precision(np.empty(0, bool), 5) == 0
    assert per_class["action"]["eating"] == pytest.approx(50)
    assert means["joint"]["mAP"] == pytest.approx(150 / 43)  # instead of 100 / 43
    # Where a detection of the pair itself is, they are behind it: 1 true of 5 eating cats has
    # recall 0.2 at precision 1, 3 of 11 recalls; then the nine others, the last four of them true.
    found[5] = frame_detections((box, cat, 0.8, {eating: 1}))
    _, per_class = detection_scores(truth, found, A2D)
    assert per_class["joint"]["cat-eating"] == pytest.approx(100 * (3 + 8 / 2) / 11)


def test_two_instances_may_claim_one_detection():
    # Both overlap the detection by 10/12 > 0.5; recall ends at 1/2 and six points are reached.
    truth = [
        frame_truth(([0, 0, 10, 10], ADULT, CLIMBING), ([2, 0, 12, 10], ADULT, CLIMBING)),
    ]
    found = [frame_detections(([1, 0, 11, 10], ADULT, 0.9, {CLIMBING: 1.0}))]
    _, per_class = detection_scores(truth, found, A2D)
    assert per_class["actor"]["adult"] == pytest.approx(100 * 6 / 11)


def test_an_instance_claims_the_surest_not_the_nearest():
    # IoU of the two detections is 5/19 < 0.3; the truth overlaps both by more than 0.5.
    truth = [frame_truth(([0, 0, 12, 10], ADULT, CLIMBING))]
    first, second = [0, 0, 7, 10], [5, 0, 12, 10]
    assert box_iou(np.array([first], float), np.array([second], float))[0, 0] < 0.3
    found = [frame_detections((second, ADULT, 0.8, {}), (first, ADULT, 0.9, {}))]
    _, per_class = detection_scores(truth, found, A2D)
    assert per_class["actor"]["adult"] == pytest.approx(100)
    # The other one is false: in front it halves the precision.
    found = [frame_detections((second, ADULT, 0.8, {}), ([70, 0, 82, 10], ADULT, 0.9, {}))]
    assert detection_scores(truth, found, A2D)[1]["actor"]["adult"] == pytest.approx(50)


@pytest.mark.parametrize(("width", "kept"), [(3, True), (4, False)])
def test_suppression_is_strictly_above(width, kept):
    # A box inside another, 3/10 and 4/10 of it: 0.3 itself is not dropped.
    big, small = [0, 0, 10, 10], [0, 0, width, 10]
    truth = [frame_truth((small, ADULT, CLIMBING))]
    found = [frame_detections((big, ADULT, 0.9, {}), (small, ADULT, 0.8, {}))]
    _, per_class = detection_scores(truth, found, A2D)
    assert per_class["actor"]["adult"] == pytest.approx(50 if kept else 0)


def test_a_suppressed_box_suppresses_nothing():
    # A chain: the first drops the second, which therefore cannot drop the third.
    boxes = [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]]
    truth = [frame_truth(*((box, ADULT, CLIMBING) for box in boxes[::2]))]
    found = [
        frame_detections(
            *((box, ADULT, s, {}) for box, s in zip(boxes, (0.9, 0.8, 0.7), strict=True))
        )
    ]
    assert detection_scores(truth, found, A2D)[1]["actor"]["adult"] == pytest.approx(100)


def test_a_match_at_half():
    truth = [frame_truth(([0, 0, 10, 10], ADULT, CLIMBING))]
    for width, expected in ((5, 100), (4, 0)):
        found = [frame_detections(([0, 0, width, 10], ADULT, 0.9, {}))]
        assert detection_scores(truth, found, A2D)[1]["actor"]["adult"] == pytest.approx(expected)


def test_recall_points_are_products():
    # 3 of 10 found: recall 0.3 does not reach 3 * 0.1 = 0.30000000000000004, so only 0, .1, .2 do.
    assert average_precision(np.ones(3, bool), 10) == pytest.approx(3 / 11)
    assert average_precision(np.ones(5, bool), 10) == pytest.approx(6 / 11)


def test_precision_is_interpolated():
    # hits 1, 0, 1 of 2: precision 1 at recall 0.5, 2/3 at recall 1.
    assert average_precision(np.array([1, 0, 1], bool), 2) == pytest.approx((6 + 5 * 2 / 3) / 11)
    # 0, 1: the later, higher precision counts for all points before.
    assert average_precision(np.array([0, 1], bool), 1) == pytest.approx(0.5)


@pytest.mark.parametrize(("hits", "num_truth"), [([], 3), ([True], 0), ([False, False], 2)])
def test_nothing_found_or_to_find(hits, num_truth):
    assert average_precision(np.array(hits, bool), num_truth) == 0


def test_no_frames_and_empty_frames():
    for count in (0, 2):
        means, _ = detection_scores([frame_truth()] * count, [frame_detections()] * count, A2D)
        assert means == {level: {"mAP": 0} for level in ("actor", "action", "joint")}


def test_a_frame_with_truth_or_detections_alone():
    box = [0, 0, 10, 10]
    truth = [frame_truth((box, ADULT, CLIMBING)), frame_truth(), frame_truth((box, ADULT, NONE))]
    found = [
        frame_detections(),
        frame_detections((box, ADULT, 0.9, {})),
        frame_detections((box, ADULT, 0.8, {})),
    ]
    # One of two adults, behind a false one: the recalls 0 to 0.5 at precision 1/2.
    _, per_class = detection_scores(truth, found, A2D)
    assert per_class["actor"]["adult"] == pytest.approx(100 * 6 / 11 / 2)


def test_many_detections_in_a_frame():
    right = [0, 0, 10, 10]
    wrong = [([20 * i, 50, 20 * i + 10, 60], ADULT, 0.9, {}) for i in range(99)]
    truth = [frame_truth((right, ADULT, CLIMBING))]
    found = [frame_detections(*wrong, (right, ADULT, 0.8, {}))]
    assert detection_scores(truth, found, A2D)[1]["actor"]["adult"] == pytest.approx(1)


def test_ious_equal_pycocotools(reference):
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 50, (2, 20, 2)), rng.uniform(0, 40, (2, 20, 2))], axis=2)
    a, b = boxes
    corners = np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=2)
    ious = box_iou(*corners)
    assert ious == pytest.approx(pycocotools.mask.iou(a, b, [0] * 20), abs=1e-12)
    assert ious[3, 4] == pytest.approx(reference.iou(a[3], b[4]), abs=1e-12)
    empty = np.array([[5.0, 5, 5, 5]])
    assert box_iou(empty, empty) == 0
    small = np.array([[0.0, 0, 0.5, 0.5]])
    assert box_iou(small, small) == 1


def boxes(rng, count):
    """Crowded [x, y, w, h]."""
    return [
        [int(v) for v in (*rng.integers(0, 12, 2), *rng.integers(4, 12, 2))] for _ in range(count)
    ]


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


@pytest.mark.parametrize("seed", range(4))
def test_random_detections_equal_the_reference(reference, seed):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(12):
        truth = [
            (box, int(rng.integers(0, 3)), int(rng.choice([0, 1, 8])))
            for box in boxes(rng, rng.integers(0, 4))
        ]
        entries = [
            {
                "actor": A2D.actors[int(rng.integers(0, 3))],
                "score": float(rng.integers(0, 6)) / 5,  # many ties
                "action_scores": (rng.integers(0, 4, 9) / 4).tolist(),
                "bbox": box,
            }
            for box in boxes(rng, rng.integers(0, 12)) + [box for box, *_ in truth]
        ]
        frames.append((truth, entries))

    truths = [frame_truth(*((corners(b), x, y) for b, x, y in truth)) for truth, _ in frames]
    found = [
        frame_detections(
            *(
                (
                    corners(e["bbox"]),
                    A2D.actor_index(e["actor"]),
                    e["score"],
                    dict(enumerate(e["action_scores"])),
                )
                for e in entries
            )
        )
        for _, entries in frames
    ]
    means, _ = detection_scores(truths, found, A2D)
    expected = reference.detection(frames, A2D)
    assert min(expected.values()) > 0
    for level, value in expected.items():
        assert means[level]["mAP"] == pytest.approx(value, abs=1e-9)


def test_other_label_space_without_none():
    space = LabelSpace.from_dict({"actors": ["a"], "actions": ["y", "z"], "valid": {"a": ["z"]}})
    truth = [FrameTruth(np.array([[0.0, 0, 9, 9]]), np.array([0]), np.array([1]))]
    found = [
        FrameDetections(truth[0].boxes, np.array([0]), np.array([1.0]), np.array([[0.0, 1.0]]))
    ]
    means, _ = detection_scores(truth, found, space)
    assert [means[level]["mAP"] for level in ("actor", "action", "joint")] == pytest.approx(
        [100, 50, 100]
    )


def test_no_action_but_none():
    space = LabelSpace.from_dict({"actors": ["a"], "actions": ["none"]})
    truth = FrameTruth(np.array([[0.0, 0, 9, 9]]), np.array([0]), np.array([0]))
    found = FrameDetections(truth.boxes, np.array([0]), np.array([1.0]), np.array([[1.0]]))
    means, per_class = detection_scores([truth], [found], space)
    assert means["action"]["mAP"] == 0
    assert per_class["action"]["none"] == pytest.approx(100)
