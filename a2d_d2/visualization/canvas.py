"""Text, fills, sizes and files of pictures.

A *frame* is BGR uint8 (H, W, 3), as OpenCV decodes it; a *picture* is RGB uint8 (H, W, 3), made to
be looked at. Functions named ``put_*`` draw into the picture they are given.
"""

import base64
import functools
import os
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from a2d_d2.utils.files import write_image

Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)
INK: Color = (32, 36, 44)
PAPER: Color = (255, 255, 255)
FAINT: Color = (226, 229, 234)
ACCENT: Color = (214, 106, 0)

# Width in pixels that frames are brought to before anything is drawn on them.
PICTURE_WIDTH = 640


def picture_scale(width: int, target: int = PICTURE_WIDTH) -> float:
    """Factor that brings a frame near ``target`` wide, so that text drawn afterwards is crisp.

    A whole number for small frames, below 1 for those wider than ``target``.
    """
    return float(target // width) if width <= target else target / width


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """(height, width) after scaling, at least one pixel each."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(array: np.ndarray, scale: float) -> np.ndarray:
    """A picture, flow field or float map scaled by ``scale`` (values unchanged)."""
    height, width = scaled_size(*array.shape[:2], scale)
    if (height, width) == array.shape[:2]:
        return array.copy()
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(array, (width, height), interpolation=method)


def to_picture(frame: np.ndarray) -> np.ndarray:
    """A picture of a BGR frame."""
    return np.ascontiguousarray(frame[..., ::-1])


def backdrop(picture: np.ndarray) -> np.ndarray:
    """A grey, slightly darker copy, on which the colours of classes stand out."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.repeat((grey * 0.8 + 16).round().astype(np.uint8)[..., None], 3, axis=2)


def ink_on(color: Color) -> Color:
    """Black or white, whichever reads better on ``color``."""
    red, green, blue = color
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else WHITE


def put_fill(picture: np.ndarray, color: Color, mask: np.ndarray, alpha: float = 1.0) -> None:
    """Blends ``color`` into the pixels of ``mask`` (H, W) bool, with weight ``alpha``."""
    old = picture[mask].astype(np.float32)
    mixed = (1 - alpha) * old + alpha * np.asarray(color, np.float32)
    picture[mask] = mixed.round().astype(np.uint8)


def put_rectangle(picture: np.ndarray, x: int, y: int, width: int, height: int, color: Color):
    """Fills a rectangle, cut at the borders of the picture."""
    picture[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = color


@functools.cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    # Matplotlib, which Detectron2 needs anyway, ships this font on every machine.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / name), size)


@functools.lru_cache(maxsize=1024)
def _text_coverage(text: str, size: int, bold: bool) -> np.ndarray:
    """(line height, text width) float32 in 0..1: how much of each pixel the text covers."""
    font = _font(size, bold)
    ascent, descent = font.getmetrics()
    width = max(1, int(np.ceil(font.getlength(text))))
    image = Image.new("L", (width, ascent + descent))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    coverage = np.asarray(image, np.float32) / 255
    coverage.setflags(write=False)
    return coverage


def text_size(text: str, size: int, bold: bool = False) -> tuple[int, int]:
    """(height, width) in pixels of a line of text."""
    height, width = _text_coverage(text, size, bold).shape
    return height, width


def put_text(
    picture: np.ndarray,
    text: str,
    x: int,
    y: int,
    size: int,
    color: Color = INK,
    bold: bool = False,
) -> None:
    """Writes a line of text, its top left corner at (x, y), cut at the borders of the picture."""
    coverage = _text_coverage(text, size, bold)
    left, top = max(0, -x), max(0, -y)
    part = picture[max(0, y) : max(0, y + coverage.shape[0]), max(0, x) :]
    part = part[:, : max(0, coverage.shape[1] - left)]
    weight = coverage[top : top + part.shape[0], left : left + part.shape[1], None]
    part[:] = (part * (1 - weight) + np.asarray(color, np.float32) * weight).round()


def write_picture(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Writes a picture in the format of the path's suffix, atomically."""
    write_image(path, picture[..., ::-1])


def data_uri(picture: np.ndarray, quality: int = 82) -> str:
    """The picture as a ``data:`` address (WebP) for a self-contained page."""
    written, data = cv2.imencode(".webp", picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert written
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode("ascii")
