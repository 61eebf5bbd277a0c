"""Drawing, checked pixel by pixel on small arrays."""

import dataclasses

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from a2d_d2.data.release import FrameAnnotation
from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.canvas import (
    backdrop,
    ink_on,
    picture_scale,
    put_text,
    resize,
    text_size,
    to_picture,
)
from a2d_d2.visualization.instances import (
    LabelledRegion,
    draw_instances,
    labelled_regions,
    truth_instances,
    visible_regions,
)
from a2d_d2.visualization.label_maps import colorize, legend, overlay
from a2d_d2.visualization.panels import Cell, clip_panel, grid, qualitative_panel

A2D = LabelSpace.a2d()
DOG, RUNNING = A2D.actor_index("dog"), A2D.action_index("running")
CAT, NONE = A2D.actor_index("cat"), A2D.action_index("none")


def square_masks(*boxes, size=(64, 80)):
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


BOXES = [(10, 20, 30, 50), (50, 20, 70, 50)]


@pytest.fixture
def truth():
    instances = Instances((64, 80))
    instances.gt_boxes = Boxes(torch.tensor(BOXES, dtype=torch.float32))
    instances.gt_classes = torch.tensor([DOG, CAT])
    instances.gt_actions = torch.tensor([RUNNING, NONE])
    instances.gt_masks = BitMasks(torch.from_numpy(square_masks(*BOXES)))
    return instances


@pytest.fixture
def prediction():
    instances = Instances((64, 80))
    instances.pred_boxes = Boxes(torch.tensor(BOXES, dtype=torch.float32))
    instances.scores = torch.tensor([0.9, 0.8])
    instances.pred_classes = torch.tensor([DOG, CAT])
    instances.pred_actions = torch.tensor([RUNNING, NONE])
    instances.action_scores = torch.zeros(2, A2D.num_actions)
    instances.action_scores[0, RUNNING] = 0.5
    instances.action_scores[1, NONE] = 0.2
    instances.pred_masks = torch.from_numpy(square_masks(*BOXES))
    return instances


def test_text_is_drawn_and_cut_at_the_border():
    picture = np.full((20, 30, 3), 255, np.uint8)
    put_text(picture, "dog-running", -5, -3, 16, (255, 0, 0))
    assert (picture.min(axis=(0, 1)) == [255, 0, 0]).all()  # red ink somewhere
    untouched = np.full((20, 30, 3), 255, np.uint8)
    put_text(untouched, "dog", 40, 25, 16)
    put_text(untouched, "dog", -200, 0, 16)
    assert (untouched == 255).all()
    assert text_size("dog-running", 16)[1] > text_size("dog", 16)[1]


@pytest.mark.parametrize(
    ("width", "scale"), [(160, 4.0), (568, 1.0), (320, 2.0), (640, 1.0), (1280, 0.5)]
)
def test_scale_is_whole_for_small_frames(width, scale):
    assert picture_scale(width, 640) == scale


def test_resize_keeps_values_of_flow():
    flow = np.full((4, 6, 2), [1.5, -2.0], np.float32)
    assert np.allclose(resize(flow, 3), [1.5, -2.0])
    assert resize(flow, 3).shape == (12, 18, 2)


def test_frames_become_rgb_and_backdrops_grey():
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[..., 0] = 200  # blue in BGR
    assert to_picture(frame)[0, 0].tolist() == [0, 0, 200]
    assert len(set(backdrop(to_picture(frame))[0, 0].tolist())) == 1


def test_text_contrasts_with_its_plate():
    assert ink_on((52, 1, 1)) == (255, 255, 255)
    assert ink_on((255, 250, 205)) == (0, 0, 0)


