import numpy as np
import pytest

from a2d_d2.evaluation.med_vt import med_vt_scores, summarize
from a2d_d2.evaluation.scoring import PixelCounts
from a2d_d2.evaluation.segmentation import pixel_confusion
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
EMPTY = [0, 0, 0, 0, 0, 0]


def score(videos, space=A2D):
    """The scores of lists of (truth, predicted) rows of joint ids."""
    confusions = [
        [pixel_confusion(np.array([t]), np.array([p]), space) for t, p in frames]
        for frames in videos
    ]
    return med_vt_scores(confusions, space)


# 11 adult-climbing, 18 adult-walking, 34 ball-flying, 77 dog-running; 14 (adult-flying) and 25
# (baby-jumping) are invalid pairs
FIRST = [
    ([11, 11, 18, 0, 0, 0], [11, 14, 18, 18, 0, 0]),
    ([77, 77, 0, 0, 0, 0], [77, 0, 0, 0, 0, 25]),
]
SECOND = [(EMPTY, EMPTY), ([34, 34, 0, 0, 0, 0],) * 2, (EMPTY, [0, 0, 11, 0, 0, 0])]
THIRD = [(EMPTY, EMPTY)]


def test_scores_by_hand():
    scores, per_class = score([FIRST, SECOND, THIRD])
    # Correct pixels of the foregrounds' union. First video: joint and action 2/4 and 1/3, actor
    # 3/4 and 1/3. Second: 1 and 0, its empty frame left out. Third: left out.
    assert scores["joint"]["pixel_IoU"] == pytest.approx(100 * ((2 / 4 + 1 / 3) / 2 + 1 / 2) / 2)
    assert scores["action"]["pixel_IoU"] == scores["joint"]["pixel_IoU"]
    assert scores["actor"]["pixel_IoU"] == pytest.approx(100 * ((3 / 4 + 1 / 3) / 2 + 1 / 2) / 2)
    # Classes. Joint: 11 1/2, 14 0, 18 1/2, then 77 1/2, 25 0. Actor: adult 3/4, then dog 1/2,
    # baby 0. Action: climbing 1/2, flying 0, walking 1/2, then running 1/2, jumping 0.
    assert scores["joint"]["mIoU"] == pytest.approx(100 * ((1 / 3 + 1 / 4) / 2 + 1 / 2) / 2)
    assert scores["actor"]["mIoU"] == pytest.approx(100 * ((3 / 4 + 1 / 4) / 2 + 1 / 2) / 2)
    assert scores["action"]["mIoU"] == scores["joint"]["mIoU"]

    # Per class over frames alone, whatever their video: adult-climbing 1/2 and 0
    assert per_class["joint"]["adult-climbing"] == {"IoU": 25}
    assert per_class["joint"]["ball-flying"] == {"IoU": 100}
    assert per_class["joint"]["cat-none"] == {"IoU": None}
    assert per_class["actor"]["adult"] == {"IoU": pytest.approx(100 * (3 / 4 + 0) / 2)}
    assert per_class["actor"]["baby"] == {"IoU": 0}
    assert per_class["action"]["flying"] == {"IoU": 50}
    assert {level: len(names) for level, names in per_class.items()} == {
        "actor": 7,
        "action": 9,
        "joint": 43,
    }


def test_it_is_the_share_of_pixels_of_the_public_code():
    # Union of one-hot vectors, pixel by pixel: 0/2 where both maps label a pixel differently, so
    # that a wrong class counts once, and a small class little.
    truth, predicted = [11, 11, 11, 18, 0, 0], [11, 11, 11, 77, 0, 0]
    one_hot = np.eye(80)[:, 1:]
    shared = (one_hot[truth] * one_hot[predicted]).sum(axis=1)
    either = np.maximum(one_hot[truth], one_hot[predicted]).sum(axis=1)
    expected = (shared[either > 0] / either[either > 0]).mean()
    scores, _ = score([[(truth, predicted)]])
    assert scores["joint"]["pixel_IoU"] == pytest.approx(100 * expected) == 75
    assert scores["joint"]["mIoU"] == pytest.approx(100 / 3)


def test_random_maps_equal_the_reference(reference):
    rng = np.random.default_rng(1)
    ids = np.array([0, *A2D.joint_ids])
    videos = []
    for count in (3, 1, 5):
        frames = []
        for _ in range(count):
            truth = rng.choice([0, 0, 11, 18, 77], (12, 15))
            wrong = rng.random(truth.shape) < 0.3
            frames.append((truth, np.where(wrong, rng.choice(ids, truth.shape), truth)))
        videos.append(frames)
    blank = np.zeros((12, 15), dtype=int)
    videos[2].append((blank, blank))
    videos.append([(blank, blank)])
    scores, _ = med_vt_scores([[pixel_confusion(*p, A2D) for p in v] for v in videos], A2D)
    for level, expected in reference.med_vt(videos).items():
        assert tuple(scores[level].values()) == pytest.approx(expected, abs=1e-9)


def test_frames_are_grouped_by_video():
    rows = {("a", 3): FIRST[0], ("a", 9): FIRST[1], ("b", 0): SECOND[1]}
    frames = {}
    for key, (truth, predicted) in rows.items():
        confusion = pixel_confusion(np.array([truth]), np.array([predicted]), A2D).ravel()
        cells = np.flatnonzero(confusion)
        frames[key] = PixelCounts(cells, confusion[cells])
    scores, per_class = score([FIRST, SECOND[1:2]])
    assert summarize(frames, A2D) == {
        "protocol": "med-vt",
        "segmentation": scores,
        "per_class": {"segmentation": per_class},
    }


def test_nothing_at_all_has_no_figure():
    scores, per_class = score([THIRD])
    assert scores == dict.fromkeys(("actor", "action", "joint"), {"mIoU": None, "pixel_IoU": None})
    assert {v["IoU"] for names in per_class.values() for v in names.values()} == {None}


def test_other_label_space():
    space = LabelSpace.from_dict({"actors": ["a", "b"], "actions": [f"y{i}" for i in range(12)]})
    scores, per_class = score([[([0, 101, 212, 212], [0, 102, 212, 112])]], space)
    assert scores["joint"] == pytest.approx({"mIoU": 100 * (1 / 2) / 4, "pixel_IoU": 100 / 3})
    # a 1/2, b 1/2; y0 0, y1 0, y11 1
    assert scores["actor"] == pytest.approx({"mIoU": 50, "pixel_IoU": 200 / 3})
    assert scores["action"] == pytest.approx({"mIoU": 100 / 3, "pixel_IoU": 200 / 3})
    assert per_class["joint"]["b-y11"] == {"IoU": 50}
