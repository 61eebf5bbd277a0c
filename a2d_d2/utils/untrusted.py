"""Reading files of strangers as data: no code in them runs, and what they claim is bounded."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import yaml

# A frame of 8192 x 8192 pixels: whatever says that it is larger is not believed.
MAX_PIXELS = 1 << 26
MAX_JSON_BYTES = 1 << 30
MAX_YAML_BYTES = 1 << 18
_MAX_IMAGE_BYTES = 8 * MAX_PIXELS  # four channels of 16 bits
# Nodes of a YAML file with its aliases written out, and how deep they nest.
_MAX_NODES, _MAX_DEPTH = 50_000, 50
# What PyYAML raises beside its own errors: !!int '' an IndexError, !!bool x a KeyError, ...
_YAML_MISTAKES = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError)
_YAML_MISTAKES += (ArithmeticError, RecursionError)

# Width and height of a PNM; only white space may follow them, which every reader takes alike.
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])*"
_PNM = re.compile(rb"P[1-6]\s" + _SPACE + rb"(\d+)\s" + _SPACE + rb"(\d+)\s")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without repeated keys, of which the last would silently win."""

    def construct_mapping(self, node, deep=False):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if keys and max(keys.values()) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"{keys.most_common(1)[0][0]!r} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: str | os.PathLike, what: str):
    """The value of a YAML file of plain types.

    Args:
        path: of the file.
        what: the file is, for messages.

    Raises:
        ValueError: the file cannot be read, is too large, nests too deep, has aliases that stand
            for too much, repeats a key, or asks for objects of Python.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {what} {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the path
        raise ValueError(f"cannot read {what} {path!r}: {error}") from error
    if len(data) > MAX_YAML_BYTES:
        raise ValueError(f"bad {what} {path}: it is larger than {MAX_YAML_BYTES >> 10} KiB")
    try:
        loader = _Loader(data.decode("utf-8-sig"))
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count_nodes(node, {}, 0)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except _YAML_MISTAKES as error:
        raise ValueError(f"bad {what} {path}: not valid YAML: {error}") from error


def _count_nodes(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """The nodes that a node stands for; ValueError if these are too many or nest too deep."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"it nests deeper than {_MAX_DEPTH} levels")
    if id(node) not in known:
        inner = []
        if isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum(_count_nodes(each, known, depth + 1) for each in inner)
    if known[id(node)] > _MAX_NODES:
        raise ValueError(f"it stands for more than {_MAX_NODES} values")
    return known[id(node)]


def read_json(path: str | os.PathLike, what: str):
    """The value of a JSON file.

    Args:
        path: of the file.
        what: the file is, for messages.

    Raises:
        ValueError: the file cannot be read, is too large, nests too deep or repeats a key.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {what} {path}: {error.strerror}") from error
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{what} {path} are larger than {MAX_JSON_BYTES >> 20} MiB")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} {path} are not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, object]]) -> dict:
    value = dict(pairs)
    if len(value) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{key!r} is given twice in one object")
    return value


def check_size(data: bytes) -> None:
    """Compares the size that the header of an image announces with ``MAX_PIXELS``.

    Args:
        data: the file: PNG, JPEG, BMP, PNM, TIFF or WebP; of a PNG its beginning will do.

    Raises:
        ValueError: it is no such file, or is too large.
    """
    width, height = _announced_size(data)
    if not width * height:
        raise ValueError("not an image (of PNG, JPEG, BMP, PNM, TIFF or WebP)")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"an image that announces {width} x {height} pixels; more than {MAX_PIXELS} are not "
            "read"
        )


def _announced_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header; one of them is 0 where there is none."""

    def number(place: int, length: int, order: str = "little") -> int:
        return int.from_bytes(data[place : place + length], order)

    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return number(16, 4, "big"), number(20, 4, "big")
    if data[:2] == b"\xff\xd8":
        place = 2
        while data[place : place + 1] == b"\xff" and place + 9 <= len(data):
            marker = data[place + 1]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
                return number(place + 7, 2, "big"), number(place + 5, 2, "big")
            place += 1 if marker == 0xFF else 2 + number(place + 2, 2, "big")
    elif data[:2] == b"BM" and number(14, 4) == 12:
        return number(18, 2), number(20, 2)
    elif data[:2] == b"BM":  # rows from top to bottom have a negative height
        return number(18, 4), min(number(22, 4), 2**32 - number(22, 4))
    elif data[:4] == b"RIFF" and data[8:15] == b"WEBPVP8":
        if data[15:16] == b"X":
            return number(24, 3) + 1, number(27, 3) + 1
        if data[15:16] == b"L":
            return (number(21, 4) & 0x3FFF) + 1, (number(21, 4) >> 14 & 0x3FFF) + 1
        return number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF
    elif match := _PNM.match(data[:4096]):
        return int(match[1]), int(match[2])
    elif data[:4] in (b"II*\0", b"MM\0*"):
        order = "little" if data[:1] == b"I" else "big"
        sizes = {256: 0, 257: 0, 322: 0, 323: 0}  # width and height, of the image and of its tiles
        table = number(4, 4, order)
        for place in range(table + 2, table + 2 + 12 * number(table, 2, order), 12):
            tag, kind = number(place, 2, order), number(place + 2, 2, order)
            if tag in sizes and kind not in (3, 4):
                return 0, 0
            if tag in sizes:
                sizes[tag] = max(sizes[tag], number(place + 8, 2 if kind == 3 else 4, order))
        if sizes[256] and sizes[257]:
            return max(sizes[256], sizes[322]), max(sizes[257], sizes[323])
    return 0, 0


def read_image(path: str | os.PathLike, flags: int) -> np.ndarray:
    """:func:`decode_image` of a file.

    Raises:
        ValueError: the file cannot be read, or as there; names it.
    """
    try:
        if os.stat(path).st_size > _MAX_IMAGE_BYTES:
            raise ValueError(f"larger than {_MAX_IMAGE_BYTES >> 20} MiB")
        return decode_image(Path(path).read_bytes(), flags)
    except OSError as error:
        raise ValueError(f"cannot read image {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"cannot read image {path}: {error}") from error


def decode_image(data: bytes, flags: int) -> np.ndarray:
    """``cv2.imdecode`` of an image that announces a size that can be believed.

    Raises:
        ValueError: it is none of :func:`check_size`, is broken, or announces too much.
    """
    check_size(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"not an image: {error}") from error
    if pixels is None:
        raise ValueError("not an image")
    return pixels
