"""Frames and flow of clips: computed from the video, or stored once by tools/prepare_clips.py.

A cache folder holds one archive (an uncompressed ZIP) per video and kind of content:

    frames-jpeg95/<video>.zip    or frames-png, see ``FRAME_FORMATS``
    flow-dis-medium/<video>.zip  named by the flow method and its parameters

Members are named by the 1-based frame. ``manifest.json`` in each archive holds the size and time of
the video it was made from, and those frames of the windows that the video does not have. An archive
appears whole or not at all; ZIP's checksums tell a broken one.
"""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from a2d_d2.data.flow import (
    FLOW_METHODS,
    check_flow_method,
    compute_flow,
    decode_flow,
    encode_flow,
)
from a2d_d2.data.layout import annotated_frames, clip_path, read_videoset
from a2d_d2.data.video import select_frames
from a2d_d2.utils.files import write_bytes
from a2d_d2.utils.parallel import parallel_map
from a2d_d2.utils.untrusted import decode_image

_MANIFEST = "manifest.json"
# Folder to OpenCV's suffix and parameters. JPEG keeps full colour resolution: at quality 95 it
# differs from the decoded frame by about 2 grey levels on average, at a third of PNG's size.
FRAME_FORMATS = {
    "frames-png": (".png", []),
    "frames-jpeg95": (
        ".jpg",
        [
            *(cv2.IMWRITE_JPEG_QUALITY, 95),
            *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        ],
    ),
}
# What zipfile, json and the decoders raise on a file that is missing, broken or out of date.
_BROKEN = (OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, AttributeError)
_BROKEN += (ArithmeticError, struct.error, zipfile.BadZipFile, zlib.error)


