"""Writing files so that a reader never sees half of one."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` that becomes ``path`` if the block succeeds.

    The temporary name keeps the suffix (OpenCV and others choose the format by it). Missing
    parent folders are made. When the block raises, the temporary file is removed and ``path`` is
    untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(
            temporary, 0o666 & ~umask
        )  # mkstemp makes private files; results are ordinary ones
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes ``text`` to ``path`` as UTF-8, atomically; what is no text (a file name in another
    encoding) as its escapes."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(
    path: str | os.PathLike, value, indent: int | None = 2, sort_keys: bool = False
) -> None:
    """Writes ``value`` to ``path`` as JSON with a final newline, atomically."""
    write_text(path, json.dumps(value, indent=indent, sort_keys=sort_keys) + "\n")
