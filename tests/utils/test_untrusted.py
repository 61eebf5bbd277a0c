"""Bounds on what YAML, JSON and pictures of strangers may claim."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from a2d_d2.utils.cli import one_line
from a2d_d2.utils.untrusted import MAX_PIXELS, decode_image, read_image, read_json, read_yaml

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def read(tmp_path, text, reader=read_yaml):
    path = tmp_path / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return reader(path, "things")


def test_yaml_of_plain_types(tmp_path):
    assert read(tmp_path, "a: &x [1, 2.5, yes]\nb: *x\nc: {d: null}\n") == {
        "a": [1, 2.5, True],
        "b": [1, 2.5, True],
        "c": {"d": None},
    }
    assert read(tmp_path, "") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("!!python/object/apply:os.abort []", "could not determine a constructor"),
        (BOMB, "stands for more than"),
        ("a: &a [*a]", "nests deeper"),
        ("[" * 5000, "not valid YAML"),
        ("[" * 60 + "]" * 60, "nests deeper"),
        ("x" * 300_000, "larger than 256 KiB"),
        ("a: 1\nb: 2\na: 3\n", "'a' is given twice"),
        ("!!int ''", "not valid YAML"),
        ("!!bool x", "not valid YAML"),
        ("!!timestamp x", "not valid YAML"),
        ("2001-99-99", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, words):
    with pytest.raises(ValueError, match=rf"bad things .*file.*{words}"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 200_000, "recursion"),
        ('[{"a": 1, "b": 2, "a": 3}]', "'a' is given twice"),
        ("1" * 5000, "not valid JSON"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_json_that_is_refused(tmp_path, text, words):
    with pytest.raises(ValueError, match=rf"(?s)things .*file.*{words}"):
        read(tmp_path, text, read_json)


def test_json_may_not_be_larger_than_its_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("a2d_d2.utils.untrusted.MAX_JSON_BYTES", 4)
    assert read(tmp_path, "[12]", read_json) == [12]
    with pytest.raises(ValueError, match="larger than"):
        read(tmp_path, "[123]", read_json)


def announce(data, width, height):
    """A PNG whose header says another size, its checksum right."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_pictures_that_announce_too_much_are_not_decoded():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    data = cv2.imencode(".png", image)[1].tobytes()
    assert (decode_image(data, cv2.IMREAD_COLOR) == image).all()
    assert (decode_image(announce(data, 4, 4), cv2.IMREAD_COLOR) == image).all()
    with pytest.raises(ValueError, match="announces 10000 x 10000"):
        decode_image(announce(data, 10_000, 10_000), cv2.IMREAD_COLOR)
    for broken in (announce(data, 2**31 - 1, 2**31 - 1), data[:20], b"", b"GIF89a"):
        with pytest.raises(ValueError, match="image"):
            decode_image(broken, cv2.IMREAD_COLOR)


def tiff(order, *entries):
    """A TIFF of nothing but a table of (tag, type, value)."""
    fields = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1)
        + struct.pack(
            f"{order}{'HH' if kind == 3 else 'I'}", *((value, 0) if kind == 3 else (value,))
        )
        for tag, kind, value in entries
    )
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return start + struct.pack(f"{order}IH", 8, len(entries)) + fields + bytes(4)


LARGE = {
    "bmp": b"BM" + bytes(12) + struct.pack("<III", 40, 70_000, 70_000),
    "bmp from the top": b"BM" + bytes(12) + struct.pack("<IIi", 40, 70_000, -70_000),
    "bmp of OS/2": b"BM" + bytes(12) + struct.pack("<IHH", 12, 60_000, 60_000),
    "ppm": b"P6\n# 4 4\n70000 # 4\n 70000\n255\n",
    "tiff": tiff("<", (256, 4, 70_000), (257, 4, 70_000)),
    "big-endian tiff": tiff(">", (256, 3, 60_000), (257, 3, 60_000)),
    "tiff of tiles": tiff("<", (256, 3, 16), (257, 3, 16), (322, 4, 70_000), (323, 4, 70_000)),
    "tiff that says it twice": tiff("<", *[(x, 4, n) for n in (9, 70_000, 9) for x in (256, 257)]),
    "lossy webp": b"RIFF----WEBPVP8 " + bytes(10) + struct.pack("<HH", 16_000, 16_000),
    "lossless webp": b"RIFF----WEBPVP8L" + bytes(5) + struct.pack("<I", 16_000 << 14 | 16_000),
    "webp with alpha": b"RIFF----WEBPVP8X" + bytes(8) + b"\xff\xff\0" * 2,
}


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE)
def test_pictures_of_every_kind_announce_their_size(data):
    with pytest.raises(ValueError, match="an image that announces [67210]+[0-9]* x"):
        decode_image(data + bytes(4096), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    "data",
    [
        *(b"P6\n4#\n9 9\n255\n", b"P6" + b" " * 5000 + b"4 4\n255\n", b"P7\n4 4\n"),
        *(tiff("<", (256, 16, 4), (257, 16, 4)), tiff("<"), b"II*\0" + b"\xff" * 4, b"BM"),
        b"GIF89a\4\0\4\0",
    ],
)
def test_pictures_whose_size_is_unknown_are_refused(data):
    with pytest.raises(ValueError, match="not an image"):
        decode_image(data + bytes(64), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    ("suffix", "depth"),
    [
        *((suffix, np.uint8) for suffix in ("png", "jpg", "bmp", "ppm", "pgm", "tif", "webp")),
        *((suffix, np.uint16) for suffix in ("png", "ppm", "pgm", "tif")),
    ],
)
def test_files_of_pictures_are_those_of_opencv(tmp_path, suffix, depth):
    path = tmp_path / f"picture.{suffix}"
    shape = (13, 22) if suffix == "pgm" else (13, 22, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    cv2.imwrite(str(path), image.astype(depth) * (257 if depth == np.uint16 else 1))
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED):
        np.testing.assert_array_equal(read_image(path, flags), cv2.imread(str(path), flags))


def test_files_that_are_no_pictures_are_named(tmp_path):
    path = tmp_path / "picture.png"
    with pytest.raises(ValueError, match=r"cannot read image .*picture.png: No such file"):
        read_image(path, cv2.IMREAD_COLOR)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"cannot read image .*picture.png: not an image"):
        read_image(path, cv2.IMREAD_COLOR)
    with open(path, "r+b") as stream:
        stream.truncate(8 * MAX_PIXELS + 1)  # of zeros, which take no room
    with pytest.raises(ValueError, match=r"picture.png: larger than 512 MiB"):
        read_image(path, cv2.IMREAD_COLOR)


def test_a_message_is_one_line_without_escape_sequences():
    assert one_line(ValueError("bad\n  file \x1b[2J\u202e é")) == r"bad file \x1b[2J\u202e é"
    text = one_line(ValueError("x" * 10**6 + "end"))
    assert len(text) < 1100 and text.startswith("xxx") and text.endswith("end")
