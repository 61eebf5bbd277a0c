"""The files of an A2D release: where they lie and how they are read, free of Detectron2.

Legend: N instances, H height, W width. HDF5 shows MATLAB's arrays with their axes reversed.
"""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from a2d_d2.data.release_writer import ANNOTATION_FOLDER, CLIP_FOLDER, USAGE, mask_boxes

# Stored boxes may differ from those of the masks by this many pixels a side: 0-based or exclusive
# conventions and rounding stay below it, a box of something else does not.
BOX_TOLERANCE = 1.0

# Stored boxes are 1-based and inclusive; less this, 0-based with exclusive right and bottom.
_ONE_BASED = np.array([1.0, 1.0, 0.0, 0.0])
_SPLITS = {number: split for split, number in USAGE.items()}
_COLUMNS = ("height", "width", "number of frames", "number of annotated frames", "usage")
# What the numbers of videoset.csv, and joint ids, may be at most; file names are at most 255 bytes.
_MAX_NUMBER = 2**31 - 1
_MAX_ID_BYTES = 200
# An HDF5 file cannot hold more than this many bytes per byte of its own: deflate's best is 1032.
_MAX_RATIO = 1100
# And no field, nor a compressed piece of one, takes more bytes than this (64 masks of 1920x1080
# pixels in one byte each), or has more values: zeros are small in a file and large in memory.
_MAX_BYTES = 1 << 27
_MAX_INSTANCES = 10_000
_MAX_VALUES = {
    "reS_id": 1 << 24,
    "id": _MAX_INSTANCES,
    "reBBox": 4 * _MAX_INSTANCES,
    "class": _MAX_INSTANCES,
}
# What h5py raises on files that are something else or broken, in one place or another.
_BROKEN = (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError)
_BROKEN += (ArithmeticError, MemoryError, EOFError)
_REMEDY = "restore it from the data set; in the training split, deleting it leaves the frame out"


class ReleaseError(ValueError):
    """A release that cannot be used as it is; the message names the file and the remedy.

    Attributes:
        kind: short stable word for what is wrong, as in the problems of tools/check_dataset.py.
    """

    def __init__(self, message: str, kind: str = "annotation_unreadable"):
        super().__init__(message)
        self.kind = kind


# -------------------------------------------------------------------- videos


@dataclass(frozen=True)
class VideoInfo:
    """One line of videoset.csv. Its counts are hints: what is on disk decides.

    Attributes:
        video_id: may start with ``-`` or ``_``.
        split: "train" or "test".
        height, width: of the frames, in pixels.
        num_frames, num_annotated: of the clip.
    """

    video_id: str
    split: str
    height: int
    width: int
    num_frames: int
    num_annotated: int


def read_videoset(root: str | os.PathLike) -> list[VideoInfo]:
    """Reads ``root/videoset.csv``, with or without a header line and quotes.

    Raises:
        ReleaseError: there is no such file, or a line of it is wrong.
    """
    videos, errors = parse_videoset(root)
    if errors:
        raise errors[0]
    return videos


def parse_videoset(root: str | os.PathLike) -> tuple[list[VideoInfo], list[ReleaseError]]:
    """Like :func:`read_videoset`, but gives the wrong lines as a list of errors.

    Raises:
        ReleaseError: there is no such file, it is no text or names no video.
    """
    path = Path(root) / "videoset.csv"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ReleaseError(
            f"cannot read {path}: {error.strerror}. The root of a release is the folder that holds "
            "videoset.csv; datasets/README.md says how to get A2D, and "
            "tools/make_synthetic_a2d.py generates a release",
            "videoset",
        ) from error
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{path} is not a text file", "videoset") from error

    videos: dict[str, VideoInfo] = {}
    errors = []
    lines = csv.reader(text.splitlines(), skipinitialspace=True)
    try:
        rows = [(lines.line_num, [value.strip() for value in row]) for row in lines]
    except csv.Error as error:
        raise ReleaseError(f"{path}, line {lines.line_num}: {error}", "videoset") from error
    rows = [(number, row) for number, row in rows if any(row)]
    if rows and _is_header(rows[0][1]):
        del rows[0]
    for number, row in rows:
        try:
            video = _parse_row(row)
            if video.video_id in videos:
                raise ValueError(f"video {video.video_id} is listed twice")
        except ValueError as error:
            errors.append(ReleaseError(f"{path}, line {number}: {error}", "videoset"))
        else:
            videos[video.video_id] = video
    if not rows:
        raise ReleaseError(f"{path} lists no video", "videoset")
    return list(videos.values()), errors


