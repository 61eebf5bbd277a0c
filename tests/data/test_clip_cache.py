import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from a2d_d2.data import clip_cache
from a2d_d2.data.clip_cache import ClipCache, iter_clip, prepare_clips, read_clip
from a2d_d2.data.flow import compute_flow
from a2d_d2.data.layout import annotated_frames, clip_path, read_videoset
from a2d_d2.data.video import read_frames

TOOL = Path(__file__).parents[2] / "tools" / "prepare_clips.py"


@pytest.fixture
def release(tiny_release, tmp_path):
    """A copy of the tiny release that a test may change, without its annotations' content."""
    root = tmp_path / "A2D"
    shutil.copytree(tiny_release, root, ignore=shutil.ignore_patterns("col"))
    return root


@pytest.fixture
def decodes(monkeypatch):
    """The list of (clip, frames) that are decoded while the test runs."""
    calls = []

    def spy(path, indices):
        calls.append((Path(path).stem, set(indices)))
        return select_frames(path, indices)

    select_frames = clip_cache.select_frames
    monkeypatch.setattr(clip_cache, "select_frames", spy)
    return calls


def prepare(root, cache, **options):
    return prepare_clips(root, cache, workers=1, progress=False, **options)


def video_ids(root):
    return [video.video_id for video in read_videoset(root)]


def archives(cache):
    return sorted(cache.glob("*/*.zip"))


# ---------------------------------------------------------------- on the fly


def test_clip_on_the_fly(tiny_release, decodes):
    clip = clip_path(tiny_release, video_ids(tiny_release)[0])
    frames = read_frames(clip, range(12))
    found = list(iter_clip(clip, [6, 0, 3, 4], "dis"))
    assert decodes == [(clip.stem, {0, 2, 3, 4, 5, 6})]  # once, with the frames before
    assert [index for index, _, _ in found] == [0, 3, 4, 6]
    for index, frame, flow in found:
        np.testing.assert_array_equal(frame, frames[index])
        expected = compute_flow(frames[index - 1], frame) if index else np.zeros((64, 80, 2))
        np.testing.assert_array_equal(flow, expected)


def test_without_flow_the_frame_before_is_not_decoded(tiny_release, decodes):
    clip = clip_path(tiny_release, video_ids(tiny_release)[0])
    found = read_clip(clip, [4], None)
    assert decodes == [(clip.stem, {4})]
    assert found[4][1] is None


# ---------------------------------------------------------------- contents


def test_lossless_cache_equals_the_video(tiny_release, tmp_path, decodes):
    done = prepare(tiny_release, tmp_path, lossless=True, length=3)
    assert (done.num_videos, done.num_complete, done.problems) == (6, 0, [])
    assert len(decodes) == 6  # one decode a video
    cache = ClipCache(tmp_path, "dis")
    for video_id in video_ids(tiny_release):
        clip = clip_path(tiny_release, video_id)
        for key in annotated_frames(tiny_release, video_id):
            frames = [f for f in (key - 1, key, key + 1) if f >= 0]
            expected = read_clip(clip, frames, "dis")
            found = cache.read(clip, video_id, frames)
            assert found.keys() == expected.keys()
            for index in found:
                np.testing.assert_array_equal(found[index][0], expected[index][0])
                assert np.abs(found[index][1] - expected[index][1]).max() <= 0.5 / 64


def test_jpeg_cache_is_close_and_its_flow_is_that_of_the_video(tiny_release, tmp_path):
    prepare(tiny_release, tmp_path, splits=["test"])
    video_id = next(v.video_id for v in read_videoset(tiny_release) if v.split == "test")
    clip, key = clip_path(tiny_release, video_id), annotated_frames(tiny_release, video_id)[1]
    frame, flow = ClipCache(tmp_path, "dis").read(clip, video_id, [key])[key]
    expected_frame, expected_flow = read_clip(clip, [key], "dis")[key]
    assert 0 < np.abs(frame.astype(int) - expected_frame).mean() < 2.5
    assert np.abs(flow - expected_flow).max() <= 0.5 / 64


