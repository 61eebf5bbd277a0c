"""tools/segment_predictions.py and the function behind it."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from a2d_d2.data.clip_cache import ClipCache, prepare_clips
from a2d_d2.data.layout import annotated_frames, clip_path, read_annotation, read_videoset
from a2d_d2.data.release import load_release
from a2d_d2.data.video import read_frames
from a2d_d2.evaluation.predictions import decode_mask, encode_mask
from a2d_d2.evaluation.score_files import evaluate_files
from a2d_d2.label_space import LabelSpace
from a2d_d2.segmenters import GrabCutSegmenter, files
from a2d_d2.segmenters.files import SegmentedFile, segment_predictions

A2D = LabelSpace.a2d()
TOOL = Path(__file__).parents[2] / "tools" / "segment_predictions.py"


@pytest.fixture
def index_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("A2D_D2_CACHE", str(tmp_path / "index"))


@pytest.fixture
def entries(tiny_release, index_elsewhere):
    """The truth of the test split's frames as predictions, in no order, the last one unsure."""
    found = []
    for record in load_release(tiny_release, "test", A2D, progress=False):
        annotation = read_annotation(record["label_map_file"])
        for box, joint_id in zip(annotation.boxes, annotation.joint_ids, strict=True):
            actor, action = A2D.split_id(joint_id)
            x1, y1, x2, y2 = box.tolist()
            found.append(
                {
                    "video_id": record["video_id"],
                    "frame": record["frame_index"] + 1,
                    "actor": A2D.actors[actor],
                    "score": 0.9,
                    "action_scores": {A2D.actions[action]: 0.8},
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": encode_mask(np.ones((64, 80), bool)),
                    "note": len(found),
                }
            )
    order = np.random.default_rng(0).permutation(len(found))
    found = [found[i] for i in order]
    found[-1]["score"] = 0.01
    del found[0]["segmentation"]
    return found


@pytest.fixture
def run(tiny_release, entries, tmp_path):
    """run(**options): what the function gives, and the entries that it wrote."""

    def run(given=entries, root=tiny_release, **options):
        (tmp_path / "p.json").write_text(json.dumps(given))
        output = tmp_path / "q.json"
        options = {"split": "test", "workers": 0, "progress": False} | options
        split = options.pop("split")
        done = segment_predictions(root, split, tmp_path / "p.json", output, A2D, **options)
        return done, json.loads(output.read_text())

    return run


def test_masks_come_from_the_frames(tiny_release, entries, run):
    done, found = run()
    videos = {entry["video_id"] for entry in entries}
    assert done == SegmentedFile(len(entries), len(entries) - 1, len(videos))
    assert [e | {"segmentation": 0} for e in found] == [e | {"segmentation": 0} for e in entries]
    assert found[-1]["segmentation"] is None
    for entry in found[:-1]:
        index = entry["frame"] - 1
        frame = read_frames(clip_path(tiny_release, entry["video_id"]), [index])[index]
        x, y, w, h = entry["bbox"]
        (mask,) = GrabCutSegmenter()(frame, np.array([[x, y, x + w, y + h]]))
        assert (decode_mask(entry["segmentation"]) == mask).all()


def test_the_result_can_be_scored(tiny_release, entries, run, tmp_path):
    for entry in entries:
        entry["segmentation"] = None
    run()
    scores = evaluate_files(
        tiny_release, "test", A2D, predictions=tmp_path / "q.json", progress=False
    )
    assert scores["segmentation"]["joint"]["mIoU"] > 20


