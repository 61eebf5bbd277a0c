"""Reading the files of a release, against files that these tests write by hand."""

import pickle

import h5py
import numpy as np
import pytest

from a2d_d2.data import layout
from a2d_d2.data.layout import (
    FrameAnnotation,
    ReleaseError,
    VideoInfo,
    annotated_frames,
    annotation_path,
    box_faults,
    clip_path,
    parse_videoset,
    read_annotation,
    read_videoset,
)

HEIGHT, WIDTH = 6, 8
# Rows and columns (0-based, end exclusive) of three instances, and their 1-based inclusive boxes.
EXTENTS = [((1, 4), (2, 6)), ((5, 6), (7, 8)), ((0, 2), (0, 1))]
BOXES = [(3, 2, 6, 4), (8, 6, 8, 6), (1, 1, 1, 2)]
IDS = [77, 36, 77]


def make_masks(count):
    masks = np.zeros((count, HEIGHT, WIDTH), dtype=np.uint8)
    for mask, (rows, columns) in zip(masks, EXTENTS, strict=False):
        mask[slice(*rows), slice(*columns)] = 1
    return masks


def make_fields(count=3):
    """The fields of a file with 1 to 3 instances as HDF5 shows them: axes reversed."""
    masks = make_masks(count)
    label_map = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for mask, joint_id in zip(masks, IDS, strict=False):
        label_map[mask == 1] = joint_id
    stored = masks[0].T if count == 1 else np.stack([mask.T for mask in masks])
    return {
        "reS_id": label_map.T,
        "reMask": stored,
        "reBBox": np.array(BOXES[:count], dtype=np.float64).T,
        "id": np.array([IDS[:count]], dtype=np.float64),
    }


@pytest.fixture
def write(tmp_path):
    """Writes fields to a file and gives its path; a field set to None is left out."""

    def write(fields, names=(), empty=()):
        path = tmp_path / "00001.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, value in fields.items():
                if value is not None:
                    file[name] = value
            for name in empty:  # MATLAB stores the shape of an empty array as its value
                file[name].attrs["MATLAB_empty"] = np.uint8(1)
            if names:
                references = np.empty((1, len(names)), dtype=h5py.ref_dtype)
                for i, text in enumerate(names):
                    file[f"#refs#/{i}"] = np.array([[ord(letter)] for letter in text], np.uint16)
                    references[0, i] = file[f"#refs#/{i}"].ref
                file.create_dataset("class", data=references, dtype=h5py.ref_dtype)
        return path

    return write


def check_content(annotation, count):
    masks = make_masks(count) == 1
    assert annotation.masks.dtype == bool
    assert np.array_equal(annotation.masks, masks)
    expected = np.zeros((HEIGHT, WIDTH), dtype=int)
    for mask, joint_id in zip(masks, IDS, strict=False):
        expected[mask] = joint_id
    assert np.array_equal(annotation.label_map, expected)
    assert annotation.joint_ids == IDS[:count]
    boxes = [[x1 - 1, y1 - 1, x2, y2] for x1, y1, x2, y2 in BOXES[:count]]
    assert annotation.boxes.tolist() == annotation.stored_boxes.tolist() == boxes


