"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import io
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

# Temporary files are named .tmp-<host>-<process>-<random><suffix>.
_HOST = re.sub(r"\W", "_", socket.gethostname())[:40]
_TEMPORARY = re.compile(rf"\.tmp-{_HOST}-(\d+)-")
# What cannot be helped by another attempt, and what can be done.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}

_open: set[Path] = set()  # temporary files of this process
_tidied: set[Path] = set()  # folders whose leftovers are gone


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, *, durable: bool = False) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` that becomes ``path`` if the block succeeds.

    The temporary name keeps the suffix (OpenCV and others choose the format by it). Missing
    parent folders are made. When the block raises, the temporary file is removed and ``path`` is
    untouched. What killed processes of this machine left in the folder is removed when a process
    first writes there.

    Args:
        path: of the file.
        durable: wait until the disk has it: then ``path`` is whole even after a power cut.

    Raises:
        OSError: the disk is full or the folder cannot be written; names ``path`` and the remedy.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        handle, name = tempfile.mkstemp(
            prefix=f".tmp-{_HOST}-{os.getpid()}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        _open.add(temporary)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(
            temporary, 0o666 & ~umask
        )  # mkstemp makes private files; results are ordinary ones
        if durable:
            _synchronize(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise _explained(error, path, temporary) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            _open.discard(temporary)


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder and its parents, as far as they are missing.

    Raises:
        OSError: it cannot be made; names ``path`` and the remedy.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _explained(error, Path(path), None) from error


def check_writable(path: str | os.PathLike) -> None:
    """Says before long work what :func:`atomic_path` would say after it; leaves ``path`` as it is.

    Raises:
        OSError: ``path`` is a folder or its folder cannot be written; names it and the remedy.
    """
    path = Path(os.path.abspath(path))
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; choose a file")
    make_folder(path.parent)
    with explained(path):
        tempfile.TemporaryFile(dir=path.parent).close()


@contextlib.contextmanager
def explained(path: str | os.PathLike) -> Iterator[None]:
    """In this block, which appends to ``path``, a full disk is said as :func:`atomic_path` does."""
    try:
        yield
    except OSError as error:
        raise _explained(error, Path(path), None) from error


@contextlib.contextmanager
def atomic_stream(path: str | os.PathLike, *, durable: bool = False) -> Iterator[BinaryIO]:
    """:func:`atomic_path` as an open binary file, for torch.save and others.

    They turn the error of a write into one of their own; here it comes out as it was.
    """
    with atomic_path(path, durable=durable) as temporary, open(temporary, "wb") as file:
        stream = _Stream(file)
        try:
            yield stream
        except RuntimeError as error:
            raise (stream.error or error) from error


class _Stream(io.RawIOBase):
    """Writes to ``file``; keeps the first error in ``error``."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error = None

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        if not self.file.closed:
            self.file.flush()


def _synchronize(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, path: Path, temporary: Path | None) -> OSError:
    """The error in terms of ``path``, if it is one of writing there."""
    own = {None, str(temporary), str(path), *map(str, path.parents)}
    name = error.filename
    if temporary is None and name is not None and os.path.dirname(name) == str(path.parent):
        name = None  # of the temporary file that could not be made
    if name not in own or error.errno not in _FULL | _FORBIDDEN:
        return error
    remedy = "free some space" if error.errno in _FULL else "choose a folder that can be written"
    explained = OSError(f"cannot write {path}: {os.strerror(error.errno)}; {remedy}")
    explained.errno = error.errno
    return explained


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of processes that are dead, the first time it is called.

    Only files of this machine's processes are touched. A number that another process has by now
    keeps its file.
    """
    if folder in _tidied:
        return
    _tidied.add(folder)
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            match = _TEMPORARY.match(entry.name)
            if match and Path(entry.path) not in _open and not _is_alive(int(match[1])):
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # a predecessor of the same number: what this one has open is known
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes ``data`` to ``path``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes ``text`` to ``path`` as UTF-8, atomically; what is no text (a file name in another
    encoding) as its escapes."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(
    path: str | os.PathLike, value, indent: int | None = 2, sort_keys: bool = False
) -> None:
    """Writes ``value`` to ``path`` as JSON with a final newline, atomically."""
    write_text(path, json.dumps(value, indent=indent, sort_keys=sort_keys) + "\n")


def write_json_rows(path: str | os.PathLike, head: Mapping, name: str, rows: Iterable) -> None:
    """Writes ``{**head, name: list(rows)}`` as :func:`write_json`, but never holds all rows.

    Args:
        path: of the file.
        head: at least one value.
        name: of the list, which comes last.
        rows: a line each.
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(head, indent=2).removesuffix("\n}"))
        file.write(f",\n  {json.dumps(name)}: [")
        for number, row in enumerate(rows):
            file.write(f"{',' if number else ''}\n    {json.dumps(row)}")
        file.write("\n  ]\n}\n")


def write_image(path: str | os.PathLike, image: np.ndarray, options: Sequence[int] = ()) -> None:
    """Writes an image in the format of the path's suffix, atomically.

    OpenCV's own function does not notice a full disk.

    Args:
        path: of the file.
        image: (H, W) or (H, W, 3) BGR.
        options: of ``cv2.imencode``.
    """
    done, data = cv2.imencode(os.path.splitext(path)[1], image, list(options))
    assert done
    write_bytes(path, data.tobytes())
