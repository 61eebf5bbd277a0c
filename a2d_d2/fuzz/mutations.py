"""Hypothesis strategies that damage files, by bytes alone or knowing what a file is made of."""

import copy
import io
import json
from collections.abc import Mapping, Sequence

import h5py
import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

# Numbers that lengths, offsets, sizes and counts overflow with.
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
# What files hold in place of what they should.
JUNK = (
    *(None, True, -1, 0, 1, 79, 2**31, 2**63, 2**64 + 11, 10**400, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "0",
        "off",
        "../../x",
        "/etc/passwd",
        "..\\x",
        "a\0b",
        "\ud800",
        "\x1b[31m",
        "\u202e",
    ),
    *("<script>alert(1)</script>", "'\" onload=alert(1) x=", "a" * 5000, "1" * 5000, "(" * 500),
    *("dog", "running", "dog-running", "é", "NaN", "2001-99-99", "None", "[1, 2]"),
    *([], {}, [[]], [None], [1, "a"], {"a": 1}, {"": None}),
)


@st.composite
def damaged(draw: DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the files with one to six edits of its bytes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        _edit(draw, data)
    return bytes(data)


def _edit(draw: DrawFn, data: bytearray) -> None:
    place = draw(st.integers(0, max(0, len(data) - 1)))
    kind = draw(st.sampled_from(("bit", "number", "cut", "delete", "repeat", "insert")))
    if kind == "bit" and data:
        data[place] ^= 1 << draw(st.integers(0, 7))
    elif kind == "number":
        size = draw(st.sampled_from((1, 2, 4, 8)))
        order = draw(st.sampled_from(("little", "big")))
        number = draw(st.sampled_from(_NUMBERS)) % 2 ** (8 * size)
        data[place : place + size] = number.to_bytes(size, order)
    elif kind == "cut":
        del data[place:]
    elif kind == "delete":
        del data[place : place + draw(st.integers(1, 64))]
    elif kind == "repeat":
        data[place:place] = data[place : place + draw(st.integers(1, 256))]
    else:
        data[place:place] = draw(st.binary(min_size=1, max_size=16))


# ---------------------------------------------------------------- values


def junk() -> SearchStrategy:
    """Something that does not belong there, nested at times."""
    leaves = st.sampled_from(JUNK) | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    )


@st.composite
def changed(draw: DrawFn, seeds: Sequence) -> object:
    """One of the values (of lists, dicts and scalars) with one to three nodes replaced, dropped,
    doubled or renamed."""
    value = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        value = _change(draw, value)
    return value


def _change(draw: DrawFn, value):
    keys = (
        list(value)
        if isinstance(value, dict)
        else list(range(len(value)))
        if isinstance(value, list)
        else []
    )
    if not keys or draw(st.integers(0, 7)) == 0:
        return copy.deepcopy(draw(junk()))
    key = draw(st.sampled_from(keys))
    kind = draw(st.sampled_from(("inside", "inside", "inside", "inside", "drop", "double")))
    if kind == "inside":
        value[key] = _change(draw, value[key])
    elif kind == "drop":
        del value[key]
    elif isinstance(value, list):
        value.insert(key, copy.deepcopy(value[key]))
    else:
        value[draw(st.text(max_size=12))] = copy.deepcopy(value[key])
    return value


def json_files(seeds: Sequence) -> SearchStrategy[bytes]:
    """JSON texts: of changed values, of damaged ones, and of such that nest deeply."""
    texts = [json.dumps(seed).encode() for seed in seeds]
    depth = st.sampled_from((100, 5000, 200000))
    return st.one_of(
        changed(seeds).map(lambda value: json.dumps(value).encode()),
        changed(seeds).map(lambda value: json.dumps(value).encode()),
        damaged(texts),
        st.builds(lambda n, ends: ends[0] * n + ends[1] * n, depth, st.sampled_from(_NESTS)),
    )


