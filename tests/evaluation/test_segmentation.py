import numpy as np
import pytest

from a2d_d2.evaluation import segmentation
from a2d_d2.evaluation.segmentation import (
    class_names,
    level_confusions,
    pixel_confusion,
    segmentation_scores,
)
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()


def test_scores_by_hand():
    # adult-climbing 11 (4 pixels), adult-walking 18 (2), dog-running 77 (2), background (2)
    truth = np.array([[11, 11, 11, 11, 18], [18, 77, 77, 0, 0]])
    # right: two 11; 18 as 11; background as 77. 14 (adult-flying) is invalid: its actor counts
    predicted = np.array([[11, 11, 14, 0, 11], [18, 77, 17, 0, 77]])
    scores, per_class = segmentation_scores(pixel_confusion(truth, predicted, A2D), A2D)

    # joint: recall 11 2/4, 18 1/2, 77 1/2, background 1/2; IoU 2/5, 1/2, 1/3, 1/3
    assert scores["joint"]["ave"] == pytest.approx(50)
    assert scores["joint"]["glo"] == pytest.approx(50)
    assert scores["joint"]["mIoU"] == pytest.approx(100 * (2 / 5 + 1 / 2 + 1 / 3 + 1 / 3) / 4)
    # actor: adult 5/6, dog 1/2, background 1/2; adult IoU 5/7, dog 1/3, background 1/3
    assert scores["actor"]["ave"] == pytest.approx(100 * (5 / 6 + 1 / 2 + 1 / 2) / 3)
    assert scores["actor"]["glo"] == pytest.approx(70)
    assert scores["actor"]["mIoU"] == pytest.approx(100 * (5 / 7 + 1 / 3 + 1 / 3) / 3)
    # action: climbing 2/4, walking 1/2, running 2/2, background 1/2; IoU 2/5, 1/2, 2/3, 1/3
    assert scores["action"]["ave"] == pytest.approx(62.5)
    assert scores["action"]["glo"] == pytest.approx(60)
    assert scores["action"]["mIoU"] == pytest.approx(100 * (2 / 5 + 1 / 2 + 2 / 3 + 1 / 3) / 4)

    assert per_class["joint"]["dog-running"] == {"recall": 50, "IoU": pytest.approx(100 / 3)}
    assert per_class["actor"]["cat"] == {"recall": None, "IoU": None}
    assert [len(per_class[level]) for level in ("actor", "action", "joint")] == [8, 10, 44]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_random_maps_equal_the_reference(reference, dtype):
    rng = np.random.default_rng(1)
    ids = np.array([0, 0, *A2D.joint_ids])
    pairs = []
    for _ in range(3):
        truth = rng.choice([0, 11, 18, 34, 77], (12, 15)).astype(dtype)
        wrong = rng.random(truth.shape) < 0.6
        pairs.append((truth, np.where(wrong, rng.choice(ids, truth.shape), truth).astype(dtype)))
    confusion = sum(pixel_confusion(*pair, A2D) for pair in pairs)
    scores, _ = segmentation_scores(confusion, A2D)
    for level, expected in reference.segmentation(pairs).items():
        values = [scores[level][name] for name in ("ave", "glo", "mIoU")]
        assert values == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("most_ids", [1, 256])
@pytest.mark.parametrize("dtypes", [(np.int32, np.uint8), (np.uint64, np.int8)])
def test_counts_are_those_of_each_pixel(monkeypatch, most_ids, dtypes):
    monkeypatch.setattr(segmentation, "_MOST_IDS", most_ids)
    ids = [0, *A2D.joint_ids]
    truth, predicted = (
        np.random.default_rng(i).choice(ids, (9, 14)).astype(dtype)
        for i, dtype in enumerate(dtypes)
    )
    expected = np.zeros((len(ids), len(ids)), dtype=np.int64)
    for true, label in zip(truth.flat, predicted.flat, strict=True):
        expected[ids.index(true), ids.index(label)] += 1
    np.testing.assert_array_equal(pixel_confusion(truth, predicted, A2D), expected)
    for wrong in (5, 20, 80):
        predicted[3, 4] = wrong
        with pytest.raises(ValueError, match=f"label {wrong} in the label map is neither"):
            pixel_confusion(truth, predicted, A2D)
    predicted[3, 4], truth[0, 0] = 5, 70
    with pytest.raises(ValueError, match="label 70 in the annotation is neither"):
        pixel_confusion(truth, predicted, A2D)


def test_a_perfect_map_has_100():
    truth = np.array([[0, 11], [25, 77]])
    scores, _ = segmentation_scores(pixel_confusion(truth, truth, A2D), A2D)
    assert all(v == 100 for level in scores.values() for v in level.values())


def test_other_label_space():
    space = LabelSpace.from_dict({"actors": ["a", "b"], "actions": [f"y{i}" for i in range(12)]})
    truth = np.array([[0, 101, 212]])
    scores, _ = segmentation_scores(pixel_confusion(truth, np.array([[0, 102, 212]]), space), space)
    assert scores["actor"]["ave"] == 100
    assert scores["joint"]["glo"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("label", [5, 10, 20, 80, 255, -1])
def test_unknown_labels_are_refused(label):
    truth, wrong = np.zeros((2, 2), dtype=int), np.array([[0, 0], [label, 11]])
    with pytest.raises(ValueError, match=f"label {label} in the label map"):
        pixel_confusion(truth, wrong, A2D)
    with pytest.raises(ValueError, match=f"label {label} in the annotation"):
        pixel_confusion(wrong, truth, A2D)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="3 x 2, the frame 2 x 3"):
        pixel_confusion(np.zeros((2, 3), int), np.zeros((3, 2), int), A2D)


def test_the_first_of_several_unknown_labels_is_named():
    with pytest.raises(ValueError, match="label 5 in the label map"):
        pixel_confusion(np.zeros((1, 3), int), np.array([[255, 5, 20]]), A2D)


def test_frames_of_one_pixel_and_of_none():
    one = np.array([[11]])
    assert pixel_confusion(one, one, A2D).sum() == 1
    with pytest.raises(ValueError, match="the annotation has no pixels"):
        pixel_confusion(one[:0], one[:0], A2D)
    with pytest.raises(ValueError, match="no pixels to score"):
        segmentation_scores(np.zeros((64, 64), int), A2D)


def test_each_level_has_a_row_for_each_of_its_classes():
    names, _ = class_names(A2D)
    for level, confusion in level_confusions(np.ones((64, 64), int), A2D).items():
        assert confusion.shape == (len(names[level]),) * 2
        assert confusion.sum() == 64 * 64