def _is_header(row: Sequence[str]) -> bool:
    return len(row) == 9 and all(_number(text) is None for text in row[1:])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _parse_row(row: Sequence[str]) -> VideoInfo:
    if len(row) != 9:
        raise ValueError(f"expected 9 columns, found {len(row)}")
    video_id = row[0]
    if (
        video_id in ("", ".", "..")
        or any(c in "/\\:" or not c.isprintable() for c in video_id)
        or len(video_id.encode("utf-8", "replace")) > _MAX_ID_BYTES
    ):
        raise ValueError(f"{video_id!r} cannot be a video id, which names files")
    numbers = []
    for name, text in zip(_COLUMNS, row[4:], strict=True):
        number = _number(text)
        if number is None or not 0 <= number <= _MAX_NUMBER or not number.is_integer():
            raise ValueError(f"{name} must be a whole number, found {text!r}")
        numbers.append(int(number))
    height, width, num_frames, num_annotated, usage = numbers
    if not (height and width):
        raise ValueError(f"a frame of {width}x{height} pixels is empty")
    if usage not in _SPLITS:
        raise ValueError(f"usage must be 0 (train) or 1 (test), found {usage}")
    return VideoInfo(video_id, _SPLITS[usage], height, width, num_frames, num_annotated)


# -------------------------------------------------------------------- paths


def clip_path(root: str | os.PathLike, video_id: str) -> Path:
    """The clip of a video."""
    return Path(root) / CLIP_FOLDER / f"{video_id}.mp4"


def annotation_folder(root: str | os.PathLike, video_id: str) -> Path:
    """The folder of a video's annotations."""
    return Path(root) / ANNOTATION_FOLDER / video_id


def annotation_path(root: str | os.PathLike, video_id: str, frame_index: int) -> Path:
    """The annotation of a 0-based frame; file names count from 1."""
    return annotation_folder(root, video_id) / f"{frame_index + 1:05d}.mat"


def frame_index_of(name: str) -> int | None:
    """The 0-based frame of an annotation's file name; None if it is not such a name."""
    stem, suffix = os.path.splitext(name)
    if suffix != ".mat" or not (stem.isascii() and stem.isdigit()) or int(stem) == 0:
        return None
    return int(stem) - 1 if name == f"{int(stem):05d}.mat" else None


def annotated_frames(root: str | os.PathLike, video_id: str) -> list[int]:
    """The 0-based annotated frames of a video, ascending; none if it has no annotation folder."""
    try:
        names = os.listdir(annotation_folder(root, video_id))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(index for index in map(frame_index_of, names) if index is not None)


# -------------------------------------------------------------------- annotations


@dataclass(frozen=True)
class FrameAnnotation:
    """The annotation of one frame.

    Attributes:
        label_map: (H, W) int32, joint id per pixel, 0 for background.
        masks: (N, H, W) bool.
        boxes: (N, 4) float64 of the masks: x0, y0, x1, y1, 0-based, right and bottom exclusive.
            An instance with an empty mask, which A2D's protocol still counts in detection, has its
            stored box.
        stored_boxes: (N, 4) of the file, in the same convention; None if it holds none.
        joint_ids: N joint ids. Several instances may share one: two dogs that run.
        class_names: names like "dog-running" as the file spells them, N of them in a sound one;
            empty if it holds none.
    """

    label_map: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    stored_boxes: np.ndarray | None
    joint_ids: list[int]
    class_names: list[str]


