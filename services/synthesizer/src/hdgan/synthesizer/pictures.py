"""Pixels to PNG bytes: the same pixels always give the same bytes."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from hdgan.core.annotations import CANDIDATE_KEYWORD

SHEET_COLUMNS = 20
SHEET_THUMBNAIL = 64


def encode_rgb(image_HW3: NDArray[np.uint8], image_id: str) -> bytes:
    """uint8 [H, W, 3] as an RGB PNG with the id in a text chunk."""
    info = PngImagePlugin.PngInfo()
    # So that a mask can be matched to its picture whatever the file is called later.
    info.add_text(CANDIDATE_KEYWORD, image_id)
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format="PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def encode_uncertainty(uncertainty_HW: NDArray[np.float32]) -> bytes:
    """Values in [0, 1] as a 16-bit greyscale PNG: 0 is certain, 65535 is 1.0."""
    scaled = np.clip(np.rint(uncertainty_HW.astype(np.float64) * 65535), 0, 65535)
    buffer = io.BytesIO()
    Image.fromarray(scaled.astype(np.uint16)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


class ContactSheet:
    """Thumbnails in rows, filled one by one."""

    def __init__(self, count: int) -> None:
        self._columns = min(SHEET_COLUMNS, count)
        rows = -(-count // self._columns)
        size = (self._columns * SHEET_THUMBNAIL, rows * SHEET_THUMBNAIL)
        self._sheet = Image.new("RGB", size, "white")

    def paste(self, position: int, image: Image.Image) -> None:
        """Put an image at a position, counted row by row."""
        thumbnail = image.convert("RGB").resize((SHEET_THUMBNAIL, SHEET_THUMBNAIL))
        row, column = divmod(position, self._columns)
        self._sheet.paste(thumbnail, (column * SHEET_THUMBNAIL, row * SHEET_THUMBNAIL))

    def png(self) -> bytes:
        """The sheet as PNG bytes."""
        buffer = io.BytesIO()
        self._sheet.save(buffer, format="PNG")
        return buffer.getvalue()
