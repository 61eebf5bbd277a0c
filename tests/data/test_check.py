"""Every fault planted in a sound release is found, in that video alone, under its kind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from a2d_d2.data.check import check_release
from a2d_d2.data.layout import read_videoset
from a2d_d2.data.release import ReleaseError
from a2d_d2.data.release_writer import write_annotation
from a2d_d2.label_space import LabelSpace

A2D = LabelSpace.a2d()
TOOL = Path(__file__).parents[2] / "tools/check_dataset.py"
HEIGHT, WIDTH, NUM_FRAMES = 64, 80, 12


@pytest.fixture
def release(tiny_release, tmp_path):
    """Three videos of the generated release, the second one with one frame of known content.

    That video is ``release.victim``; its annotation ``release.file`` holds a dog-running at rows
    10-29 and columns 20-49 and a ball-rolling at rows 40-44 and columns 5-9, all 0-based.
    """
    root = shutil.copytree(tiny_release, tmp_path / "A2D")
    lines = (root / "videoset.csv").read_text().splitlines(keepends=True)
    (root / "videoset.csv").write_text("".join(lines[:3]))
    victim = read_videoset(root)[1].video_id
    folder = root / "Annotations/mat" / victim
    shutil.rmtree(folder)
    masks = np.zeros((2, HEIGHT, WIDTH), dtype=bool)
    masks[0, 10:30, 20:50] = True
    masks[1, 40:45, 5:10] = True
    write_annotation(folder / "00007.mat", masks[0] * 77 + masks[1] * 36, masks, [77, 36], A2D)
    release = Release(root, victim)
    release.edit_line(lambda line: [*line[:7], "1", line[8]])
    return release


class Release:
    def __init__(self, root, victim):
        self.root, self.victim = root, victim
        self.clip = root / "clips320H" / f"{victim}.mp4"
        self.folder = root / "Annotations/mat" / victim
        self.file = self.folder / "00007.mat"

    def edit_line(self, change):
        """Replaces the columns of the victim's line in videoset.csv by change(columns)."""
        path = self.root / "videoset.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        lines = [change(line) if line[0] == self.victim else line for line in lines]
        path.write_text("".join(",".join(line) + "\n" for line in lines))

    def edit_field(self, name, value):
        """Replaces a field of the annotation."""
        with h5py.File(self.file, "r+") as file:
            del file[name]
            file[name] = value

    def write_clip(self, num_frames, height=HEIGHT, width=WIDTH):
        fourcc = cv2.VideoWriter_fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self.clip), fourcc, 24, (width, height))
        for k in range(num_frames):
            writer.write(np.full((height, width, 3), 10 * k, dtype=np.uint8))
        writer.release()

    def problems(self):
        """(frame, kind) of the problems, once it is sure that all belong to the victim."""
        report = check_release(self.root, A2D, workers=1, progress=False)
        assert {problem["video_id"] for problem in report["problems"]} <= {self.victim}
        for problem in report["problems"]:
            assert set(problem) == {"video_id", "frame", "kind", "message"}
            assert str(self.root) in problem["message"]
        return [(problem["frame"], problem["kind"]) for problem in report["problems"]]


def count_on_disk(root):
    """The counts of a release, read with h5py and plain text alone."""
    lines = [line.split(",") for line in (root / "videoset.csv").read_text().splitlines()]
    counts = {"videos": {}, "annotated_frames": {}, "instances": {}}
    for split, usage in (("train", "0"), ("test", "1")):
        videos = [line[0] for line in lines if line[8] == usage]
        files = [p for v in videos for p in (root / "Annotations/mat" / v).iterdir()]
        instances = 0
        for path in files:
            with h5py.File(path, "r") as file:
                instances += file["id"].size
        counts["videos"][split] = len(videos)
        counts["annotated_frames"][split] = len(files)
        counts["instances"][split] = instances
    return counts


def test_sound_release(tiny_release):
    report = check_release(tiny_release, A2D, workers=2, progress=False)
    assert report == {**count_on_disk(tiny_release), "problems": []}
    assert report["videos"] == {"train": 4, "test": 2}


def test_known_frame_is_sound(release):
    assert release.problems() == []


# ------------------------------------------------------------------ clips


def test_missing_clip(release):
    release.clip.unlink()
    assert release.problems() == [(None, "clip_missing")]


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_clip_that_is_none(release, content):
    release.clip.write_bytes(content)
    assert release.problems() == [(None, "clip_truncated")]


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_clip_cut_off_before_its_table_of_frames(release, share):
    content = release.clip.read_bytes()
    release.clip.write_bytes(content[: int(share * len(content))])
    assert release.problems() == [(None, "clip_truncated")]


