"""Optical flow: computing, storing and preparing it for the network (section 3.2).

Flow is float32 (H, W, 2), x and y in pixels per frame, y down. It goes from the previous frame to
the current one, on the grid of the previous: what is at pixel p there is at p + flow(p) in the
current.
"""

import os
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np

from a2d_d2.utils.files import atomic_path
from a2d_d2.utils.untrusted import decode_image

# Method to what it is computed with: the name of its cache, so change it with the parameters.
FLOW_METHODS = {
    "dis": "dis-medium",
    "farneback": "farneback-3levels-window15",
    "tvl1": "tvl1-default",
}

# Pixels; frames are extended to it. On smaller ones OpenCV's DIS crashes, or changes its own
# parameters for all frames after.
_MIN_SIDE = 48
_SCALE = 64  # stored units per pixel
_ZERO = 1 << 15  # stored value of no motion
_ESTIMATORS = threading.local()  # they hold buffers: reused, but not across threads


def check_flow_method(method: str) -> None:
    """ValueError when ``method`` is unknown or this OpenCV does not have it."""
    if method not in FLOW_METHODS:
        names = ", ".join(FLOW_METHODS)
        raise ValueError(f"unknown flow method {method!r} (INPUT.FLOW_METHOD); use one of {names}")
    if method == "tvl1" and not hasattr(cv2, "optflow"):
        raise ValueError(
            "flow method 'tvl1' (INPUT.FLOW_METHOD) needs opencv-contrib-python instead of the"
            " installed opencv-python; install it, or use 'dis'"
        )


def compute_flow(previous: np.ndarray, current: np.ndarray, method: str = "dis") -> np.ndarray:
    """The optical flow from one frame to the next.

    Args:
        previous, current: BGR uint8 (H, W, 3).
        method: "dis" (medium preset), "farneback" or "tvl1" (needs opencv-contrib).

    Returns:
        float32 (H, W, 2) as the module describes.

    Raises:
        ValueError: unknown method, or frames that are not two BGR uint8 images of one size.
    """
    check_flow_method(method)
    for frame in (previous, current):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(
                f"flow needs BGR uint8 frames (H, W, 3); got {frame.dtype} {frame.shape}"
            )
    if previous.shape != current.shape:
        raise ValueError(
            f"flow needs two frames of one size; got {previous.shape} and {current.shape}"
        )
    height, width = previous.shape[:2]
    below, right = max(0, _MIN_SIDE - height), max(0, _MIN_SIDE - width)
    gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in (previous, current)]
    if below or right:
        gray = [cv2.copyMakeBorder(x, 0, below, 0, right, cv2.BORDER_REPLICATE) for x in gray]
    if method == "farneback":
        flow = cv2.calcOpticalFlowFarneback(
            *gray,
            flow=None,
            pyr_scale=0.5,
            levels=3,
            winsize=15,
            iterations=3,
            poly_n=5,
            poly_sigma=1.2,
            flags=0,
        )
    else:
        flow = _estimator(method).calc(*gray, None)
    return flow[:height, :width]


def _estimator(method: str):
    if not hasattr(_ESTIMATORS, method):
        if method == "dis":
            made = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        else:
            made = cv2.optflow.DualTVL1OpticalFlow_create()
        setattr(_ESTIMATORS, method, made)
    return getattr(_ESTIMATORS, method)


# ---------------------------------------------------------------- shapes


def resize_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flow (H, W, 2) as it is between frames resized to ``size``, (width, height): the vectors are
    scaled with the frame."""
    height, width = flow.shape[:2]
    if size == (width, height):
        return flow
    shrinks = size[0] * size[1] < width * height
    resized = cv2.resize(flow, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    resized *= np.float32([size[0] / width, size[1] / height])
    return resized


def flow_to_input(flow: np.ndarray) -> np.ndarray:
    """(H, W, 2) flow to the network's (H, W, 3): x, y and magnitude, in pixels per frame."""
    # Not cv2.magnitude: its last bit depends on where the array lies in memory.
    return np.dstack([flow, np.sqrt(flow[..., 0] ** 2 + flow[..., 1] ** 2)])


# ---------------------------------------------------------------- files


def encode_flow(flow: np.ndarray) -> bytes:
    """Flow (H, W, 2) as a 16-bit PNG, rounded to 1/64 px and limited to +-512 px.

    The layout is KITTI's: red is x, green is y, each 64 * value + 32768; blue is 1 (valid).

    Raises:
        ValueError: the array is not finite flow.
    """
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size or not np.isfinite(flow).all():
        raise ValueError(f"not finite flow of shape (H, W, 2): {flow.dtype} {flow.shape}")
    pixels = np.ones((*flow.shape[:2], 3), dtype=np.uint16)  # OpenCV's order: blue, green, red
    pixels[..., :0:-1] = np.clip(np.rint(flow * _SCALE) + _ZERO, 0, 2**16 - 1)
    ok, data = cv2.imencode(".png", pixels)
    assert ok
    return data.tobytes()


def decode_flow(data: bytes) -> np.ndarray:
    """Flow of the bytes of :func:`encode_flow`; ValueError when they are something else."""
    _check_png(data)
    pixels = decode_image(data, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError("not flow in a 16-bit PNG of three channels")
    return (pixels[..., :0:-1].astype(np.float32) - _ZERO) / _SCALE


def _check_png(data: bytes) -> None:
    """Compares the checksums of a PNG's chunks: OpenCV may decode a damaged one."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not flow in a PNG file")
    place = 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + length
        if int.from_bytes(data[end : end + 4], "big") != zlib.crc32(data[place + 4 : end]):
            raise ValueError("a damaged PNG file: a checksum is wrong")
        if data[place + 4 : place + 8] == b"IEND":
            return
        place = end + 4
    raise ValueError("a PNG file that is cut off")


def write_flow(path: str | os.PathLike, flow: np.ndarray) -> None:
    """Writes :func:`encode_flow` of ``flow`` to ``path``, atomically.

    Raises:
        ValueError: as :func:`encode_flow`.
    """
    data = encode_flow(flow)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_flow(path: str | os.PathLike) -> np.ndarray:
    """The float32 (H, W, 2) flow that :func:`write_flow` stored.

    Raises:
        ValueError: the file is missing, broken or something else; names it.
    """
    try:
        return decode_flow(Path(path).read_bytes())
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot read flow {path}: {error}") from error
