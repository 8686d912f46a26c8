"""Pictures in and out: PNG files that say what made them, contact sheets, the image to project."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from hdgan.core.bounded_reading import TooLarge, read_file
from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.picture_files import PictureError, open_picture

Rgb = NDArray[np.uint8]

MAX_SHEET_SIDE = 4096
_MAX_CELL = 256
_MAX_TARGET_PIXELS = 8192 * 8192
_MAX_TARGET_BYTES = 1 << 29
_TARGET_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_GAP = 4


def encode_png(rgb_HW3: Rgb, text: Mapping[str, str] | None = None) -> bytes:
    """PNG of uint8 [H, W, 3] with text chunks; equal pixels and texts give equal bytes."""
    info = PngImagePlugin.PngInfo()
    for keyword, value in (text or {}).items():
        info.add_text(keyword, value)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb_HW3)).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def side_by_side(*pictures: Rgb) -> Rgb:
    """Pictures of one height from left to right, with a white gap between them."""
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


class ContactSheet:
    """Square pictures in rows, as near to a square as their number allows, filled one by one.

    Pictures keep their size up to 256 px; more of them than fit 4096 px across are made smaller.
    """

    def __init__(self, count: int, side: int) -> None:
        self._columns = math.ceil(math.sqrt(count))
        self._cell = max(1, min(side, _MAX_CELL, MAX_SHEET_SIDE // self._columns))
        rows = -(-count // self._columns)
        self._sheet = Image.new("RGB", (self._columns * self._cell, rows * self._cell), "white")

    def paste(self, position: int, rgb_HW3: Rgb) -> None:
        """Put a picture at a position, counted row by row."""
        picture = Image.fromarray(rgb_HW3)
        if picture.width != self._cell:
            picture = picture.resize((self._cell, self._cell), Image.Resampling.BOX)
        row, column = divmod(position, self._columns)
        self._sheet.paste(picture, (column * self._cell, row * self._cell))

    def pixels(self) -> Rgb:
        """The sheet: uint8 [H, W, 3]."""
        return np.asarray(self._sheet)


@dataclass(frozen=True)
class Target:
    """The image to project: uint8 [side, side, 3], its file's SHA-256 and its size there."""

    rgb: Rgb
    sha256: str
    width: int
    height: int

    @property
    def resized(self) -> bool:
        return (self.width, self.height) != (self.rgb.shape[1], self.rgb.shape[0])


def open_target(path: Path, side: int, *, resize: bool) -> Target:
    """Read an RGB image of the generator's size.

    Args:
        side: resolution of the generator, in pixels.
        resize: scale a square image of another size (Lanczos) instead of refusing it.

    Raises:
        InputMissing: there is no such file.
        RequestError: it is no picture, not RGB, not square, or of another size.
    """
    try:
        data = read_file(path, _MAX_TARGET_BYTES)
    except TooLarge as error:
        raise RequestError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise InputMissing(f"{path}: there is no such file") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        with open_picture(data, formats=_TARGET_FORMATS, max_pixels=_MAX_TARGET_PIXELS) as opened:
            picture: Image.Image = opened.copy()
    except PictureError as error:
        raise RequestError(f"{path}: cannot be read as a picture: {error}") from None
    if picture.mode != "RGB":
        raise RequestError(
            f"{path}: is a picture of mode {picture.mode}, not RGB with 8 bits per channel; save "
            "it as RGB, without transparency, first"
        )
    width, height = picture.size
    if width != height:
        raise RequestError(
            f"{path}: is {width} x {height} px; cut a square out of it first, the generator makes "
            f"{side} x {side} px"
        )
    if width != side:
        if not resize:
            raise RequestError(
                f"{path}: is {width} x {height} px but the generator makes {side} x {side} px. Cut "
                "a tile of that size at the scale the generator was trained at; or, if only the "
                "number of pixels differs and not the field of view, add --resize"
            )
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return Target(np.asarray(picture), hashlib.sha256(data).hexdigest(), width, height)
