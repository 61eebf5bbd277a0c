"""Reading files of strangers as data: no code in them runs, and what they claim is bounded."""

import json
import os
from collections import Counter

import cv2
import numpy as np
import yaml

# A frame of 8192 x 8192 pixels: whatever says that it is larger is not believed.
MAX_PIXELS = 1 << 26
MAX_JSON_BYTES = 1 << 30
MAX_YAML_BYTES = 1 << 18
# Nodes of a YAML file with its aliases written out, and how deep they nest.
_MAX_NODES, _MAX_DEPTH = 50_000, 50
# What PyYAML raises beside its own errors: !!int '' an IndexError, !!bool x a KeyError, ...
_YAML_MISTAKES = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError)
_YAML_MISTAKES += (ArithmeticError, RecursionError)


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
    """Compares the size that the header of a PNG or JPEG announces with ``MAX_PIXELS``.

    Args:
        data: the file; of a PNG its beginning will do.

    Raises:
        ValueError: it is no such file, or is too large.
    """
    width, height = 0, 0
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    elif data[:2] == b"\xff\xd8":
        place = 2
        while data[place : place + 1] == b"\xff" and place + 9 <= len(data):
            marker = data[place + 1]
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
                height = int.from_bytes(data[place + 5 : place + 7], "big")
                width = int.from_bytes(data[place + 7 : place + 9], "big")
                break
            place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    if not width * height:
        raise ValueError("not a PNG or JPEG image")
    if width * height > MAX_PIXELS:
        raise ValueError(f"an image that announces {width} x {height} pixels")


def decode_image(data: bytes, flags: int) -> np.ndarray:
    """``cv2.imdecode`` of a PNG or JPEG that announces a size that can be believed.

    Raises:
        ValueError: it is no such file, is broken, or announces more than ``MAX_PIXELS``.
    """
    check_size(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"not an image: {error}") from error
    if pixels is None:
        raise ValueError("not an image")
    return pixels