def test_only_the_windows_are_stored(tiny_release, tmp_path):
    prepare(tiny_release, tmp_path, length=3, stride=2)
    video_id = video_ids(tiny_release)[0]
    keys = annotated_frames(tiny_release, video_id)
    wanted = {f for key in keys for f in (key - 2, key, key + 2) if 0 <= f < 12}
    for folder, suffix in (("frames-jpeg95", "jpg"), ("flow-dis-medium", "png")):
        with zipfile.ZipFile(tmp_path / folder / f"{video_id}.zip") as archive:
            names = {f"{index + 1:05d}.{suffix}" for index in wanted}
            assert set(archive.namelist()) == names | {"manifest.json"}


def test_split(tiny_release, tmp_path):
    assert prepare(tiny_release, tmp_path, splits=["train"]).num_videos == 4
    assert len(archives(tmp_path)) == 2 * 4
    assert prepare(tiny_release, tmp_path).num_complete == 4
    assert len(archives(tmp_path)) == 2 * 6


@pytest.mark.parametrize("number", [2, 4, 7])
def test_shares_are_the_whole_and_do_not_overlap(tiny_release, tmp_path, decodes, number):
    done = [prepare(tiny_release, tmp_path, length=1, share=(i, number)) for i in range(number)]
    sizes = [share.num_videos for share in done]
    assert sum(sizes) == 6 and max(sizes) - min(sizes) <= 1
    assert sum(share.num_complete for share in done) == 0
    assert sorted(video_id for video_id, _ in decodes) == sorted(video_ids(tiny_release))


def test_frames_without_flow(tiny_release, tmp_path):
    prepare(tiny_release, tmp_path, lossless=True)
    video_id = video_ids(tiny_release)[0]
    clip, key = clip_path(tiny_release, video_id), annotated_frames(tiny_release, video_id)[0]
    frame, flow = ClipCache(tmp_path, None).read(clip, video_id, [key])[key]
    assert flow is None
    np.testing.assert_array_equal(frame, read_frames(clip, [key])[key])


def test_what_is_not_stored_is_a_miss(tiny_release, tmp_path):
    prepare(tiny_release, tmp_path, length=1)
    video_id = video_ids(tiny_release)[0]
    clip, key = clip_path(tiny_release, video_id), annotated_frames(tiny_release, video_id)[1]
    assert ClipCache(tmp_path, "dis").read(clip, video_id, [key]) is not None
    assert ClipCache(tmp_path, "dis").read(clip, video_id, [key, key + 1]) is None
    assert ClipCache(tmp_path, "farneback").read(clip, video_id, [key]) is None
    assert ClipCache(tmp_path, "dis").read(clip, "other", [key]) is None


def test_video_of_one_frame(release, tmp_path):
    video_id = video_ids(release)[0]
    clip = clip_path(release, video_id)
    first = read_frames(clip, [0])[0]
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 24, (80, 64))
    writer.write(first)
    writer.release()
    folder = release / "Annotations" / "mat" / video_id
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    next(folder.iterdir()).rename(folder / "00001.mat")
    assert prepare(release, tmp_path / "cache", lossless=True).problems == []
    found = ClipCache(tmp_path / "cache", "dis").read(clip, video_id, [0, 1, 2])
    assert list(found) == [0]
    np.testing.assert_array_equal(found[0][0], read_frames(clip, [0])[0])
    np.testing.assert_array_equal(found[0][1], np.zeros((64, 80, 2)))


# ---------------------------------------------------------------- second runs


def test_second_run_decodes_nothing(tiny_release, tmp_path, decodes):
    prepare(tiny_release, tmp_path)
    before = [path.stat().st_mtime_ns for path in archives(tmp_path)]
    decodes.clear()
    assert prepare(tiny_release, tmp_path).num_complete == 6
    assert decodes == []
    assert [path.stat().st_mtime_ns for path in archives(tmp_path)] == before


