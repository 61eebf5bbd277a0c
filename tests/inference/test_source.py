"""Videos of every kind, whole and broken."""

import math
import re
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from a2d_d2.data.video import VideoError, VideoHeader, write_frames
from a2d_d2.inference import source as module
from a2d_d2.inference.source import VideoSource, expand_inputs, natural_order

NUM_FRAMES, FPS = 20, 20

# ---------------------------------------------------------------- MP4 surgery


def rewrite(data, name, edit):
    """An MP4 with the content of every box ``name`` replaced by ``edit(content)``."""
    written = b""
    while data:
        size, kind = int.from_bytes(data[:4], "big"), data[4:8]
        content, data = data[8:size], data[size:]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            content = rewrite(content, name, edit)
        elif kind == name:
            content = edit(content)
        written += (8 + len(content)).to_bytes(4, "big") + kind + content
    return written


def numbers(*values):
    return b"".join((value % 2**32).to_bytes(4, "big") for value in values)


def with_steps(data, steps):
    """The same frames, each shown for its number of steps: a variable frame rate."""

    def edit(content):
        delta = int.from_bytes(content[12:16], "big")
        table = [value for step in steps for value in (1, step * delta)]
        return content[:4] + numbers(len(steps), *table)

    return rewrite(data.replace(b"edts", b"free"), b"stts", edit)


def turned_right(data):
    """The same frames, to be shown turned by 90 degrees clockwise."""
    matrix = numbers(0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    return rewrite(data, b"tkhd", lambda content: content[:40] + matrix + content[76:])


def with_table_first(data):
    """The table of frames moved before the frames, so that a cut file can be opened."""
    at = data.index(b"moov") - 4
    frames, table = data[:at], data[at:]
    start = frames.index(b"mdat") - 4

    def shift(content):
        offsets = np.frombuffer(content[8:], ">u4") + len(table)
        return content[:8] + offsets.astype(">u4").tobytes()

    return frames[:start] + rewrite(table, b"stco", shift) + frames[start:]


# ---------------------------------------------------------------- whole files


@pytest.fixture(scope="module")
def clip(make_video, tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("video") / "clip.mp4", NUM_FRAMES, fps=FPS)


def test_frames_and_times_of_a_file(clip, number_of):
    source = VideoSource(clip)
    assert (source.fps, source.expected_frames) == (FPS, NUM_FRAMES)
    assert (source.stem, source.name, source.files) == ("clip", str(clip), [clip])
    for _ in range(2):  # each iteration starts anew
        items = list(source)
        assert [number_of(frame) for _, frame in items] == list(range(NUM_FRAMES))
        np.testing.assert_allclose([time for time, _ in items], np.arange(NUM_FRAMES) / FPS)
        assert (source.problem, source.first_frame) == (None, 0)
    assert items[0][1].shape == (32, 48, 3) and items[0][1].dtype == np.uint8


def test_times_of_a_variable_frame_rate(clip, tmp_path, number_of):
    steps = [1, 3, 1, 1, 7] + [1] * 15
    path = tmp_path / "variable.mp4"
    path.write_bytes(with_steps(clip.read_bytes(), steps))
    items = list(VideoSource(path))
    assert [number_of(frame) for _, frame in items] == list(range(NUM_FRAMES))
    expected = np.cumsum([0, *steps[:-1]]) / FPS
    np.testing.assert_allclose([time for time, _ in items], expected, atol=1e-6)


def test_rotation_is_applied(clip, tmp_path):
    path = tmp_path / "turned.mp4"
    path.write_bytes(turned_right(clip.read_bytes()))
    _, frame = next(iter(VideoSource(path)))
    assert frame.shape == (48, 32, 3)
    corners = [frame[:4, :4], frame[:4, -4:], frame[-4:, :4], frame[-4:, -4:]]
    assert [corner.mean() > 200 for corner in corners] == [False, True, False, False]


@pytest.mark.parametrize("suffix", [".avi", ".webm"])
def test_odd_size_and_single_frame(make_video, tmp_path, suffix):
    path = make_video(tmp_path / f"one{suffix}", 1, height=33, width=47)
    source = VideoSource(path)
    ((time, frame),) = source
    assert time == 0 and source.problem is None
    assert frame.shape[:2] in ((33, 47), (32, 46))  # some encoders cut the last odd pixel


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        (0.5, None, range(10, 20)),
        (0.0, 0.25, range(5)),
        (0.42, 0.6, range(9, 12)),
        (0.5, 99, range(10, 20)),
    ],
)
def test_span_in_seconds(clip, number_of, start, end, frames):
    source = VideoSource(clip, start=start, end=end)
    items = list(source)
    assert [number_of(frame) for _, frame in items] == list(frames)
    np.testing.assert_allclose([time for time, _ in items], np.array(frames) / FPS)
    assert source.first_frame == frames[0] and source.problem is None
    assert source.expected_frames == len(frames)


