"""Videos that a browser plays. Small fakes stand in for ffmpeg and for PyAV's other encoders."""

import json
import sys
import types
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from a2d_d2.data.video import iter_frames, read_header
from a2d_d2.inference.writer import Output, VideoWriter, choose_output, open_writer, remove_frames


def picture(level, height=32, width=48):
    return np.full((height, width, 3), level, np.uint8)


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """Neither PyAV nor ffmpeg; gives the only folder in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "av", None)
    return folder


# ---------------------------------------------------------------- the choice


def test_choice_without_encoders(bare_machine):
    assert choose_output().suffix == choose_output("webm").suffix == ".webm"
    assert "VP8" in choose_output().description and choose_output().is_video
    frames = choose_output("frames")
    assert frames.suffix == ".frames" and not frames.is_video
    with pytest.raises(ValueError, match=r"mp4 needs an H.264 encoder.*a2d_d2\[video\]"):
        choose_output("mp4")
    with pytest.raises(ValueError, match="unknown format 'gif'.*mp4, webm, frames"):
        choose_output("gif")


# ---------------------------------------------------------------- webm


def test_webm_by_opencv(tmp_path, capfd):
    path = tmp_path / "deep" / "out.webm"
    with open_writer(path, choose_output("webm"), 20) as writer:
        for i in range(6):
            colors = picture(0, 33, 47)
            colors[..., 0], colors[..., 2] = 40 * i, 60  # red rises, blue stays
            assert writer.write(colors, 3 + i / 20, i + 1) == pytest.approx(i / 20)
        assert writer.duration == pytest.approx(6 / 20)
    frames = list(iter_frames(path))
    assert len(frames) == 6 and frames[0].shape == (34, 48, 3)
    assert read_header(path).fps == pytest.approx(20)
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), [60, 0, 40 * i], atol=8)
    assert [file.name for file in path.parent.iterdir()] == ["out.webm"]
    assert capfd.readouterr() == ("", "")


def test_h264_by_pyav(tmp_path, capfd):
    output = choose_output()
    assert output.suffix == ".mp4" and "H.264 in mp4 through PyAV (lib" in output.description
    path = tmp_path / "out.mp4"
    with open_writer(path, output, 30000 / 1001) as writer:
        for i in range(40):  # more than the encoder looks ahead
            colors = picture(0, 33, 47)
            colors[..., 0], colors[..., 2] = 5 * i, 60
            writer.write(colors, 3 + i * 1001 / 30000, i + 1)
    frames = list(iter_frames(path))
    assert len(frames) == 40 and frames[0].shape == (34, 48, 3)
    for i, frame in enumerate(frames):
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), [60, 0, 5 * i], atol=8)
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.average_rate, stream.frames) == (Fraction(30000, 1001), 40)
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")  # it plays before it is whole
    assert capfd.readouterr() == ("", "")


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.webm"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), open_writer(path, choose_output("webm"), 20) as writer:
        writer.write(picture(0), 0, 1)
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_opencv_without_vp8_is_said(tmp_path, monkeypatch):
    closed = types.SimpleNamespace(isOpened=lambda: False)
    monkeypatch.setattr(cv2, "VideoWriter", lambda *arguments: closed)
    with (
        pytest.raises(OSError, match="cannot write VP8.*frames"),
        open_writer(tmp_path / "out.webm", choose_output("webm"), 20) as writer,
    ):
        writer.write(picture(0), 0, 1)


# ---------------------------------------------------------------- timing


class Recorder:
    """An encoder that keeps what it is given."""

    def __init__(self):
        self.levels, self.opened, self.closed = [], None, 0

    def __call__(self, path, rate, size):
        self.opened = (path, rate, size)
        return self

    def write(self, picture):
        self.levels.append(int(picture[0, 0, 0]))

    def close(self):
        self.closed += 1


def record(times, fps):
    recorder = Recorder()
    writer = VideoWriter("path", Output(".x", "recorder", recorder), fps)
    shown = [writer.write(picture(i), time, i + 1) for i, time in enumerate(times)]
    duration = writer.duration
    writer.close()
    writer.close()
    assert recorder.closed == 1
    return recorder, shown, duration


def test_pictures_stay_until_the_next_is_due():
    # At 10 a second: 0.02 s after the first is within its slot; 0.5 s come four slots later.
    recorder, shown, duration = record([7.0, 7.02, 7.1, 7.5, 7.61], 10)
    assert recorder.levels == [0, 2, 2, 2, 2, 3, 4]
    np.testing.assert_allclose(shown, [0, 0, 0.1, 0.5, 0.6])
    assert duration == pytest.approx(0.7)


def test_long_pauses_are_cut():
    recorder, shown, _ = record([0, 0.5, 100.5, 101.0], 2)
    assert recorder.levels == [0, *[1] * 21, 2, 3]  # ten seconds in between, at 2 a second
    np.testing.assert_allclose(shown, [0, 0.5, 11.0, 11.5])


def test_pictures_too_large_for_a_video_are_refused(tmp_path):
    path = tmp_path / "out.webm"
    with (
        pytest.raises(ValueError, match="16384 x 2, and no side .* 16383 .* format frames"),
        open_writer(path, choose_output("webm"), 20) as writer,
    ):
        writer.write(picture(0, 2, 16384), 0, 1)
    assert list(tmp_path.iterdir()) == []


def test_rates_are_exact_fractions():
    recorder, _, _ = record([0], 30000 / 1001)
    assert recorder.opened == ("path", Fraction(30000, 1001), (48, 32))


def test_nothing_written_opens_nothing():
    recorder = Recorder()
    VideoWriter("path", Output(".x", "recorder", recorder), 25).close()
    assert recorder.opened is None


# ---------------------------------------------------------------- ffmpeg

FFMPEG = """#!{python}
import json, sys
if "-encoders" in sys.argv:
    print(" V....D {codec}   an encoder")
    sys.exit()