class TestAnnotation:
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_axes_ids_and_boxes(self, write, count):
        names = ["dog-running", "ball-rolling", "dog-running"][:count]
        annotation = read_annotation(write(make_fields(count), names))
        check_content(annotation, count)
        assert annotation.class_names == names
        assert box_faults(annotation) == []

    @pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "uint16", "int64", "f4", "f8"])
    @pytest.mark.parametrize("count", [1, 2])
    def test_any_type_of_mask(self, write, dtype, count):
        fields = make_fields(count)
        check_content(read_annotation(write(fields | {"reMask": fields["reMask"] > 0})), count)
        fields["reMask"] = fields["reMask"].astype(dtype)
        check_content(read_annotation(write(fields)), count)

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "int64", "f4", "f8"])
    def test_any_type_of_label(self, write, dtype):
        fields = make_fields(2)
        for name in ("reS_id", "id", "reBBox"):
            fields[name] = fields[name].astype(dtype)
        check_content(read_annotation(write(fields)), 2)

    @pytest.mark.parametrize("shape", [(4,), (4, 1)])
    def test_the_box_of_one_instance(self, write, shape):
        fields = make_fields(1)
        fields["reBBox"] = fields["reBBox"].reshape(shape)
        fields["id"] = fields["id"].reshape(-1)
        check_content(read_annotation(write(fields)), 1)

    def test_four_boxes_are_not_transposed(self, write):
        """A (4, 4) array could be read either way."""
        masks = np.zeros((4, HEIGHT, WIDTH), dtype=np.uint8)
        masks[np.arange(4), :3, np.arange(4)] = 1
        boxes = np.array([[k + 1, 1, k + 1, 3] for k in range(4)])
        fields = {
            "reS_id": np.full((WIDTH, HEIGHT), 77),
            "reMask": masks.transpose(0, 2, 1),
            "reBBox": boxes.T,
            "id": np.full((1, 4), 77.0),
        }
        annotation = read_annotation(write(fields))
        assert box_faults(annotation) == []
        assert annotation.stored_boxes[3].tolist() == [3, 0, 4, 3]

    def test_optional_fields(self, write):
        annotation = read_annotation(write(make_fields() | {"reBBox": None}))
        assert annotation.stored_boxes is None
        assert annotation.class_names == []
        assert annotation.boxes.shape == (3, 4)
        assert box_faults(annotation) == []

    @pytest.mark.parametrize("matlab", [True, False])
    def test_frame_without_instances(self, write, matlab):
        if matlab:
            fields = dict.fromkeys(("reMask", "reBBox", "id"), np.array([0, 0], dtype=np.uint64))
        else:
            fields = {"reMask": np.zeros((0, WIDTH, HEIGHT)), "reBBox": np.zeros((4, 0))}
            fields["id"] = np.zeros((1, 0))
        fields["reS_id"] = np.zeros((WIDTH, HEIGHT), dtype=np.uint8)
        path = write(fields, empty=("reMask", "reBBox", "id") if matlab else ())
        annotation = read_annotation(path)
        assert annotation.joint_ids == []
        assert annotation.masks.shape == (0, HEIGHT, WIDTH)
        assert annotation.boxes.shape == annotation.stored_boxes.shape == (0, 4)

    @pytest.mark.parametrize(
        "change, kind, message",
        [
            ({"reS_id": None}, "annotation_unreadable", "no reS_id"),
            ({"reMask": None}, "annotation_unreadable", "no reMask"),
            ({"id": None}, "annotation_unreadable", "no id"),
            ({"id": np.array([[77.0, 36.0]])}, "masks_exceed_ids", "3 masks but 2 ids"),
            ({"id": np.full((1, 5), 77.0)}, "ids_exceed_masks", "3 masks but 5 ids"),
            ({"id": np.array([[77.0, 36.5, 77.0]])}, "invalid_id", "not a whole number"),
            ({"id": np.array([[77.0, np.nan, 77.0]])}, "invalid_id", "not a whole number"),
            ({"id": np.array(b"77")}, "annotation_unreadable", "id does not hold numbers"),
            ({"reS_id": np.zeros((HEIGHT, WIDTH))}, "size_mismatch", "8x6 pixels on .* 6x8"),
            ({"reS_id": np.full((WIDTH, HEIGHT), 0.5)}, "annotation_unreadable", "reS_id"),
            ({"reS_id": np.full((WIDTH, HEIGHT), -1)}, "annotation_unreadable", "reS_id"),
            ({"reMask": np.full((3, WIDTH, HEIGHT), 2)}, "annotation_unreadable", "zeros and ones"),
            (
                {"reMask": np.zeros((3, WIDTH, HEIGHT)), "reBBox": None},
                *("mask_empty", "instance 1 is empty"),
            ),
            ({"reBBox": np.ones((4, 2))}, "box_mask_mismatch", "for 3 ids"),
            ({"reBBox": np.ones((3, 4))}, "box_mask_mismatch", "for 3 ids"),
        ],
    )
    def test_faults_are_named(self, write, change, kind, message):
        path = write(make_fields() | change)
        with pytest.raises(ReleaseError, match=message) as error:
            read_annotation(path)
        assert error.value.kind == kind
        assert str(error.value).startswith(str(path))
        assert "restore it from the data set" in str(error.value)

    def test_class_names_are_not_needed(self, write):
        names = ["dog-running", "ball-rolling"]
        annotation = read_annotation(write(make_fields(), names))
        assert annotation.class_names == names
        assert len(annotation.joint_ids) == 3

    def test_empty_mask_keeps_its_stored_box(self, write):
        fields = make_fields()
        boxes = read_annotation(write(fields)).boxes
        fields["reMask"] = fields["reMask"].copy()
        fields["reMask"][1] = 0
        fields["reBBox"] = fields["reBBox"].copy()
        fields["reBBox"][:, 1] = [2, 3, 5, 6]  # 1-based, inclusive
        annotation = read_annotation(write(fields))
        assert annotation.boxes[1].tolist() == [1, 2, 5, 6]
        assert annotation.boxes[[0, 2]].tolist() == boxes[[0, 2]].tolist()
        assert annotation.joint_ids == [77, 36, 77]

    @pytest.mark.parametrize("keep", [0, 100, 600, 0.5, 0.95])
    def test_truncated_file(self, write, keep):
        path = write(make_fields(), ["dog-running"] * 3)
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
        with pytest.raises(ReleaseError, match="cut off or not a MATLAB v7.3") as error:
            read_annotation(path)
        assert error.value.kind == "annotation_unreadable"

    def test_missing_file(self, tmp_path):
        with pytest.raises(ReleaseError, match="00009.mat does not exist"):
            read_annotation(tmp_path / "00009.mat")

    def test_folder_in_place_of_a_file(self, tmp_path):
        with pytest.raises(ReleaseError, match="cut off or not"):
            read_annotation(tmp_path)

    def test_error_survives_pickling(self):
        error = pickle.loads(pickle.dumps(ReleaseError("text", "mask_empty")))
        assert (str(error), error.kind) == ("text", "mask_empty")


