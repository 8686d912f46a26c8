"""Pixels to PNG bytes, for candidates and datasets: the same pixels always give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.masks import palette, unknown_values
from hdgan.core.sections import ClassConfig

SHEET_COLUMNS = 20
SHEET_THUMBNAIL = 64

# Digests of candidates are part of what annotations belong to: their encoding never changes.
CANDIDATE_PNG = {"compress_level": 6}
# Dataset pictures: runs of equal bytes and Huffman codes only (zlib's Z_RLE). On 4096 x 4096
# histology half of the time of level 6 for files that are 1 % larger, on masks a fifth for 4 %.
DATASET_PNG = {"compress_level": 6, "compress_type": 3}

_BAND_ROWS = 64


def encode_rgb(
    image_HW3: NDArray[np.uint8], image_id: str, compression: dict[str, int] = CANDIDATE_PNG
) -> bytes:
    """uint8 [H, W, 3] as an RGB PNG with the id in a text chunk."""
    info = PngImagePlugin.PngInfo()
    # So that a mask can be matched to its picture whatever the file is called later.
    info.add_text(CANDIDATE_KEYWORD, image_id)
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format="PNG", pnginfo=info, **compression)
    return buffer.getvalue()


def encode_classes(mask_HW: NDArray[np.uint8], classes: Sequence[ClassConfig]) -> bytes:
    """A mask uint8 [H, W] of class indices and 255 as an 8-bit indexed PNG in the class colours.

    ValueError for values that are no class.
    """
    unknown = unknown_values(mask_HW, len(classes))
    if unknown:
        raise ValueError(f"mask values {unknown} are no class: there are {len(classes)}")
    image = Image.fromarray(mask_HW)
    image.putpalette(palette(classes))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **DATASET_PNG)
    return buffer.getvalue()


def quantise_uncertainty(uncertainty_HW: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Values in [0, 1] as 16 bits: 0 is certain, 65535 is 1.0. Works in bands of rows."""
    out_HW = np.empty(uncertainty_HW.shape, dtype=np.uint16)
    for first in range(0, len(uncertainty_HW), _BAND_ROWS):
        band = uncertainty_HW[first : first + _BAND_ROWS].astype(np.float64)
        band *= 65535
        np.rint(band, out=band)
        np.clip(band, 0, 65535, out=band)
        out_HW[first : first + _BAND_ROWS] = band
    return out_HW


def encode_uncertainty(levels_HW: NDArray[np.uint16]) -> bytes:
    """Uncertainty of 16 bits as a 16-bit greyscale PNG."""
    buffer = io.BytesIO()
    Image.fromarray(levels_HW).save(buffer, format="PNG", **DATASET_PNG)
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
