"""Instances on a frame: masks in the data set's colours, boxes, "dog-running 0.93"."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from a2d_d2.data.release import FrameAnnotation
from a2d_d2.evaluation.predictions import FramePredictions, decode_mask
from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.canvas import (
    WHITE,
    Color,
    ink_on,
    put_fill,
    put_rectangle,
    put_text,
    resize,
    scaled_size,
    text_size,
)


@dataclass(frozen=True)
class LabelledRegion:
    """One instance to draw.

    Attributes:
        actor, action: 0-based indices.
        score: p(actor) * p(action), or None for ground truth.
        box: (4,) XYXY_ABS.
        mask: (H, W) bool, or None.
        identity: number and colour of the track that it belongs to, or None.
    """

    actor: int
    action: int
    score: float | None
    box: np.ndarray
    mask: np.ndarray | None
    identity: tuple[int, Color] | None = None


def _array(value) -> np.ndarray:
    """The NumPy array of an array, tensor, Boxes or BitMasks."""
    value = getattr(value, "tensor", value)
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def truth_instances(annotation: FrameAnnotation, label_space: LabelSpace) -> Instances:
    """Ground-truth instances of one annotation file, as a mapper gives them."""
    instances = Instances(annotation.label_map.shape)
    pairs = np.array([label_space.split_id(i) for i in annotation.joint_ids], int).reshape(-1, 2)
    instances.gt_boxes = Boxes(
        torch.as_tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
    )
    instances.gt_classes = torch.from_numpy(pairs[:, 0])
    instances.gt_actions = torch.from_numpy(pairs[:, 1])
    instances.gt_masks = BitMasks(torch.as_tensor(annotation.masks, dtype=torch.bool))
    return instances


def predicted_instances(
    predictions: FramePredictions, size: tuple[int, int], label_space: LabelSpace
) -> Instances:
    """The predictions of a file as the model gives them; without a mask, an empty one.

    Args:
        predictions: of one frame, masks of its ``size`` (height, width).
        label_space: gives the valid actions of each actor.
    """
    valid = label_space.valid[predictions.actors]
    masks = np.zeros((len(predictions.actors), *size), bool)
    for mask, segmentation in zip(masks, predictions.segmentations, strict=True):
        if segmentation is not None:
            mask[:] = decode_mask(segmentation)
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.from_numpy(predictions.boxes))
    instances.scores = torch.from_numpy(predictions.scores)
    instances.pred_classes = torch.from_numpy(predictions.actors)
    instances.action_scores = torch.from_numpy(predictions.action_scores)
    instances.pred_actions = torch.from_numpy(
        np.where(valid, predictions.action_scores, -1).argmax(axis=1)
    )
    instances.pred_masks = torch.from_numpy(masks)
    return instances


def labelled_regions(
    instances: Instances, *, actor_threshold: float = 0.0, action_threshold: float = 0.0
) -> list[LabelledRegion]:
    """What to draw of predicted (``pred_*``) or ground-truth (``gt_*``) instances of a frame.

    Predictions below either threshold are left out, and the rest come in ascending actor score, the
    order in which they are painted into a label map.
    """
    if instances.has("pred_boxes"):
        actors, actions = _array(instances.pred_classes), _array(instances.pred_actions)
        boxes, scores = _array(instances.pred_boxes), _array(instances.scores)
        masks = _array(instances.pred_masks) if instances.has("pred_masks") else None
        of_action = _array(instances.action_scores)[np.arange(len(actions)), actions]
        kept = (scores >= actor_threshold) & (of_action >= action_threshold)
        order = np.argsort(scores, kind="stable")
        order, pair_scores = order[kept[order]], scores * of_action
    else:
        actors, actions = _array(instances.gt_classes), _array(instances.gt_actions)
        boxes, pair_scores = _array(instances.gt_boxes), None
        masks = _array(instances.gt_masks) if instances.has("gt_masks") else None
        order = np.arange(len(actors))
    return [
        LabelledRegion(
            actor=int(actors[i]),
            action=int(actions[i]),
            score=None if pair_scores is None else float(pair_scores[i]),
            box=boxes[i],
            mask=None if masks is None else masks[i].astype(bool),
        )
        for i in order
    ]


def visible_regions(regions: Sequence[LabelledRegion], least: float = 0.3) -> list[LabelledRegion]:
    """Regions as a label map shows them, painted one over another in their order.

    Masks lose what later ones cover; regions of which less than the part ``least`` is left go. One
    without a mask stays as it is.
    """
    shown = []
    covered = np.False_
    for region in reversed(regions):
        if region.mask is not None:
            mask = region.mask & ~covered
            covered = covered | region.mask
            if mask.sum() < max(1, least * region.mask.sum()):
                continue
            region = replace(region, mask=mask)
        shown.append(region)
    return shown[::-1]


def draw_instances(
    picture: np.ndarray,
    regions: Sequence[LabelledRegion],
    label_space: LabelSpace,
    *,
    scale: float = 1.0,
    alpha: float = 0.55,
) -> np.ndarray:
    """Draws regions on a copy of ``picture``, scaled first, so that lines and text are crisp.

    Masks and names are in the colour of the pair; the box of a region with an identity, and its
    number before the name, in the identity's.

    Args:
        picture: RGB uint8 (H, W, 3), of the size that boxes and masks refer to.
        regions: what to draw, the last on top.
        scale: size of the result relative to ``picture``.
        alpha: weight of the class's colour inside a mask.

    Returns:
        RGB uint8, ``scale`` times as large.
    """
    canvas = resize(picture, scale)
    height, width = canvas.shape[:2]
    stroke = max(1, round(width / 320))
    for region in regions:
        color = label_space.color(label_space.joint_id(region.actor, region.action))
        if region.mask is not None and region.mask.any():
            mask = _scaled_mask(region.mask, scale)
            put_fill(canvas, color, mask, alpha)
            _put_outline(canvas, mask, color, stroke)
        box_color = region.identity[1] if region.identity else color
        _put_box(canvas, region.box * scale, box_color, stroke)
    # Labels last, so that no mask covers one; the topmost region gets the first choice of place.
    font_size = max(11, round(0.042 * min(width, 640) + 0.012 * max(0, width - 640)))
    taken: list[tuple[int, int, int, int]] = []
    for region in reversed(regions):
        color = label_space.color(label_space.joint_id(region.actor, region.action))
        text = label_space.pair_name(region.actor, region.action)
        if region.score is not None:
            text += f" {region.score:.2f}"
        plates = [(text, color)]
        if region.identity is not None:
            number, identity_color = region.identity
            plates.insert(0, (f"#{number}", identity_color))
        _put_label(canvas, plates, region.box * scale, font_size, taken)
    return canvas


def _scaled_mask(mask: np.ndarray, scale: float) -> np.ndarray:
    height, width = scaled_size(*mask.shape, scale)
    smooth = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    if scale > 1:  # rounds the stairs of the small mask; features of one pixel survive
        smooth = cv2.GaussianBlur(smooth, (0, 0), 0.4 * scale)
    return smooth >= 0.5


def _needs_halo(color: Color) -> bool:
    """Whether lines of this colour vanish on dark ground."""
    return max(color) < 128


def _put_outline(canvas: np.ndarray, mask: np.ndarray, color: Color, stroke: int) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if _needs_halo(color):
        cv2.drawContours(canvas, contours, -1, WHITE, stroke + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, color, stroke, cv2.LINE_AA)


def _put_box(canvas: np.ndarray, box: np.ndarray, color: Color, stroke: int) -> None:
    height, width = canvas.shape[:2]
    x1, y1 = (int(max(0, v)) for v in np.round(box[:2]))
    x2, y2 = min(width, round(float(box[2]))) - 1, min(height, round(float(box[3]))) - 1
    if _needs_halo(color):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), WHITE, stroke + 2)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, stroke)


def _put_label(
    canvas: np.ndarray,
    plates: Sequence[tuple[str, Color]],
    box: np.ndarray,
    font_size: int,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Writes texts, each on a plate of its colour, at a free place near ``box``.

    The place of all plates together is added to ``taken``.
    """
    height, width = canvas.shape[:2]
    padding = font_size // 3
    sizes = [text_size(text, font_size, bold=True) for text, _ in plates]
    widths = [text_width + 2 * padding for _, text_width in sizes]
    label_width, label_height = sum(widths), sizes[0][0] + padding // 2

    def place(y: float) -> tuple[int, int, int, int]:
        x = round(min(max(0, box[0]), max(0, width - label_width)))
        y = round(min(max(0, y), max(0, height - label_height)))
        return x, y, x + label_width, y + label_height

    def is_free(spot: tuple[int, int, int, int]) -> bool:
        return not any(
            spot[0] < other[2] and other[0] < spot[2] and spot[1] < other[3] and other[1] < spot[3]
            for other in taken
        )

    above, below = box[1] - label_height, box[3]
    candidates = [above, below, box[1], box[3] - label_height]
    candidates += [above - label_height, below + label_height]
    spots = [place(y) for y in candidates]
    spot = next((spot for spot in spots if is_free(spot)), spots[0])
    taken.append(spot)
    x, y = spot[:2]
    for (text, color), plate_width in zip(plates, widths, strict=True):
        put_rectangle(canvas, x, y, plate_width, label_height, color)
        put_text(canvas, text, x + padding, y + padding // 4, font_size, ink_on(color), bold=True)
        x += plate_width