def iter_clip(
    clip: str | os.PathLike, frames: Iterable[int], flow_method: str | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Yields (index, BGR frame, flow from the frame before) for 0-based ``frames``, ascending.

    The first frame of a video has zero flow; flow is None without a method. Decodes once. Frames
    after the end of the video do not come.

    Raises:
        VideoError: the video is missing or broken.
    """
    frames = set(frames)
    before = {frame - 1 for frame in frames if frame > 0} if flow_method else set()
    previous = None
    for index, frame in select_frames(clip, frames | before):
        if index in frames:
            flow = None
            if flow_method and index == 0:
                flow = np.zeros((*frame.shape[:2], 2), dtype=np.float32)
            elif flow_method:
                flow = compute_flow(previous, frame, flow_method)
            yield index, frame, flow
        previous = frame


def read_clip(
    clip: str | os.PathLike, frames: Iterable[int], flow_method: str | None
) -> dict[int, tuple[np.ndarray, np.ndarray | None]]:
    """What :func:`iter_clip` yields: index to (frame, flow)."""
    return {index: (frame, flow) for index, frame, flow in iter_clip(clip, frames, flow_method)}


class ClipCache:
    """Reads what :func:`prepare_clips` stored.

    Args:
        folder: the cache folder.
        flow_method: of the flow to read; None reads frames alone.
    """

    def __init__(self, folder: str | os.PathLike, flow_method: str | None):
        self.folder = Path(folder)
        self.flow_method = flow_method

    def read(
        self, clip: str | os.PathLike, video_id: str, frames: Iterable[int]
    ) -> dict[int, tuple[np.ndarray, np.ndarray | None]] | None:
        """The result of :func:`read_clip`, up to the rounding of the stored formats.

        None when the cache lacks any of it, is broken, or was made from another file than ``clip``
        is now. The clip itself need not be there.
        """
        source = _source(clip)
        for folder in FRAME_FORMATS:
            path = _archive_path(self.folder, folder, video_id)
            images = _read_archive(path, frames, source, _decode_image)
            if images is not None:
                break
        else:
            return None
        if self.flow_method is None:
            return {index: (image, None) for index, image in images.items()}
        path = _archive_path(self.folder, _flow_folder(self.flow_method), video_id)
        flows = _read_archive(path, frames, source, decode_flow)
        if flows is None:
            return None
        return {index: (image, flows[index]) for index, image in images.items()}


@dataclass(frozen=True)
class Preparation:
    """What :func:`prepare_clips` did.

    Attributes:
        num_videos: with annotated frames, in the splits and the share asked for.
        num_complete: of these, stored before.
        problems: (video id, message) of the videos that could not be stored whole.
    """

    num_videos: int
    num_complete: int
    problems: list[tuple[str, str]]


def prepare_clips(
    root: str | os.PathLike,
    cache: str | os.PathLike,
    *,
    splits: Collection[str] = ("train", "test"),
    flow_method: str = "dis",
    length: int = 5,
    stride: int = 1,
    lossless: bool = False,
    workers: int | None = None,
    progress: bool = True,
    share: tuple[int, int] = (0, 1),
) -> Preparation:
    """Stores the frames and flow of the windows around the annotated frames of a release.

    One decode in order a video. Videos that are stored already are checked and left alone, so that
    a run that was stopped goes on; broken ones and those whose clip has changed are done again.

    Args:
        root: folder that holds videoset.csv.
        cache: folder to write to.
        splits: of the release.
        flow_method: one of ``FLOW_METHODS``.
        length, stride: INPUT.CLIP.LENGTH and STRIDE of the training. Stored are the annotated
            frames and length // 2 steps to each side. Random placement needs no more, unless the
            model looks further than that.
        lossless: store frames as PNG instead of JPEG.
        workers: number of processes; None uses every core.
        progress: show a bar on standard error.
        share: (i, n) does every n-th video from the i-th on, for n machines that write to one
            ``cache``.

    Raises:
        ValueError: wrong arguments, or ``root`` is no release.
    """
    check_flow_method(flow_method)
    if length < 1 or stride < 1:
        raise ValueError(f"length and stride must be at least 1, not {length} and {stride}")
    frame_folder = "frames-png" if lossless else "frames-jpeg95"
    jobs = []
    for video in read_videoset(root):
        key_frames = annotated_frames(root, video.video_id)
        if video.split in splits and key_frames:
            jobs.append(
                _Job(
                    clip=str(clip_path(root, video.video_id)),
                    video_id=video.video_id,
                    annotated=frozenset(key_frames),
                    frames=window_frames(key_frames, length, stride),
                    frame_path=_archive_path(cache, frame_folder, video.video_id),
                    flow_path=_archive_path(cache, _flow_folder(flow_method), video.video_id),
                    flow_method=flow_method,
                )
            )
    if not jobs:
        raise ValueError(f"{root} has no annotated video in {' or '.join(splits)}")
    jobs = jobs[share[0] :: share[1]]
    results = list(
        parallel_map(
            _prepare_video,
            jobs,
            workers=workers,
            description="clips",
            unit="video",
            progress=progress,
        )
    )
    problems = [(job.video_id, r[1]) for job, r in zip(jobs, results, strict=True) if r[1]]
    return Preparation(len(jobs), sum(complete for complete, _ in results), problems)


# ---------------------------------------------------------------- one video


@dataclass(frozen=True)
class _Job:
    clip: str
    video_id: str
    annotated: frozenset[int]
    frames: frozenset[int]
    frame_path: Path
    flow_path: Path
    flow_method: str


def window_frames(key_frames: Iterable[int], length: int, stride: int) -> frozenset[int]:
    """The frames, 0-based, of the windows in whose middle a key frame stands."""
    reach = length // 2 * stride
    around = range(-reach, reach + 1, stride)
    return frozenset(key + d for key in key_frames for d in around if key + d >= 0)


def _prepare_video(job: _Job) -> tuple[bool, str]:
    """Stores one video; gives whether it was stored before, and what is wrong with it or ""."""
    source = _source(job.clip)
    stored = {path: _check_archive(path, source) for path in (job.frame_path, job.flow_path)}
    lacking = [p for p, held in stored.items() if held is None or not held.frames >= job.frames]
    if not lacking:
        absent = stored[job.frame_path].absent
    else:
        frames = job.frames.union(*(held.frames for held in stored.values() if held))
        images, flows = {}, {}
        try:
            for index, image, flow in iter_clip(job.clip, frames, job.flow_method):
                images[index] = _encode_image(image, job.frame_path)
                flows[index] = encode_flow(flow)
        except ValueError as error:
            return False, str(error)
        absent = frames - images.keys()
        for path, members in ((job.frame_path, images), (job.flow_path, flows)):
            if path in lacking:
                _write_archive(path, members, absent, source)
    missing = sorted(absent & job.annotated)
    if missing:
        return not lacking, (
            f"{job.clip} ends before its annotated frame {missing[0] + 1}; "
            "tools/check_dataset.py lists such faults"
        )
    return not lacking, ""


# ---------------------------------------------------------------- archives


@dataclass(frozen=True)
class _Stored:
    """The frames (0-based) that an archive answers for; the video lacks the ``absent`` ones."""

    frames: frozenset[int]
    absent: frozenset[int]


def _archive_path(cache: str | os.PathLike, folder: str, video_id: str) -> Path:
    return Path(cache) / folder / f"{video_id}.zip"


def _flow_folder(method: str) -> str:
    return f"flow-{FLOW_METHODS[method]}"


def _source(clip: str | os.PathLike) -> dict | None:
    """What tells one state of a clip from another; None when it is not there."""
    try:
        state = os.stat(clip)
    except OSError:
        return None
    return {"bytes": state.st_size, "time_ns": state.st_mtime_ns}


def _write_archive(
    path: Path, members: Mapping[int, bytes], absent: Iterable[int], source: dict | None
) -> None:
    manifest = {"source": source, "absent": sorted(index + 1 for index in absent)}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for index, content in members.items():
            archive.writestr(zipfile.ZipInfo(_member(index, path)), content)
        archive.writestr(zipfile.ZipInfo(_MANIFEST), json.dumps(manifest))
    write_bytes(path, data.getvalue())


def _check_archive(path: Path, source: dict | None) -> _Stored | None:
    """What an archive holds; None when it is missing, broken or made from another video."""
    try:
        with _open_archive(path) as archive:
            absent = _absent_frames(archive, source)
            if archive.testzip() is not None:
                return None
            names = set(archive.namelist()) - {_MANIFEST}
        return _Stored(absent | {int(name.partition(".")[0]) - 1 for name in names}, absent)
    except _BROKEN:
        return None


def _read_archive(
    path: Path, frames: Iterable[int], source: dict | None, decode: Callable[[bytes], np.ndarray]
) -> dict[int, np.ndarray] | None:
    """Index to decoded member; None when the archive lacks one, is broken or out of date."""
    try:
        with _open_archive(path) as archive:
            absent = _absent_frames(archive, source)
            return {
                index: decode(archive.read(_member(index, path)))
                for index in frames
                if index not in absent
            }
    except _BROKEN:
        return None


def _open_archive(path: Path) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(path)
    # Members are stored as they are; a compressed one could stand for more than memory holds.
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        archive.close()
        raise ValueError("a member is compressed")
    return archive


def _absent_frames(archive: zipfile.ZipFile, source: dict | None) -> frozenset[int]:
    manifest = json.loads(archive.read(_MANIFEST))
    if source not in (None, manifest["source"]):
        raise ValueError("made from another video")
    return frozenset(number - 1 for number in manifest["absent"])


def _member(index: int, path: Path) -> str:
    suffix = FRAME_FORMATS[path.parent.name][0] if path.parent.name in FRAME_FORMATS else ".png"
    return f"{index + 1:05d}{suffix}"


def _encode_image(image: np.ndarray, path: Path) -> bytes:
    suffix, options = FRAME_FORMATS[path.parent.name]
    ok, data = cv2.imencode(suffix, image, options)
    assert ok
    return data.tobytes()


def _decode_image(data: bytes) -> np.ndarray:
    return decode_image(data, cv2.IMREAD_COLOR)