def test_span_after_the_end(clip):
    with pytest.raises(VideoError, match=r"clip.mp4 ends at 0.95 s"):
        list(VideoSource(clip, start=7))


@pytest.mark.parametrize(
    ("span", "name"),
    [
        ({"start": -1}, "start"),
        ({"start": math.nan}, "start"),
        ({"start": 2, "end": 2}, "end"),
        ({"end": math.inf}, "end"),
    ],
)
def test_impossible_spans(clip, span, name):
    with pytest.raises(ValueError, match=name):
        VideoSource(clip, **span)


# ---------------------------------------------------------------- broken files


def test_cut_mp4_gives_what_is_there(clip, tmp_path, number_of):
    data = with_table_first(clip.read_bytes())
    path = tmp_path / "whole.mp4"
    path.write_bytes(data)
    source = VideoSource(path)
    assert len(list(source)) == NUM_FRAMES and source.problem is None
    frames = data.index(b"mdat")
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: frames + (len(data) - frames) // 2])
    source = VideoSource(path)
    found = [number_of(frame) for _, frame in source]
    assert 2 < len(found) < NUM_FRAMES - 2
    assert found[:-1] == list(range(len(found) - 1))  # the last was cut itself
    assert source.problem.startswith(f"{len(found)} of the {NUM_FRAMES} frames")
    assert "\n" not in source.problem


def test_cut_webm_gives_what_is_there(make_video, tmp_path, number_of):
    whole = make_video(tmp_path / "whole.webm", NUM_FRAMES)
    source = VideoSource(whole)
    assert len(list(source)) == NUM_FRAMES and source.problem is None
    path = tmp_path / "cut.webm"
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = VideoSource(path)
    found = [number_of(frame) for _, frame in source]
    assert 2 < len(found) < NUM_FRAMES - 2
    assert found[:-1] == list(range(len(found) - 1))  # the last was cut itself
    assert f"{len(found)} of the" in source.problem


def test_damage_inside_ends_no_iteration(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    middle = data.index(b"mdat") + 4 + (data.index(b"moov") - data.index(b"mdat")) // 2
    data[middle : middle + 40] = bytes(range(40))
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    times = [time for time, _ in VideoSource(path)]
    assert len(times) >= NUM_FRAMES // 2 and (np.diff(times) > 0).all()


def test_damage_that_the_decoder_conceals_is_said(tmp_path, monkeypatch):
    pytest.importorskip("av")
    path = tmp_path / "noise.mp4"
    draw = np.random.default_rng(0)
    noise = [draw.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(NUM_FRAMES)]
    write_frames(path, noise, FPS)
    source = VideoSource(path)
    assert len(list(source)) == NUM_FRAMES and source.problem is None
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 10] = bytes(range(10))
    path.write_bytes(data)
    source = VideoSource(path)
    assert len(list(source)) == NUM_FRAMES  # OpenCV says nothing
    assert source.problem.startswith("1 frame came damaged")
    for span in ({"end": 0.2}, {"start": 0.8}):  # it is in the middle
        source = VideoSource(path, **span)
        assert len(list(source)) == 4 and source.problem is None
    monkeypatch.setitem(sys.modules, "av", None)
    source = VideoSource(path)
    assert len(list(source)) == NUM_FRAMES and source.problem is None


