import cv2
import numpy as np
import pytest

from a2d_d2.segmenters import GrabCutSegmenter, box_pixels

SEGMENT = GrabCutSegmenter()


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def filled(box, size=(64, 80)):
    x1, y1, x2, y2 = box
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_it_finds_the_ellipse(ellipse):
    masks = SEGMENT(ellipse.image, ellipse.box[None])
    assert masks.shape == (1, 64, 80) and masks.dtype == bool
    assert iou(filled(ellipse.box.astype(int)), ellipse.mask) < 0.7  # the box alone does not do
    assert iou(masks[0], ellipse.mask) > 0.9


PATCHWORK_BOXES = np.array([[19, 12, 66, 49], [19, 12, 60, 49], [15, 5, 70, 52], [19, 12, 66, 49]])


def test_each_mask_depends_on_image_and_box_alone(patchwork):
    together = SEGMENT(patchwork, PATCHWORK_BOXES)
    assert not any((m == filled(b)).all() for m, b in zip(together, PATCHWORK_BOXES, strict=True))
    assert (together[0] == together[3]).all()
    assert (SEGMENT(patchwork, PATCHWORK_BOXES[::-1]) == together[::-1]).all()
    cv2.setRNGSeed(99)
    alone = [SEGMENT(patchwork, box[None]) for box in PATCHWORK_BOXES]
    assert (np.concatenate(alone) == together).all()
    threads = cv2.getNumThreads()
    try:
        for number in (1, 2):
            cv2.setNumThreads(number)
            assert (SEGMENT(patchwork, PATCHWORK_BOXES) == together).all()
    finally:
        cv2.setNumThreads(threads)


def test_without_its_seed_the_masks_would_differ(patchwork, monkeypatch):
    """So that the test above can fail."""
    seed = cv2.setRNGSeed
    monkeypatch.setattr(cv2, "setRNGSeed", lambda _: None)
    found = set()
    for start in range(10):
        seed(start)
        found.add(SEGMENT(patchwork, PATCHWORK_BOXES[:1]).tobytes())
    assert len(found) > 1


def test_it_looks_at_the_box_and_a_margin(ellipse, monkeypatch):
    seen = []

    def spy(crop, labels, rectangle, *rest):
        seen.append((crop, rectangle))
        return grab_cut(crop, labels, rectangle, *rest)

    grab_cut = cv2.grabCut
    monkeypatch.setattr(cv2, "grabCut", spy)
    SEGMENT(ellipse.image, np.array([[30, 20, 50, 30], [60, 4, 81, 33]]))
    (crop, rectangle), (at_corner, in_corner) = seen
    assert (crop == ellipse.image[15:35, 20:60]).all() and rectangle == (10, 5, 20, 10)
    assert (at_corner == ellipse.image[:48, 50:]).all() and in_corner == (10, 4, 20, 29)


@pytest.mark.parametrize(
    ("shift", "corner"), [((-42, 0), "left"), ((0, -30), "top"), ((38, 34), "bottom right")]
)
def test_an_object_that_the_border_cuts(ellipse, shift, corner):
    """The box reaches out of the image; only what is inside counts."""
    moved = np.roll(ellipse.image, (shift[1], shift[0]), axis=(0, 1))
    dx, dy = shift
    mask = np.zeros((64, 80), bool)
    ys, xs = np.nonzero(ellipse.mask)
    kept = (xs + dx >= 0) & (xs + dx < 80) & (ys + dy >= 0) & (ys + dy < 64)
    mask[ys[kept] + dy, xs[kept] + dx] = True
    moved[~mask] = np.random.default_rng(2).normal(70, 12, (64, 80, 3))[~mask].clip(0, 255)
    box = ellipse.box + [dx, dy, dx, dy]
    (found,) = SEGMENT(moved, box[None])
    assert iou(found, mask) > 0.9, corner
    assert not found[~filled(box_pixels(box[None], (64, 80))[0])].any()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 10, 12, 40), (10, 10, 12, 40)),  # thinner than 3 pixels
        ((10, 10, 40, 11.4), (10, 10, 40, 11)),
        ((0, 0, 80, 64), (0, 0, 80, 64)),  # covers the frame
        ((-5, -5, 100, 100), (0, 0, 80, 64)),
        ((10.6, 10, 11.4, 40), (0, 0, 0, 0)),  # between two columns of centres
        ((-20, 5, -3, 30), (0, 0, 0, 0)),  # outside
        ((85, 5, 99, 30), (0, 0, 0, 0)),
        ((5, 70, 30, 90), (0, 0, 0, 0)),
        ((20, 20, 20, 20), (0, 0, 0, 0)),  # no area
    ],
)
def test_boxes_with_nothing_to_cut(ellipse, box, expected):
    (found,) = SEGMENT(ellipse.image, np.array([box], float))
    assert (found == filled(expected)).all()


def test_a_picture_of_one_colour_gives_the_box():
    image = np.full((64, 80, 3), 90, np.uint8)
    (found,) = SEGMENT(image, np.array([[10.0, 10, 40, 40]]))
    assert (found == filled((10, 10, 40, 40))).all()


def test_almost_no_background_is_survived(ellipse):
    boxes = np.array([[0, 0, 80, 63], [0, 0, 79, 64], [1, 1, 79, 63], [0, 0, 3, 3]], float)
    masks = SEGMENT(ellipse.image, boxes)
    assert masks.any(axis=(1, 2)).all()
    tiny = SEGMENT(ellipse.image[:4, :4], np.array([[0.0, 0, 4, 3], [0, 0, 3, 4]]))
    assert (tiny[0] == filled((0, 0, 4, 3), (4, 4))).all()  # 4 pixels of background: too few
    assert (tiny[1] == filled((0, 0, 3, 4), (4, 4))).all()


def test_no_boxes(ellipse):
    assert SEGMENT(ellipse.image, np.zeros((0, 4))).shape == (0, 64, 80)


@pytest.mark.parametrize("options", [{"iterations": 0}, {"margin": 0.0}, {"margin": -1}])
def test_wrong_settings(options):
    with pytest.raises(ValueError, match="at least one iteration and a margin above 0"):
        GrabCutSegmenter(**options)
