"""Setting keys of a configuration from files and options, with errors that say which and what.

As Detectron2's ``merge_from_file`` and ``merge_from_list``, but YAML is data alone: Detectron2
falls back to a loader that runs what a file asks for. A text that is a Python literal counts as
that literal, in files as on the command line.
"""

import ast
import difflib
import math
import os
import reprlib
from collections.abc import Iterator, Sequence

from detectron2.config import CfgNode

from a2d_d2.utils.untrusted import read_yaml

BASE_KEY = "_BASE_"
_FILE = "configuration file"
# How deep _BASE_ files nest, and how many there are, each counted as often as it is named.
_DEEPEST_BASE, _MOST_BASES = 20, 100
_SCALARS = (str, int, float, bool, type(None))
# A text longer than this, or with more brackets, is no literal.
_LONGEST_LITERAL, _MOST_BRACKETS = 10_000, 200


def read_keys(path: str | os.PathLike) -> dict:
    """The nested keys of one file, ``_BASE_`` among them.

    Raises:
        ValueError: the file cannot be read or is no configuration; names it.
    """
    values = read_yaml(path, _FILE)
    if not isinstance(values, dict) or not values:
        raise ValueError(f"bad {_FILE} {path}: it holds no keys")
    return values


def flat_keys(values: dict, path: str | os.PathLike, prefix: str = "") -> Iterator[tuple]:
    """(full key, value) of nested keys; ``path`` is for messages."""
    for key, value in values.items():
        if not isinstance(key, str):
            raise ValueError(f"bad {_FILE} {path}: {prefix}{key!r} is not the name of a key")
        if isinstance(value, dict):
            yield from flat_keys(value, path, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def merge_file(cfg: CfgNode, path: str | os.PathLike) -> None:
    """Sets the keys of a file, after those of its ``_BASE_`` files.

    Raises:
        ValueError: a file is wrong; names that file, the key and the nearest one.
    """
    for key, (value, source) in _with_bases(path, (), []).items():
        set_key(cfg, key, value, f"bad {_FILE} {source}")
    if cfg.VERSION != 2:
        raise ValueError(f"bad {_FILE} {path}: VERSION is {cfg.VERSION!r}; it must be 2")


def _with_bases(
    path: str | os.PathLike, above: tuple[str, ...], bases_read: list[str]
) -> dict[str, tuple]:
    """Full key to (value, the file that sets it).

    Args:
        path: of the file.
        above: the files whose base it is, outermost first.
        bases_read: the bases so far, to which those of this file are added.
    """
    name = os.path.realpath(path)
    if name in above:
        raise ValueError(f"bad {_FILE} {path}: it is its own {BASE_KEY}")
    values = read_keys(path)
    bases = values.pop(BASE_KEY, [])
    found = {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or "://" in base:
            raise ValueError(f"bad {_FILE} {path}: {BASE_KEY} must be a path, not {short(base)}")
        base = os.path.join(os.path.dirname(path), os.path.expanduser(base))
        if not os.path.isfile(base):
            raise ValueError(f"bad {_FILE} {path}: {BASE_KEY} {base} does not exist")
        bases_read.append(base)
        if len(above) >= _DEEPEST_BASE or len(bases_read) > _MOST_BASES:
            raise ValueError(
                f"bad {_FILE} {path}: with {BASE_KEY} {base} the bases nest deeper than "
                f"{_DEEPEST_BASE} files, or are more than {_MOST_BASES}; put their keys together"
            )
        found |= _with_bases(base, (*above, name), bases_read)
    return found | {key: (value, path) for key, value in flat_keys(values, path)}


def merge_options(cfg: CfgNode, options: Sequence) -> None:
    """Sets keys from KEY VALUE pairs.

    Raises:
        ValueError: an option is wrong; names the key and the nearest one.
    """
    if late := [option for option in map(str, options) if option.startswith("--")]:
        raise ValueError(
            f"bad option: {late[0]} stands behind KEY VALUE pairs, or is no "
            "option of this command; options come before the pairs"
        )
    if len(options) % 2:
        raise ValueError(f"bad option: {options[-1]} has no value; options are KEY VALUE")
    for key, value in zip(options[::2], options[1::2], strict=True):
        set_key(cfg, str(key), value, "bad option")


def set_key(cfg: CfgNode, key: str, value, where: str) -> None:
    """Sets one key.

    Args:
        cfg: changed in place.
        key: such as "MODEL.MASK_ON".
        value: of the default's type, or a text that stands for it. Lists and tuples stand for each
            other, whole numbers for floats, and anything for a default of None.
        where: the value comes from, for messages.

    Raises:
        ValueError: there is no such key, or the value is of another type.
    """
    *parents, leaf = key.split(".")
    node = cfg
    for parent in parents:
        node = node.get(parent) if isinstance(node, CfgNode) else None
    if not isinstance(node, CfgNode) or leaf not in node:
        raise ValueError(f"{where}: there is no key {short(key)}; {_nearest(cfg, key)}")
    default = node[leaf]
    if isinstance(default, CfgNode):
        examples = ", ".join(f"{key}.{name}" for name in list(default)[:3])
        raise ValueError(f"{where}: {key} is not one key, but several: {examples}, ...")
    value = _literal(value) if isinstance(value, str) else value
    if isinstance(value, int) and type(default) is float and type(value) is not bool:
        value = float(value) if abs(value) < 1 << 53 else value
    for given, wanted in ((list, tuple), (tuple, list)):
        if type(value) is given and type(default) is wanted:
            value = wanted(value)
    if not _fits(value, default):
        hint = ""
        if isinstance(default, tuple | list) and isinstance(value, _SCALARS):
            hint = f'; of one, write "({value!r},)"'
        raise ValueError(
            f"{where}: {key} must be {_KINDS.get(type(default), 'a plain value')}, such as "
            f"{short(default)}, not {short(value)}{hint}"
        )
    node[leaf] = value


_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
}


def _fits(value, default) -> bool:
    """Whether a value can replace a default."""
    found, wanted = list(leaves(value)), {type(leaf) for leaf in leaves(default)}
    if not all(type(leaf) in _SCALARS for leaf in found):
        return False
    if any(isinstance(leaf, float) and math.isnan(leaf) for leaf in found):
        return False
    if default is None:
        return True
    if type(value) is not type(default):
        return False
    if not wanted or not isinstance(default, list | tuple):
        return True
    if wanted <= {int, float}:
        wanted = {int, float}
    return {*map(type, found)} <= wanted


def leaves(value) -> Iterator:
    """The scalars of a value, in lists or not."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def _literal(text: str):
    """What a text stands for: a literal of Python, else itself."""
    if len(text) > _LONGEST_LITERAL or sum(map(text.count, "([{")) > _MOST_BRACKETS:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _nearest(cfg: CfgNode, key: str) -> str:
    keys = list(_all_keys(cfg))
    found = difflib.get_close_matches(key[:200], keys, n=1, cutoff=0.6)
    if not found:  # another place, perhaps, for the same name
        names = {known.rpartition(".")[2]: known for known in reversed(keys)}
        last = key[:200].rpartition(".")[2]
        near = difflib.get_close_matches(last, names, n=1, cutoff=0)
        found = [names[near[0]]]
    return f"the nearest is {found[0]}"


def _all_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from _all_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def short(value) -> str:
    """A value for a message."""
    return value if isinstance(value, str) and len(value) < 80 else _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
