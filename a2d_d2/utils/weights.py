"""Reading checkpoints of strangers without running what is in them.

``.pth`` files are read by torch's ``weights_only`` loader. Files of the model zoo (``.pkl``) are
plain pickles, which may call anything: :func:`load_pickle` knows numbers, texts, lists, dicts and
NumPy arrays, and calls nothing but the functions of this module.
"""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO
from urllib.parse import parse_qs

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, whose files are data alone."""

    def _load_file(self, filename: str) -> dict:
        if filename.endswith(".pkl"):
            return zoo_checkpoint(load_pickle(filename))
        if filename.endswith(".pyth"):  # pycls
            weights = {
                name: value
                for name, value in load_torch(filename)["model_state"].items()
                if not name.endswith("num_batches_tracked")
            }
            return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
        loaded = load_torch(filename)
        loaded = loaded if "model" in loaded else {"model": loaded}
        queries = parse_qs(self._parsed_url_during_load.query)  # "x.pth?matching_heuristics=True"
        if queries.pop("matching_heuristics", None) == ["True"]:
            loaded["matching_heuristics"] = True
        if queries:
            raise ValueError(f"{filename}: unknown query {', '.join(queries)}")
        return loaded


class CompressedError(ValueError):
    """A file of torch whose parts stand for more than it holds; names it and the remedy."""


def load_torch(path: str | os.PathLike, device: str = "cpu"):
    """``torch.load`` of tensors and plain types.

    Args:
        path: of the file.
        device: where the tensors go; "meta" reads no values.

    Raises:
        pickle.UnpicklingError: the file asks for something else, or is cut off.
        CompressedError: a part of it is compressed, several share their bytes, or a tensor has more
            values than are stored for it. torch.save stores each part as it is.
    """
    with open(path, "rb") as stream:
        if stream.read(4) == b"PK\3\4":  # by this torch tells it from its older format
            _check_parts(stream, path)
    value = torch.load(path, map_location=device, weights_only=True)
    size = os.path.getsize(path)
    if not all(_is_stored(tensor, size) for tensor in _tensors(value)):
        raise CompressedError(
            f"{path} has tensors of more values than are stored for them (expanded or sparse), "
            "which could stand for more than memory holds; write a file that you trust again with "
            "torch.save, from copies of them"
        )
    return value


def _is_stored(tensor: Tensor, size: int) -> bool:
    """Whether each value of a tensor has bytes of its own, in a file of ``size`` bytes."""
    if tensor.layout != torch.strided:
        return False
    held = min(size, tensor.untyped_storage().nbytes())  # on "meta" as the file claims
    return tensor.numel() * tensor.element_size() <= held


def _tensors(value) -> Iterator[Tensor]:
    """The tensors in a value, which may nest deeply or hold itself, each once."""
    left, seen = [value], set()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, Mapping):
            left.extend(each.values())
        elif isinstance(each, list | tuple | set):
            left.extend(each)
        elif hasattr(each, "__dict__"):
            left.append(vars(each))


def _check_parts(stream: BinaryIO, path: str | os.PathLike) -> None:
    """CompressedError when the parts of a ZIP are larger than it."""
    try:
        with zipfile.ZipFile(stream) as archive:
            parts = archive.infolist()
    except zipfile.BadZipFile as error:
        raise pickle.UnpicklingError("it is cut off") from error
    is_stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
    if not is_stored or sum(part.file_size for part in parts) > os.path.getsize(path):
        raise CompressedError(
            f"{path} has compressed parts, which could stand for more than memory holds; write a "
            "file that you trust again with torch.save"
        )


def zoo_checkpoint(value: dict) -> dict:
    """The content of a ``.pkl`` file as Detectron2's checkpointer wants it.

    Detectron2's own files have "model" and "__author__"; those of Caffe2 the blobs alone.
    """
    if "model" in value and "__author__" in value:
        return value
    blobs = value.get("blobs", value)
    weights = {name: blob for name, blob in blobs.items() if not name.endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def load_pickle(path: str | os.PathLike) -> dict:
    """A dict of plain types and NumPy arrays from a pickle.

    Raises:
        ValueError: the file is something else, or is broken.
    """
    try:
        with open(path, "rb") as stream:
            value = _Unpickler(_Stream(stream)).load()
        if not isinstance(value, dict):
            raise ValueError("it holds no dict")
        return _arrays(value, {})
    except OSError:
        raise
    except Exception as error:  # a broken stream may ask for anything of the stack machine
        raise ValueError(f"not a pickle of arrays: {error or type(error).__name__}") from error


class _Stream:
    """A file that refuses to give more than it has: a length in a pickle is not believed."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.size = os.fstat(stream.fileno()).st_size

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.size - self.stream.tell():
            raise EOFError("it is cut off")
        return self.stream.read(count)

    def readinto(self, buffer) -> int:
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def readline(self) -> bytes:
        return self.stream.readline(1 << 16)


