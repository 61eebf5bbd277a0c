"""From decoded frames to what the network is fed.

Dimensions: H and W of a frame as decoded, h and w of the network's input.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from detectron2.data import transforms as T
from torch import Tensor

from a2d_d2.data.flow import compute_flow, flow_to_input
from a2d_d2.data.mapper import frames_to_tensor


@dataclass(frozen=True)
class PreparedFrame:
    """One frame of a stream.

    Attributes:
        index, time, frame, flow: as in :class:`a2d_d2.inference.types.FrameResult`.
        image: (3, h, w) uint8 BGR; None for a frame that the network does not look at.
        motion: (3, h, w) float32, x, y and magnitude of the flow in pixels per frame; None without
            the flow stream, and where ``image`` is None.
    """

    index: int
    time: float
    frame: np.ndarray
    flow: np.ndarray | None
    image: Tensor | None
    motion: Tensor | None


@dataclass
class FramePreparer:
    """Gives the frames of one stream their flow and the network's size, as ClipDatasetMapper does.

    Attributes:
        resize: of test time; drawn once, for the first frame.
        flow_method: one of ``a2d_d2.data.flow.FLOW_METHODS``; None without the flow stream.
        is_needed: whether the network looks at the frame of an index.
        count: frames so far.
        previous: the last of them.
        transform: what ``resize`` does to them.
    """

    resize: T.Augmentation
    flow_method: str | None
    is_needed: Callable[[int], bool]
    count: int = field(default=0, init=False)
    previous: np.ndarray | None = field(default=None, init=False)
    transform: T.Transform | None = field(default=None, init=False)

    def __call__(self, time: float, frame: np.ndarray) -> PreparedFrame:
        """Takes the next frame.

        Args:
            time: seconds from the start of the stream.
            frame: (H, W, 3) uint8 BGR.

        Raises:
            ValueError: it is something else, of another size than the frame before, or so narrow
                that nothing is left of it in the network's size.
        """
        index, previous = self.count, self.previous
        _check_frame(index, frame, previous)
        if self.transform is None:
            try:
                self.transform = self.resize(T.AugInput(frame))
            except ValueError as error:
                raise ValueError(
                    f"frames of {frame.shape[1]} x {frame.shape[0]} pixels are too narrow for "
                    f"the network's input ({error}); crop them, or pad them"
                ) from error
        flow = image = motion = None
        if self.flow_method is not None and previous is None:
            flow = np.zeros((*frame.shape[:2], 2), dtype=np.float32)
        elif self.flow_method is not None:
            flow = compute_flow(previous, frame, self.flow_method)
        if self.is_needed(index):
            image = frames_to_tensor([self.transform.apply_image(frame)])[0]
            if flow is not None:
                motion = torch.from_numpy(flow_to_input(self.transform.apply_flow(flow)))
        self.count, self.previous = index + 1, frame
        return PreparedFrame(index, time, frame, flow, image, motion)


def _check_frame(index: int, frame: np.ndarray, previous: np.ndarray | None) -> None:
    shape = getattr(frame, "shape", ())
    if getattr(frame, "dtype", None) != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        got = f"{frame.dtype} {shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ValueError(f"frame {index} is {got}; frames are BGR uint8 arrays (H, W, 3)")
    if previous is not None and shape != previous.shape:
        raise ValueError(
            f"frame {index} has {shape[1]}x{shape[0]} pixels, those before it "
            f"{previous.shape[1]}x{previous.shape[0]}; give frames of another size as another video"
        )