def read_annotation(path: str | os.PathLike) -> FrameAnnotation:
    """Reads the annotation of one frame, a MATLAB v7.3 file (that is, HDF5).

    Masks, boxes and labels may have any integer, bool or float type that holds whole numbers. Which
    joint ids exist is the label space's affair, not checked here.

    Raises:
        ReleaseError: the file is missing, cut off or lacks a field, its fields disagree in number
            or size, or a mask is empty and has no stored box. Nothing is guessed: no mask takes its
            neighbour's label.
    """
    try:
        with h5py.File(path, "r") as file:
            label_map, masks, ids = (_read_array(file, name) for name in ("reS_id", "reMask", "id"))
            boxes = _read_array(file, "reBBox") if "reBBox" in file else None
            names = _read_strings(file, "class") if "class" in file else []
        return _assemble(label_map, masks, ids, boxes, names)
    except ReleaseError as error:
        raise ReleaseError(f"{path}: {error}; {_REMEDY}", error.kind) from None
    except FileNotFoundError as error:
        raise ReleaseError(f"{path} does not exist; {_REMEDY}") from error
    except _BROKEN as error:
        raise ReleaseError(
            f"{path} is cut off or not a MATLAB v7.3 (HDF5) file ({error}); {_REMEDY}"
        ) from error


def _read_array(file: h5py.File, name: str) -> np.ndarray:
    """A numeric field as HDF5 shows it; MATLAB's empty arrays have size 0."""
    field = _get_field(file, name)
    if field.shape is None or field.dtype.kind not in "biuf":
        raise ReleaseError(f"{name} does not hold numbers")
    array = np.asarray(field[()])
    if "MATLAB_empty" in field.attrs:  # then the value is the (MATLAB) shape
        shape = array.ravel()[::-1].tolist()
        if 0 not in shape or any(side != int(side) or side < 0 for side in shape):
            raise ReleaseError(f"{name} is called empty and is not")
        array = np.zeros([int(side) for side in shape])
    return array


def _get_field(file: h5py.File, name: str) -> h5py.Dataset:
    """A field whose values lie in the file itself, no more of them than it can hold."""
    link = file.get(name, getlink=True)
    if link is None or isinstance(link, h5py.ExternalLink):
        raise ReleaseError(f"there is no {name}" if link is None else f"{name} is another file's")
    field = file[name]
    if not isinstance(field, h5py.Dataset):
        raise ReleaseError(f"there is no {name}")
    if field.is_virtual or field.external:
        raise ReleaseError(f"{name} is stored in another file")
    size = field.size or 0
    if size * field.dtype.itemsize > _MAX_RATIO * file.id.get_filesize():
        raise ReleaseError(f"{name} claims {field.shape} values, more than its file can hold")
    if size > _MAX_VALUES.get(name, size):
        raise ReleaseError(f"{name} has {field.shape} values; {_MAX_VALUES[name]} are read at most")
    if max(size, math.prod(field.chunks or (0,))) * field.dtype.itemsize > _MAX_BYTES:
        raise ReleaseError(f"{name} takes more than {_MAX_BYTES >> 20} MiB")
    return field


def _read_strings(file: h5py.File, name: str) -> list[str]:
    """The strings of a cell array: object references to character codes."""
    references = _get_field(file, name)
    if h5py.check_ref_dtype(references.dtype) is None:  # a char array: one string, in no cell
        return [_text(references[()])] if references.dtype.kind == "u" else []
    names = []
    for reference in references[()].ravel():
        codes = file[reference]
        if not isinstance(codes, h5py.Dataset) or codes.dtype.kind != "u" or codes.size > 1000:
            raise ReleaseError(f"{name} does not hold names")
        names.append(_text(_get_field(file, codes.name)[()]))
    return names


def _text(codes: np.ndarray) -> str:
    return "".join(map(chr, codes.ravel().tolist()))


