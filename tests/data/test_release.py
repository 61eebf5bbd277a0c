"""Records of a release against its files, and what a faulty release leads to."""

import os
import shutil

import h5py
import numpy as np
import pytest
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from a2d_d2.data.release import ReleaseError, load_release, read_videoset, split_videos
from a2d_d2.data.release_writer import write_annotation
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()


@pytest.fixture
def release(tiny_release, tmp_path):
    """A copy of the generated release that a test may change."""
    return shutil.copytree(tiny_release, tmp_path / "A2D")


def first_annotation(root, split):
    return load_release(root, split, A2D, progress=False)[0]["label_map_file"]


def set_ids(path, ids):
    with h5py.File(path, "r+") as file:
        del file["id"]
        file["id"] = np.array([ids], dtype=np.float64)


def number_of_instances(path):
    with h5py.File(path, "r") as file:
        return file["id"].size


@pytest.mark.parametrize("split", ["train", "test"])
def test_records_hold_what_the_files_hold(tiny_release, split):
    records = load_release(tiny_release, split, A2D, progress=False)
    lines = [line.split(",") for line in (tiny_release / "videoset.csv").read_text().splitlines()]
    videos = {line[0] for line in lines if line[8] == {"train": "0", "test": "1"}[split]}
    files = sorted(
        path for video in videos for path in (tiny_release / "Annotations/mat" / video).iterdir()
    )
    assert [record["label_map_file"] for record in records] == [str(path) for path in files]
    assert sum(len(record["annotations"]) for record in records) > len(records) // 2
    for record, path in zip(records, files, strict=True):
        with h5py.File(path, "r") as file:
            ids = file["id"][()].ravel()
            masks = file["reMask"][()].reshape(len(ids), 80, 64).transpose(0, 2, 1)
            boxes = file["reBBox"][()].T
        video_id, number = path.parent.name, int(path.stem)
        assert record["video_id"] == video_id
        assert record["frame_index"] == number - 1
        assert record["image_id"] == f"{video_id}/{path.stem}"
        assert record["file_name"] == str(tiny_release / "clips320H" / f"{video_id}.mp4")
        assert (record["height"], record["width"], record["num_frames"]) == (64, 80, 12)
        assert record["annotated_frames"] == [
            int(other.stem) - 1 for other in files if other.parent == path.parent
        ]
        annotations = record["annotations"]
        assert [10 * a["category_id"] + a["action_id"] + 11 for a in annotations] == ids.tolist()
        for annotation, mask, box in zip(annotations, masks, boxes, strict=True):
            assert annotation["bbox_mode"] == BoxMode.XYXY_ABS
            assert annotation["bbox"] == [box[0] - 1, box[1] - 1, box[2], box[3]]
            assert annotation["iscrowd"] == 0
            assert isinstance(annotation["segmentation"]["counts"], str)
            assert np.array_equal(mask_util.decode(annotation["segmentation"]), mask)


def test_both_splits_together_are_the_release(tiny_release):
    records = [
        record
        for split in ("train", "test")
        for record in load_release(tiny_release, split, A2D, progress=False)
    ]
    assert len({record["image_id"] for record in records}) == len(records)
    assert len(records) == len(list(tiny_release.glob("Annotations/mat/*/*.mat")))


def test_a_frame_without_instances_is_a_record(release):
    path = first_annotation(release, "test")
    write_annotation(path, np.zeros((64, 80)), np.zeros((0, 64, 80)), [], A2D)
    record = load_release(release, "test", A2D, progress=False)[0]
    assert record["label_map_file"] == path
    assert record["annotations"] == []


def test_train_split_leaves_faults_out_with_one_warning(release, package_log):
    path = first_annotation(release, "train")
    before = load_release(release, "train", A2D, progress=False)
    video = before[0]["video_id"]
    set_ids(path, [14] * number_of_instances(path))  # no adult flies
    empty = before[-1]["video_id"]
    shutil.rmtree(release / "Annotations/mat" / empty)
    package_log.clear()
    after = load_release(release, "train", A2D, progress=False)
    assert [record["image_id"] for record in after] == [
        record["image_id"] for record in before[1:] if record["video_id"] != empty
    ]
    rest = next(record for record in after if record["video_id"] == video)
    assert rest["annotated_frames"] == before[0]["annotated_frames"][1:]
    warnings = [record.message for record in package_log.records]
    assert len(warnings) == 1
    assert "2 annotations of the train split" in warnings[0]
    assert f"{path}: 14 is not the id of a valid pair of A2D" in warnings[0]
    assert f"python tools/check_dataset.py --root {release}" in warnings[0]