def test_min_score_and_own_segmenter(entries, run, tmp_path, monkeypatch):
    (tmp_path / "filled_boxes.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        "    return lambda image, boxes: np.ones((len(boxes), *image.shape[:2]), bool)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done, found = run(segmenter="filled_boxes:make", min_score=0.0)
    assert done.num_masks == len(entries)
    for entry in found:
        x, y, w, h = (int(v) for v in entry["bbox"])
        expected = np.zeros((64, 80), bool)
        expected[y : y + h, x : x + w] = True
        assert (decode_mask(entry["segmentation"]) == expected).all()
    assert run(min_score=1.0)[0].num_masks == 0


def test_processes_do_not_change_the_masks(run):
    assert run(workers=2) == run(workers=0)


def test_no_entries(run):
    assert run(given=[]) == (SegmentedFile(0, 0, 0), [])


def test_frames_without_annotation_are_segmented_too(tiny_release, entries, run):
    video_id = entries[0]["video_id"]
    annotated = annotated_frames(tiny_release, video_id)
    index = next(i for i in range(12) if i not in annotated)
    _, (found,) = run(given=[entries[0] | {"frame": index + 1}])
    assert found["segmentation"]["size"] == [64, 80]


# ---------------------------------------------------------------- where frames come from


@pytest.fixture
def decodes(monkeypatch):
    """The list of (video, frames) that are decoded while the test runs."""
    calls = []

    def spy(path, indices):
        calls.append((Path(path).stem, sorted(indices)))
        return select_frames(path, indices)

    select_frames = files.select_frames
    monkeypatch.setattr(files, "select_frames", spy)
    return calls


def test_each_video_is_decoded_once(entries, run, decodes):
    run()
    frames = {}
    for entry in entries:
        frames.setdefault(entry["video_id"], set()).add(entry["frame"] - 1)
    assert decodes == [(video_id, sorted(frames[video_id])) for video_id in sorted(frames)]


@pytest.mark.parametrize("lossless", [True, False])
def test_a_cache_saves_decoding(tiny_release, entries, run, decodes, tmp_path, caplog, lossless):
    _, on_the_fly = run()
    cache = tmp_path / "cache"
    prepare_clips(tiny_release, cache, length=1, lossless=lossless, workers=1, progress=False)
    decodes.clear()
    _, found = run(cache=cache)
    assert not decodes and not caplog.records
    if lossless:
        assert found == on_the_fly
        return
    for entry in found[:-1]:  # of the cached pixels, exactly
        index = entry["frame"] - 1
        clip = clip_path(tiny_release, entry["video_id"])
        frame, _ = ClipCache(cache, None).read(clip, entry["video_id"], [index])[index]
        x, y, w, h = entry["bbox"]
        (mask,) = GrabCutSegmenter()(frame, np.array([[x, y, x + w, y + h]]))
        assert (decode_mask(entry["segmentation"]) == mask).all()


def test_what_the_cache_lacks_is_decoded_and_said(tiny_release, run, decodes, tmp_path, caplog):
    cache = tmp_path / "cache"
    prepare_clips(tiny_release, cache, length=1, lossless=True, workers=1, progress=False)
    gone = [v.video_id for v in read_videoset(tiny_release) if v.split == "test"][0]
    (cache / "frames-png" / f"{gone}.zip").unlink()
    _, found = run(cache=cache)
    assert [video_id for video_id, _ in decodes] == [gone]
    assert f"{cache} lacks frames of 1 of 2 videos" in caplog.text
    assert run()[1] == found


# ---------------------------------------------------------------- the command line and mistakes


def run_tool(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOL), run_name="__main__")
    return stopped.value.code, capsys.readouterr()


def test_the_tool(tiny_release, entries, run, tmp_path):
    """In a process of its own, from another folder, with two workers."""
    _, expected = run(min_score=0.5)
    options = ["--root", tiny_release, "--split=test", "--predictions=p.json", "--min-score=0.5"]
    done = subprocess.run(
        [sys.executable, TOOL, *options, "--output=new/q.json", "--workers=2"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TOOL.parents[1])},
    )
    assert json.loads((tmp_path / "new" / "q.json").read_text()) == expected
    count = len(entries)
    assert f"new/q.json: {count - 1} of {count} entries of 2 videos have a mask" in done.stdout
    assert "segmenting: 100%" in done.stderr


def damage(path):
    path.write_bytes(path.read_bytes()[:100])


def cut_short(path):
    """A clip of one frame in place of its own."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (80, 64))
    writer.write(np.zeros((64, 80, 3), np.uint8))
    writer.release()


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"video_id": "nobody"}, [], ["p.json: entry 2", "unknown video nobody"]),
        ({"video_id": "{train}"}, [], ["p.json: entry 2", "of the train split, not of test"]),
        ({"frame": 40}, [], ["p.json: entry 2", "{video}.mp4 ends before frame 40"]),
        ({"bbox": [1, 2, 3]}, [], ["p.json: entry 2", "{video}", "bbox must be"]),
        ({"actor": "horse"}, [], ["p.json: entry 2", "{video}", "horse"]),
        ({"segmentation": "x"}, [], ["p.json: entry 2", "{video}", "segmentation"]),
        ({}, ["--segmenter", "SharpMask"], ["no segmenter 'SharpMask'", "GrabCutSegmenter"]),
        ({}, ["--cache", "no/such"], ["no clip cache no/such", "prepare_clips.py"]),
        ({}, ["--label-space", "no.yaml"], ["no.yaml"]),
        ({}, ["--predictions", "gone.json"], ["cannot read predictions gone.json"]),
        ({}, ["--root", "nowhere"], ["nowhere", "videoset.csv"]),
        (damage, [], ["cannot decode", "{video}.mp4"]),
        (cut_short, [], ["p.json: entry", "{video}.mp4 ends before frame"]),
        (Path.unlink, [], ["no video", "{video}.mp4"]),
    ],
)
def test_a_mistake_is_one_line(
    tiny_release, entries, tmp_path, monkeypatch, capsys, change, options, words
):
    root = tmp_path / "A2D"
    shutil.copytree(tiny_release, root, ignore=shutil.ignore_patterns("Annotations"))
    names = {
        "video": entries[1]["video_id"],
        "train": next(v.video_id for v in read_videoset(root) if v.split == "train"),
    }
    if callable(change):
        change(clip_path(root, names["video"]))
    else:
        filled = {k: v.format(**names) if isinstance(v, str) else v for k, v in change.items()}
        entries[1] = entries[1] | filled
    predictions = tmp_path / "p.json"
    predictions.write_text(json.dumps(entries))
    output = tmp_path / "q.json"
    status, printed = run_tool(
        monkeypatch,
        capsys,
        *("--root", root, "--split", "test", "--predictions", predictions, "--output", output),
        *("--workers", 2 if change is damage else 0, *options),
    )
    assert status == 2
    last = printed.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word.format(**names) in last, last
    assert not output.exists()