_NESTS = ((b"[", b"]"), (b'{"a":', b"}"), (b"[", b""))
_BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n" % (i, i, *[i - 1] * 8)
    for i in range(ord("b"), ord("n"))
)
_YAML_TRICKS = (
    _BOMB,
    _BOMB + b"actors: [*m]\nactions: [*m]\n",
    b"actors: &a [*a]\nactions: *a\n",
    b"&a {*a : 1}",
    b"!!python/object/apply:os.system ['exit 1']\n",
    b"actors: !!python/name:os.system\n",
    b"actors: !!timestamp x\n",
    b"actors: !!int ''\n",
    b"actors: !!float ''\n",
    b"actors: !!bool x\n",
    b"actors: !!binary x\n",
    b"actors: [2001-99-99]\n",
    b"actors: [dog]\nactors: [cat]\nactions: [run]\n",
    b"? [a, b]\n: 1\n",
    b"? {a: b}\n: 1\n",
    b"1: 2\na: 3\nactors: [dog]\nactions: [run]\n",
    b"<<: [1]\n",
    b"a: " + b"[" * 20000,
    b"- " * 5000,
    b"%YAML 9.9\n---\n{}",
    b"--- 1\n--- 2\n",
    b"_BASE_: 7\n",
    b"_BASE_: [1]\n",
    b"_BASE_: nowhere.yaml\n",
    b"_BASE_: case.yaml\n",
    b"VERSION: 1\n",
    b"VERSION: x\n",
    b"MODEL: {WEIGHT: x}\n",
    b"\xff\xfea\0",
    b"",
)


def yaml_files(seeds: Sequence) -> SearchStrategy[bytes]:
    """YAML texts: of changed values, damaged ones, and traps of the format."""

    def dump(value) -> bytes:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")

    return st.one_of(
        changed(seeds).map(dump),
        changed(seeds).map(dump),
        damaged([dump(seed) for seed in seeds]),
        st.sampled_from(_YAML_TRICKS),
        damaged(_YAML_TRICKS),
    )


# Values that keys of a configuration may be set to by a slip.
_SLIPS = (0, -1, -3, 1, 2, 3, 7, 10**8 + 1, 10**21, 0.5, -0.5, 1.5, 1e30, "foo", "", True, False)


def torch_files(values: SearchStrategy) -> SearchStrategy[bytes]:
    """Files of torch.save."""

    def save(value) -> bytes:
        stream = io.BytesIO()
        torch.save(value, stream)
        return stream.getvalue()

    return values.map(save)


@st.composite
def settings(draw: DrawFn, defaults: Mapping, seeds: Sequence[Mapping], base: str) -> bytes:
    """YAML texts over the configuration file ``base`` that set one or two keys.

    Args:
        defaults: full key to value.
        seeds: of the same kind, texts among others.
        base: for ``_BASE_``.
    """
    if draw(st.integers(0, 3)) == 0:
        values = draw(st.sampled_from(seeds))
    else:
        keys = draw(st.lists(st.sampled_from(sorted(defaults)), min_size=1, max_size=2))
        values = {key: _slip(draw, defaults[key]) for key in keys}
    result = {"_BASE_": base}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return yaml.safe_dump(result, allow_unicode=True).encode("utf-8", "surrogatepass")


def _slip(draw: DrawFn, value):
    """Another value, most often of the same type."""
    if draw(st.integers(0, 7)) == 0:
        return draw(st.sampled_from(JUNK))
    if isinstance(value, list | tuple):
        items = [_slip(draw, x) if draw(st.integers(0, 2)) == 0 else x for x in value]
        kept = draw(st.integers(0, len(items) + 1))
        return [*items[:kept], *items[: kept - len(items)]] if kept > len(items) else items[:kept]
    alike = [x for x in _SLIPS if type(x) is type(value)]
    near = [value // 2, value + 1, value * 2] if type(value) is int else []
    return draw(st.sampled_from([*near, *alike] or _SLIPS))


@st.composite
def csv_files(draw: DrawFn, rows: Sequence[Sequence[str]]) -> bytes:
    """Lines of comma-separated values with changed fields."""
    rows = [list(row) for row in rows]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        if not row or draw(st.integers(0, 9)) == 0:
            row.append("1")
        else:
            place = draw(st.integers(0, len(row) - 1))
            row[place] = draw(st.sampled_from(JUNK).map(str) | st.text(max_size=12))
    end = draw(st.sampled_from(("\n", "\r\n", "\r", "\n\n")))
    return (end.join(map(",".join, rows)) + end).encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------- annotations

_TYPES = ("u1", "i1", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i4", "f2", "?", "c8")


@st.composite
def annotation_files(draw: DrawFn) -> bytes:
    """MATLAB v7.3 files whose fields have the wrong type, shape, number, values or storage."""
    height, width, count = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    fields = {
        "reS_id": generator.choice([0, 11, 79, 3], (width, height)),
        "reMask": generator.integers(0, 2, (count, width, height)),
        "id": generator.choice([11, 79, 74], (count, 1)),
        "reBBox": generator.integers(1, 10, (4, count)),
    }
    for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=2)):
        fields[name] = draw(_arrays(fields[name]))
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in fields.items():
            kind = draw(st.sampled_from(("plain",) * 30 + _STORAGE))
            _store(file, name, array, kind)
    data = stream.getvalue()
    return draw(damaged([data])) if draw(st.booleans()) else data


