"""Release files against an independent reading with h5py, csv and OpenCV."""

import csv

import cv2
import h5py
import numpy as np
import pytest

from a2d_d2.data.release_writer import (
    VideosetRow,
    mask_boxes,
    write_annotation,
    write_color_map,
    write_videoset,
)
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()


@pytest.fixture
def scene():
    """A 6 x 8 frame with a dog-running (rows 1-3, columns 2-5) and a ball-rolling (one pixel)."""
    masks = np.zeros((2, 6, 8), dtype=bool)
    masks[0, 1:4, 2:6] = True
    masks[1, 5, 7] = True
    ids = [77, 36]
    return masks[0] * 77 + masks[1] * 36, masks, ids


def test_fields_of_two_instances(tmp_path, scene):
    label_map, masks, ids = scene
    write_annotation(tmp_path / "00004.mat", label_map, masks, ids, A2D)
    with h5py.File(tmp_path / "00004.mat") as file:
        assert file["reS_id"].shape == (8, 6)
        assert (label_map == file["reS_id"][()].T).all()
        assert file["reMask"].shape == (2, 8, 6)
        assert (file["reMask"][()].swapaxes(1, 2) == masks).all()
        assert file["reBBox"][()].T.tolist() == [[3, 2, 6, 4], [8, 6, 8, 6]]
        assert file["id"].shape == (1, 2)
        assert file["id"].dtype == np.float64
        assert file["id"][0].tolist() == ids
        codes = [file[reference][()] for reference in file["class"][0]]
        assert all(code.dtype == np.uint16 for code in codes)
        assert ["".join(map(chr, c.ravel())) for c in codes] == ["dog-running", "ball-rolling"]


def test_one_instance_has_a_flat_mask(tmp_path, scene):
    label_map, masks, ids = scene
    write_annotation(tmp_path / "a.mat", label_map, masks[:1], ids[:1], A2D)
    with h5py.File(tmp_path / "a.mat") as file:
        assert file["reMask"].shape == (8, 6)
        assert (masks[0] == file["reMask"][()].T).all()
        assert file["reBBox"].shape == (4, 1)


def test_matlab_header(tmp_path, scene):
    label_map, masks, ids = scene
    path = tmp_path / "a.mat"
    write_annotation(path, label_map, masks, ids, A2D)
    content = path.read_bytes()
    assert content.startswith(b"MATLAB 7.3 MAT-file")
    assert content[124:128] == b"\x00\x02IM"
    assert content[512:520] == b"\x89HDF\r\n\x1a\n"


def test_same_input_gives_same_bytes(tmp_path, scene):
    label_map, masks, ids = scene
    for name in "ab":
        write_annotation(tmp_path / name, label_map, masks, ids, A2D)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_given_boxes_are_stored(tmp_path, scene):
    label_map, masks, ids = scene
    boxes = np.array([[1, 1, 2, 2], [3, 3, 4, 4]])
    write_annotation(tmp_path / "a.mat", label_map, masks, ids, A2D, boxes=boxes)
    with h5py.File(tmp_path / "a.mat") as file:
        assert (boxes == file["reBBox"][()].T).all()


def test_no_instances(tmp_path):
    write_annotation(tmp_path / "a.mat", np.zeros((4, 5)), np.zeros((0, 4, 5), bool), [], A2D)
    with h5py.File(tmp_path / "a.mat") as file:
        assert file["id"].shape == (1, 0)
        assert file["reMask"].shape == (0, 5, 4)


def test_empty_mask_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="empty mask"):
        mask_boxes(np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="empty mask"):
        write_annotation(tmp_path / "a.mat", np.zeros((4, 4)), np.zeros((1, 4, 4)), [11], A2D)
    assert not list(tmp_path.iterdir())


def test_color_map(tmp_path, scene):
    label_map, _, _ = scene
    write_color_map(tmp_path / "a.png", label_map, A2D)
    rgb = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    assert tuple(rgb[2, 3]) == A2D.color(77)
    assert tuple(rgb[5, 7]) == A2D.color(36)
    assert tuple(rgb[0, 0]) == (0, 0, 0)


def test_videoset(tmp_path):
    rows = [
        VideosetRow("-abcdefghi_", 77, 0, 1.5, 128, 160, 24, 3, "train"),
        VideosetRow("0123456789a", 36, 2, 3, 320, 568, 120, 5, "test"),
    ]
    write_videoset(tmp_path, rows)
    with open(tmp_path / "videoset.csv", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["-abcdefghi_", "77", "0", "1.5", "128", "160", "24", "3", "0"],
            ["0123456789a", "36", "2", "3", "320", "568", "120", "5", "1"],
        ]
