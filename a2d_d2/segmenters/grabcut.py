"""OpenCV's GrabCut as a segmenter."""

import cv2
import numpy as np

from a2d_d2.segmenters.base import SEGMENTER_REGISTRY, box_pixels

# Of the mixture that GrabCut fits to foreground and background: no fewer pixels can be fitted.
_COMPONENTS = 5
# Boxes with a shorter side, in pixels, have no inside to tell from their border.
_MIN_SIDE = 3


@SEGMENTER_REGISTRY.register()
class GrabCutSegmenter:
    """GrabCut (Rother et al., SIGGRAPH 2004) in its rectangle mode.

    Each box is segmented for itself, on a crop around it: outside the box is background for
    certain, inside it perhaps foreground. The result depends on nothing but image and box: OpenCV's
    random generator, which GrabCut draws from, is seeded before each box.

    The mask is the whole box where GrabCut has nothing to go by or finds nothing: the box is
    thinner than 3 pixels, leaves fewer than 5 pixels of background in the crop (it covers the
    frame), or all of it comes out as background. A box without a pixel has an empty mask.
    """

    def __init__(self, iterations: int = 3, margin: float = 0.5):
        """
        Args:
            iterations: of fitting colours and cutting.
            margin: width of the background around the box, as a share of the box's width left and
                right, and of its height above and below.
        """
        if iterations < 1 or not margin > 0:
            raise ValueError(
                "GrabCut needs at least one iteration and a margin above 0, not"
                f" {iterations} and {margin}"
            )
        self.iterations = iterations
        self.margin = margin

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """As :mod:`a2d_d2.segmenters` documents it."""
        masks = np.zeros((len(boxes), *image.shape[:2]), dtype=bool)
        for mask, box in zip(masks, box_pixels(boxes, image.shape[:2]), strict=True):
            self._segment(image, box, mask)
        return masks

    def _segment(self, image: np.ndarray, box: np.ndarray, mask: np.ndarray) -> None:
        """Sets the foreground of one box (pixels, inside the image) in an empty mask."""
        x1, y1, x2, y2 = box.tolist()
        width, height = x2 - x1, y2 - y1
        if width <= 0 or height <= 0:
            return
        inside = mask[y1:y2, x1:x2]
        across, down = int(np.ceil(self.margin * width)), int(np.ceil(self.margin * height))
        left, top = max(0, x1 - across), max(0, y1 - down)
        crop = np.ascontiguousarray(image[top : y2 + down, left : x2 + across])
        background = crop.shape[0] * crop.shape[1] - width * height
        if min(width, height) >= _MIN_SIDE and background >= _COMPONENTS:
            labels = np.zeros(crop.shape[:2], dtype=np.uint8)
            cv2.setRNGSeed(0)
            cv2.grabCut(
                crop,
                labels,
                (x1 - left, y1 - top, width, height),
                np.zeros((1, 13 * _COMPONENTS)),  # the fitted mixtures, of no use afterwards
                np.zeros((1, 13 * _COMPONENTS)),
                self.iterations,
                cv2.GC_INIT_WITH_RECT,
            )
            labels = labels[y1 - top : y2 - top, x1 - left : x2 - left]
            inside[:] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        if not inside.any():
            inside[:] = True
