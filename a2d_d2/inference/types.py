"""What the parts of the video path hand to each other.

Dimensions: N instances, H and W of a frame, A actions.
"""

from dataclasses import dataclass

import numpy as np
from detectron2.structures import Instances


@dataclass(frozen=True)
class FrameResult:
    """What the network says of one frame.

    Attributes:
        index: 0-based number of the frame in the stream.
        time: seconds from the start of the stream.
        frame: (H, W, 3) uint8 BGR, as decoded.
        flow: (H, W, 2) float32 from the frame before, in pixels per frame; None without the flow
            stream.
        instances: on the CPU at the frame's size: ``pred_boxes``, ``scores``, ``pred_classes``
            (actor), ``pred_masks`` (N, H, W) bool (absent for a detector without masks),
            ``action_scores`` (N, A) and ``pred_actions``; None on frames between detections.
    """

    index: int
    time: float
    frame: np.ndarray
    flow: np.ndarray | None
    instances: Instances | None
