"""The command: what it writes, what it survives. The network is stood in for by a walking dog."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from a2d_d2.config import setup_cfg
from a2d_d2.data.video import iter_frames, undecodable
from a2d_d2.evaluation.predictions import decode_mask
from a2d_d2.inference import predict_video as module
from a2d_d2.inference.predict_video import plan_jobs, predict_videos
from a2d_d2.inference.source import VideoSource, expand_inputs
from a2d_d2.inference.tracks import Segment, Track, Tracker, track_color
from a2d_d2.inference.writer import choose_output
from a2d_d2.label_space import LabelSpace

SCRIPT = Path(__file__).with_name("run_predict_video.py")
ROOT = SCRIPT.parents[2]
CONFIG = ROOT / "configs/synthetic/R18_FPN.yaml"
A2D = LabelSpace.a2d()
SETTINGS = {"score_threshold": 0.7}


def load_script():
    spec = importlib.util.spec_from_file_location("run_predict_video", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


SCRIPT_MODULE = load_script()
WalkingDog, load_tool = SCRIPT_MODULE.WalkingDog, SCRIPT_MODULE.load_tool


def run(inputs, folder, output="webm", predictor=None, span=(0.0, None), **options):
    """Predicts videos in this process; gives their problems."""
    output = choose_output(output) if output else None
    sources = expand_inputs([str(path) for path in inputs], start=span[0], end=span[1])
    return predict_videos(
        plan_jobs(sources, folder, output),
        predictor or WalkingDog(),
        lambda: Tracker(A2D, smoothing=1),
        A2D,
        output,
        **{"settings": SETTINGS, "progress": False} | options,
    )


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_tracks(path):
    return json.loads(path.read_text())


def no_leftovers(folder):
    return not [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]


@pytest.fixture
def clip(make_video, tmp_path):
    return make_video(tmp_path / "clip.mp4", 20, fps=20)


# ---------------------------------------------------------------- results of one video


def test_one_line_for_each_frame(clip, tmp_path):
    assert run([clip], tmp_path / "out") == []
    lines = read_lines(tmp_path / "out/clip.jsonl")
    assert [line["frame"] for line in lines] == list(range(1, 21))
    np.testing.assert_allclose([line["time"] for line in lines], np.arange(20) / 20)
    (instance,) = lines[3]["instances"]
    assert list(instance) == [
        *("track_id", "actor", "action", "score", "action_scores", "bbox", "segmentation")
    ]
    mask = decode_mask(instance.pop("segmentation"))
    assert mask.shape == (32, 48) and mask[8:20, 7:23].all() and mask.sum() == 12 * 16
    assert instance == {
        "track_id": 0,
        "actor": "dog",
        "action": "walking",
        "score": 0.9,
        "action_scores": [0, 0, 0, 0, 0, 0, 0, 0.5, 0],
        "bbox": [7, 8, 16, 12],
    }
    assert lines[10]["instances"][0]["action"] == "running"


def test_timeline_of_a_track(clip, tmp_path):
    run([clip], tmp_path)
    record = read_tracks(tmp_path / "clip.tracks.json")
    assert record["complete"] and record["problem"] is None
    assert (record["frames"], record["fps"], record["output"]) == (20, 20, "clip.webm")
    assert record["settings"] == SETTINGS
    assert record["source"]["name"] == str(clip)
    (track,) = record["tracks"]
    assert track["segments"] == [
        {
            "from": 1,
            "to": 10,
            "from_time": 0,
            "to_time": 0.45,
            "action": "walking",
            "score": 0.45,
        },
        {
            "from": 11,
            "to": 20,
            "from_time": 0.5,
            "to_time": 0.95,
            "action": "running",
            "score": 0.45,
        },
    ]
    del track["segments"]
    assert track == {
        "track_id": 0,
        "actor": "dog",
        "from": 1,
        "to": 20,
        "from_time": 0,
        "to_time": 0.95,
        "frames": 20,
        "score": 0.9,
    }


def test_video_shows_the_instances(clip, tmp_path):
    run([clip], tmp_path)
    frames = list(iter_frames(tmp_path / "clip.webm"))
    scale = 640 // 48
    assert len(frames) == 20 and frames[0].shape == (32 * scale, 48 * scale + 48 * scale % 2, 3)
    walking = A2D.color(A2D.joint_id(A2D.actor_index("dog"), A2D.action_index("walking")))
    for i in (0, 9, 19):
        inside = frames[i][12 * scale : 14 * scale, (8 + i) * scale : (10 + i) * scale]
        outside = frames[i][-3 * scale :, -3 * scale :]
        assert np.ptp(outside.mean(axis=(0, 1))) < 8  # grey, as it was
        assert np.ptp(inside.mean(axis=(0, 1))) > 20  # coloured
    mixed = 0.55 * (10 + 10 * 9) + 0.45 * np.array(walking[::-1])
    inside = frames[9][12 * scale : 14 * scale, 17 * scale : 19 * scale]
    np.testing.assert_allclose(inside.mean(axis=(0, 1)), mixed, atol=12)
    # The left edge of the box is in the colour of the identity.
    edge = frames[9][13 * scale : 15 * scale, 13 * scale].mean(axis=0)
    np.testing.assert_allclose(edge, track_color(0)[::-1], atol=70)


def test_page_refers_to_the_video(clip, tmp_path):
    run([clip], tmp_path)
    page = (tmp_path / "clip.html").read_text()
    assert 'src="./clip.webm"' in page and page.count('class="lane"') == 1
    assert 'data-start="0.500000" data-end="1.000000"' in page
    assert "20 frames, from 0.00 s to 0.95 s; 1 track." in page


def test_page_of_many_tracks_shows_the_longest(monkeypatch):
    def track(number, frames, segments):
        parts = tuple(Segment(i, i, 0, 0.5) for i in range(segments))
        return Track(number, 0, 0, frames - 1, frames, 0.5, parts)

    tracks = [track(0, 3, 1), track(1, 9, 2), track(2, 5, 5), track(3, 7, 2), track(4, 1, 1)]

    def numbers(most_tracks, most_segments):
        monkeypatch.setattr(module, "_MOST_TRACKS", most_tracks)
        monkeypatch.setattr(module, "_MOST_SEGMENTS", most_segments)
        return [x.track_id for x in module._on_page(iter(tracks))]

    assert numbers(5, 11) == [0, 1, 2, 3, 4]
    assert numbers(3, 11) == [1, 2, 3]
    assert numbers(5, 9) == [1, 2, 3]
    assert numbers(5, 8) == [1, 3]
    assert numbers(5, 1) == [1]  # the longest has room always
    assert module._on_page(iter([])) == []


def test_page_says_that_it_shows_some_of_the_tracks(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_TRACKS", 1)
    predictor = WalkingDog(every=1)
    run([clip], tmp_path, predictor=predictor)
    assert "1 track." in (tmp_path / "clip.html").read_text()
    monkeypatch.setattr(module.Tracker, "num_tracks", property(lambda self: 7))
    run([clip], tmp_path, predictor=predictor)
    page = (tmp_path / "clip.html").read_text()
    assert "7 tracks, 1 of them here: clip.tracks.json has all." in page
    assert page.count('class="lane"') == 1


def test_video_in_h264(clip, tmp_path):
    assert run([clip], tmp_path / "out", output="mp4") == []
    assert len(list(iter_frames(tmp_path / "out/clip.mp4"))) == 20
    assert 'src="./clip.mp4"' in (tmp_path / "out/clip.html").read_text()
    assert read_tracks(tmp_path / "out/clip.tracks.json")["output"] == "clip.mp4"


def test_span_keeps_the_numbers_of_the_video(clip, tmp_path):
    run([clip], tmp_path, span=(0.4, 0.75))
    lines = read_lines(tmp_path / "clip.jsonl")
    assert [line["frame"] for line in lines] == list(range(9, 16))
    assert lines[0]["time"] == pytest.approx(0.4)
    (track,) = read_tracks(tmp_path / "clip.tracks.json")["tracks"]
    assert (track["from"], track["to"], track["from_time"]) == (9, 15, 0.4)
    assert len(list(iter_frames(tmp_path / "clip.webm"))) == 7
    # The timeline is that of the written video, which starts with the span.
    assert 'data-start="0.000000" data-end="0.350000"' in (tmp_path / "clip.html").read_text()


def test_frames_between_detections_are_carried(clip, tmp_path):
    run([clip], tmp_path, predictor=WalkingDog(every=4))
    lines = read_lines(tmp_path / "clip.jsonl")
    assert len(lines) == 20
    boxes = [line["instances"][0]["bbox"][0] for line in lines]
    assert boxes[:9] == [4, 4, 4, 4, 8, 8, 8, 8, 12]


def test_without_a_video(clip, tmp_path):
    run([clip], tmp_path / "out", output=None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("clip.html", "clip.jsonl", "clip.tracks.json")
    ]
    page = (tmp_path / "out/clip.html").read_text()
    assert "none was asked for" in page and "<video" not in page
    assert read_tracks(tmp_path / "out/clip.tracks.json")["output"] is None


def test_frames_as_files(clip, tmp_path):
    run([clip], tmp_path, output="frames", span=(0.25, None))
    names = sorted(path.name for path in (tmp_path / "clip.frames").iterdir())
    assert names == [f"{number:06d}.jpg" for number in range(6, 21)]
    assert "the frames are in the folder clip.frames" in (tmp_path / "clip.html").read_text()


def test_nothing_found(clip, tmp_path):
    assert run([clip], tmp_path, predictor=WalkingDog(score=0.1)) == []
    assert all(line["instances"] == [] for line in read_lines(tmp_path / "clip.jsonl"))
    assert "No actor was found" in (tmp_path / "clip.html").read_text()
    assert len(list(iter_frames(tmp_path / "clip.webm"))) == 20


@pytest.mark.parametrize("suffix", [".avi", ".webm"])
def test_one_frame_of_odd_size(make_video, tmp_path, suffix):
    source = make_video(tmp_path / f"one{suffix}", 1, height=33, width=47)
    assert run([source], tmp_path / "out") == []
    assert len(read_lines(tmp_path / "out/one.jsonl")) == 1
    (frame,) = iter_frames(tmp_path / "out/one.webm")
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0


def test_images_of_a_folder(tmp_path):
    (tmp_path / "in put").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"in put/{i}.png"), np.zeros((32, 48, 3), np.uint8))
    assert run([tmp_path / "in put"], tmp_path / "out") == []
    assert len(read_lines(tmp_path / "out/in put.jsonl")) == 3
    assert 'src="./in%20put.webm"' in (tmp_path / "out/in put.html").read_text()


# ---------------------------------------------------------------- many videos


def test_an_unreadable_file_does_not_stop_the_others(clip, make_video, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    other = make_video(tmp_path / "other.mp4", 3)
    problems = run([tmp_path / "broken.mp4", clip, other], tmp_path / "out", output=None)
    broken = tmp_path / "broken.mp4"
    assert problems == [str(undecodable(broken))]
    assert len(read_lines(tmp_path / "out/clip.jsonl")) == 20
    assert len(read_lines(tmp_path / "out/other.jsonl")) == 3
    assert not list((tmp_path / "out").glob("broken*"))


def test_frames_that_opencv_refuses_stop_one_video_alone(clip, make_video, tmp_path):
    def refuse(index):
        if index == 4:
            cv2.resize(np.zeros((0, 0)), (1, 1))

    other = make_video(tmp_path / "other.mp4", 3)
    predictor = WalkingDog(before=refuse)
    (problem,) = run([clip, other], tmp_path / "out", predictor=predictor)
    assert problem.startswith(f"{clip}: OpenCV cannot process it") and "\n" not in problem
    assert not (tmp_path / "out/clip.tracks.json").exists() and no_leftovers(tmp_path)
    assert (tmp_path / "out/other.tracks.json").exists()


def test_what_was_lost_is_said_everywhere(clip, tmp_path, monkeypatch):
    from a2d_d2.data.video import VideoHeader
    from a2d_d2.inference import source

    monkeypatch.setattr(source, "read_header", lambda path: VideoHeader(20, 444))
    (problem,) = run([clip], tmp_path)
    assert problem.startswith(f"{clip}: 20 of the 444 frames")
    record = read_tracks(tmp_path / "clip.tracks.json")
    assert record["complete"] and record["problem"] == problem.removeprefix(f"{clip}: ")
    assert "20 of the 444 frames" in (tmp_path / "clip.html").read_text()
    assert run([clip], tmp_path, resume=True) == [problem]  # still so


def test_the_file_is_named_once(clip, tmp_path):
    (problem,) = run([clip], tmp_path / "out", span=(7, None))
    assert problem == f"{clip} ends at 0.95 s; the start asked for, 7 s, must be before that"


def test_equal_stems_do_not_meet(make_video, tmp_path):
    for name in ("a/clip.mp4", "b/clip.mp4", "b/CLIP.avi", "b/clip-2.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_video(tmp_path / name, 2)
    inputs = [tmp_path / "a", tmp_path / "b"]
    assert run(inputs, tmp_path / "out", output=None) == []
    names = {read_tracks(path)["source"]["name"]: path.name for path in tmp_path.glob("out/*.json")}
    assert names == {
        str(tmp_path / "a/clip.mp4"): "clip.tracks.json",
        str(tmp_path / "b/clip-2.mp4"): "clip-2.tracks.json",
        str(tmp_path / "b/CLIP.avi"): "CLIP-3.tracks.json",
        str(tmp_path / "b/clip.mp4"): "clip-4.tracks.json",
    }


def test_results_never_overwrite_an_input(make_video, tmp_path):
    source = make_video(tmp_path / "clip.webm", 2)
    with pytest.raises(ValueError, match=r"would overwrite an input.*--output"):
        run([source], tmp_path)
    assert run([source], tmp_path, output=None) == []


def test_drawn_frames_never_replace_pictures_of_others(clip, tmp_path):
    folder = tmp_path / "out/clip.frames"
    folder.mkdir(parents=True)
    picture = folder / "000001.jpg"
    cv2.imwrite(str(picture), np.zeros((32, 48, 3), np.uint8))
    before = picture.read_bytes()
    with pytest.raises(ValueError, match=r"where an input is; choose another --output"):
        run([clip, folder], tmp_path / "out", output="frames")
    with pytest.raises(ValueError, match=r"holds files of something else"):
        run([clip], tmp_path / "out", output="frames")
    assert picture.read_bytes() == before
    picture.unlink()
    for _ in range(2):  # its own it may replace
        assert run([clip], tmp_path / "out", output="frames") == []
        assert len(list(folder.iterdir())) == 20


def test_drawn_frames_of_an_earlier_run_are_removed(clip, tmp_path):
    folder = tmp_path / "out/clip.frames"
    for output in ("webm", None):
        assert run([clip], tmp_path / "out", output="frames") == []
        assert run([clip], tmp_path / "out", output=output) == []
        assert not folder.exists()
    run([clip], tmp_path / "out", output="frames")
    names = ("1.jpg", "0000001.jpg", "000001.png", "notes.txt", "000021.jpg", "123456.jpg")
    others = [folder / name for name in names]
    for path in others:
        path.touch()
    assert run([clip], tmp_path / "out", output="frames", span=(0.5, None)) == []
    assert len(list(folder.iterdir())) == 10 + len(others)
    inputs = [clip, folder / "000012.jpg"]  # one of them is an input now
    assert run(inputs, tmp_path / "out", output=None) == []
    assert sorted(folder.iterdir()) == sorted([*others, inputs[1]])


def test_drawn_frames_whose_lines_are_gone_are_not_mixed_with_others(clip, tmp_path):
    run([clip], tmp_path / "out", output="frames")
    (tmp_path / "out/clip.jsonl").unlink()
    with pytest.raises(ValueError, match=r"holds files of something else"):
        run([clip], tmp_path / "out", output="frames", span=(0.5, None))
    assert len(list((tmp_path / "out/clip.frames").iterdir())) == 20


def test_drawn_frames_of_a_run_that_was_stopped_are_its_own(clip, tmp_path):
    def before(index):
        if index == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run([clip], tmp_path / "out", output="frames", predictor=WalkingDog(before=before))
    assert not read_tracks(tmp_path / "out/clip.tracks.json")["complete"]
    assert len(list((tmp_path / "out/clip.frames").iterdir())) == 6
    assert run([clip], tmp_path / "out", output="frames", resume=True, span=(0.5, None)) == []
    assert len(list((tmp_path / "out/clip.frames").iterdir())) == 10


@pytest.mark.parametrize(
    "output, name, kind",
    [
        ("webm", "clip.jsonl", "folder"),
        ("webm", "clip.webm", "folder"),
        (None, "clip.html", "folder"),
        ("frames", "clip.frames", "file"),
    ],
)
def test_a_name_that_is_taken_is_said_before_anything_runs(clip, tmp_path, output, name, kind):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.mkdir() if kind == "folder" else path.touch()
    message = rf"the result {path} cannot be written: there is .* choose another --output"
    with pytest.raises(ValueError, match=message):
        run([clip], tmp_path / "out", output=output)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "output, suffix",
    [(None, ".jsonl"), (None, ".tracks.json"), ("webm", ".webm"), ("frames", ".frames")],
)
def test_a_link_that_leads_nowhere_is_said_before_anything_runs(clip, tmp_path, output, suffix):
    path = tmp_path / f"out/clip{suffix}"
    path.parent.mkdir()
    path.symlink_to(tmp_path / "none/yet")
    with pytest.raises(ValueError, match=rf"{path} cannot be written: it is a symbolic link"):
        run([clip], tmp_path / "out", output=output)
    assert list(path.parent.iterdir()) == [path]


def test_a_name_that_is_too_long_is_said_before_anything_runs(clip, make_video, tmp_path):
    long = make_video(tmp_path / f"{'x' * 246}.mp4", 2)
    for folder in (tmp_path, tmp_path / "none/yet"):
        with pytest.raises(
            ValueError, match=r"x\.tracks\.json cannot be written .* rename the video"
        ):
            run([clip, long], folder)
    assert sorted(tmp_path.iterdir()) == sorted([clip, long])


def test_the_video_of_another_format_is_replaced(clip, tmp_path):
    folder = tmp_path / "out"
    for output, found in (("webm", ".webm"), ("mp4", ".mp4"), ("webm", ".webm"), (None, None)):
        assert run([clip], folder, output=output) == []
        videos = [path.name for path in folder.glob("clip.*") if path.suffix in (".mp4", ".webm")]
        assert videos == ([f"clip{found}"] if found else [])


def test_only_an_earlier_video_of_this_stem_is_removed(clip, make_video, tmp_path):
    folder = tmp_path / "out"
    run([clip], folder, output="webm")
    tracks = folder / "clip.tracks.json"
    mine = make_video(folder / "mine.webm", 2)
    inputs = [clip, folder / "clip.webm"]  # its own video is an input now
    for named in ("clip.webm", "mine.webm", "../clip.mp4", str(clip), ["clip.webm"], None):
        tracks.write_text(json.dumps(read_tracks(tracks) | {"output": named}))
        assert run(inputs, folder, output=None) == []
        assert clip.exists() and mine.exists() and (folder / "clip.webm").exists()
    tracks.write_text("[" * 10)
    with pytest.raises(ValueError, match=r"would overwrite a file that no earlier run has written"):
        run([clip], folder, output=None)
    assert (folder / "clip.webm").exists()


@pytest.mark.parametrize("suffix", [".webm", ".jsonl", ".html", ".tracks.json"])
def test_a_file_that_no_run_has_written_is_never_replaced(clip, tmp_path, suffix):
    theirs = tmp_path / f"out/clip{suffix}"
    theirs.parent.mkdir()
    theirs.write_text("{}")
    with pytest.raises(ValueError, match=f"the result {theirs} would overwrite a file .*, or move"):
        run([clip], tmp_path / "out")
    assert [path.name for path in theirs.parent.iterdir()] == [theirs.name]
    assert theirs.read_text() == "{}"


def test_a_video_that_the_earlier_run_did_not_draw_is_never_replaced(clip, make_video, tmp_path):
    run([clip], tmp_path / "out", output=None)
    theirs = make_video(tmp_path / "out/clip.webm", 2)
    before = theirs.read_bytes()
    with pytest.raises(ValueError, match=r"clip\.webm would overwrite a file"):
        run([clip], tmp_path / "out")
    assert run([clip], tmp_path / "out", output=None) == [] and theirs.read_bytes() == before


def test_results_of_another_video_of_the_same_name_stay(make_video, tmp_path, monkeypatch):
    for name in ("x/a.mp4", "y/a.mp4"):
        (tmp_path / name).parent.mkdir()
        make_video(tmp_path / name, 2)
    x, y, out = tmp_path / "x/a.mp4", tmp_path / "y/a.mp4", tmp_path / "out"
    fail = WalkingDog(before=lambda index: pytest.fail("computed again"))

    def sources():
        return {path.name: read_tracks(path)["source"]["name"] for path in out.glob("*.json")}

    assert run([x, y], out, output=None) == []
    expected = {"a.tracks.json": str(x), "a-2.tracks.json": str(y)}
    assert sources() == expected
    assert run([y], out, output=None, resume=True, predictor=fail) == []
    assert run([y], out, output=None) == [] and sources() == expected
    monkeypatch.chdir(tmp_path / "y")  # one file, named another way
    assert run(["a.mp4"], out, output=None) == []
    assert sources() == expected | {"a-2.tracks.json": "a.mp4"}
    monkeypatch.chdir(tmp_path / "x")  # another file, named the same
    assert run(["a.mp4"], out, output=None) == []
    assert sources() == {"a.tracks.json": "a.mp4", "a-2.tracks.json": "a.mp4"}
    (tmp_path / "x").rename(tmp_path / "z")
    monkeypatch.chdir(tmp_path / "z")  # moved with its folder
    assert run(["a.mp4"], out, output=None, resume=True, predictor=fail) == []


@pytest.mark.parametrize("output", ["webm", "frames"])
def test_earlier_results_stay_until_a_frame_has_come(clip, tmp_path, output):
    def contents():
        return {x: x.read_bytes() for x in (tmp_path / "out").rglob("*") if x.is_file()}

    def stop(index):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    assert run([clip], tmp_path / "out", output) == []
    before = contents()
    assert len(run([clip], tmp_path / "out", output, span=(100, None))) == 1
    with pytest.raises(KeyboardInterrupt):
        run([clip], tmp_path / "out", output, predictor=WalkingDog(before=stop))
    clip.write_bytes(b"no video")
    assert len(run([clip], tmp_path / "out", output)) == 1
    assert contents() == before


def test_a_recording_of_a_camera_is_never_replaced(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(VideoSource, "is_live", property(lambda self: True))
    out = tmp_path / "out"
    assert run([clip], out) == []
    before = {path: path.read_bytes() for path in out.iterdir()}
    for resume in (False, True):
        assert run([clip], out, output=None, resume=resume) == []
    (out / "clip-4.webm").touch()  # all that is left of a recording
    assert run([clip], out, output=None) == []
    (out / "clip-4.webm").unlink()
    monkeypatch.undo()
    assert run([clip], out) == []  # a video of this name
    assert all(path.read_bytes() == data for path, data in before.items())
    lines = sorted(path.name for path in out.glob("*.jsonl"))
    assert lines == ["clip-2.jsonl", "clip-3.jsonl", "clip-4.jsonl", "clip-5.jsonl", "clip.jsonl"]


def test_a_picture_too_large_for_a_video_stops_one_video_alone(clip, tmp_path):
    wide = tmp_path / "wide"
    wide.mkdir()
    cv2.imwrite(str(wide / "0.png"), np.zeros((20, 16400, 3), np.uint8))
    (problem,) = run([wide, clip], tmp_path / "out")
    assert problem.startswith(f"{wide / '0.png'}: its pictures are 16400 x 20")
    assert not list((tmp_path / "out").glob("0*")) and no_leftovers(tmp_path)
    assert read_tracks(tmp_path / "out/clip.tracks.json")["complete"]


def test_a_frame_that_cannot_be_resized_stops_one_video_alone(clip, make_video, tmp_path):
    def refuse(index):
        if index == 4:
            raise ValueError("height and width must be > 0")

    other = make_video(tmp_path / "other.mp4", 3)
    (problem,) = run([clip, other], tmp_path / "out", predictor=WalkingDog(before=refuse))
    assert problem == f"{clip}: height and width must be > 0"
    assert (tmp_path / "out/other.tracks.json").exists()


# ---------------------------------------------------------------- interrupt and resume


def interrupt_at(number, by=signal.SIGINT):
    def before(index):
        if index == number:
            signal.raise_signal(by)

    return before


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_whole_results(clip, make_video, tmp_path, by):
    other = make_video(tmp_path / "other.mp4", 3)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        run([clip, other], tmp_path / "out", predictor=WalkingDog(before=interrupt_at(6, by)))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert len(read_lines(tmp_path / "out/clip.jsonl")) == 7
    assert len(list(iter_frames(tmp_path / "out/clip.webm"))) == 7
    record = read_tracks(tmp_path / "out/clip.tracks.json")
    assert not record["complete"] and record["frames"] == 7
    assert "interrupted" in (tmp_path / "out/clip.html").read_text()
    assert not list((tmp_path / "out").glob("other*")) and no_leftovers(tmp_path)

    run([clip, other], tmp_path / "out", resume=True)
    assert read_tracks(tmp_path / "out/clip.tracks.json")["complete"]
    assert len(list(iter_frames(tmp_path / "out/clip.webm"))) == 20
    assert (tmp_path / "out/other.jsonl").exists()


def test_a_camera_ends_when_it_is_stopped(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(VideoSource, "is_live", property(lambda self: True))
    assert run([clip], tmp_path / "out", predictor=WalkingDog(before=interrupt_at(6))) == []
    record = read_tracks(tmp_path / "out/clip.tracks.json")
    assert record["complete"] and record["problem"] is None and record["frames"] == 7
    assert "interrupted" not in (tmp_path / "out/clip.html").read_text()


def test_stopping_a_camera_stops_what_follows(clip, make_video, tmp_path, monkeypatch):
    monkeypatch.setattr(VideoSource, "is_live", property(lambda self: True))
    other = make_video(tmp_path / "other.mp4", 3)
    with pytest.raises(KeyboardInterrupt):
        run([clip, other], tmp_path / "out", predictor=WalkingDog(before=interrupt_at(6)))
    assert not list((tmp_path / "out").glob("other*"))


def test_second_interrupt_stops_at_once(clip, tmp_path):
    def before(index):
        if index == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run([clip], tmp_path / "out", predictor=WalkingDog(before=before))
    assert len(read_lines(tmp_path / "out/clip.jsonl")) == 6
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["clip.jsonl", "clip.tracks.json"]
    assert not read_tracks(tmp_path / "out/clip.tracks.json")["complete"]
    for output in ("webm", None):
        assert run([clip], tmp_path / "out", output) == []  # they are its own


def test_resume_redoes_only_what_changed(clip, make_video, tmp_path):
    other = make_video(tmp_path / "other.mp4", 3)
    seen = []

    def again(**options):
        seen.clear()
        predictor = WalkingDog(before=lambda index: seen.append(index) if index == 0 else None)
        run([clip, other], tmp_path, output=None, predictor=predictor, **options)
        return len(seen)

    assert again() == 2
    assert again() == 2  # without resume all is done again
    assert again(resume=True) == 0
    assert again(resume=True, settings=SETTINGS | {"every": 2}) == 2
    assert again(resume=True, settings=SETTINGS | {"every": 2}) == 0
    make_video(other, 5)
    assert again(resume=True, settings=SETTINGS | {"every": 2}) == 1
    assert len(read_lines(tmp_path / "other.jsonl")) == 5
    os.utime(other, ns=(1, 1))  # another file of the same size
    assert again(resume=True, settings=SETTINGS | {"every": 2}) == 1
    (tmp_path / "other.jsonl").unlink()
    assert again(resume=True, settings=SETTINGS | {"every": 2}) == 1


# ---------------------------------------------------------------- the command line


def command(*arguments, output):
    return [
        *(sys.executable, str(SCRIPT), "--config-file", str(CONFIG), "--output", str(output)),
        *map(str, arguments),
    ]


def environment(delay=0.0):
    return os.environ | {"A2D_D2_TEST_DELAY": str(delay), "PYTHONPATH": os.pathsep.join(sys.path)}


def test_two_processes_share_the_videos(make_video, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        make_video(tmp_path / f"in/{i}.mp4", 3)
    (tmp_path / "in/broken.mp4").write_bytes(b"no video")
    output = tmp_path / "out"
    done = subprocess.run(
        command(
            *("--input", tmp_path / "in", "--num-gpus", 2, "--format", "webm"),
            *("--smoothing", 1, "MODEL.DEVICE", "cpu"),
            output=output,
        ),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "not whole: " in done.stderr and "broken.mp4: broken, not a video" in done.stderr
    assert "VP8 in webm through OpenCV" in done.stdout
    for i in range(3):
        assert len(read_lines(output / f"{i}.jsonl")) == 3
        record = read_tracks(output / f"{i}.tracks.json")
        assert record["complete"] and record["settings"]["smoothing"] == 1
        assert len(list(iter_frames(output / f"{i}.webm"))) == 3
    assert not list(output.glob("broken*"))


def test_interrupt_at_the_console(make_video, tmp_path):
    clip = make_video(tmp_path / "clip.mp4", 24)
    output = tmp_path / "out"
    process = subprocess.Popen(
        command("--input", clip, "--format", "webm", output=output),
        cwd=ROOT,
        env=environment(delay=0.25),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = output / "clip.jsonl"
        while not (lines.exists() and lines.read_text().count("\n") >= 3):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and "stopping after this frame" in errors
    count = len(read_lines(lines))
    assert 3 <= count < 24 and len(list(iter_frames(output / "clip.webm"))) == count
    assert not read_tracks(output / "clip.tracks.json")["complete"] and no_leftovers(output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "missing.mp4"], "there is no input missing.mp4"),
        (["--input", "{clip}", "--start", "3", "--end", "2"], "end must be"),
        (["--input", "{clip}", "--no-video", "--smoothing", "-1"], "smoothing is -1"),
        (["--input", "{clip}", "--no-video", "--min-track-length", "0"], "min_track_length is 0"),
        (["--input", "{clip}", "--no-video", "--device", "cuda:99"], "device is cuda:99, which"),
        (["--input", "{clip}", "--num-machines", "2"], "--dist-url"),
        (["--input", "{clip}", "--no-video", "--num-gpus", "0"], "--num-gpus is 0"),
        (["--input", "{clip}", "--no-video", "--machine-rank", "1"], "--machine-rank is 1"),
        (["--input", "{clip}", "--no-video", "MODEL.NO_SUCH_KEY", "1"], "NO_SUCH_KEY"),
        (["--input", "{clip}", "--format", "mp4"], "needs an H.264 encoder"),
    ],
)
def test_wrong_arguments_are_one_line(clip, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(module, "StreamingPredictor", WalkingDog)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "av", None)
    arguments = [text.format(clip=clip) for text in arguments]
    output = ["--config-file", str(CONFIG), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["predict_video.py", *output, *arguments])
    with pytest.raises(ValueError, match=message) as error:
        load_tool().main()
    assert "\n" not in str(error.value) or "NO_SUCH_KEY" in message
    assert not (tmp_path / "out").exists()


def test_settings_tell_other_weights_of_the_same_name(tmp_path):
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"a")
    cfg = setup_cfg(str(CONFIG), ["MODEL.WEIGHTS", str(weights)])
    first = module._digest(cfg, A2D)
    assert module._digest(cfg, A2D) == first
    weights.write_bytes(b"ab")
    assert module._digest(cfg, A2D) != first
    other = setup_cfg(str(CONFIG), ["MODEL.WEIGHTS", str(weights), "TEST.ACTOR_THRESH", "0.1"])
    assert module._digest(other, A2D) != module._digest(cfg, A2D)


def test_an_output_that_is_a_file_is_named(clip, tmp_path, monkeypatch):
    line = f"predict_video.py --config-file {CONFIG} --input {clip} --output {clip}/out --no-video"
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(ValueError, match=r"clip\.mp4 is no folder; choose another"):
        load_tool().main()


def test_an_output_that_cannot_be_made_is_named(clip, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(module.tempfile, "TemporaryDirectory", refuse)
    line = f"predict_video.py --config-file {CONFIG} --input {clip} --output {tmp_path}/x/y"
    monkeypatch.setattr(sys, "argv", [*line.split(), "--no-video"])
    with pytest.raises(
        ValueError, match=r"--output .*/x/y: .* cannot be written to \(No such file"
    ):
        load_tool().main()


def test_arguments_reach_the_work(clip, tmp_path, monkeypatch):
    asked = {}

    class Noted(WalkingDog):
        @classmethod
        def from_config(cls, cfg, **options):
            asked.update(options, weights=cfg.MODEL.WEIGHTS, score=cfg.TEST.ACTOR_THRESH)
            return cls()

    class NotedTracker(Tracker):
        def __init__(self, label_space, **options):
            asked.update(options)
            super().__init__(label_space, **options)

    monkeypatch.setattr(module, "StreamingPredictor", Noted)
    monkeypatch.setattr(module, "Tracker", NotedTracker)
    line = f"predict_video.py --config-file {CONFIG} --weights w.pth --input {clip} --every 3"
    line += f" --output {tmp_path}/out --no-video --smoothing 7 --min-track-length 2"
    line += " --batch-size 8 --precision bfloat16 --device cpu TEST.ACTOR_THRESH 0.4"
    monkeypatch.setattr(sys, "argv", line.split())
    assert load_tool().main() == 0
    assert asked == {
        "batch_size": 8,
        "every": 3,
        "precision": "bfloat16",
        "weights": "w.pth",
        "score": 0.4,
        "score_threshold": 0.4,
        "smoothing": 7,
        "min_track_length": 2,
    }
    monkeypatch.setattr(sys, "argv", [*line.split(), "TEST.ACTION_THRESH", "0.2"])
    sys.argv[1:1] = ["--score-threshold", "0.6"]
    assert load_tool().main() == 0
    assert asked["score_threshold"] == 0.6
    settings = read_tracks(tmp_path / "out/clip.tracks.json")["settings"]
    assert settings["score_threshold"] == 0.6 and settings["weights"] == "w.pth"
