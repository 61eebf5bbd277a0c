import re
from pathlib import Path

import numpy as np
import pytest

from a2d_d2.segmenters import (
    MIN_SCORE,
    SEGMENTER_REGISTRY,
    GrabCutSegmenter,
    box_pixels,
    build_segmenter,
    segment_detections,
)

ROOT = Path(__file__).parents[2]
CODE = """
not_callable = 3
def not_a_factory(image, boxes): pass
def gives_nothing(): return None
def rows_above_ten():
    def segment(image, boxes):
        masks = np.zeros((len(boxes), *image.shape[:2]), bool)
        masks[:, :10] = True
        return masks
    return segment
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The folder with own_segmenters.py is on the path."""
    (tmp_path / "own_segmenters.py").write_text("import numpy as np\n" + CODE)
    (tmp_path / "lacking_segmenters.py").write_text("import no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)


# ---------------------------------------------------------------- names


def test_a_registered_name():
    assert isinstance(build_segmenter("GrabCutSegmenter"), GrabCutSegmenter)


def test_ones_own_class_can_be_registered():
    class Mine(GrabCutSegmenter):
        pass

    SEGMENTER_REGISTRY.register(Mine)
    try:
        assert isinstance(build_segmenter("Mine"), Mine)
    finally:
        SEGMENTER_REGISTRY._obj_map.pop("Mine")


def test_a_name_in_a_module(module):
    segment = build_segmenter("own_segmenters:rows_above_ten")
    (mask,) = segment(np.zeros((20, 30, 3), np.uint8), np.array([[0.0, 0, 5, 5]]))
    assert mask.sum() == 300


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SharpMask", "no segmenter 'SharpMask'; give GrabCutSegmenter, or package.module:name"),
        ("no_such_module:thing", "no_such_module.*PYTHONPATH"),
        ("lacking_segmenters:thing", "lacking_segmenters.*no_such_thing"),
        ("own_segmenters:missing", "module own_segmenters has no missing"),
        ("own_segmenters:not_callable", "not a callable object|called without arguments"),
        ("own_segmenters:not_a_factory", "not_a_factory must be .* called without arguments"),
        ("own_segmenters:gives_nothing", "gives_nothing gives a NoneType"),
        (":thing", "form package.module:name"),
        ("own_segmenters:", "form package.module:name"),
        (".own:thing", "form package.module:name"),
        ("a:b:c", "form package.module:name"),
    ],
)
def test_wrong_names(module, name, words):
    with pytest.raises(ValueError, match=words):
        build_segmenter(name)


# ---------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((1, 2, 4, 6), (1, 2, 4, 6)),
        ((1.4, 1.6, 3.4, 3.6), (1, 2, 3, 4)),
        ((0.5, 1.5, 2.5, 3.5), (0, 1, 2, 3)),  # a centre on the left border is in, on the right out
        ((-3, -0.2, 200, 9.9), (0, 0, 30, 10)),
        ((-9, 5, -1, 8), (0, 5, 0, 8)),
        ((2.6, 5, 3.4, 8), (3, 5, 3, 8)),
    ],
)
def test_pixels_are_those_whose_centre_is_inside(box, pixels):
    found = box_pixels(np.array([box], np.float32), (20, 30))
    assert found.tolist() == [list(pixels)]
    ys, xs = np.mgrid[:20, :30] + 0.5
    inside = (xs >= box[0]) & (xs < box[2]) & (ys >= box[1]) & (ys < box[3])
    x1, y1, x2, y2 = found[0]
    assert inside.sum() == inside[y1:y2, x1:x2].sum() == max(0, x2 - x1) * max(0, y2 - y1)


# ---------------------------------------------------------------- detections

FRAME = np.zeros((20, 30, 3), np.uint8)
BOXES = np.array([[0, 0, 4, 4], [2, 3, 10, 12], [5, 5, 9, 9]], float)


def test_masks_are_cut_to_their_boxes_and_the_unsure_have_none():
    calls = []

    def everything(image, boxes):
        calls.append((image, boxes.tolist()))
        return np.ones((len(boxes), 20, 30), bool)

    scores = np.array([0.9, 0.04, 0.05])
    masks = segment_detections(everything, FRAME, BOXES, scores)
    assert masks.sum(axis=(1, 2)).tolist() == [16, 0, 16]
    assert masks[0, :4, :4].all() and masks[2, 5:9, 5:9].all()
    assert len(calls) == 1 and calls[0][0] is FRAME
    assert calls[0][1] == BOXES[[0, 2]].tolist()
    masks = segment_detections(everything, FRAME, BOXES, scores, min_score=0.01)
    assert masks.sum(axis=(1, 2)).tolist() == [16, 72, 16]


@pytest.mark.parametrize("boxes", [BOXES, BOXES[:0]])
def test_the_segmenter_is_not_called_for_nothing(boxes):
    masks = segment_detections(None, FRAME, boxes, np.zeros(len(boxes)), min_score=MIN_SCORE)
    assert masks.shape == (len(boxes), 20, 30) and not masks.any()


@pytest.mark.parametrize(
    "masks",
    [np.ones((3, 20, 30)), np.ones((2, 20, 30), bool), np.ones((3, 30, 20), bool), None],
    ids=["float", "too few", "turned", "none"],
)
def test_what_is_no_mask_is_refused(masks):
    def odd_one(image, boxes):
        return masks

    with pytest.raises(ValueError, match=r"odd_one gave an array of .*bool \(3, 20, 30\)"):
        segment_detections(odd_one, FRAME, BOXES, np.ones(3))


def test_the_example_of_the_readme(ellipse):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(
        r"```python\n(import numpy[^`]*class FilledBoxes.*?)```", text, flags=re.DOTALL
    )
    names = {}
    exec(code, names)
    boxes = np.array([[-3.2, 4, 10, 9.6], [70, 50, 99, 99], [3, 3, 3, 3]])
    masks = segment_detections(names["FilledBoxes"](), ellipse.image, boxes, np.ones(3))
    assert masks.sum(axis=(1, 2)).tolist() == [10 * 6, 10 * 14, 0]
