"""Optical flow as colour: the hue is the direction, the saturation the speed, zero is white."""

import cv2
import numpy as np

# Slower fields are not stretched to full saturation: noise of a still scene stays pale.
MIN_RANGE = 1.0  # pixels per frame


def flow_range(flow: np.ndarray) -> float:
    """The speed in pixels per frame that gets full saturation: the 99th percentile, at least 1."""
    return max(MIN_RANGE, float(np.percentile(np.linalg.norm(flow[..., :2], axis=-1), 99)))


def flow_to_picture(flow: np.ndarray, max_magnitude: float | None = None) -> np.ndarray:
    """Colours a flow field as the wheel of :func:`flow_wheel` does.

    Args:
        flow: (H, W, 2 or more) x and y in pixels per frame, y down; further channels are ignored.
        max_magnitude: speed of full saturation, faster ones look the same; None takes
            :func:`flow_range` of the field.

    Returns:
        RGB uint8 (H, W, 3): right is red (hue 0), down yellow-green (90 degrees), left cyan (180).
    """
    x, y = (np.ascontiguousarray(flow[..., i], dtype=np.float32) for i in range(2))
    limit = flow_range(flow) if max_magnitude is None else max_magnitude
    assert limit > 0
    magnitude, hue = cv2.cartToPolar(x, y, angleInDegrees=True)
    hsv = np.stack([hue % 360, np.minimum(magnitude / limit, 1), np.ones_like(hue)], axis=-1)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return (rgb * 255).round().astype(np.uint8)


def flow_wheel(size: int) -> np.ndarray:
    """(size, size, 4) RGBA uint8: a disc whose colour at each place is that of the flow that points
    there from the centre; the rim is the fastest. Outside it is transparent."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    field = np.stack(np.meshgrid(axis, axis), axis=-1)
    radius = np.linalg.norm(field, axis=-1)
    cover = np.clip((1 - radius) * size / 2, 0, 1)  # one pixel of smooth rim
    return np.dstack([flow_to_picture(field, 1.0), (cover * 255).round().astype(np.uint8)])


def put_flow_wheel(picture: np.ndarray, size: int) -> None:
    """Draws the wheel into the lower right corner of a picture, with a thin dark rim."""
    size = min(size, *picture.shape[:2])
    wheel = flow_wheel(size)
    part = picture[picture.shape[0] - size :, picture.shape[1] - size :]
    weight = wheel[..., 3:].astype(np.float32) / 255
    part[:] = (part * (1 - weight) + wheel[..., :3] * weight).round()
    center = (picture.shape[1] - size // 2 - 1, picture.shape[0] - size // 2 - 1)
    cv2.circle(picture, center, (size - 1) // 2 - 1, (90, 90, 90), 1, cv2.LINE_AA)
