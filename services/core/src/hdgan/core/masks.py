"""Segmentation masks as 8-bit indexed PNG: the pixel value is the class index, 255 is
unlabelled."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdgan.core.errors import RequestError
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.sections import ClassConfig

UNLABELLED: Final = 255
"""Value of a pixel nobody labelled: it never trains and never scores."""

MAX_SIDE = 8192
"""Largest mask that is read, in pixels a side: twice the largest that is generated."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_INDEXED = 3


def encode_mask(mask_HW: NDArray[np.uint8], classes: Sequence[ClassConfig]) -> bytes:
    """PNG of a mask uint8 [H, W] of class indices and 255; the palette shows the class colours.

    Raises ValueError for another shape or type and for values that are no class.
    """
    if mask_HW.ndim != 2 or mask_HW.dtype != np.uint8 or mask_HW.size == 0:
        raise ValueError(f"a mask is uint8 [H, W], not {mask_HW.dtype} {list(mask_HW.shape)}")
    unknown = unknown_values(mask_HW, len(classes))
    if unknown:
        raise ValueError(f"mask values {unknown} are no class: there are {len(classes)}")
    image = Image.fromarray(np.ascontiguousarray(mask_HW))
    image.putpalette(palette(classes))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6, optimize=False)
    return buffer.getvalue()


def decode_mask(
    data: bytes,
    *,
    classes: int | None = None,
    shape: tuple[int, int] | None = None,
    source: str = "mask",
) -> NDArray[np.uint8]:
    """The indices uint8 [H, W] of an 8-bit indexed PNG, exactly as stored.

    classes  number of classes; a value that is neither below it nor 255 is refused
    shape    (height, width) it must have
    source   names it in errors
    Raises RequestError for anything but an 8-bit indexed PNG of at most 8192 pixels a side.
    """
    width, height = _header(data, source)
    if shape is not None and (height, width) != shape:
        raise RequestError(
            f"{source}: is {width} x {height} pixels, the image is {shape[1]} x {shape[0]}:"
            " export the mask at the size of the image"
        )
    try:
        # The size again: a hostile file has two headers.
        with open_picture(data, max_pixels=MAX_SIDE**2, size=(width, height)) as image:
            image.load()
            if image.mode != "P":
                raise ValueError(f"mode {image.mode}")
            mask_HW = np.array(image, dtype=np.uint8)
    except PictureError as error:
        raise RequestError(
            f"{source}: the PNG is truncated or damaged: export or copy it again"
        ) from error
    if classes is not None:
        unknown = unknown_values(mask_HW, classes)
        if unknown:
            raise RequestError(
                f"{source}: holds the values {unknown}; allowed are 0 to {classes - 1}, one for"
                f" each class, and {UNLABELLED} for unlabelled"
            )
    return mask_HW


def read_palette(data: bytes, *, source: str = "mask") -> list[tuple[int, int, int]]:
    """The RGB palette of an indexed PNG, entry i for value i (fewer than 256 are possible)."""
    _header(data, source)
    try:
        with open_picture(data, max_pixels=MAX_SIDE**2) as image:
            flat = list(image.getpalette("RGB") or [])
    except PictureError as error:
        raise RequestError(f"{source}: the PNG is damaged: copy it again") from error
    return [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]


def palette(classes: Sequence[ClassConfig]) -> bytes:
    """256 RGB entries: the class colours, then black up to and including unlabelled."""
    if len(classes) >= UNLABELLED:
        raise ValueError(f"{len(classes)} classes do not fit below {UNLABELLED}")
    return b"".join(bytes(item.rgb) for item in classes).ljust(3 * 256, b"\0")


def unknown_values(mask_HW: NDArray[np.uint8], classes: int) -> list[int]:
    """Values that are neither a class index nor unlabelled, sorted."""
    counts = np.bincount(mask_HW.ravel(), minlength=256)
    return [int(v) for v in np.flatnonzero(counts) if classes <= v != UNLABELLED]


def _header(data: bytes, source: str) -> tuple[int, int]:
    """Width and height from the PNG header, before anything is decompressed."""
    if len(data) < 33 or not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR":
        raise RequestError(f"{source}: is not a PNG file: masks are 8-bit indexed PNG")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if colour != _INDEXED or depth != 8:
        kinds = {0: "greyscale", 2: "RGB", 3: "indexed", 4: "greyscale + alpha", 6: "RGBA"}
        raise RequestError(
            f"{source}: is a {depth}-bit {kinds.get(colour, 'unknown')} PNG; export it as 8-bit"
            " indexed (palette), with the class index as pixel value"
        )
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise RequestError(
            f"{source}: is {width} x {height} pixels; at most {MAX_SIDE} a side are read"
        )
    return width, height