class _Dtype:
    """``numpy.dtype(name, align, copy)``, and the byte order that follows."""

    def __init__(self, name: str):
        self.dtype = np.dtype(name)
        if self.dtype.kind not in "biufSU" or not 0 < self.dtype.itemsize <= 16:
            raise ValueError(f"arrays of {name} are no weights")

    def set_state(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder({"|": "="}.get(state[1], state[1]))


class _Array:
    """An array that has yet to get its values."""

    value: np.ndarray | None = None

    def set_state(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.value = _make_array(data, dtype, shape, "F" if is_fortran else "C")


class _Name:
    """A class that a pickle names as an argument: of no use but to be handed over."""


def _make_array(data, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    if isinstance(data, str):  # a byte string of Python 2
        data = data.encode("latin1")
    array = np.frombuffer(bytes(data), dtype.dtype).reshape(shape, order=order)
    return array.astype(array.dtype.newbyteorder("="))


def _make_scalar(dtype: _Dtype, data) -> np.generic:
    return _make_array(data, dtype, (), "C")[()]


def _frombuffer(data, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.value = _make_array(data, dtype, shape, order)
    return array


def _ordered(pairs=()) -> dict:
    result = {}
    for key, value in pairs:
        result[_key(key)] = value
    return result


def _key(key):
    """Keys are texts or numbers: hashing a tuple that nests deeply crashes the interpreter."""
    if type(key) not in (str, int, bytes):
        raise pickle.UnpicklingError(f"a key is a {type(key).__name__}")
    return key


def _encode(text: str, encoding: str) -> bytes:
    """``_codecs.encode``, by which Python 2's protocol writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """``bytes()``, which the older protocols write for empty ones."""
    return b""


_MULTIARRAY = {
    "_reconstruct": lambda *arguments: _Array(),
    "scalar": _make_scalar,
    "_frombuffer": _frombuffer,
}
_KNOWN = {
    ("numpy", "ndarray"): _Name,
    ("numpy", "dtype"): lambda name, *flags: _Dtype(name),
    ("collections", "OrderedDict"): _ordered,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module in ("multiarray", "numeric")
        for name, function in _MULTIARRAY.items()
    },
}


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, which is slower than C's and trusts no length of the file."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: _Stream):
        super().__init__(stream, encoding="latin1")
        # Bytes that its arrays may be made of. In a sound file each has its own, twice with the
        # older protocols; one that refers to the same bytes again and again could ask for any.
        self.left = 4 * stream.size + 1024

    def _spend(self, values: tuple) -> None:
        for value in values:
            if isinstance(value, str | bytes | bytearray):
                self.left -= len(value)
            elif isinstance(value, list | tuple | dict):
                self.left -= 8 * len(value)
        if self.left < 0:
            raise pickle.UnpicklingError("it is made of more than the file holds")

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not loaded")
        return _KNOWN[module, name]

    def _reduce(self):
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is known for known in _KNOWN.values()) or function is _Name:
            raise pickle.UnpicklingError("it calls something that is no function of arrays")
        self._spend(arguments)
        self.stack[-1] = function(*arguments)

    def _build(self):
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _Dtype):
            raise pickle.UnpicklingError("it changes something that is no array")
        self._spend(state)
        self.stack[-1].set_state(state)

    def _setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self):
        self._set(self.pop_mark())

    def _bytearray(self):
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(count)))

    def _dict(self):
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def _set(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise pickle.UnpicklingError("it sets an item of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _setitem
    dispatch[pickle.SETITEMS[0]] = _setitems
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray
    for code in (
        *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2),
        *(pickle.EXT4, pickle.PERSID, pickle.BINPERSID, pickle.EMPTY_SET, pickle.ADDITEMS),
        *(pickle.FROZENSET, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    ):
        dispatch.pop(code[0], None)


def _arrays(value, known: dict):
    """The value with arrays in place of what stood for them; each part is visited once."""
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array has no values")
        return value.value
    if isinstance(value, _Dtype | _Name) or callable(value):
        raise ValueError("something in it is no data")
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, dict):
        known[id(value)] = result = {}
        result.update((key, _arrays(each, known)) for key, each in value.items())
        return result
    if isinstance(value, list):
        known[id(value)] = result = []
        result.extend(_arrays(each, known) for each in value)
        return result
    if isinstance(value, tuple):
        result = known[id(value)] = tuple(_arrays(each, known) for each in value)
        return result
    return value