def _assemble(
    label_map: np.ndarray,
    masks: np.ndarray,
    ids: np.ndarray,
    boxes: np.ndarray | None,
    names: list[str],
) -> FrameAnnotation:
    """Checks the raw fields against each other and turns them to (H, W) axes."""
    if label_map.ndim != 2 or not label_map.size or not _is_id(label_map):
        raise ReleaseError("reS_id is not a (W, H) map of joint ids")
    if not _is_id(ids):
        raise ReleaseError("an id is not a whole number from 0 up", "invalid_id")
    ids = ids.ravel().astype(np.int64).tolist()
    if masks.size == 0:
        masks = np.zeros((0, *label_map.shape), dtype=bool)
    elif masks.ndim == 2:
        masks = masks[np.newaxis]
    if masks.ndim != 3 or not all(np.array_equal(mask != 0, mask) for mask in masks):
        raise ReleaseError("reMask is not an (N, W, H) or (W, H) array of zeros and ones")
    counts = f"{len(masks)} masks but {len(ids)} ids"
    if len(masks) > len(ids):
        raise ReleaseError(f"{counts}, so it is unknown which mask has no id", "masks_exceed_ids")
    if len(masks) < len(ids):
        raise ReleaseError(f"{counts}, so it is unknown which id has no mask", "ids_exceed_masks")
    if masks.shape[1:] != label_map.shape:
        sizes = [f"{shape[-2]}x{shape[-1]}" for shape in (masks.shape, label_map.shape)]
        raise ReleaseError(
            f"masks of {sizes[0]} pixels on a label map of {sizes[1]}", "size_mismatch"
        )
    if boxes is not None:
        boxes = boxes.astype(np.float64)
        boxes = boxes.reshape(4, -1).T if boxes.size in (0, 4) else boxes.T
        if boxes.shape != (len(ids), 4):
            raise ReleaseError(f"reBBox is no (4, N) array for {len(ids)} ids", "box_mask_mismatch")
        boxes = boxes - _ONE_BASED
    masks = np.ascontiguousarray(masks.transpose(0, 2, 1) != 0)
    empty = ~masks.any(axis=(1, 2))
    if empty.any() and boxes is None:
        number = np.flatnonzero(empty)[0] + 1
        raise ReleaseError(
            f"the mask of instance {number} is empty and there is no reBBox", "mask_empty"
        )
    own_boxes = np.zeros((len(ids), 4))
    own_boxes[~empty] = mask_boxes(masks[~empty]) - _ONE_BASED
    if empty.any():
        if not (np.abs(boxes[empty]) <= _MAX_NUMBER).all():
            raise ReleaseError("the box of an instance with an empty mask is no box", "mask_empty")
        own_boxes[empty] = boxes[empty]
    return FrameAnnotation(
        label_map=np.ascontiguousarray(label_map.T, dtype=np.int32),
        masks=masks,
        boxes=own_boxes,
        stored_boxes=boxes,
        joint_ids=ids,
        class_names=names,
    )


def _is_id(array: np.ndarray) -> bool:
    """Whether all values are whole numbers that an id can be, none of which a cast would change."""
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array % 1 == 0).all()):
        return False
    return not array.size or bool(array.min() >= 0 and array.max() <= _MAX_NUMBER)


def box_faults(annotation: FrameAnnotation) -> list[ReleaseError]:
    """What is wrong with the stored boxes, at most one fault an instance.

    A box must lie inside the image, and no side of it more than ``BOX_TOLERANCE`` pixels away from
    that of its mask.
    """
    faults = []
    if annotation.stored_boxes is None:
        return faults
    height, width = annotation.label_map.shape
    pairs = zip(annotation.stored_boxes, annotation.boxes, strict=True)
    for number, (stored, box) in enumerate(pairs, start=1):
        text = "box {:g} {:g} {:g} {:g} of instance {}".format(*(stored + _ONE_BASED), number)
        x0, y0, x1, y1 = stored
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            faults.append(
                ReleaseError(f"{text} is not inside {width}x{height} pixels", "box_outside")
            )
        elif np.abs(stored - box).max() > BOX_TOLERANCE:
            of_mask = "{:g} {:g} {:g} {:g}".format(*(box + _ONE_BASED))
            faults.append(
                ReleaseError(f"{text} disagrees with its mask's {of_mask}", "box_mask_mismatch")
            )
    return faults
