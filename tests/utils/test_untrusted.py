"""Bounds on what YAML, JSON and pictures of strangers may claim."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from a2d_d2.utils.cli import one_line
from a2d_d2.utils.untrusted import decode_image, read_json, read_yaml

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


def test_a_message_is_one_line_without_escape_sequences():
    assert one_line(ValueError("bad\n  file \x1b[2J\u202e é")) == r"bad file \x1b[2J\u202e é"
    text = one_line(ValueError("x" * 10**6 + "end"))
    assert len(text) < 1100 and text.startswith("xxx") and text.endswith("end")