def test_inside_of_a_mask_takes_the_colour_of_its_pair(truth):
    picture = np.full((64, 80, 3), 100, np.uint8)
    for scale in (1, 3):
        drawn = draw_instances(picture, labelled_regions(truth), A2D, scale=scale, alpha=0.5)
        assert drawn.shape == (64 * scale, 80 * scale, 3)
        for (x1, y1, x2, y2), pair in zip(BOXES, [(DOG, RUNNING), (CAT, NONE)], strict=True):
            color = np.array(A2D.color(A2D.joint_id(*pair)), float)
            center = drawn[scale * (y1 + y2) // 2, scale * (x1 + x2) // 2]
            assert np.abs(center - (0.5 * 100 + 0.5 * color)).max() <= 0.5
        assert (drawn[40 * scale, 3 * scale] == 100).all()  # background untouched
    assert (picture == 100).all()  # the argument is not drawn into


def test_box_has_the_colour_of_its_pair(truth):
    truth.remove("gt_masks")
    drawn = draw_instances(np.full((64, 80, 3), 100, np.uint8), labelled_regions(truth), A2D)
    assert drawn[40, 10].tolist() == list(A2D.color(A2D.joint_id(DOG, RUNNING)))
    assert drawn[40, 20].tolist() == [100, 100, 100]  # no mask, no filling


def test_label_says_pair_and_joint_score(prediction, monkeypatch):
    written = []
    monkeypatch.setattr(
        "a2d_d2.visualization.instances.put_text",
        lambda picture, text, *args, **kwargs: written.append(text),
    )
    draw_instances(np.zeros((64, 80, 3), np.uint8), labelled_regions(prediction), A2D)
    assert written == ["dog-running 0.45", "cat-none 0.16"]


def test_identity_has_its_number_and_the_colour_of_the_box(truth, monkeypatch):
    written = []
    monkeypatch.setattr(
        "a2d_d2.visualization.instances.put_text",
        lambda picture, text, x, y, *rest, **named: written.append((text, x, y)),
    )
    region = dataclasses.replace(labelled_regions(truth)[0], identity=(7, (1, 2, 250)))
    picture = np.full((64, 80, 3), 100, np.uint8)
    drawn = draw_instances(picture, [region], A2D, scale=4)
    assert [text for text, _, _ in written] == ["#7", "dog-running"]
    (_, first, row), (_, second, other) = written
    assert first < second and row == other  # side by side, each on its plate
    assert drawn[row + 2, first].tolist() == [1, 2, 250]
    color = list(A2D.color(A2D.joint_id(DOG, RUNNING)))
    assert drawn[row + 2, second].tolist() == color
    x1, y1, _, y2 = BOXES[0]
    assert drawn[2 * (y1 + y2) + 20, 4 * x1].tolist() == [1, 2, 250]


def test_labels_do_not_cover_each_other(prediction, monkeypatch):
    plates = []
    monkeypatch.setattr(
        "a2d_d2.visualization.instances.put_rectangle",
        lambda picture, x, y, width, height, color: plates.append((x, y, x + width, y + height)),
    )
    prediction.pred_boxes = Boxes(torch.tensor([BOXES[0], BOXES[0]], dtype=torch.float32))
    draw_instances(np.zeros((64, 80, 3), np.uint8), labelled_regions(prediction), A2D, scale=6)
    (_, top, _, bottom), (_, other_top, _, other_bottom) = plates
    assert bottom <= other_top or other_bottom <= top


def test_predictions_are_thresholded_and_in_painting_order(prediction):
    def names(**thresholds):
        return [
            A2D.pair_name(region.actor, region.action)
            for region in labelled_regions(prediction, **thresholds)
        ]

    assert names() == ["cat-none", "dog-running"]  # the surer one on top
    assert names(actor_threshold=0.85) == ["dog-running"]
    assert names(action_threshold=0.3) == ["dog-running"]
    assert names(actor_threshold=0.95) == []


def test_no_instances_leave_the_picture_alone(prediction, truth):
    picture = np.full((64, 80, 3), 7, np.uint8)
    for instances in (prediction[:0], truth[:0]):
        assert labelled_regions(instances) == []
        assert (draw_instances(picture, [], A2D) == picture).all()


def test_truth_of_an_annotation_file():
    masks = square_masks(*BOXES)
    annotation = FrameAnnotation(
        label_map=np.zeros((64, 80), np.uint8),
        masks=masks,
        boxes=np.array(BOXES, float),
        stored_boxes=None,
        joint_ids=[A2D.joint_id(DOG, RUNNING), A2D.joint_id(CAT, NONE)],
        class_names=["dog-running", "cat-none"],
    )
    instances = truth_instances(annotation, A2D)
    assert instances.gt_classes.tolist() == [DOG, CAT]
    assert instances.gt_actions.tolist() == [RUNNING, NONE]
    assert instances.gt_boxes.tensor.tolist() == np.array(BOXES, float).tolist()
    assert (instances.gt_masks.tensor.numpy() == masks).all()


def test_truth_without_instances():
    annotation = FrameAnnotation(
        label_map=np.zeros((64, 80), np.uint8),
        masks=np.zeros((0, 64, 80), bool),
        boxes=np.zeros((0, 4)),
        stored_boxes=None,
        joint_ids=[],
        class_names=[],
    )
    assert labelled_regions(truth_instances(annotation, A2D)) == []


def test_label_map_colours_and_overlay():
    joint_id = A2D.joint_id(DOG, RUNNING)
    label_map = np.zeros((4, 5), np.uint8)
    label_map[1, 2] = joint_id
    colors = colorize(label_map, A2D)
    assert colors[1, 2].tolist() == [255, 103, 194]
    assert (colors.sum(axis=2) > 0).sum() == 1
    mixed = overlay(np.full((4, 5, 3), 55, np.uint8), label_map, A2D, alpha=0.5)
    assert mixed[1, 2].tolist() == [155, 79, 124]
    assert (mixed[label_map == 0] == 55).all()
    with pytest.raises(ValueError, match="joint ids of A2D"):
        colorize(np.full((2, 2), 200), A2D)


def test_legend_shows_each_colour_once():
    ids = [A2D.joint_id(DOG, RUNNING), A2D.joint_id(CAT, NONE)]
    picture = legend([0, *ids, ids[0]], A2D, width=120, font_size=12)
    assert picture.shape[1] == 120
    for joint_id in ids:
        assert (picture == A2D.color(joint_id)).all(axis=2).sum() > 50
    assert legend([0], A2D, width=50).shape[1] == 50


def test_grid_places_pictures_and_empty_slots():
    red = np.full((20, 30, 3), (255, 0, 0), np.uint8)
    page = grid([[Cell(red, "a"), Cell(None, "b")], [None, Cell(red, "c", marked=True)]], gap=5)
    assert (page == (255, 0, 0)).all(axis=2).sum() == 600 + (20 - 8) * (30 - 8)
    assert page.shape[1] == 5 + 2 * (30 + 5)


@pytest.mark.parametrize("with_flow", [True, False])
def test_qualitative_panel(truth, prediction, with_flow):
    flow = np.zeros((64, 80, 2), np.float32) if with_flow else None
    panel = qualitative_panel(
        np.full((64, 80, 3), 90, np.uint8),
        flow,
        truth,
        prediction,
        A2D,
        actor_threshold=0.7,
        action_threshold=0.3,
        title="video/00012",
    )
    assert panel.dtype == np.uint8
    assert panel.shape[1] == 12 + (640 + 12) * (4 if with_flow else 3)
    # cat-none is below the action threshold: its plate is in the truth only.
    cat = (panel == A2D.color(A2D.joint_id(CAT, NONE))).all(axis=2)
    assert cat[:, -652:].sum() == 0 < cat.sum()


def test_clip_panel_shows_keys_neighbours_and_absent_slots(truth):
    frames = torch.zeros(2, 3, 64, 80, dtype=torch.uint8)
    frames[1] = 50
    clip = {
        "image": frames,
        "flow": torch.zeros(2, 3, 64, 80),
        "key_positions": [0],
        "neighbours": torch.tensor([[-1, 0, 1]]),
        "frame_indices": [0, 1],
        "instances": [truth],
        "height": 128,
        "width": 160,
        "image_id": "video/00001",
    }
    full = clip_panel(clip, A2D, cell_width=160)
    assert full.shape[1] == 12 + 4 * (160 + 12)
    assert (full[:, 12:172] == 246).any()  # the slot before the first frame is empty
    del clip["flow"], clip["instances"]
    assert clip_panel(clip, A2D, cell_width=160).shape[0] < full.shape[0]
    assert clip_panel(clip, A2D, cell_width=160).shape[1] == 12 + 3 * (160 + 12)


def test_regions_as_a_label_map_shows_them():
    """A lower one loses what a later one covers, and goes where less than the part is left."""
    columns = np.arange(10)

    def region(first, last):
        mask = np.broadcast_to((columns >= first) & (columns < last), (2, 10))
        return LabelledRegion(actor=0, action=0, score=1.0, box=np.zeros(4), mask=mask)

    without = LabelledRegion(actor=0, action=0, score=1.0, box=np.zeros(4), mask=None)
    empty = region(0, 0)
    regions = [region(0, 6), region(2, 9), empty, without, region(4, 10)]
    shown = visible_regions(regions, least=0.3)
    # Of columns 0 to 5 two are left, a third; of 2 to 8 two as well, less than 0.3.
    assert [x if x is without else np.flatnonzero(x.mask[0]).tolist() for x in shown] == [
        [0, 1],
        without,
        [4, 5, 6, 7, 8, 9],
    ]
    assert regions[0].mask.sum() == 12  # the given ones stay as they are