def break_packets(path, numbers):
    """Overwrites packets of an MPEG-4 video, so that the decoder rejects them."""
    data = bytearray(path.read_bytes())
    pictures = [m.start() for m in re.finditer(b"\x00\x00\x01\xb6", data)]
    for number in numbers:
        data[pictures[number] : pictures[number] + 8] = bytes(8)
    path.write_bytes(data)


def write_long(path, code="mp4v", num_frames=200):
    """A video so long that 2 percent of it are 4 frames."""
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), FPS, (64, 48)
    )
    for i in range(num_frames):
        writer.write(np.full((48, 64, 3), 20 + i, np.uint8))
    writer.release()


def test_frames_after_a_packet_that_is_rejected_come_with_their_times(clip, tmp_path):
    path = tmp_path / "damaged.mp4"
    path.write_bytes(clip.read_bytes())
    break_packets(path, [7])
    source = VideoSource(path)
    times = [time for time, _ in source]
    assert times == pytest.approx([i / FPS for i in range(NUM_FRAMES) if i != 7])
    assert source.problem == "1 packet could not be decoded: frames are missing"


@pytest.mark.parametrize(
    ("span", "num_frames", "is_inside"),
    [
        ({"end": 0.6}, 9, True),
        ({"end": 0.5}, 7, True),  # the frame after the damage is outside
        ({"end": 0.35}, 7, False),
        ({"start": 0.2}, 13, True),
        ({"start": 0.6}, 8, False),
    ],
)
def test_packets_that_are_rejected_count_inside_the_span(
    clip, tmp_path, span, num_frames, is_inside
):
    path = tmp_path / "damaged.mp4"
    path.write_bytes(clip.read_bytes())
    break_packets(path, [7, 8, 9])
    source = VideoSource(path, **span)
    assert len(list(source)) == num_frames
    problem = "3 packets could not be decoded: frames are missing" if is_inside else None
    assert source.problem == problem


@pytest.mark.parametrize(
    ("span", "is_inside"),
    [({}, True), ({"start": 0.5}, True), ({"end": 0.95}, True), ({"end": 0.85}, False)],
)
def test_damage_at_the_end_counts_inside_the_span(clip, tmp_path, span, is_inside):
    path = tmp_path / "damaged.mp4"
    path.write_bytes(clip.read_bytes())
    break_packets(path, [17, 18, 19])
    source = VideoSource(path, **span)
    list(source)
    assert (source.problem or "").startswith("17 of the 20 frames") == is_inside


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_damage_at_the_end_is_said_however_long_the_video(tmp_path, suffix):
    path = tmp_path / f"long{suffix}"
    write_long(path)
    break_packets(path, range(196, 200))
    for span in ({}, {"start": 1}):
        source = VideoSource(path, **span)
        list(source)
        assert source.problem.startswith("196 of the 200 frames")


@pytest.mark.parametrize(
    ("suffix", "code"),
    [(".mp4", "mp4v"), (".mov", "mp4v"), (".avi", "MJPG"), (".avi", "mp4v"), (".mkv", "mp4v")]
    + [(".webm", "VP80"), (".ts", "mp4v"), (".mpg", "mpg1"), (".gif", None)],
)
def test_whole_files_have_no_problem(tmp_path, suffix, code):
    path = tmp_path / f"whole{suffix}"
    if code:
        write_long(path, code)
    else:
        write_gif(path, 200)
    for span in ({}, {"start": 2}, {"end": 2}):
        source = VideoSource(path, **span)
        assert list(source) and source.problem is None


