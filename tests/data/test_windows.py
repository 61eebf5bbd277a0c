import pytest
import torch
from detectron2.layers import ShapeSpec
from torch.nn import functional as F

from a2d_d2.data.windows import ClipWindow, make_window
from a2d_d2.modeling.temporal import TemporalConv


def window(key_frame, num_frames, length=5, stride=1, radius=1, **options):
    return make_window(
        key_frame, num_frames, length=length, stride=stride, radius=radius, **options
    )


def test_middle_of_a_video_needs_only_the_receptive_field():
    assert window(10, 20) == ClipWindow((9, 10, 11), (1,), ((0, 1, 2),))
    assert window(10, 20, radius=2).frames == (8, 9, 10, 11, 12)
    assert window(10, 20, radius=0) == ClipWindow((10,), (0,), ((0,),))


def test_radius_beyond_the_window_is_cut_by_the_window():
    assert window(10, 20, length=3, radius=3) == ClipWindow(
        (9, 10, 11), (1,), ((-1, -1, 0, 1, 2, -1, -1),)
    )


def test_clip_ends_have_no_neighbours_outside():
    assert window(0, 20) == ClipWindow((0, 1), (0,), ((-1, 0, 1),))
    assert window(19, 20) == ClipWindow((18, 19), (1,), ((0, 1, -1),))


def test_video_of_one_frame():
    assert window(0, 1) == ClipWindow((0,), (0,), ((-1, 0, -1),))


def test_video_shorter_than_the_window():
    assert window(1, 3, radius=2) == ClipWindow((0, 1, 2), (1,), ((-1, 0, 1, 2, -1),))


def test_stride():
    assert window(10, 20, stride=3).frames == (7, 10, 13)
    assert window(2, 20, stride=3) == ClipWindow((2, 5), (0,), ((-1, 0, 1),))


def test_even_length_reaches_further_back():
    assert window(10, 20, length=2).frames == (9, 10)
    assert window(10, 20, length=4, radius=3).frames == (8, 9, 10, 11)


def test_annotated_frames_of_the_window_are_keys():
    # 13 is outside the window 8..12; 12 stands at its end.
    found = window(10, 20, annotated=[3, 9, 12, 13])
    assert found.frames == (8, 9, 10, 11, 12)
    assert [found.frames[k] for k in found.keys] == [9, 10, 12]
    assert found.neighbours == ((0, 1, 2), (1, 2, 3), (3, 4, -1))


def test_annotated_frames_off_the_stride_are_no_keys():
    found = window(10, 20, stride=2, annotated=[9, 12])
    assert [found.frames[k] for k in found.keys] == [10, 12]


def test_distant_keys_leave_a_gap():
    found = window(10, 30, length=9, annotated=[14])
    assert found.frames == (9, 10, 11, 13, 14)
    assert found.neighbours == ((0, 1, 2), (3, 4, -1))


@pytest.mark.parametrize(("position", "frames"), [(0, (10, 11)), (2, (9, 10, 11)), (4, (9, 10))])
def test_placement_of_the_key_frame(position, frames):
    found = window(10, 20, position=position)
    assert found.frames == frames
    assert found.frames[found.keys[0]] == 10


def test_unknown_end_and_restriction_equal_a_known_end():
    for key_frame in range(6):
        open_end = window(key_frame, None, radius=2, annotated=[4, 5, 6, 7])
        assert open_end.restrict(range(6)) == window(key_frame, 6, radius=2, annotated=[4, 5])


def test_restriction_drops_keys_that_are_missing():
    found = window(4, None, annotated=[5]).restrict({3, 4})
    assert found == ClipWindow((3, 4), (1,), ((0, 1, -1),))


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("length", [1, 3, 4, 5])
def test_frames_outside_the_receptive_field_change_nothing(length, num_layers):
    """The model on the frames of make_window = convolutions over the whole zero-padded window."""
    torch.manual_seed(0)
    num_frames, channels = 7, 3
    video = torch.randn(num_frames, channels, 2, 2)
    module = TemporalConv({"p2": ShapeSpec(channels=channels)}, num_layers=num_layers)
    for key_frame in range(num_frames):
        for position in range(length):
            first = key_frame - position
            whole = [f for f in range(first, first + length) if 0 <= f < num_frames]
            expected = video[whole].transpose(0, 1)[None]  # (1, C, T, h, w)
            for layer in module.levels["p2"]:
                expected = F.conv3d(expected, layer.weight, layer.bias, padding=(1, 0, 0))
            found = window(
                key_frame, num_frames, length, radius=num_layers, annotated=[5], position=position
            )
            assert set(found.frames) <= set(whole)
            features = {"p2": video[list(found.frames)]}
            result = module(features, torch.tensor(found.neighbours))["p2"]
            for k, row in zip(found.keys, result, strict=True):
                place = whole.index(found.frames[k])
                torch.testing.assert_close(row, expected[0, :, place])