@pytest.mark.parametrize("fault", ["truncated", "more masks", "invalid id", "empty mask", "none"])
def test_test_split_refuses_faults(release, fault):
    path = first_annotation(release, "test")
    count = number_of_instances(path)
    if fault == "truncated":
        with open(path, "r+b") as stream:
            stream.truncate(700)
        message = "cut off"
    elif fault == "more masks":
        set_ids(path, [77] * (count - 1))
        message = f"{count} masks but {count - 1} ids"
    elif fault == "invalid id":
        set_ids(path, [93] * count)
        message = "93 is not the id of a valid pair"
    elif fault == "empty mask":
        with h5py.File(path, "r+") as file:
            file["reMask"][...] = 0
            del file["reBBox"]
        message = "mask of instance 1 is empty"
    else:
        path = os.path.dirname(path)
        shutil.rmtree(path)
        message = "no annotation"
    with pytest.raises(ReleaseError, match=message) as error:
        load_release(release, "test", A2D, progress=False)
    assert path in str(error.value)
    assert "1 annotations of the test split" in str(error.value)
    assert "tools/check_dataset.py" in str(error.value)
    assert load_release(release, "train", A2D, progress=False)


def test_no_sound_annotation(release):
    for path in (release / "Annotations/mat").glob("*/*.mat"):
        path.write_bytes(b"")
    with pytest.raises(ReleaseError, match="of the train split .* no other is there"):
        load_release(release, "train", A2D, progress=False)


def test_stored_boxes_are_checked_but_not_used(release, package_log):
    path = first_annotation(release, "test")
    before = load_release(release, "test", A2D, progress=False)
    with h5py.File(path, "r+") as file:
        file["reBBox"][:, 0] = [1, 1, 80, 64]
    package_log.clear()
    assert load_release(release, "test", A2D, progress=False) == before
    assert [record.message for record in package_log.records] == [
        f"1 stored boxes of the test split of {release} disagree with their masks, whose boxes are "
        f"used instead. List all with: python tools/check_dataset.py --root {release}"
    ]


def test_the_label_space_decides_what_is_valid(release):
    path = first_annotation(release, "test")
    space = LabelSpace.from_dict(A2D.to_dict() | {"valid": {"adult": ["none"]}, "name": "strict"})
    set_ids(path, [11] * number_of_instances(path))
    with pytest.raises(ReleaseError, match="11 is not the id of a valid pair of strict"):
        load_release(release, "test", space, progress=False)


def test_mistakes_of_the_caller(tiny_release, tmp_path):
    with pytest.raises(ValueError, match="split must be train, val or test, not 'dev'"):
        load_release(tiny_release, "dev", A2D)
    with pytest.raises(ReleaseError, match="cannot read .*videoset.csv"):
        load_release(tmp_path, "train", A2D)
    (tmp_path / "videoset.csv").write_text("a,77,0,1,64,80,12,3,0\n")
    with pytest.raises(ReleaseError, match="lists no test video"):
        load_release(tmp_path, "test", A2D)


# ---------------------------------------------------------------- held-out training videos


def test_training_videos_are_held_out(tiny_release):
    def videos(split, hold_out):
        records = load_release(tiny_release, split, A2D, progress=False, hold_out=hold_out)
        return sorted({record["video_id"] for record in records})

    everything = videos("train", 0)
    assert len(everything) == 4
    for hold_out in (2, 3, 4, 20):
        train, val = videos("train", hold_out), videos("val", hold_out)
        assert val == everything[::hold_out]
        assert not set(train) & set(val)
        assert sorted(train + val) == everything
        assert videos("test", hold_out) == videos("test", 0)


def test_the_order_of_the_list_does_not_matter(tiny_release):
    videos = read_videoset(tiny_release)
    for split in ("train", "val", "test"):
        assert split_videos(videos, split, 3) == split_videos(videos[::-1], split, 3)


@pytest.mark.parametrize(
    ("split", "hold_out", "words"),
    [("val", 0, "is 0, so no"), ("train", 1, "at least 2"), ("val", -2, "at least 2")],
)
def test_hold_out_that_cannot_be(tiny_release, split, hold_out, words):
    with pytest.raises(ValueError, match=f"DATASETS.HOLD_OUT is.*{words}|{words}"):
        load_release(tiny_release, split, A2D, hold_out=hold_out)