def test_interrupted_run_goes_on(tiny_release, tmp_path, monkeypatch, decodes):
    select_frames = clip_cache.select_frames

    def interrupted(path, indices):
        if len(decodes) == 3:
            raise KeyboardInterrupt
        return select_frames(path, indices)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(clip_cache, "select_frames", interrupted)
        prepare(tiny_release, tmp_path)
    assert len(archives(tmp_path)) == 2 * 3
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".tmp")] == []
    decodes.clear()
    assert prepare(tiny_release, tmp_path).num_complete == 3
    assert len(decodes) == 3
    assert len(archives(tmp_path)) == 2 * 6


def damage(path, kind):
    data = bytearray(path.read_bytes())
    if kind == "cut":
        data = data[: len(data) // 2]
    elif kind == "empty":
        data = b""
    elif kind == "garbage":
        data = b"no archive"
    else:
        data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["cut", "empty", "garbage", "one byte", "missing"])
@pytest.mark.parametrize("which", ["frames-jpeg95", "flow-dis-medium"])
def test_broken_archive_is_a_miss_and_done_again(tiny_release, tmp_path, decodes, kind, which):
    prepare(tiny_release, tmp_path, splits=["test"])
    path = sorted((tmp_path / which).iterdir())[0]
    sound = path.read_bytes()
    clip, key = clip_path(tiny_release, path.stem), annotated_frames(tiny_release, path.stem)[0]
    frames = [f for f in range(key - 2, key + 3) if f >= 0]
    cache = ClipCache(tmp_path, "dis")
    assert cache.read(clip, path.stem, frames) is not None
    if kind == "missing":
        path.unlink()
    else:
        damage(path, kind)
    # A byte of another frame may be the broken one, so ask for all that are stored.
    everything = sorted(
        {f for k in annotated_frames(tiny_release, path.stem) for f in range(k - 2, k + 3)}
        & set(range(12))
    )
    assert cache.read(clip, path.stem, everything) is None
    decodes.clear()
    assert prepare(tiny_release, tmp_path, splits=["test"]).num_complete == 1
    assert [video_id for video_id, _ in decodes] == [path.stem]
    assert path.read_bytes() == sound


def test_no_damage_escapes(tiny_release, tmp_path):
    """Whatever byte is broken, what is read is right or a miss."""
    prepare(tiny_release, tmp_path, splits=["test"], length=1)
    path = sorted((tmp_path / "flow-dis-medium").iterdir())[0]
    clip, keys = clip_path(tiny_release, path.stem), annotated_frames(tiny_release, path.stem)
    cache = ClipCache(tmp_path, "dis")
    expected = cache.read(clip, path.stem, keys)
    sound = path.read_bytes()
    random = np.random.default_rng(0)
    tail = range(len(sound) - 600, len(sound))  # the directory, the part that can mislead
    misses = 0
    for place in [*tail, *random.integers(0, len(sound), 100).tolist()]:
        broken = bytearray(sound)
        broken[place] ^= int(random.integers(1, 256))
        path.write_bytes(broken)
        found = cache.read(clip, path.stem, keys)
        misses += found is None
        for index in found or ():
            np.testing.assert_array_equal(found[index][1], expected[index][1])
    assert misses > 100


def test_changed_clip_is_done_again(release, tmp_path, decodes):
    prepare(release, tmp_path / "cache")
    first, second = video_ids(release)[:2]
    clip = clip_path(release, first)
    shutil.copyfile(clip_path(release, second), clip)
    key = annotated_frames(release, first)[0]
    cache = ClipCache(tmp_path / "cache", "dis")
    assert cache.read(clip, first, [key]) is None
    decodes.clear()
    assert prepare(release, tmp_path / "cache").num_complete == 5
    assert [video_id for video_id, _ in decodes] == [first]
    assert cache.read(clip, first, [key]) is not None


def test_clips_may_be_removed_afterwards(release, tmp_path):
    prepare(release, tmp_path / "cache")
    shutil.rmtree(release / "clips320H")
    video_id = video_ids(release)[0]
    key = annotated_frames(release, video_id)[0]
    found = ClipCache(tmp_path / "cache", "dis").read(clip_path(release, video_id), video_id, [key])
    assert list(found) == [key]
    assert prepare(release, tmp_path / "cache").num_complete == 6