@pytest.mark.parametrize("lost_bytes", [10, 2000])
def test_clip_cut_off_after_its_table_of_frames(release, lost_bytes):
    """A file written for streaming has its table in front, and then it opens and plays."""
    content = release.clip.read_bytes()
    boxes, position = {}, 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        boxes[content[position + 4 : position + 8]] = (position, content[position:][:size])
        position += size
    (start, data), (_, table) = boxes[b"mdat"], boxes[b"moov"]
    head = boxes[b"ftyp"][1]
    table = bytearray(table)
    place = table.index(b"stco") + 8  # after the name, version and flags: count, then offsets
    for k in range(int.from_bytes(table[place : place + 4], "big")):
        entry = slice(place + 4 + 4 * k, place + 8 + 4 * k)
        offset = int.from_bytes(table[entry], "big") - start + len(head) + len(table)
        table[entry] = offset.to_bytes(4, "big")
    streaming = head + bytes(table) + data
    release.clip.write_bytes(streaming)
    assert release.problems() == []
    release.clip.write_bytes(streaming[:-lost_bytes])
    assert release.problems()[0] == (None, "clip_truncated")


def test_clip_shorter_than_listed(release):
    release.write_clip(NUM_FRAMES - 2)
    assert release.problems() == [(None, "clip_truncated")]
    release.write_clip(6)
    assert release.problems() == [(None, "clip_truncated"), (7, "frame_beyond_clip")]


def test_whole_clip_of_which_the_list_counts_one_frame_more(release):
    release.write_clip(NUM_FRAMES - 1)
    assert release.problems() == [(None, "count_mismatch")]


def test_clip_longer_than_listed(release):
    release.write_clip(NUM_FRAMES + 2)
    assert release.problems() == [(None, "count_mismatch")]


def test_clip_of_another_size(release):
    release.write_clip(NUM_FRAMES, height=48, width=96)
    assert release.problems() == [(None, "size_mismatch"), (7, "size_mismatch")]


def test_annotation_beyond_the_clip(release):
    release.file.rename(release.folder / "00013.mat")
    assert release.problems() == [(13, "frame_beyond_clip")]
    (release.folder / "00013.mat").rename(release.folder / "00012.mat")
    assert release.problems() == []


# ------------------------------------------------------------------ annotations


def test_listed_video_without_annotations(release):
    release.file.unlink()
    assert release.problems() == [(None, "no_annotations")]
    release.folder.rmdir()
    assert release.problems() == [(None, "no_annotations")]


def test_number_of_annotations(release):
    release.edit_line(lambda line: [*line[:7], "3", line[8]])
    assert release.problems() == [(None, "count_mismatch")]


@pytest.mark.parametrize("name", ["00000.mat", "7.mat", "frame.mat"])
def test_annotation_that_no_frame_claims(release, name):
    shutil.copy(release.file, release.folder / name)
    assert release.problems() == [(None, "file_name")]


def test_system_files_are_no_annotations(release):
    (release.folder / "._00007.mat").touch()
    assert release.problems() == []


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.95])
def test_truncated_annotation(release, share):
    content = release.file.read_bytes()
    release.file.write_bytes(content[: int(share * len(content))])
    assert release.problems() == [(7, "annotation_unreadable")]


def test_missing_field(release):
    with h5py.File(release.file, "r+") as file:
        del file["reMask"]
    assert release.problems() == [(7, "annotation_unreadable")]


def test_more_masks_than_ids(release):
    release.edit_field("id", np.array([[77.0]]))
    assert release.problems() == [(7, "masks_exceed_ids")]


def test_more_ids_than_masks(release):
    release.edit_field("id", np.array([[77.0, 36.0, 11.0]]))
    assert release.problems() == [(7, "ids_exceed_masks")]


@pytest.mark.parametrize("joint_id", [0, 10, 14, 31, 80, 99])
def test_id_outside_the_valid_pairs(release, joint_id):
    release.edit_field("id", np.array([[77.0, joint_id]]))
    assert release.problems() == [(7, "invalid_id")]


def test_label_map_outside_the_valid_pairs(release):
    with h5py.File(release.file, "r+") as file:
        file["reS_id"][70:, 50:] = 14
    assert release.problems() == [(7, "invalid_id")]


def test_ids_in_another_order_than_the_masks(release):
    release.edit_field("id", np.array([[36.0, 77.0]]))
    assert release.problems() == [(7, "label_mismatch"), (7, "label_mismatch")]


def test_repeated_id_that_hides_another(release):
    release.edit_field("id", np.array([[77.0, 77.0]]))
    assert release.problems() == [(7, "label_mismatch")]


