"""Augmentations of clips: one draw a clip, applied to all its frames, flows, boxes and masks.

Detectron2's transforms do the work; this module teaches them flow: ``apply_flow`` of float32 (H, W,
2) in pixels per frame gives the flow between the transformed frames.
"""

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T

from a2d_d2.data.flow import resize_flow


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """The augmentations that the INPUT keys ask for.

    In training a crop (CROP), a resize to one of several sizes (MIN_SIZE_TRAIN, MAX_SIZE_TRAIN), a
    flip (RANDOM_FLIP) and a change of colour (COLOR_JITTER); in testing a resize.
    """
    augmentations = [
        SkippedIfSame(x) if isinstance(x, T.ResizeShortestEdge) else x
        for x in detection_utils.build_augmentation(cfg, is_train)
    ]
    if is_train and cfg.INPUT.CROP.ENABLED:
        augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    if is_train and cfg.INPUT.COLOR_JITTER:
        augmentations.append(ColorJitter(cfg.INPUT.COLOR_JITTER))
    return augmentations


class SkippedIfSame(T.Augmentation):
    """A resize that does nothing where a frame has the size already, instead of copying it."""

    def __init__(self, resize: T.Augmentation):
        super().__init__()
        self.resize = resize

    def get_transform(self, image: np.ndarray) -> T.Transform:
        transform = self.resize.get_transform(image)
        # The transform is none already where the config asks for no resize.
        size = getattr(transform, "new_h", None), getattr(transform, "new_w", None)
        return T.NoOpTransform() if size == image.shape[:2] else transform


class ColorJitter(T.Augmentation):
    """Changes brightness, contrast and saturation, each by a factor in 1 - amount .. 1 + amount."""

    def __init__(self, amount: float):
        if not 0 <= amount < 1:
            raise ValueError(f"INPUT.COLOR_JITTER is {amount}; it must be at least 0 and below 1")
        super().__init__()
        self.amount = amount

    def get_transform(self, image: np.ndarray) -> T.Transform:
        factors = np.random.uniform(1 - self.amount, 1 + self.amount, size=3)  # noqa: NPY002
        return ColorTransform(*factors, pivot=float(image.mean()))


class ColorTransform(T.Transform):
    """Scales saturation, then contrast, then brightness of BGR uint8 frames; touches nothing else.

    Args:
        brightness, contrast, saturation: factors; 1 changes nothing.
        pivot: grey level that a change of contrast leaves alone; one for the whole clip, so that
            its frames stay alike.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, pivot: float):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        image = img.astype(np.float32)
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
        image = gray + self.saturation * (image - gray)
        image = self.pivot + self.contrast * (image - self.pivot)
        return np.clip(np.rint(self.brightness * image), 0, 255).astype(np.uint8)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_flow(self, flow: np.ndarray) -> np.ndarray:
        return flow

    def inverse(self) -> T.Transform:
        return T.NoOpTransform()


# ---------------------------------------------------------------- flow
# NoOpTransform and TransformList know every type.


@T.HFlipTransform.register_type("flow")
def _flip_flow_horizontally(transform: T.HFlipTransform, flow: np.ndarray) -> np.ndarray:
    flipped = cv2.flip(flow, 1)
    np.negative(flipped[..., 0], out=flipped[..., 0])
    return flipped


@T.VFlipTransform.register_type("flow")
def _flip_flow_vertically(transform: T.VFlipTransform, flow: np.ndarray) -> np.ndarray:
    flipped = cv2.flip(flow, 0)
    np.negative(flipped[..., 1], out=flipped[..., 1])
    return flipped


@T.ResizeTransform.register_type("flow")
def _resize_flow(transform: T.ResizeTransform, flow: np.ndarray) -> np.ndarray:
    return resize_flow(flow, (transform.new_w, transform.new_h))


@T.CropTransform.register_type("flow")
def _crop_flow(transform: T.CropTransform, flow: np.ndarray) -> np.ndarray:
    return transform.apply_image(flow)


@T.PadTransform.register_type("flow")
def _pad_flow(transform: T.PadTransform, flow: np.ndarray) -> np.ndarray:
    return np.pad(flow, ((transform.y0, transform.y1), (transform.x0, transform.x1), (0, 0)))
