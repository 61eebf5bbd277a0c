import os
import shutil

import cv2
import numpy as np
import pytest

from a2d_d2.data import video
from a2d_d2.data.video import (
    VideoError,
    VideoHeader,
    damaged_frames,
    grab_past_damage,
    iter_frames,
    read_frames,
    read_header,
    select_frames,
    write_frames,
)

NUM_FRAMES = 8


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video whose frame i is grey of level 20 + 25 * i, above a row of black."""
    path = tmp_path_factory.mktemp("video") / "-clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (48, 32))
    for i in range(NUM_FRAMES):
        frame = np.full((32, 48, 3), 20 + 25 * i, dtype=np.uint8)
        frame[24:] = 0
        writer.write(frame)
    writer.release()
    return path


def number_of(frame):
    return round((float(frame[:20].mean()) - 20) / 25)


def test_all_frames_in_order(clip):
    frames = list(iter_frames(clip))
    assert [number_of(frame) for frame in frames] == list(range(NUM_FRAMES))
    assert frames[0].shape == (32, 48, 3) and frames[0].dtype == np.uint8
    assert frames[3][:20].mean() > 80 > 10 > frames[3][28:].mean()  # upright


def test_chosen_frames_equal_those_of_the_whole_decode(clip):
    frames = list(iter_frames(clip))
    chosen = read_frames(clip, [6, 0, 3, 3])
    assert list(chosen) == [0, 3, 6]
    for index, frame in chosen.items():
        np.testing.assert_array_equal(frame, frames[index])


def test_frames_after_the_end_are_absent(clip):
    assert list(read_frames(clip, [6, 7, 8, 100])) == [6, 7]
    assert read_frames(clip, [50]) == {}
    assert read_frames(clip, []) == {}


def test_decodes_once_and_no_further_than_needed(clip, monkeypatch):
    calls = []

    class Capture:
        def __init__(self, *arguments):
            calls.append("open")
            self.capture = cv2_capture(*arguments)

        def __getattr__(self, name):
            if name in ("grab", "retrieve", "set", "read"):
                calls.append(name)
            return getattr(self.capture, name)

    cv2_capture = cv2.VideoCapture
    monkeypatch.setattr(video.cv2, "VideoCapture", Capture)
    assert [index for index, _ in select_frames(clip, [1, 4])] == [1, 4]
    # No seek; frames 0, 2 and 3 are passed over, 5 is not reached.
    assert calls == ["open", "grab", "grab", "retrieve", "grab", "grab", "grab", "retrieve"]


@pytest.mark.parametrize("read", [lambda p: list(iter_frames(p)), lambda p: read_frames(p, [0])])
@pytest.mark.parametrize("content", [None, b"", b"no video at all" * 100])
def test_bad_file_is_named_once_and_quietly(tmp_path, capfd, read, content):
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match="bad.mp4"):
        read(path)
    assert capfd.readouterr() == ("", "")


def test_truncated_file_gives_an_error_or_fewer_frames(clip, tmp_path):
    path = tmp_path / "cut.mp4"
    data = clip.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match="cut.mp4"):  # its table of frames stood at the end
        list(iter_frames(path))


def test_written_frames_come_back(clip, tmp_path):
    path = tmp_path / "new" / "video.mp4"
    write_frames(path, iter_frames(clip), 12.5)
    frames = list(iter_frames(path))
    assert [number_of(frame) for frame in frames] == list(range(NUM_FRAMES))
    assert frames[0].shape == (32, 48, 3)
    header = read_header(path)
    assert (header.fps, header.num_frames) == (12.5, NUM_FRAMES)


def test_without_an_encoder_no_video_is_written(clip, tmp_path, monkeypatch):
    closed = cv2.VideoWriter
    monkeypatch.setattr(video.cv2, "VideoWriter", lambda *_: closed())
    with pytest.raises(OSError, match="video.mp4: this OpenCV has no mp4v encoder"):
        write_frames(tmp_path / "video.mp4", iter_frames(clip), 25)
    assert not list(tmp_path.iterdir())


def test_a_video_that_announces_too_much_is_not_decoded(clip, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 48 * 32 - 1)
    with pytest.raises(VideoError, match=r"-clip\.mp4 announces 48 x 32 pixels"):
        list(iter_frames(clip))


def without_packets(path, number, count=1):
    """A copy of an MPEG-4 video of which ``count`` packets from ``number`` on are zeros."""
    data = path.read_bytes()
    start_code = b"\x00\x00\x01\xb6"  # of a picture
    places = [i for i in range(len(data)) if data.startswith(start_code, i)]
    start, end = places[number], places[number + count]
    broken = path.with_name(f"{path.stem}-{number}.mp4")
    broken.write_bytes(data[:start] + bytes(end - start) + data[end:])
    return broken


def test_frames_after_a_packet_that_is_rejected(clip):
    """They are there for whoever asks for them; they have no number."""
    broken = without_packets(clip, 5)
    found = [(number_of(capture.retrieve()[1]), n) for capture, n in grab_past_damage(broken)]
    assert [n for _, n in found] == [0] * 5 + [1, 0]
    assert [i for i, _ in found[:5]] == [0, 1, 2, 3, 4]
    assert len(list(iter_frames(broken))) == 5
    assert list(read_frames(broken, range(NUM_FRAMES))) == [0, 1, 2, 3, 4]
    first = without_packets(clip, 0)
    assert [n for _, n in grab_past_damage(first)][0] == 1
    with pytest.raises(VideoError, match="cannot decode .*-clip-0.mp4: broken, not a video, or of"):
        list(iter_frames(first))


def test_frames_after_many_packets_that_are_rejected(tmp_path):
    path = tmp_path / "long.mp4"
    write_frames(path, (np.full((48, 64, 3), 20 + i, np.uint8) for i in range(150)), 25)
    broken = without_packets(path, 10, 120)
    assert [n for _, n in grab_past_damage(broken)] == [0] * 10 + [120] + [0] * 19


def test_a_header_that_announces_too_much_makes_no_video_endless(clip, monkeypatch):
    monkeypatch.setattr(video, "_header", lambda capture: VideoHeader(25, 2**31 - 1))
    assert len(list(iter_frames(clip))) == NUM_FRAMES


def test_names_that_decoders_do_not_take(clip, tmp_path, monkeypatch):
    odd = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp4")
    shutil.copy(clip, odd)
    for read in (read_header, lambda path: list(iter_frames(path))):
        with pytest.raises(VideoError, match=r"caf\\udce9.mp4' is not UTF-8; rename the file"):
            read(odd)
    # FFmpeg takes what stands before a colon for a protocol.
    shutil.copy(clip, tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(iter_frames("12:30.mp4"))) == NUM_FRAMES
    assert list(damaged_frames("12:30.mp4")) == [False] * NUM_FRAMES


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile other.mp4\n", "#EXTM3U\nother.mp4\n"])
def test_a_list_of_other_files_is_no_video(tmp_path, text):
    write_frames(tmp_path / "other.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3, 25)
    (tmp_path / "list.mp4").write_text(text)
    for read in (read_header, lambda path: list(iter_frames(path))):
        with pytest.raises(VideoError, match=r"list\.mp4 is a list of other files"):
            read(tmp_path / "list.mp4")