data = sys.stdin.buffer.read({limit})
if {status}:
    print("first", file=sys.stderr)
    print("no space left", file=sys.stderr)
    sys.exit({status})
with open(sys.argv[-1], "w") as stream:
    json.dump([sys.argv[1:], len(data), list(data[:3]), list(data[-3:])], stream)
"""


@pytest.fixture
def fake_ffmpeg(bare_machine):
    def install(codec="libx264", status=0, limit=-1):
        script = bare_machine / "ffmpeg"
        script.write_text(
            FFMPEG.format(python=sys.executable, codec=codec, status=status, limit=limit)
        )
        script.chmod(0o755)

    return install


@pytest.mark.parametrize("codec", ["libx264", "libopenh264"])
def test_ffmpeg_gets_raw_pictures_and_makes_a_web_video(fake_ffmpeg, tmp_path, codec):
    fake_ffmpeg(codec)
    output = choose_output()
    assert output.suffix == ".mp4" and f"ffmpeg ({codec})" in output.description
    assert choose_output("mp4").suffix == ".mp4"
    path = tmp_path / "out.mp4"
    with open_writer(path, output, 30000 / 1001) as writer:
        for i in range(3):
            writer.write(picture((10 + i, 20, 30), 31, 47), i * 1001 / 30000, i + 1)
    arguments, size, first, last = json.loads(path.read_text())
    assert (size, first, last) == (3 * 32 * 48 * 3, [10, 20, 30], [12, 20, 30])
    text = " ".join(arguments)
    reads, writes = text.split(" -i pipe:0 ")
    assert "-f rawvideo -pix_fmt rgb24 -s 48x32 -r 30000/1001" in reads
    assert f"-c:v {codec}" in writes and "-pix_fmt yuv420p" in writes
    assert "-movflags +faststart" in writes and " -f mp4 " in writes


def test_failing_ffmpeg_is_said(fake_ffmpeg, tmp_path):
    fake_ffmpeg(status=3)
    path = tmp_path / "out.mp4"
    with (
        pytest.raises(OSError, match="ffmpeg failed with status 3: no space left"),
        open_writer(path, choose_output(), 25) as writer,
    ):
        writer.write(picture(0), 0, 1)
    assert not path.exists()


def test_ffmpeg_that_stops_early_is_said(fake_ffmpeg, tmp_path):
    fake_ffmpeg(status=4, limit=10)
    with (
        pytest.raises(OSError, match="no space left"),
        open_writer(tmp_path / "out.mp4", choose_output(), 25) as writer,
    ):
        for i in range(100):
            writer.write(picture(0, 256, 256), i / 25, i + 1)


def test_ffmpeg_without_h264_is_not_taken(fake_ffmpeg):
    fake_ffmpeg("mpeg4")
    assert choose_output().suffix == ".webm"


# ---------------------------------------------------------------- PyAV


def fake_av(codecs):
    """A module like PyAV that notes what is done with it in ``calls``."""
    calls = []

    class Stream:
        def encode(self, frame=None):
            if frame is None:
                return ["last"]
            assert frame.time_base == Fraction(1, 25)
            return [(frame.format, frame.array.shape, frame.pts)]

    class Container:
        def __init__(self, path):
            self.path = path

        def add_stream(self, codec, rate):
            self.stream = Stream()
            calls.append(("stream", codec, rate))
            return self.stream

        def mux(self, packet):
            calls.append(("mux", packet))

        def close(self):
            calls.append(("close", vars(self.stream)))
            with open(self.path, "w") as stream:
                stream.write("video")

    def open_(path, mode, format, options):
        calls.append(("open", mode, format, options))
        return Container(path)

    class VideoFrame:
        @staticmethod
        def from_ndarray(array, format):
            return types.SimpleNamespace(array=array, format=format)

    module = types.ModuleType("av")
    module.codecs_available = set(codecs)
    module.open, module.VideoFrame, module.calls = open_, VideoFrame, calls
    return module


def test_pyav_comes_first(fake_ffmpeg, tmp_path, monkeypatch):
    fake_ffmpeg()
    av = fake_av({"libx264", "libopenh264", "h264"})
    monkeypatch.setitem(sys.modules, "av", av)
    output = choose_output("mp4")
    assert output.suffix == ".mp4" and "PyAV (libx264)" in output.description
    path = tmp_path / "out.mp4"
    with open_writer(path, output, 25) as writer:
        for i in range(2):
            writer.write(picture(i, 31, 48), i / 25, i + 1)
    assert path.read_text() == "video"
    assert av.calls[0] == ("open", "w", "mp4", {"movflags": "+faststart"})
    assert av.calls[1] == ("stream", "libx264", Fraction(25))
    assert [call[1] for call in av.calls if call[0] == "mux"] == [
        ("rgb24", (32, 48, 3), 0),
        ("rgb24", (32, 48, 3), 1),
        "last",
    ]
    settings = av.calls[-1][1]
    assert (settings["width"], settings["height"]) == (48, 32)
    assert settings["pix_fmt"] == "yuv420p"


def test_pyav_without_h264_is_not_taken(bare_machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", fake_av({"mpeg4", "h264"}))  # h264 may be a decoder
    assert choose_output().suffix == ".webm"


# ---------------------------------------------------------------- files


def test_frames_are_files_named_by_their_numbers(tmp_path):
    folder = tmp_path / "clip.frames"
    with open_writer(folder, choose_output("frames"), 10) as writer:
        assert writer.write(picture(200), 5.0, 11) == 0
        assert writer.write(picture(100, 33, 47), 5.3, 14) == pytest.approx(0.3)
        assert writer.duration == pytest.approx(0.4)
    assert sorted(path.name for path in folder.iterdir()) == ["000011.jpg", "000014.jpg"]
    image = cv2.imread(str(folder / "000014.jpg"))
    assert image.shape == (33, 47, 3) and abs(image.mean() - 100) < 3


def test_the_files_of_a_writer_alone_are_removed(tmp_path):
    folder = tmp_path / "clip.frames"
    numbers = (1, 1_000_000)
    remove_frames(folder, numbers)
    with open_writer(folder, choose_output("frames"), 10) as writer:
        for number in numbers:
            writer.write(picture(0), number, number)
    names = ("1.jpg", "0000001.jpg", "000001.png", "x000001.jpg", "000003.jpg", "123456.jpg")
    others = [folder / name for name in names]
    for path in others:
        path.touch()
    (folder / "000002.jpg").mkdir()
    remove_frames(folder, (*numbers, 2))
    assert sorted(folder.iterdir()) == sorted([*others, folder / "000002.jpg"])
    for path in others:
        path.unlink()
    (folder / "000002.jpg").rmdir()
    remove_frames(folder, ())
    assert not folder.exists()


def test_encoder_that_writes_nothing_is_said(tmp_path):
    output = Output(".mp4", "recorder", Recorder())
    with (
        pytest.raises(OSError, match="wrote nothing"),
        open_writer(tmp_path / "out.mp4", output, 25) as writer,
    ):
        writer.write(picture(0), 0, 1)
    assert list(tmp_path.iterdir()) == []