def large_annotation(name: str) -> bytes:
    """A small file whose field ``name`` is 50 million compressed zeros."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        fields = {"reS_id": (8, 8), "reMask": (1, 8, 8), "id": (1, 1), "reBBox": (4, 1)}
        for field, shape in fields.items():
            shape = (*shape[:-1], 50_000_000 // shape[0]) if field == name else shape
            file.create_dataset(field, data=np.zeros(shape, dtype="u1"), compression=9)
    return stream.getvalue()


@st.composite
def _arrays(draw: DrawFn, array: np.ndarray) -> np.ndarray:
    shape = array.shape
    if draw(st.booleans()):
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
        array = np.resize(array, shape) if array.size else np.zeros(shape)
    with np.errstate(all="ignore"):
        array = np.array(array, dtype=draw(st.sampled_from(_TYPES)))
        if array.size and array.dtype.kind in "iuf" and draw(st.booleans()):
            info = (np.finfo if array.dtype.kind == "f" else np.iinfo)(array.dtype)
            values = [info.min, info.max, 11]
            values += [np.nan, np.inf, 0.5] if array.dtype.kind == "f" else [2**32 + 11]
            value = draw(st.sampled_from(values))
            if array.dtype.kind == "f" or info.min <= value <= info.max:
                array.flat[draw(st.integers(0, array.size - 1))] = value
    return array


_STORAGE = (
    *("missing", "group", "string", "empty", "huge", "huge_compressed", "matlab_empty"),
    *("external", "external_link", "soft_link", "virtual", "reference", "compressed"),
)


def _store(file: h5py.File, name: str, array: np.ndarray, kind: str) -> None:
    if kind == "plain":
        file[name] = array
    elif kind == "group":
        file.create_group(name)
    elif kind == "string":
        file[name] = "text"
    elif kind == "empty":
        file[name] = h5py.Empty("f8")
    elif kind == "huge":
        file.create_dataset(name, (2**20, 2**20, 2**10), dtype="f8", chunks=(1, 64, 64))
    elif kind == "huge_compressed":
        file.create_dataset(name, (2**13, 2**14), dtype="f8", chunks=(64, 64), compression=1)
    elif kind == "matlab_empty":
        file[name] = np.array([2**40, 1, 2**40], dtype="u8")
        file[name].attrs["MATLAB_empty"] = 1
    elif kind == "external":
        file.create_dataset(name, array.shape, "u1", external=[("/etc/passwd", 0, array.size or 1)])
    elif kind == "external_link":
        file[name] = h5py.ExternalLink("/etc/passwd", "/x")
    elif kind == "soft_link":
        file[name] = h5py.SoftLink(f"/{name}")
    elif kind == "virtual":
        layout = h5py.VirtualLayout(array.shape or (1,), "u1")
        layout[...] = h5py.VirtualSource("/etc/passwd", "x", array.shape or (1,))
        file.create_virtual_dataset(name, layout)
    elif kind == "reference":
        file.create_dataset(name, (2,), dtype=h5py.ref_dtype)
    elif kind == "compressed" and array.ndim and array.size:
        file.create_dataset(name, data=array, compression=4, shuffle=True)