@pytest.mark.parametrize(
    ("suffix", "is_fragmented"), [(".mkv", False), (".mp4", True), (".mp4", False)]
)
def test_sound_that_goes_on_longer_is_no_damage(tmp_path, monkeypatch, suffix, is_fragmented):
    path = tmp_path / f"long{suffix}"
    write_long(path)
    if is_fragmented:  # a box that says so, in an empty one's place
        path.write_bytes(path.read_bytes().replace(b"free", b"mvex", 1))
    monkeypatch.setattr(module, "read_header", lambda path: VideoHeader(FPS, 204))
    source = VideoSource(path)
    assert len(list(source)) == 200
    is_counted = suffix == ".mp4" and not is_fragmented
    assert (source.problem is not None) == is_counted


def write_gif(path, num_frames):
    first, *others = (Image.new("L", (32, 24), 20 + i) for i in range(num_frames))
    first.save(path, save_all=True, append_images=others, duration=50)


def test_cut_gif_is_said(tmp_path):
    path = tmp_path / "cut.gif"
    write_gif(path, NUM_FRAMES)
    whole = path.read_bytes()
    for content, problem in (
        (whole + bytes(9), None),
        (whole[:-1], "the file does not end as a GIF does: it is cut"),
    ):
        path.write_bytes(content)
        source = VideoSource(path)
        assert len(list(source)) == NUM_FRAMES and source.problem == problem


@pytest.mark.parametrize("content", [None, b"", b"no video at all" * 100])
def test_nothing_to_decode(tmp_path, capfd, content):
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    source = VideoSource(path)
    assert (source.fps, source.expected_frames) == (25, None)
    with pytest.raises(VideoError, match="bad.mp4"):
        list(source)
    assert capfd.readouterr() == ("", "")


def test_counts_of_headers_are_not_believed(clip, make_video, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_header", lambda path: VideoHeader(FPS, 444))
    source = VideoSource(clip)
    assert source.expected_frames == 444 and len(list(source)) == NUM_FRAMES
    assert source.problem.startswith("20 of the 444 frames")
    # A webm stores a duration: 30 frames of 1/30 s are the second that its 20 frames last.
    monkeypatch.setattr(module, "read_header", lambda path: VideoHeader(30, 30))
    source = VideoSource(make_video(tmp_path / "variable.webm", NUM_FRAMES))
    assert len(list(source)) == NUM_FRAMES and source.problem is None


@pytest.mark.parametrize("fps", [0.0, 90000.0])
def test_rates_of_headers_are_not_believed(clip, monkeypatch, fps):
    monkeypatch.setattr(module, "read_header", lambda path: VideoHeader(fps, NUM_FRAMES))
    assert VideoSource(clip).fps == 25


class FakeCapture:
    """A capture of frames with given time stamps in ms; None cannot be retrieved."""

    def __init__(self, stamps, broken=()):
        self.stamps, self.broken, self.at = stamps, broken, -1
        self.released = False

    def grab(self):
        self.at += 1
        return self.at < len(self.stamps)

    def retrieve(self):
        if self.at in self.broken:
            return False, None
        return True, np.full((4, 6, 3), self.at, np.uint8)

    def get(self, key):
        return self.stamps[self.at] if key == cv2.CAP_PROP_POS_MSEC else 10.0

    def release(self):
        self.released = True


def fake_file(monkeypatch, capture):
    def grab(path):
        while capture.grab():
            yield capture, 0

    monkeypatch.setattr(module, "grab_past_damage", grab)
    monkeypatch.setattr(module, "read_header", lambda path: VideoHeader(10, 0))


def test_times_ascend_whatever_the_container_says(monkeypatch):
    nan, inf = math.nan, math.inf
    fake_file(monkeypatch, FakeCapture([-80, 0, 100, 100, 50, nan, 600, inf]))
    times = [time for time, _ in VideoSource("file.mp4")]
    # The first is not negative; without a later stamp a frame comes 1 / fps after the one before.
    np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])


