"""Pictures made of pictures: enlarged without smoothing, outlined, laid out in sheets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hdgan.core.errors import DataError
from hdgan.core.masks import UNLABELLED
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.run import ClassConfig

Rgb = npt.NDArray[np.uint8]

MAX_PIXELS = 4096 * 4096
"""No tile, candidate or figure of ours is larger."""

UNLABELLED_RGB = (0, 0, 0)
_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_LABEL_HEIGHT = 14
_GAP = 6


def open_rgb(data: bytes, what: str, max_pixels: int = MAX_PIXELS) -> Rgb:
    """Decode to uint8 [H, W, 3]. DataError names `what` when it is broken or too large."""
    try:
        with open_picture(data, formats=("PNG", "JPEG"), max_pixels=max_pixels) as picture:
            return np.asarray(picture.convert("RGB"))
    except PictureError as error:
        raise DataError(f"{what}: cannot be read as a picture: {error}") from None


def encode_png(rgb: Rgb) -> bytes:
    """PNG of uint8 [H, W, 3]; the same pixels always give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()


def integer_zoom(rgb: Rgb, side: int) -> Rgb:
    """Bring the longer side near `side` px: repeated pixels when small, box average when large."""
    height, width = rgb.shape[:2]
    longest = max(height, width)
    if longest > side:
        factor = side / longest
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
    zoom = max(1, side // longest)
    return rgb.repeat(zoom, axis=0).repeat(zoom, axis=1)


def colour_mask(mask: npt.NDArray[np.uint8], classes: Sequence[ClassConfig]) -> Rgb:
    """The class colours of a mask [H, W]; unlabelled is black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[UNLABELLED] = UNLABELLED_RGB
    for index, entry in enumerate(classes):
        table[index] = entry.rgb
    return table[mask]


def outline(rgb: Rgb, mask: npt.NDArray[np.uint8], classes: Sequence[ClassConfig]) -> Rgb:
    """The picture with each class edged in its colour; its inside stays as it was painted."""
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:, :] |= mask[1:, :] != mask[:-1, :]
    result = rgb.copy()
    result[edge] = colour_mask(mask, classes)[edge]
    return result


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet with the line of text below it."""

    rgb: Rgb
    text: str = ""


def sheet(rows: Sequence[Sequence[Cell]], side: int) -> Rgb:
    """Lay cells out in rows, each `side` px at most, on white with their texts below."""
    if not rows or not any(rows):
        raise ValueError("a sheet needs at least one picture")
    columns = max(len(row) for row in rows)
    labelled = any(cell.text for row in rows for cell in row)
    step_x = side + _GAP
    step_y = side + _GAP + (_LABEL_HEIGHT if labelled else 0)
    canvas = Image.new("RGB", (columns * step_x + _GAP, len(rows) * step_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default()
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            left, top = _GAP + x * step_x, _GAP + y * step_y
            picture = Image.fromarray(integer_zoom(cell.rgb, side))
            canvas.paste(picture, (left, top))
            if cell.text:
                below = (left, top + picture.height + 1)
                draw.text(below, _fit(cell.text, side, font), fill=_INK, font=font)
    return np.asarray(canvas)


def _fit(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, cut until it is at most `width` px wide."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


def in_rows(cells: Sequence[Cell], columns: int) -> list[list[Cell]]:
    """Cut a list of cells into rows of `columns`."""
    return [list(cells[start : start + columns]) for start in range(0, len(cells), columns)]