class TestBoxFaults:
    # The mask's box is 3 2 6 4 in a frame of 8 x 6.
    @pytest.mark.parametrize(
        "box, kinds",
        [
            ((3, 2, 6, 4), []),
            ((2, 1, 5, 3), []),  # 0-based
            ((3, 2, 7, 5), []),  # exclusive
            ((1, 2, 6, 4), ["box_mask_mismatch"]),
            ((3, 2, 6, 6), ["box_mask_mismatch"]),
            ((6, 2, 3, 4), ["box_outside"]),
            ((0, 2, 6, 4), ["box_outside"]),
            ((3, 0, 6, 4), ["box_outside"]),
            ((3, 2, 9, 4), ["box_outside"]),
            ((3, 2, 6, 7), ["box_outside"]),
            ((3, 2, np.nan, 4), ["box_outside"]),
        ],
    )
    def test_one_fault_a_box(self, write, box, kinds):
        fields = make_fields(2)
        fields["reBBox"][:, 0] = box
        faults = box_faults(read_annotation(write(fields)))
        assert [fault.kind for fault in faults] == kinds
        if kinds:
            assert "instance 1" in str(faults[0])

    def test_the_corner_of_the_image_is_inside(self):
        mask = np.ones((1, HEIGHT, WIDTH), dtype=bool)
        box = np.array([[0.0, 0.0, WIDTH, HEIGHT]])
        annotation = FrameAnnotation(mask[0] * 77, mask, box, box, [77], [])
        assert box_faults(annotation) == []