def test_places_without_a_frame_in_an_avi_are_no_damage(tmp_path, monkeypatch):
    fake_file(monkeypatch, FakeCapture([0, 100, 400, 600]))
    monkeypatch.setattr(module, "read_header", lambda path: VideoHeader(10, 7))
    path = tmp_path / "file.avi"
    path.write_bytes(b"")
    source = VideoSource(path)
    assert len(list(source)) == 4 and source.problem is None


def test_frames_that_cannot_be_retrieved_are_counted(monkeypatch):
    fake_file(monkeypatch, FakeCapture([0, 100, 200, 300], broken=(0, 2)))
    source = VideoSource("file.mp4")
    assert [(round(time, 6), frame[0, 0, 0]) for time, frame in source] == [(0.1, 1), (0.3, 3)]
    assert source.problem == "2 frames could not be decoded and had to be left out"
    fake_file(monkeypatch, FakeCapture([0, 100], broken=(0, 1)))
    with pytest.raises(VideoError, match="cannot decode file.mp4"):
        list(VideoSource("file.mp4"))


# ---------------------------------------------------------------- images


def write_images(folder, sizes):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"frame_{i + 1}.png" for i in range(len(sizes))]
    for i, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        cv2.imwrite(str(path), np.full((*size, 3), 10 + 10 * i, np.uint8))
    return paths


def test_folder_of_images_in_the_order_of_their_numbers(tmp_path, number_of):
    paths = write_images(tmp_path / "walk", [(16, 24)] * 11)
    (tmp_path / "walk" / "._frame_1.png").write_bytes(b"hidden")
    source = VideoSource(tmp_path / "walk")
    items = list(source)
    assert [number_of(frame) for _, frame in items] == list(range(11))
    np.testing.assert_allclose([time for time, _ in items], np.arange(11) / 25)
    assert (source.fps, source.expected_frames, source.stem) == (25, 11, "walk")
    assert source.files == paths


def test_images_of_other_sizes_and_broken_ones(tmp_path):
    paths = write_images(tmp_path, [(16, 24), (16, 24), (32, 48), (8, 8), (16, 24)])
    paths[1].write_bytes(b"no image")
    source = VideoSource(tmp_path)
    items = list(source)
    assert [frame.shape for _, frame in items] == [(16, 24, 3)] * 4
    assert [frame[0, 0, 0] for _, frame in items] == [10, 30, 40, 50]
    np.testing.assert_allclose([time for time, _ in items], [0, 0.08, 0.12, 0.16])
    assert source.problem == (
        f"1 frame could not be decoded and had to be left out (the first: cannot read image "
        f"{paths[1]}: not an image (of PNG, JPEG, BMP, PNM, TIFF or WebP)); "
        "2 frames of another size had to be scaled to the first's, 24 x 16"
    )


def test_a_picture_that_announces_too_much_is_left_out(tmp_path):
    paths = write_images(tmp_path, [(16, 24)] * 2)
    paths[0].write_bytes(b"P6\n70000 70000\n255\n" + bytes(4096))
    source = VideoSource(tmp_path)
    assert len(list(source)) == 1
    assert f"{paths[0]}: an image that announces 70000 x 70000 pixels" in source.problem
    paths[1].unlink()
    with pytest.raises(VideoError, match=r"frame_1.png: an image that announces 70000 x 70000"):
        list(VideoSource(tmp_path))


def test_folder_without_images(tmp_path):
    with pytest.raises(ValueError, match="holds no images"):
        VideoSource(tmp_path)


# ---------------------------------------------------------------- cameras


