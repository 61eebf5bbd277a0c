"""Writes the files of a release in the official A2D layout: videoset.csv, annotations, label maps.

Legend: N instances, H height, W width. MATLAB is column-major, so HDF5 holds every array with its
axes reversed: a MATLAB (H, W) image is a (W, H) dataset, (H, W, N) masks are (N, W, H).
"""

import csv
import io
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.files import write_bytes, write_image, write_text

CLIP_FOLDER = "clips320H"
ANNOTATION_FOLDER = "Annotations/mat"
COLOR_MAP_FOLDER = "Annotations/col"
# The number of the last column of videoset.csv.
USAGE = {"train": 0, "test": 1}

_USER_BLOCK = 512  # bytes that MATLAB keeps before the HDF5 signature


@dataclass(frozen=True)
class VideosetRow:
    """One line of videoset.csv.

    Attributes:
        video_id: 11 characters; may start with ``-`` or ``_``.
        label: one joint id for the whole clip; not the truth of its instances.
        start, end: of the clip within its source video, in seconds.
        height, width: of the frames, in pixels.
        num_frames, num_annotated: of the clip.
        split: "train" or "test".
    """

    video_id: str
    label: int
    start: float
    end: float
    height: int
    width: int
    num_frames: int
    num_annotated: int
    split: str


def write_videoset(root: str | os.PathLike, rows: Iterable[VideosetRow]) -> None:
    """Writes ``root/videoset.csv``: nine columns, no header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(
            [row.video_id, row.label, f"{row.start:g}", f"{row.end:g}", row.height, row.width]
            + [row.num_frames, row.num_annotated, USAGE[row.split]]
        )
    write_text(Path(root) / "videoset.csv", text.getvalue())


def write_annotation(
    path: str | os.PathLike,
    label_map: np.ndarray,
    masks: np.ndarray,
    joint_ids: Sequence[int],
    label_space: LabelSpace,
    boxes: np.ndarray | None = None,
) -> None:
    """Writes the annotation of one frame as a MATLAB v7.3 file, atomically.

    Args:
        path: the .mat file to write.
        label_map: (H, W) joint id per pixel, 0 for background.
        masks: (N, H, W) bool. One instance is stored as a 2-D mask, as MATLAB drops the last axis.
        joint_ids: N joint ids.
        label_space: gives the class names.
        boxes: (N, 4) x1, y1, x2, y2, 1-based and inclusive; by default those of the masks.
    """
    masks = np.asarray(masks, dtype=np.uint8)
    boxes = mask_boxes(masks) if boxes is None else np.asarray(boxes)
    assert len(masks) == len(joint_ids) == len(boxes), "one mask, joint id and box per instance"
    names = [label_space.pair_name(*label_space.split_id(joint_id)) for joint_id in joint_ids]
    label_map = np.asarray(label_map).astype(label_space.label_map_dtype)
    fields = {
        "reBBox": boxes.astype(np.float64).reshape(-1, 4).T,
        "reMask": (masks[0] if len(masks) == 1 else masks).swapaxes(-1, -2),
        "reS_id": label_map.T,
        "id": np.asarray(joint_ids, dtype=np.float64).reshape(1, -1),
    }
    data = io.BytesIO()  # on a full disk HDF5 can crash the interpreter
    with h5py.File(data, "w", userblock_size=_USER_BLOCK, libver="earliest") as file:
        for name, value in fields.items():
            options = {"compression": "gzip", "compression_opts": 3} if value.size > 64 else {}
            _write_array(file, name, value, **options)
        _write_strings(file, "class", names)
    data.seek(0)
    data.write(_matlab_header())
    write_bytes(path, data.getvalue())


def write_color_map(
    path: str | os.PathLike, label_map: np.ndarray, label_space: LabelSpace
) -> None:
    """Writes an (H, W) map of joint ids as the RGB-coded PNG of ``Annotations/col``, atomically."""
    bgr = label_space.palette[np.asarray(label_map)][..., ::-1]
    write_image(path, bgr)


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """(N, 4) int boxes x1, y1, x2, y2 of (N, H, W) masks, 1-based and inclusive.

    Raises:
        ValueError: a mask is empty.
    """
    boxes = np.zeros((len(masks), 4), dtype=np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if not len(columns):
            raise ValueError("an instance has an empty mask")
        box[:] = columns[0] + 1, rows[0] + 1, columns[-1] + 1, rows[-1] + 1
    return boxes


def _write_array(group: h5py.Group, name: str, value: np.ndarray, **options) -> h5py.Dataset:
    dataset = group.create_dataset(name, data=value, **options)
    matlab_class = "double" if value.dtype == np.float64 else value.dtype.name
    dataset.attrs["MATLAB_class"] = np.bytes_(matlab_class)
    return dataset


def _write_strings(file: h5py.File, name: str, strings: Sequence[str]) -> None:
    """A 1 x N MATLAB cell array: object references to (length, 1) datasets of uint16 characters."""
    references = np.empty((1, len(strings)), dtype=h5py.ref_dtype)
    group = file.create_group("#refs#")
    for i, text in enumerate(strings):
        codes = np.frombuffer(text.encode("utf-16-le"), dtype="<u2").reshape(-1, 1)
        dataset = group.create_dataset(f"a{i}", data=codes)
        dataset.attrs["MATLAB_class"] = np.bytes_("char")
        dataset.attrs["MATLAB_int_decode"] = np.int32(2)
        references[0, i] = dataset.ref
    dataset = file.create_dataset(name, data=references, dtype=h5py.ref_dtype)
    dataset.attrs["MATLAB_class"] = np.bytes_("cell")


def _matlab_header() -> bytes:
    """The first 128 bytes of a v7.3 file: text, no subsystem data, version 2.0, byte order."""
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 ."
    return text.ljust(116) + bytes(8) + struct.pack("<H", 0x0200) + b"IM"
