"""Pictures of what the synthetic release holds: the figures, the motions, the difficulties."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from a2d_d2.data.synthetic.actors import OVERSAMPLING, make_actor
from a2d_d2.data.synthetic.generate import Settings, plan_videos, stage_scene
from a2d_d2.data.synthetic.scene import Scene, Stage
from a2d_d2.label_space import LabelSpace
from a2d_d2.utils.files import write_image

_INK, _PAPER = (40, 40, 40), 255
_LINE = 18  # height of a line of text, in pixels


def write_pictures(folder: str | os.PathLike) -> list[Path]:
    """Writes ``synthetic_actors.jpg``, ``synthetic_motions.jpg`` and ``synthetic_difficulty.jpg``.

    Returns their paths. The pictures are the same at every call.
    """
    pictures = {
        "synthetic_actors": _actors(),
        "synthetic_motions": _motions(),
        "synthetic_difficulty": _difficulty(),
    }
    paths = []
    for name, image in pictures.items():
        path = Path(folder) / f"{name}.jpg"
        write_image(path, image, [cv2.IMWRITE_JPEG_QUALITY, 84])
        paths.append(path)
    return paths


def _actors(looks: int = 8, size: int = 64) -> np.ndarray:
    """One row a kind, looks and phases of the limbs at random; twice the size in the frame."""
    rows = []
    for kind in LabelSpace.a2d().actors:
        cells = []
        for seed in range(looks):
            sprite = make_actor(kind, size, np.random.default_rng([seed, looks]))
            image = sprite.image(seed / looks).astype(np.float32)
            cell = image[..., :3] + (1 - image[..., 3:] / 255) * 205
            cell = cell.astype(np.uint8)
            side = round(size * OVERSAMPLING * 1.06)
            cells.append(cv2.getRectSubPix(cell, (side, side), [(len(cell) - 1) / 2] * 2))
        rows.append(_labelled(np.hstack(cells), kind))
    return np.vstack(rows)


def _motions(frames: Sequence[int] = (0, 2, 4, 6, 8, 10)) -> np.ndarray:
    """One row an action: the same actor from the same still, camera at rest, and its outlines.

    One figure for all rows, though a real release has no flying adult: the first frame is the same.
    """
    stage, rows = Stage(128, 160, difficulty=0.0), []
    view = np.s_[28:, :120]
    for action in LabelSpace.a2d().actions:
        scene = Scene([("adult", action)], stage, [3556])  # large, and with room on all sides
        shown = [scene.render(t)[0][view] for t in frames]
        trail = np.ascontiguousarray(shown[0])
        for t in range(frames[-1] + 1):
            level = np.array([[255 * t // frames[-1]]], np.uint8)
            color = cv2.applyColorMap(level, cv2.COLORMAP_TURBO).ravel().tolist()
            cv2.drawContours(trail, _outlines(scene.render(t)[1][0][view]), -1, color, 1)
        rows.append(_labelled(_row([*shown, trail]), action))
    times = [f"frame {t}" for t in frames] + [f"outlines {frames[0]} to {frames[-1]}"]
    return np.vstack([_captions(times, trail.shape[1], rows[0].shape[1]), *rows])


def _difficulty(levels: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0), scenes: int = 6) -> np.ndarray:
    """One row a difficulty: annotated frames of a release, instances outlined and named."""
    rows = []
    for level in levels:
        settings = Settings(seed=3, difficulty=level)
        cells = []
        for plan in plan_videos(settings, "train", scenes):
            _, shown = stage_scene(settings, plan)
            frame, masks = shown[plan.annotated[0]]
            cells.append(_annotated(frame, masks, plan.pairs))
        rows.append(_labelled(_row(cells), f"difficulty {level:g}"))
    return np.vstack(rows)


def _annotated(frame: np.ndarray, masks: np.ndarray, pairs) -> np.ndarray:
    """The frame at twice its size with outlines and names in the colours of the data set."""
    label_space = LabelSpace.a2d()
    frame = cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    for mask, pair in zip(masks, pairs, strict=True):
        color = label_space.color(label_space.joint_id(*pair))[::-1]
        mask = np.kron(mask, np.ones((2, 2), bool))
        cv2.drawContours(frame, _outlines(mask), -1, color, 2)
        x, y, _, _ = cv2.boundingRect(mask.astype(np.uint8))
        name = label_space.pair_name(*pair)
        (width, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        corner = min(x, frame.shape[1] - width - 4), max(y - 4, 14)
        _text(frame, name, corner, (255, 255, 255), 0.45, edge=(0, 0, 0))
    return cv2.resize(frame, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)


def _outlines(mask: np.ndarray) -> Sequence[np.ndarray]:
    return cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]


def _row(cells: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    return np.hstack(
        [np.pad(c, ((0, gap), (0, gap), (0, 0)), constant_values=_PAPER) for c in cells]
    )


def _labelled(row: np.ndarray, label: str) -> np.ndarray:
    margin = np.full((len(row), 110, 3), _PAPER, np.uint8)
    _text(margin, label, (8, len(row) // 2 + 5))
    return np.hstack([margin, row])


def _captions(texts: Sequence[str], step: int, width: int) -> np.ndarray:
    line = np.full((_LINE, width, 3), _PAPER, np.uint8)
    for i, text in enumerate(texts):
        _text(line, text, (114 + i * (step + 4), _LINE - 5), scale=0.42)
    return line


def _text(image, text: str, corner, color=_INK, scale: float = 0.5, edge=None) -> None:
    for ink, thickness in ((edge, 3), (color, 1)):
        if ink is not None:
            cv2.putText(
                image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA
            )
