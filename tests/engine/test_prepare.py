"""Preparing clips on several machines: two commands on this one stand for them."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from a2d_d2.data.clip_cache import ClipCache
from a2d_d2.data.layout import annotated_frames, clip_path, read_videoset

TOOL = Path(__file__).parents[2] / "tools" / "prepare_clips.py"


@pytest.fixture
def release(tiny_release, tmp_path):
    root = tmp_path / "A2D"
    shutil.copytree(tiny_release, root, ignore=shutil.ignore_patterns("col"))
    return root


@pytest.fixture
def machines(release, tmp_path):
    """Starts the command as the two machines of a job that share a cache, options for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    started = []

    def start(*options):
        for rank in range(2):
            command = [sys.executable, TOOL, "--workers=1", f"--cache={tmp_path / 'cache'}"]
            command += ["--num-machines=2", f"--machine-rank={rank}", f"--dist-url={url}"]
            started.append(
                subprocess.Popen(
                    [*command, f"--root={release}", *options[rank : rank + 1]],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_each_machine_does_its_share_and_the_first_says_all(release, machines, tmp_path):
    videos = [video.video_id for video in read_videoset(release)]
    clip_path(release, videos[3]).unlink()  # of the second machine
    first, second = machines()
    first_out, first_err = first.communicate(timeout=500)
    second_out, second_err = second.communicate(timeout=500)
    assert (first.returncode, second.returncode) == (1, 1), first_err + second_err
    assert "6 videos, 0 of them stored before, 1 with problems" in first_out
    assert f"{videos[3]}: " in first_err and "Traceback" not in first_err + second_err
    assert videos[3] not in second_err and "videos" not in second_out
    assert "3/3" in first_err and "3/3" in second_err  # no video is done twice
    cache = ClipCache(tmp_path / "cache", "dis")
    for video in videos:
        keys = annotated_frames(release, video)
        stored = cache.read(clip_path(release, video), video, keys) is not None
        assert stored == (video != videos[3])


def test_a_killed_machine_ends_the_others(release, machines, tmp_path):
    videos = [video.video_id for video in read_videoset(release)]
    archives = tmp_path / "cache" / "flow-dis-medium"
    archives.mkdir(parents=True)
    os.mkfifo(archives / f"{videos[1]}.zip")  # the second machine reads here for ever
    first, second = machines()
    while len(list(archives.glob("[!.]*.zip"))) < 1 + 3:
        assert first.poll() is None and second.poll() is None
        time.sleep(0.05)
    second.kill()
    out, err = first.communicate(timeout=500)
    assert first.returncode == 2 and "Traceback" not in err, err
    (error,) = errors(err)
    assert "another machine ended" in error and "run the command again" in error
    assert "3 videos, 0 of them stored before, 0 with problems" in out  # its own
