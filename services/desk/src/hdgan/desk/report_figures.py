"""Pictures of the report as data URIs: none wider than the page, none larger than its budget.

Small pictures are kept as they are and enlarged by the page, so that every pixel is to be seen.
Masks are never compressed with loss: their colours are classes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from hdgan.core.artifact import Artifact
from hdgan.core.masks import UNLABELLED
from hdgan.core.run import ClassConfig
from hdgan.desk.pictures import Rgb, colour_mask, encode_png, open_rgb

MAX_SHEET_PIXELS = 200_000_000
"""Contact sheets of large tiles are larger than a tile; beyond this they are damaged."""

PAGE_PX = 1280
"""Widest a picture is stored; the page shows 1040 px of it, more on a dense screen."""
GRID_PX = 512
CELL_PX = 256
"""Longest side of an image, mask or map in a table of them."""

SHEET_BYTES = 400_000
GRID_BYTES = 130_000
CELL_BYTES = 45_000

_QUALITIES = (90, 80, 65)
_WRONG = (205, 32, 44)
_UNKNOWN = (150, 150, 150)


@dataclass(frozen=True)
class Picture:
    """An image of the page."""

    uri: str
    alt: str
    caption: str = ""
    pixelated: bool = False
    """Enlarge without smoothing: every pixel of a small image is to be seen."""


def png_uri(data: bytes) -> str:
    """PNG bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def svg_picture(data: bytes, alt: str, caption: str = "") -> Picture:
    """SVG bytes as a picture."""
    uri = "data:image/svg+xml;base64," + base64.b64encode(data).decode("ascii")
    return Picture(uri, alt, caption)


def photo(
    rgb: Rgb,
    alt: str,
    caption: str = "",
    *,
    side: int,
    most: int,
    pixelated: bool = False,
) -> Picture:
    """Pixels [H, W, 3] as a picture within `side` x `side` px and `most` bytes.

    PNG where that fits, else JPEG of less and less quality, in the end of fewer pixels.
    """
    small = fitted(rgb, side)
    data = encode_png(small)
    if len(data) <= most:
        return Picture(png_uri(data), alt, caption, pixelated)
    while True:
        for quality in _QUALITIES:
            data = _jpeg(small, quality)
            if len(data) <= most:
                uri = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
                return Picture(uri, alt, caption, pixelated)
        small = fitted(small, max(small.shape[0], small.shape[1]) * 3 // 4)


def _jpeg(rgb: Rgb, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    # 4:4:4: small images have no resolution of colour to spare.
    picture.save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def fitted(rgb: Rgb, side: int) -> Rgb:
    """Pixels reduced to fit into `side` x `side`; smaller ones as they are."""
    height, width = rgb.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return rgb
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))


def file_picture(
    artifact: Artifact, name: str, alt: str, caption: str = "", pixelated: bool = False
) -> Picture | None:
    """A picture file of an artifact; None if the artifact has none of that name."""
    if name not in artifact:
        return None
    rgb = open_rgb(artifact.read(name), artifact.uri(name), MAX_SHEET_PIXELS)
    return photo(rgb, alt, caption, side=PAGE_PX, most=SHEET_BYTES, pixelated=pixelated)


def cell(rgb: Rgb, alt: str, caption: str = "") -> Picture:
    """One image of a table of images."""
    small = max(rgb.shape[:2]) < CELL_PX
    return photo(rgb, alt, caption, side=CELL_PX, most=CELL_BYTES, pixelated=small)


def mask_cell(
    mask: npt.NDArray[np.uint8], classes: Sequence[ClassConfig], alt: str, caption: str = ""
) -> Picture:
    """A mask [H, W] in the colours of its classes; a large one loses pixels, never colours."""
    return _flat(colour_mask(_thinned(mask), classes), alt, caption)


def difference_cell(
    truth: npt.NDArray[np.uint8], guess: npt.NDArray[np.uint8], alt: str, caption: str = ""
) -> Picture:
    """White where right, red where wrong, grey where nobody labelled."""
    rgb = np.full((*truth.shape, 3), 255, dtype=np.uint8)
    rgb[truth != guess] = _WRONG
    rgb[truth == UNLABELLED] = _UNKNOWN
    return _flat(_thinned(rgb), alt, caption)


def _thinned(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    step = -(-max(pixels.shape[:2]) // CELL_PX)
    return pixels[step // 2 :: step, step // 2 :: step]


def _flat(rgb: Rgb, alt: str, caption: str) -> Picture:
    """Few colours, as an indexed PNG."""
    colours, index = np.unique(rgb.reshape(-1, 3), axis=0, return_inverse=True)
    picture = Image.fromarray(index.reshape(rgb.shape[:2]).astype(np.uint8), "L")
    picture.putpalette(colours.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=False)
    return Picture(png_uri(buffer.getvalue()), alt, caption, pixelated=True)


def evenly(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of the names, evenly spread, with the first and the last."""
    if len(names) <= count:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, count).round().astype(int)]
