"""Class-agnostic segmenters: from a detector's boxes to masks (section 4.3, "Ours w/o Mask").

A segmenter is a callable ``segment(image, boxes) -> masks``:

    image: (H, W, 3) uint8, BGR.
    boxes: (N, 4) float, XYXY in pixels, 0-based and continuous; they may reach out of the image.
    masks: (N, H, W) bool, the foreground of each box. What lies outside the box is cut off.

The paper's SharpMask is not available; :class:`GrabCutSegmenter` is the one that is built in.
"""

from a2d_d2.segmenters.base import (
    MIN_SCORE,
    SEGMENTER_REGISTRY,
    Segmenter,
    box_pixels,
    build_segmenter,
    segment_detections,
)
from a2d_d2.segmenters.grabcut import GrabCutSegmenter

__all__ = [
    "MIN_SCORE",
    "SEGMENTER_REGISTRY",
    "GrabCutSegmenter",
    "Segmenter",
    "box_pixels",
    "build_segmenter",
    "segment_detections",
]
