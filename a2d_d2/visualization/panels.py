"""Pictures side by side with captions: a frame's results, a clip as the network sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from detectron2.structures import Instances

from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.canvas import (
    ACCENT,
    FAINT,
    INK,
    PAPER,
    backdrop,
    picture_scale,
    put_rectangle,
    put_text,
    resize,
    text_size,
    to_picture,
)
from a2d_d2.visualization.flow import flow_range, flow_to_picture, put_flow_wheel
from a2d_d2.visualization.instances import LabelledRegion, draw_instances, labelled_regions


@dataclass(frozen=True)
class Cell:
    """One place of a grid; without a picture it is drawn as an empty slot."""

    picture: np.ndarray | None
    caption: str
    marked: bool = False


def grid(
    rows: Sequence[Sequence[Cell | None]], *, title: str = "", font_size: int = 18, gap: int = 12
) -> np.ndarray:
    """Lays cells out in rows and columns, each with its caption above it, and a title on top.

    A None leaves its place blank. Columns are as wide as their widest picture, rows as high as
    their highest; captions are cut at the width of their column.
    """
    num_columns = max(map(len, rows))
    widths = [0] * num_columns
    heights = [0] * len(rows)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if cell is not None and cell.picture is not None:
                heights[i] = max(heights[i], cell.picture.shape[0])
                widths[j] = max(widths[j], cell.picture.shape[1])
    # A column or row of empty slots alone takes the size of the others.
    widths = [width or max(widths) or 1 for width in widths]
    heights = [height or max(heights) or 1 for height in heights]

    caption_height = text_size("x", font_size)[0] + font_size // 3
    title_size = round(font_size * 1.2)
    title_height = text_size(title, title_size, bold=True)[0] + gap if title else 0
    page = np.full(
        (
            gap + title_height + sum(heights) + (caption_height + gap) * len(rows),
            gap + sum(widths) + gap * num_columns,
            3,
        ),
        PAPER,
        np.uint8,
    )
    if title:
        put_text(page, title, gap, gap, title_size, bold=True)
    y = gap + title_height
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for cell, width in zip(row, widths[: len(row)], strict=True):
            if cell is not None:
                column = page[:, x : x + width]
                color = ACCENT if cell.marked else INK
                put_text(column, cell.caption, 0, y, font_size, color, bold=cell.marked)
                _put_cell(column[y + caption_height : y + caption_height + height], cell)
            x += width + gap
        y += caption_height + height + gap
    return page


def _put_cell(slot: np.ndarray, cell: Cell) -> None:
    height, width = slot.shape[:2]
    if cell.picture is None:
        slot[:] = (246, 247, 249)
        cv2.rectangle(slot, (0, 0), (width - 1, height - 1), FAINT, 2)
        cv2.line(slot, (0, 0), (width - 1, height - 1), FAINT, 2, cv2.LINE_AA)
        cv2.line(slot, (0, height - 1), (width - 1, 0), FAINT, 2, cv2.LINE_AA)
        return
    height, width = cell.picture.shape[:2]
    slot[:height, :width] = cell.picture
    if cell.marked:
        for x, y, w, h in (
            (0, 0, width, 4),
            (0, height - 4, width, 4),
            (0, 0, 4, height),
            (width - 4, 0, 4, height),
        ):
            put_rectangle(slot, x, y, w, h, ACCENT)


def input_picture(frame: np.ndarray, scale: float) -> np.ndarray:
    """A BGR frame as a picture, scaled."""
    return resize(to_picture(frame), scale)


def flow_picture(flow: np.ndarray, scale: float, max_magnitude: float | None = None) -> np.ndarray:
    """A flow field as a picture with its colour wheel, scaled."""
    picture = flow_to_picture(resize(np.ascontiguousarray(flow[..., :2]), scale), max_magnitude)
    put_flow_wheel(picture, max(24, min(picture.shape[:2]) // 6))
    return picture


def regions_picture(
    frame: np.ndarray, regions: Sequence[LabelledRegion], label_space: LabelSpace, scale: float
) -> np.ndarray:
    """Instances on a grey copy of a BGR frame, scaled."""
    return draw_instances(backdrop(to_picture(frame)), regions, label_space, scale=scale)


def result_cells(
    frame: np.ndarray,
    flow: np.ndarray | None,
    truth: Sequence[LabelledRegion],
    prediction: Sequence[LabelledRegion],
    label_space: LabelSpace,
) -> list[Cell]:
    """Input, flow (unless None), truth and prediction of a BGR frame, ready for a grid."""
    scale = picture_scale(frame.shape[1])
    cells = [Cell(input_picture(frame, scale), "input")]
    if flow is not None:
        limit = flow_range(flow)
        caption = f"flow, full colour at {limit:.1f} px per frame"
        cells.append(Cell(flow_picture(flow, scale, limit), caption))
    for regions, caption in ((truth, "truth"), (prediction, "prediction")):
        cells.append(Cell(regions_picture(frame, regions, label_space, scale), caption))
    return cells


def qualitative_panel(
    frame: np.ndarray,
    flow: np.ndarray | None,
    truth: Instances,
    prediction: Instances,
    label_space: LabelSpace,
    *,
    actor_threshold: float,
    action_threshold: float,
    title: str = "",
) -> np.ndarray:
    """Input, flow, truth and prediction of one frame, side by side.

    Args:
        frame: BGR uint8 (H, W, 3).
        flow: (H, W, 2) in pixels per frame, or None to leave its cell out.
        truth: instances with ``gt_boxes``, ``gt_classes``, ``gt_actions`` and maybe ``gt_masks``.
        prediction: the model's instances at the frame's size.
        actor_threshold, action_threshold: predictions below either are not drawn.
        title: line above the pictures.

    Returns:
        RGB uint8 (height, width, 3).
    """
    cells = result_cells(
        frame,
        flow,
        labelled_regions(truth),
        labelled_regions(
            prediction, actor_threshold=actor_threshold, action_threshold=action_threshold
        ),
        label_space,
    )
    return grid([cells], title=title)


def clip_panel(clip: Mapping, label_space: LabelSpace, *, cell_width: int = 400) -> np.ndarray:
    """What the mapper feeds the network for one clip.

    One block a key frame: its temporal neighbours with their flow below, the key frame marked, an
    empty slot for each neighbour that does not exist; at the right the key frame's annotations.

    Args:
        clip: the dict of :class:`a2d_d2.data.mapper.ClipDatasetMapper`.

    Returns:
        RGB uint8.
    """
    images = clip["image"].permute(0, 2, 3, 1).numpy()  # (F, H, W, 3) BGR
    flows = clip["flow"].permute(0, 2, 3, 1).numpy() if "flow" in clip else None  # (F, H, W, 3)
    limit = None if flows is None else flow_range(flows)
    scale = picture_scale(images.shape[2], cell_width)
    rows = []
    for k, key in enumerate(clip["key_positions"]):
        neighbours = clip["neighbours"][k].tolist()
        centre = len(neighbours) // 2
        frame_row, flow_row = [], []
        for j, position in enumerate(neighbours):
            if position < 0:
                frame_row.append(Cell(None, f"no frame ({j - centre:+d})"))
                flow_row.append(Cell(None, "no flow"))
                continue
            is_key = position == key
            name = f"frame {clip['frame_indices'][position] + 1}"
            name += " (key)" if is_key else f" ({j - centre:+d})"
            frame_row.append(Cell(input_picture(images[position], scale), name, marked=is_key))
            if flows is not None:
                fastest = float(np.linalg.norm(flows[position][..., :2], axis=-1).max())
                picture = flow_picture(flows[position], scale, limit)
                flow_row.append(Cell(picture, f"flow, fastest {fastest:.1f} px"))
        if "instances" in clip:
            truth = clip["instances"][k]
            regions = labelled_regions(truth)
            picture = regions_picture(images[key], regions, label_space, scale)
            plural = "" if len(truth) == 1 else "s"
            frame_row.append(Cell(picture, f"{len(truth)} annotation{plural}"))
        rows.append(frame_row)
        if flows is not None:
            rows.append(flow_row)
    height, width = images.shape[1:3]
    title = f"{clip['image_id']}: {width} × {height} px of {clip['width']} × {clip['height']} px"
    return grid(rows, title=title)
