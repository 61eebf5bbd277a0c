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

from a2d_d2.utils.files import write_bytes
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
_KITTI_ZERO = 1 << 15  # value of no motion in KITTI's layout
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
    # Channel by channel: NumPy is slow where the innermost axis is short.
    resized[..., 0] *= np.float32(size[0] / width)
    resized[..., 1] *= np.float32(size[1] / height)
    return resized


def flow_to_input(flow: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 2) flow to the network's (3, H, W): x, y and magnitude, in pixels per frame.

    Args:
        flow: float32.
        out: float32 array to write to; a new one by default.
    """
    if out is None:
        out = np.empty((3, *flow.shape[:2]), dtype=np.float32)
    x, y, magnitude = out
    x[:], y[:] = flow[..., 0], flow[..., 1]
    # Not cv2.magnitude: its last bit depends on where the array lies in memory.
    np.multiply(x, x, out=magnitude)
    magnitude += y * y
    np.sqrt(magnitude, out=magnitude)
    return out


# ---------------------------------------------------------------- files


def encode_flow(flow: np.ndarray) -> bytes:
    """Flow (H, W, 2) as a PNG for the clip cache, rounded to 1/64 px and limited to -512 px ..
    512 px - 1/64 px.

    The values times 64 are signed integers of 16 bits. Their bytes are four grey pictures side by
    side: low bytes of x, high bytes of x, low and high bytes of y. The high bytes hardly change
    from pixel to pixel, so apart from the low ones they take little space and time.

    Raises:
        ValueError: the array is not finite flow.
    """
    stored = _quantize(flow)
    planes = cv2.split(stored.view(np.uint8).reshape(*stored.shape[:2], 4))
    # Differences to the row above: as small as the default's, and faster to undo.
    options = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    return _encode_png(cv2.hconcat(planes), options)


def decode_flow(data: bytes) -> np.ndarray:
    """Flow of the bytes of :func:`encode_flow`, or of a PNG in KITTI's layout (:func:`write_flow`).

    Raises:
        ValueError: they are something else, or damaged.
    """
    _check_png(data)
    pixels = decode_image(data, cv2.IMREAD_UNCHANGED)
    kind = (pixels.dtype, *pixels.shape[2:])
    if kind == (np.uint8,) and pixels.shape[1] % 4 == 0:
        flow = cv2.merge(np.hsplit(pixels, 4)).view("<i2").astype(np.float32)
    elif kind == (np.uint16, 3):
        flow = pixels[..., :0:-1].astype(np.float32) - _KITTI_ZERO
    else:
        raise ValueError("not flow in a PNG, of a clip cache or in KITTI's layout")
    flow *= np.float32(1 / _SCALE)
    return flow


def _quantize(flow: np.ndarray) -> np.ndarray:
    """Flow times 64 in 16 bits (H, W, 2); ValueError when it is not finite flow."""
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size or not np.isfinite(flow).all():
        raise ValueError(f"not finite flow of shape (H, W, 2): {flow.dtype} {flow.shape}")
    scaled = np.rint(flow * np.float32(_SCALE))
    limits = np.iinfo(np.int16)
    return np.clip(scaled, limits.min, limits.max, out=scaled).astype("<i2", order="C")


def _encode_png(pixels: np.ndarray, options: list[int] = ()) -> bytes:
    ok, data = cv2.imencode(".png", pixels, options)
    assert ok
    return data.tobytes()


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
    """Writes ``flow`` to ``path`` as a 16-bit PNG, atomically; rounded as by :func:`encode_flow`.

    The layout is KITTI's: red is x, green is y, each 64 * value + 32768; blue is 1 (valid).

    Raises:
        ValueError: the array is not finite flow.
    """
    stored = _quantize(flow)
    pixels = np.ones((*stored.shape[:2], 3), dtype=np.uint16)  # OpenCV's order: blue, green, red
    pixels[..., :0:-1] = stored.astype(np.int32) + _KITTI_ZERO
    write_bytes(path, _encode_png(pixels))


def read_flow(path: str | os.PathLike) -> np.ndarray:
    """The float32 (H, W, 2) flow that :func:`write_flow` or the clip cache stored.

    Raises:
        ValueError: the file is missing, broken or something else; names it.
    """
    try:
        return decode_flow(Path(path).read_bytes())
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot read flow {path}: {error}") from error
