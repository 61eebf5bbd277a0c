"""Label maps of joint ids in the data set's colours."""

from collections.abc import Iterable

import numpy as np

from a2d_d2.label_space import LabelSpace
from a2d_d2.visualization.canvas import INK, PAPER, put_fill, put_rectangle, put_text, text_size


def colorize(label_map: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """The RGB picture of a (H, W) map of joint ids; background is black.

    Raises:
        ValueError: the map holds something that is no joint id.
    """
    if label_map.size and not (label_map.min() >= 0 and label_map.max() <= label_space.max_id):
        raise ValueError(
            f"label map holds {label_map.min()}..{label_map.max()}, "
            f"joint ids of {label_space.name} are 0..{label_space.max_id}"
        )
    return label_space.palette[label_map]


def overlay(
    picture: np.ndarray, label_map: np.ndarray, label_space: LabelSpace, alpha: float = 0.6
) -> np.ndarray:
    """A copy of ``picture`` with the labelled pixels blended into their colours."""
    result = picture.copy()
    colors = colorize(label_map, label_space)
    for joint_id in np.unique(label_map[label_map > 0]):
        mask = label_map == joint_id
        put_fill(result, tuple(colors[mask][0]), mask, alpha)
    return result


def legend(
    joint_ids: Iterable[int], label_space: LabelSpace, *, width: int, font_size: int = 16
) -> np.ndarray:
    """A picture ``width`` wide that names the colours of ``joint_ids``, in rows as they fit."""
    gap, line = font_size, text_size("x", font_size)[0]
    spots, x, y = [], 0, 0
    for joint_id in sorted(set(joint_ids) - {0}):
        name = label_space.pair_name(*label_space.split_id(joint_id))
        needed = line + gap // 2 + text_size(name, font_size)[1]
        if x and x + needed > width:
            x, y = 0, y + line + gap // 2
        spots.append((joint_id, name, x, y))
        x += needed + gap
    picture = np.full((y + line, width, 3), PAPER, np.uint8)
    for joint_id, name, x, y in spots:
        put_rectangle(picture, x, y, line, line, INK)
        put_rectangle(picture, x + 1, y + 1, line - 2, line - 2, label_space.color(joint_id))
        put_text(picture, name, x + line + gap // 2, y, font_size)
    return picture