class TestVideoset:
    LINES = (
        "-abc_123456,77,0,5,320,568,121,3,0\n",
        "_xyz-456789,36,1.5,2,320,426,24,5,1\n",
    )
    VIDEOS = [
        VideoInfo("-abc_123456", "train", 320, 568, 121, 3),
        VideoInfo("_xyz-456789", "test", 320, 426, 24, 5),
    ]

    @pytest.mark.parametrize(
        "text",
        [
            "".join(LINES),
            "".join(LINES).replace("\n", "\r\n"),
            "VID,label,start_time,end_time,height,width,frames,annotated,usage\n" + "".join(LINES),
            '"VID","label","1st","end","height","width","frames","n","usage"\n' + "".join(LINES),
            '"-abc_123456","77","0","5","320","568","121","3","0"\n' + LINES[1],
            "".join(LINES).replace(",", ", ") + "\n\n",
            "\ufeff" + "".join(LINES),
            "".join(LINES).replace("320", "320.0"),
        ],
    )
    def test_forms_in_circulation(self, tmp_path, text):
        (tmp_path / "videoset.csv").write_text(text, encoding="utf-8", newline="")
        assert read_videoset(tmp_path) == self.VIDEOS

    @pytest.mark.parametrize(
        "line, message",
        [
            ("abc,77,0,5,320,568,121,3", "expected 9 columns, found 8"),
            ("abc,77,0,5,320,568,121,3,0,0", "expected 9 columns, found 10"),
            ("abc,77,0,5,x,568,121,3,0", "height must be a whole number, found 'x'"),
            ("abc,77,0,5,320,,121,3,0", "width must be a whole number, found ''"),
            ("abc,77,0,5,320,568,12.5,3,0", "number of frames must be"),
            ("abc,77,0,5,320,568,nan,3,0", "number of frames must be"),
            ("abc,77,0,5,320,568,121,-3,0", "number of annotated frames must be"),
            ("abc,77,0,5,0,568,121,3,0", "568x0 pixels is empty"),
            ("abc,77,0,5,320,568,121,3,2", "usage must be 0 .* or 1 .*, found 2"),
            (",77,0,5,320,568,121,3,0", "'' cannot be a video id"),
            ("../abc,77,0,5,320,568,121,3,0", "cannot be a video id"),
            ("-abc_123456,77,0,5,320,568,121,3,0", "-abc_123456 is listed twice"),
        ],
    )
    def test_wrong_lines_are_named(self, tmp_path, line, message):
        (tmp_path / "videoset.csv").write_text("".join(self.LINES) + line + "\n")
        with pytest.raises(ReleaseError, match=f"videoset.csv, line 3: .*{message}"):
            read_videoset(tmp_path)
        videos, errors = parse_videoset(tmp_path)
        assert videos == self.VIDEOS
        assert len(errors) == 1

    def test_no_release(self, tmp_path):
        with pytest.raises(ReleaseError, match="No such file.*datasets/README.md"):
            read_videoset(tmp_path / "nowhere")

    @pytest.mark.parametrize("content", [b"", b"\n", b"a,b,c,d,e,f,g,h,i\n"])
    def test_no_video(self, tmp_path, content):
        (tmp_path / "videoset.csv").write_bytes(content)
        with pytest.raises(ReleaseError, match="lists no video"):
            read_videoset(tmp_path)

    def test_no_text(self, tmp_path):
        (tmp_path / "videoset.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ReleaseError, match="not a text file"):
            read_videoset(tmp_path)


def test_paths_count_from_one(tmp_path):
    assert clip_path(tmp_path, "-a") == tmp_path / "clips320H" / "-a.mp4"
    assert annotation_path(tmp_path, "-a", 0) == tmp_path / "Annotations" / "mat/-a/00001.mat"
    assert annotation_path(tmp_path, "-a", 99_999).name == "100000.mat"


def test_annotated_frames_ignore_other_files(tmp_path):
    folder = tmp_path / "Annotations/mat/-a"
    folder.mkdir(parents=True)
    names = ["00020.mat", "00003.mat", "100000.mat", "00000.mat", "7.mat", "._00001.mat"]
    for name in [*names, "00005.png", "frame.mat", "000009.mat"]:
        (folder / name).touch()
    assert annotated_frames(tmp_path, "-a") == [2, 19, 99_999]
    assert annotated_frames(tmp_path, "-b") == []


# ---------------------------------------------------------------- files of strangers


def write_fields(path, **changes):
    """A sound 3 x 2 annotation of one instance, with fields changed; None leaves one out."""
    fields = {
        "reS_id": np.full((3, 2), 77, dtype=np.uint8),
        "reMask": np.ones((1, 3, 2), dtype=np.uint8),
        "id": np.array([[77.0]]),
    }
    with h5py.File(path, "w") as file:
        for name, value in (fields | changes).items():
            if callable(value):
                value(file, name)
            elif value is not None:
                file[name] = value
    return path


def huge(file, name):
    file.create_dataset(name, (2**20, 2**20), dtype="f8", chunks=(64, 64))


def external(file, name):
    file.create_dataset(name, (1, 3, 2), "u1", external=[("/etc/passwd", 0, 6)])


def linked(file, name):
    file[name] = h5py.ExternalLink("other.mat", name)


def virtual(file, name):
    layout = h5py.VirtualLayout((1, 3, 2), "u1")
    layout[...] = h5py.VirtualSource("other.mat", name, (1, 3, 2))
    file.create_virtual_dataset(name, layout)


def not_empty(file, name):
    file[name] = np.array([2**40, 1, 2**40], dtype="u8")
    file[name].attrs["MATLAB_empty"] = 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reMask": huge}, "more than its file can hold"),
        ({"reMask": external}, "stored in another file"),
        ({"reMask": linked}, "another file"),
        ({"reMask": virtual}, "stored in another file"),
        ({"reMask": not_empty}, "called empty and is not"),
        ({"reS_id": np.full((3, 2), 2**32 + 77, dtype=np.uint64)}, "reS_id is not"),
        ({"reS_id": np.zeros((3, 0), dtype=np.uint8)}, "reS_id is not"),
        ({"id": np.array([[2**64 - 1]], dtype=np.uint64)}, "not a whole number"),
        ({"id": np.array([[1e30]])}, "not a whole number"),
        (
            {"reMask": np.zeros((1, 3, 2)), "reBBox": np.array([[np.nan, 1, 2, 2]]).T},
            "empty mask is no box",
        ),
        ({"class": np.zeros((2, 2), dtype="u8") + 2**40}, "not a MATLAB"),
    ],
)
def test_an_annotation_that_claims_what_cannot_be(tmp_path, changes, words):
    assert read_annotation(write_fields(tmp_path / "good.mat")).joint_ids == [77]
    path = write_fields(tmp_path / "bad.mat", **changes)
    with pytest.raises(ReleaseError, match=rf"bad\.mat.*{words}"):
        read_annotation(path)


