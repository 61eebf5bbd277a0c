"""Index of a release's annotations, so that a start does not open every HDF5 file again.

The index is one JSON file: ``.a2d_d2_index.json`` in the root of the release, or, when the root
cannot be written or ``A2D_D2_CACHE`` names a folder, a file there. It holds, for each annotated
frame, the size and time of its file and what a Detectron2 record needs of it. A file whose size or
time changed is read again, the others are not.
"""

import hashlib
import itertools
import json
import logging
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import portalocker
from iopath.common.file_io import file_lock
from pycocotools import mask as mask_util

from a2d_d2.data.layout import (
    ReleaseError,
    annotation_folder,
    annotation_path,
    box_faults,
    frame_index_of,
    read_annotation,
)
from a2d_d2.utils.files import write_text
from a2d_d2.utils.parallel import parallel_map

# Raise it when the content of an entry changes: an index of another version is built anew.
VERSION = 3
# For fewer files than this, starting processes costs more than reading in this one.
_FEW_FILES = 200

logger = logging.getLogger(__name__)


def load_index(
    root: str | os.PathLike,
    video_ids: Iterable[str],
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, list[dict]]:
    """The annotations of a release, read from disk where the stored index lacks them.

    Of several processes that start together, on one machine or on a shared disk, one reads and the
    others wait for it.

    Args:
        root: of the release.
        video_ids: the videos to cover.
        workers: number of reading processes; None uses every core.
        progress: show a progress bar while annotations are read.

    Returns:
        The entries of every video, one a frame in ascending order. An entry holds "frame_index"
        (0-based), "size" and "mtime_ns" of the file, and either "error", why it cannot be used, or
        "height", "width", "ids" (N joint ids), "boxes" (N x [x0, y0, x1, y1], 0-based, right and
        bottom exclusive), "rles" (N compressed run-length counts) and "box_faults" (how many stored
        boxes disagree with their masks).
    """
    found = {video_id: _scan(annotation_folder(root, video_id)) for video_id in video_ids}
    path = index_path(root)
    index = _reuse(path, found)
    if not _unread(index):
        return index
    try:
        with file_lock(str(path)):
            index = _reuse(path, found)  # another process may have written it meanwhile
            if _unread(index):
                _read_missing(root, index, workers, progress)
                _store(path, index)
    except (OSError, portalocker.LockException) as error:
        logger.warning(
            f"cannot store {path} ({error}), so every start reads all annotations; set "
            "A2D_D2_CACHE to a folder that can be written"
        )
        _read_missing(root, index, workers, progress)
    return index


def index_path(root: str | os.PathLike) -> Path:
    """Where the index of a release lies."""
    folder = os.environ.get("A2D_D2_CACHE")
    if not folder and os.access(root, os.W_OK):
        return Path(root) / ".a2d_d2_index.json"
    resolved = Path(root).resolve()
    key = hashlib.sha256(str(resolved).encode()).hexdigest()[:12]
    return Path(folder or "~/.cache/a2d_d2").expanduser() / f"index-{resolved.name}-{key}.json"


def _scan(folder: Path) -> list[dict]:
    """Entries without content for the annotations in a folder, ascending."""
    try:
        with os.scandir(folder) as files:
            entries = [
                {"frame_index": index, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
                for file in files
                if (index := frame_index_of(file.name)) is not None and (stat := file.stat())
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(entries, key=lambda entry: entry["frame_index"])


def _reuse(path: Path, found: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """``found``, with the content of those entries whose file is as the stored index knew it.

    No index, one of another version and a damaged one all count as empty.
    """
    try:
        videos = _read_stored(path)
        known = {
            (video_id, *_state(entry)): entry
            for video_id, entries in videos.items()
            for entry in entries
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        known = {}
    return {
        video_id: [known.get((video_id, *_state(entry)), entry) for entry in entries]
        for video_id, entries in found.items()
    }


def _store(path: Path, index: dict[str, list[dict]]) -> None:
    videos = json.dumps(index)
    head = f'{{"version": {VERSION}, "crc32": {zlib.crc32(videos.encode())}, "videos": '
    write_text(path, f"{head}{videos}}}\n")


def _read_stored(path: Path) -> dict[str, list[dict]]:
    """The videos of a stored index whose checksum is right, else none."""
    data = path.read_bytes()
    start = data.index(b'"videos": ') + len(b'"videos": ')
    videos = memoryview(data)[start:-2]
    head = json.loads(data[:start] + b"0}")
    if (head["version"], head["crc32"]) != (VERSION, zlib.crc32(videos)):
        return {}
    found = json.loads(bytes(videos))
    if not all(_is_entry(entry) for entries in found.values() for entry in entries):
        return {}
    return found


def _is_entry(entry: dict) -> bool:
    """Whether an entry is made of what it should be; its run-length counts are not looked into."""
    if "error" in entry:
        return isinstance(entry["error"], str)
    ids, boxes, counts = entry["ids"], entry["boxes"], entry["rles"]
    numbers = [entry["height"], entry["width"], entry["box_faults"], *ids]
    return (
        len(ids) == len(boxes) == len(counts)
        and all(len(box) == 4 for box in boxes)
        and all(type(number) is int for number in itertools.chain(numbers, *boxes))
        and all(type(text) is str for text in counts)
    )


def _state(entry: dict) -> tuple[int, int, int]:
    return entry["frame_index"], entry["size"], entry["mtime_ns"]


def _unread(index: dict[str, list[dict]]) -> list[tuple[str, dict]]:
    """The (video id, entry) pairs that have no content yet."""
    return [
        (video_id, entry)
        for video_id, entries in index.items()
        for entry in entries
        if "ids" not in entry and "error" not in entry
    ]


def _read_missing(
    root: str | os.PathLike, index: dict[str, list[dict]], workers: int | None, progress: bool
) -> None:
    """Fills the entries that have no content."""
    unread = _unread(index)
    contents = parallel_map(
        _read_content,
        [annotation_path(root, video_id, entry["frame_index"]) for video_id, entry in unread],
        workers=1 if len(unread) < _FEW_FILES else workers,
        description="reading annotations",
        unit="frame",
        progress=progress,
    )
    for (_, entry), content in zip(unread, contents, strict=True):
        entry.update(content)


def _read_content(path: Path) -> dict:
    try:
        annotation = read_annotation(path)
    except ReleaseError as error:
        return {"error": str(error).removeprefix(str(path)).lstrip(": ")}
    height, width = annotation.label_map.shape
    masks = np.asfortranarray(annotation.masks.transpose(1, 2, 0), dtype=np.uint8)
    return {
        "height": height,
        "width": width,
        "ids": annotation.joint_ids,
        "boxes": annotation.boxes.astype(int).tolist(),
        "rles": [rle["counts"].decode("ascii") for rle in mask_util.encode(masks)],
        "box_faults": len(box_faults(annotation)),
    }