def test_camera(monkeypatch):
    capture = FakeCapture([0] * 3)
    opened = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened.append(number) or capture)
    clock = iter([100.0, 100.5, 100.75])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    source = VideoSource("webcam:3")
    assert (source.stem, source.name, source.files) == ("webcam3", "webcam:3", [])
    assert source.is_live and not VideoSource("clip.mp4").is_live
    assert source.expected_frames is None and source.fps == 25
    assert [time for time, _ in source] == [0, 0.5, 0.75]
    assert opened == [3] and capture.released and source.fps == 10
    assert source.problem == "the camera stopped"


def test_camera_ends_at_the_end(monkeypatch):
    capture = FakeCapture([0] * 3)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture)
    clock = iter([100.0, 100.5, 100.75])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    source = VideoSource("webcam:0", end=0.6)
    assert len(list(source)) == 2 and capture.released and source.problem is None


def test_no_camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: FakeCapture([]))
    with pytest.raises(VideoError, match="cannot open webcam:0"):
        list(VideoSource("webcam:0"))


# ---------------------------------------------------------------- inputs


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names(*inputs):
    return [source.name for source in expand_inputs(inputs)]


def test_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "v/b10.mp4", "v/b9.MOV", "v/.hidden.mp4", "v/notes.txt", "v/poster.jpg")
    touch(tmp_path, "v/deep/c.webm", "[x].mp4", "stills/f10.png", "stills/f9.png", "odd.xyz")
    assert names("[x].mp4") == ["[x].mp4"]  # a file, though it looks like a pattern
    assert names("odd.xyz") == ["odd.xyz"]  # named by hand: tried
    assert names("v") == ["v/b9.MOV", "v/b10.mp4"]  # videos before images
    assert names("v/*.mp4", "v", "v/b10.mp4") == ["v/b10.mp4", "v/b9.MOV"]  # each once
    assert names("v/**/*.webm") == ["v/deep/c.webm"]
    assert names("webcam:1", "webcam:1") == ["webcam:1"]
    assert names("stills") == ["stills"]
    for inputs in (["stills/*.png"], ["stills/f9.png", "stills/f10.png"]):
        (source,) = expand_inputs(inputs)
        assert [file.name for file in source.files] == ["f9.png", "f10.png"]
        assert source.stem == "stills"
    (source,) = expand_inputs(["stills/f9.png"])
    assert source.stem == "f9" and source.expected_frames == 1


def test_other_files_of_folders_and_patterns_are_passed_over(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "v/a.mp4", "v/a.json", "v/notes.txt", "v/.hidden.txt")
    line = "passed over, by their names no videos or images: v/a.json, v/notes.txt"
    for inputs in (["v"], ["v/*"], ["**"], ["v/*", "v"]):
        caplog.clear()
        assert names(*inputs) == ["v/a.mp4"]
        assert [record.getMessage() for record in caplog.records] == [line]
    touch(tmp_path, *(f"v/{i}.csv" for i in range(4)))
    caplog.clear()
    with pytest.raises(ValueError, match="there is no video in"):
        names("v/*.csv")
    assert caplog.messages == [line.split(": ")[0] + ": v/0.csv, v/1.csv, v/2.csv and 1 more"]
    caplog.clear()
    assert names("v/notes.txt", "v/a.mp4") == ["v/notes.txt", "v/a.mp4"] and not caplog.records


def test_span_goes_to_every_input(clip):
    (source,) = expand_inputs([str(clip)], start=0.5, end=0.6)
    assert (source.start, source.end) == (0.5, 0.6)


def test_inputs_that_match_nothing(tmp_path):
    for text in ("missing.mp4", "*.mp4", "webcam:x"):
        with pytest.raises(ValueError, match="there is no input"):
            expand_inputs([str(tmp_path / text)])
    touch(tmp_path, "notes.txt")
    with pytest.raises(ValueError, match="holds no videos"):
        expand_inputs([str(tmp_path)])


def test_natural_order():
    unsorted = ["f10.png", "F9.png", "f1.png", "a.png"]
    assert sorted(unsorted, key=natural_order) == ["a.png", "f1.png", "F9.png", "f10.png"]