@pytest.mark.parametrize(
    ("name", "shape", "chunks", "words"),
    [
        ("id", (1, 10**7), True, "10000 are read at most"),
        ("reBBox", (4, 10**7), True, "40000 are read at most"),
        ("class", (1, 10**7), True, "10000 are read at most"),
        ("reS_id", (2**13, 2**12), True, "16777216 are read at most"),
        ("reMask", (2**8, 2**10, 2**10), (1, 2**10, 2**10), "more than 128 MiB"),
        ("id", (1, 1), (1, 2**28), "more than 128 MiB"),
    ],
)
def test_compressed_zeros_are_not_read(tmp_path, monkeypatch, name, shape, chunks, words):
    path = write_fields(tmp_path / "bad.mat")
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file.create_dataset(name, shape, "u1", chunks=chunks, maxshape=[None] * len(shape))
    monkeypatch.setattr(layout, "_MAX_RATIO", 2**30)  # as if the zeros were really there
    with pytest.raises(ReleaseError, match=rf"bad\.mat: {name} .*{words}"):
        read_annotation(path)


@pytest.mark.parametrize(
    "video_id", ["../x", "/etc/passwd", "..", "a/../../x", "..\\x", "C:x", "a\x1b[2J", "x" * 300]
)
def test_a_video_id_never_leads_out_of_the_release(tmp_path, video_id):
    (tmp_path / "videoset.csv").write_text(f'"{video_id}",1,0,1,2,3,5,1,0\n')
    with pytest.raises(ReleaseError, match=r"videoset\.csv, line 1: .* cannot be a video id"):
        read_videoset(tmp_path)


@pytest.mark.parametrize("text", ["a,b,c\n", "only\n", "a,1,0,1,1e300,3,5,1,0\n"])
def test_a_wrong_first_line_is_no_header(tmp_path, text):
    (tmp_path / "videoset.csv").write_text(text)
    with pytest.raises(ReleaseError, match="line 1"):
        read_videoset(tmp_path)
