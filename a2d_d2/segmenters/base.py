"""The interface of a segmenter: how one is found, called and checked. Imports no torch."""

import importlib
import inspect
from collections.abc import Callable

import numpy as np
from fvcore.common.registry import Registry

Segmenter = Callable[[np.ndarray, np.ndarray], np.ndarray]

SEGMENTER_REGISTRY = Registry("SEGMENTER")
SEGMENTER_REGISTRY.__doc__ = """
Registry of classes or functions that are called without arguments and give a segmenter, as
:mod:`a2d_d2.segmenters` documents it.
"""

# Detections below this actor score get no mask, unless somebody says otherwise.
MIN_SCORE = 0.05


def build_segmenter(name: str) -> Segmenter:
    """Makes the segmenter of a name.

    Args:
        name: a name in ``SEGMENTER_REGISTRY``, or "package.module:name" of anybody's code. Either
            names a class or function that is called once, without arguments, and gives the
            segmenter. It is not the segmenter itself: what is slow to load is loaded there.

    Raises:
        ValueError: there is no such segmenter, or it is none.
    """
    if ":" in name:
        factory = _import(name)
    elif name in SEGMENTER_REGISTRY:
        factory = SEGMENTER_REGISTRY.get(name)
    else:
        known = ", ".join(sorted(known for known, _ in SEGMENTER_REGISTRY))
        raise ValueError(
            f"there is no segmenter {name!r}; give {known}, or package.module:name of your own"
        )
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ValueError(
            f"segmenter {name} must be a class or function that is called without arguments and"
            f" gives segment(image, boxes): {error}"
        ) from error
    segmenter = factory()
    if not callable(segmenter):
        raise ValueError(
            f"segmenter {name} gives a {type(segmenter).__name__}, not a segment(image, boxes)"
        )
    return segmenter


def _import(name: str) -> Callable:
    """What "package.module:name" stands for."""
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise ValueError(f"segmenter {name!r} is not of the form package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"segmenter {name}: cannot import {module_name} ({error}); its folder must be on"
            " PYTHONPATH"
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(f"segmenter {name}: module {module_name} has no {attribute}")
    return getattr(module, attribute)


def box_pixels(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of boxes: those whose centre lies in the box and inside the image.

    Args:
        boxes: (N, 4) XYXY in pixels, 0-based and continuous.
        size: (height, width) of the image.

    Returns:
        (N, 4) int64 XYXY, right and bottom exclusive; without area where a box has no pixel.
    """
    height, width = size
    corners = np.clip(np.asarray(boxes, dtype=np.float64), 0, [width, height, width, height])
    return np.ceil(corners - 0.5).astype(np.int64)


def segment_detections(
    segmenter: Segmenter,
    frame: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    min_score: float = MIN_SCORE,
) -> np.ndarray:
    """Masks of the detections of one frame, each cut to the pixels of its box.

    Args:
        segmenter: called once with the boxes that count, or not at all if there are none.
        frame: (H, W, 3) uint8, BGR.
        boxes: (N, 4) XYXY in pixels, 0-based and continuous.
        scores: (N,) p(actor).
        min_score: detections with a lower score get no mask.

    Returns:
        (N, H, W) bool; all False stands for no mask.

    Raises:
        ValueError: the segmenter gives something else than masks.
    """
    kept = np.flatnonzero(scores >= min_score)
    masks = np.zeros((len(boxes), *frame.shape[:2]), dtype=bool)
    if len(kept) == 0:
        return masks
    found = np.asarray(segmenter(frame, boxes[kept]))
    expected = (len(kept), *frame.shape[:2])
    if found.shape != expected or found.dtype != bool:
        name = getattr(segmenter, "__qualname__", type(segmenter).__name__)
        raise ValueError(
            f"segmenter {name} gave an array of {found.dtype} {found.shape}; masks are bool"
            f" {expected}"
        )
    pixels = box_pixels(boxes[kept], frame.shape[:2])
    for i, mask, (x1, y1, x2, y2) in zip(kept, found, pixels, strict=True):
        masks[i, y1:y2, x1:x2] = mask[y1:y2, x1:x2]
    return masks