def test_two_instances_of_one_class_are_sound(release):
    release.edit_field("id", np.array([[77.0, 77.0]]))
    with h5py.File(release.file, "r+") as file:
        label_map = file["reS_id"][()]
        label_map[label_map == 36] = 77
        file["reS_id"][...] = label_map
    assert release.problems() == []


def test_overlap_is_sound(release):
    """Where masks overlap the label map can show one of the two only."""
    with h5py.File(release.file, "r+") as file:
        file["reMask"][1] = file["reMask"][0]
        file["reBBox"][:, 1] = file["reBBox"][:, 0]
    assert release.problems() == []


@pytest.mark.parametrize(
    "box, kind",
    [
        ((0, 11, 50, 30), "box_outside"),
        ((21, 0, 50, 30), "box_outside"),
        ((21, 11, 81, 30), "box_outside"),
        ((21, 11, 50, 65), "box_outside"),
        ((21, 11, 60, 30), "box_mask_mismatch"),
        ((26, 16, 55, 35), "box_mask_mismatch"),
        ((50, 30, 21, 11), "box_outside"),
    ],
)
def test_wrong_box(release, box, kind):
    with h5py.File(release.file, "r+") as file:
        assert file["reBBox"][:, 0].tolist() == [21, 11, 50, 30]
        file["reBBox"][:, 0] = box
    assert release.problems() == [(7, kind)]


def test_empty_mask(release):
    with h5py.File(release.file, "r+") as file:
        file["reMask"][1] = 0
    assert release.problems() == [(7, "mask_empty")]


def test_class_names_that_disagree_in_number(release):
    with h5py.File(release.file, "r+") as file:
        names = file["class"][:, :1]
        del file["class"]
        file.create_dataset("class", data=names, dtype=h5py.ref_dtype)
    assert release.problems() == [(7, "class_mismatch")]


# ------------------------------------------------------------------ videoset.csv and the tool


def test_wrong_line_of_the_list(release):
    with open(release.root / "videoset.csv", "a") as stream:
        stream.write("abc,1,2\n")
    report = check_release(release.root, A2D, workers=1, progress=False)
    assert sum(report["videos"].values()) == 3
    (problem,) = report["problems"]
    assert (problem["video_id"], problem["frame"], problem["kind"]) == (None, None, "videoset")
    assert "line 4: expected 9 columns, found 3" in problem["message"]


def test_other_classes(release):
    """With fewer valid pairs, only what uses the others is a problem."""
    valid = {actor: ["none"] for actor in A2D.actors}
    space = LabelSpace.from_dict(A2D.to_dict() | {"valid": valid})
    report = check_release(release.root, space, workers=1, progress=False)
    assert {p["kind"] for p in report["problems"]} == {"invalid_id"}


def test_no_release(tmp_path):
    with pytest.raises(ReleaseError, match=r"cannot read .*videoset\.csv"):
        check_release(tmp_path, A2D)


def run_tool(*arguments):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tool(release, tmp_path):
    result = run_tool("--root", release.root, "--json", tmp_path / "report.json", "--workers", "1")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == {**count_on_disk(release.root), "problems": []}
    assert "sound" in result.stdout

    release.clip.write_bytes(release.clip.read_bytes()[:3000])
    release.edit_field("id", np.array([[77.0]]))
    result = run_tool("--root", release.root, "--json", tmp_path / "report.json", "--workers", "1")
    assert result.returncode == 1
    report = json.loads((tmp_path / "report.json").read_text())
    kinds = {problem["kind"] for problem in report["problems"]}
    assert {"clip_truncated", "masks_exceed_ids"} <= kinds
    for problem in report["problems"]:
        assert problem["message"] in result.stdout
    assert f"{release.victim}/00007 masks_exceed_ids" in result.stdout
    assert "Traceback" not in result.stderr
    assert "moov" not in result.stderr  # FFmpeg's own words about the clip


def test_tool_without_a_release(tmp_path):
    result = run_tool("--root", tmp_path, "--json", tmp_path / "report.json")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "videoset.csv" in result.stderr
    assert not (tmp_path / "report.json").exists()


def test_example_of_own_data(tmp_path):
    """The files that datasets/README.md shows make a sound release."""
    text = (TOOL.parents[1] / "datasets/README.md").read_text()
    (tmp_path / "classes.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    (tmp_path / "make_release.py").write_text(text.split("```python\n")[1].split("```")[0])
    subprocess.run([sys.executable, "make_release.py"], cwd=tmp_path, check=True)
    space = LabelSpace.load(tmp_path / "classes.yaml")
    assert space.pair_name(*space.split_id(12)) == "horse-trotting"
    report = check_release(tmp_path / "stable", space, workers=1, progress=False)
    assert report["problems"] == []
    assert report["instances"] == {"train": 3, "test": 3}