def test_other_method_and_longer_windows_keep_what_is_there(tiny_release, tmp_path):
    options = {"splits": ["test"]}
    prepare(tiny_release, tmp_path, length=5, **options)
    frames = [p.stat().st_mtime_ns for p in archives(tmp_path) if "frames" in str(p)]
    prepare(tiny_release, tmp_path, length=3, flow_method="farneback", **options)
    assert [p.stat().st_mtime_ns for p in archives(tmp_path) if "frames" in str(p)] == frames
    prepare(tiny_release, tmp_path, length=1, stride=4, **options)
    video_id = read_videoset(tiny_release)[-1].video_id
    clip, key = clip_path(tiny_release, video_id), annotated_frames(tiny_release, video_id)[1]
    for method in ("dis", "farneback"):
        found = ClipCache(tmp_path, method).read(clip, video_id, range(key - 2, key + 3))
        frame = read_frames(clip, [key - 1, key])
        expected = compute_flow(frame[key - 1], frame[key], method)
        assert np.abs(found[key][1] - expected).max() <= 0.5 / 64


# ---------------------------------------------------------------- faults


def test_faults_are_listed_and_the_rest_is_done(release, tmp_path):
    missing, broken, short = video_ids(release)[:3]
    clip_path(release, missing).unlink()
    clip_path(release, broken).write_bytes(b"no video")
    folder = release / "Annotations" / "mat" / short
    shutil.copyfile(sorted(folder.iterdir())[0], folder / "00014.mat")
    for _ in range(2):
        done = prepare(release, tmp_path / "cache")
        assert done.num_videos == 6
        messages = dict(done.problems)
        assert messages.keys() == {missing, broken, short}
        assert all(video_id in message for video_id, message in messages.items())
        assert "annotated frame 14" in messages[short]
        assert len(archives(tmp_path / "cache")) == 2 * 4
    key = annotated_frames(release, short)[0]
    cache = ClipCache(tmp_path / "cache", "dis")
    assert cache.read(clip_path(release, short), short, [key]) is not None


@pytest.mark.parametrize(
    "options", [{"length": 0}, {"stride": 0}, {"flow_method": "raft"}, {"splits": ["validation"]}]
)
def test_wrong_arguments(tiny_release, tmp_path, options):
    with pytest.raises(ValueError):
        prepare(tiny_release, tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


def test_tool(release, tmp_path):
    command = [sys.executable, TOOL, f"--root={release}", f"--cache={tmp_path / 'cache'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(*options):
        return subprocess.run([*command, *options], capture_output=True, text=True, env=environment)

    done = run("--workers=2", "--method=farneback", "--length=3")
    assert done.returncode == 0, done.stderr
    assert "6 videos" in done.stdout and "6/6" in done.stderr
    assert len(archives(tmp_path / "cache")) == 2 * 6
    # The config of a training says the same, an option goes before it: the cache is complete.
    config = tmp_path / "config.yaml"
    config.write_text("INPUT: {FLOW_METHOD: farneback, CLIP: {LENGTH: 5}}")
    done = run("--workers=1", f"--config-file={config}", "--length=3")
    assert "6 of them stored before" in done.stdout, done.stderr
    clip_path(release, video_ids(release)[0]).unlink()
    shutil.rmtree(tmp_path / "cache")
    failed = run("--workers=1")
    assert failed.returncode == 1
    assert video_ids(release)[0] in failed.stderr and "Traceback" not in failed.stderr
    assert len(archives(tmp_path / "cache")) == 2 * 5
    shutil.rmtree(release)
    failed = run()
    assert failed.returncode == 2
    assert "videoset.csv" in failed.stderr.strip().splitlines()[-1]


def test_a_compressed_member_is_a_miss(tiny_release, tmp_path):
    """It could stand for more than memory holds."""
    prepare(tiny_release, tmp_path, splits=["test"])
    path = sorted((tmp_path / "frames-jpeg95").iterdir())[0]
    clip, frames = clip_path(tiny_release, path.stem), annotated_frames(tiny_release, path.stem)[:1]
    assert ClipCache(tmp_path, None).read(clip, path.stem, frames) is not None
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert ClipCache(tmp_path, None).read(clip, path.stem, frames) is None
