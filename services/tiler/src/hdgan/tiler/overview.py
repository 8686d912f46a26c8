"""A slide seen whole, small: where its tissue is found, and what people are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdgan.tiler.colour import Convert, unchanged
from hdgan.tiler.grid import best_level
from hdgan.tiler.slide import Slide
from hdgan.tiler.tissue import Colour, estimate_white

# Longer side at most; pixels of a large slide (100,000 px at 0.25 um) are then 12 um. Finer than
# 2 um nothing more is seen of where tissue is.
OVERVIEW_SIDE = 2048
FINEST_UM = 2.0
BAND_PIXELS = 4 * 2**20


@dataclass(frozen=True)
class Overview:
    """A slide seen whole.

    image: small RGB picture; covered: bool [h, w], where the slide was scanned (None: everywhere);
    scale: level-0 pixels per its pixel, (x, y); white: the colour of bare glass.
    """

    image: Image.Image
    covered: NDArray[np.bool_] | None
    scale: tuple[float, float]
    white: Colour


def overview(
    slide: Slide,
    mpp: tuple[float, float],
    convert: Convert = unchanged,
    side: int = OVERVIEW_SIDE,
) -> Overview:
    """A picture of the whole slide and the white it shows.

    mpp: micrometres per level-0 pixel (x, y); side: most pixels of its longer side.
    """
    width, height = slide.dimensions
    shrink = max(max(width, height) / side, FINEST_UM / max(mpp))
    level = best_level(slide.downsamples, (shrink, shrink))
    size = (max(1, round(width / max(shrink, 1))), max(1, round(height / max(shrink, 1))))
    small = _shrunk(slide, level, size)
    flat, alpha = flatten(small, slide.background)
    flat = convert(flat)
    covered = None if alpha is None else np.asarray(alpha) >= 128
    return Overview(
        image=flat,
        covered=covered,
        scale=(width / size[0], height / size[1]),
        white=estimate_white(np.asarray(flat), covered),
    )


def _shrunk(slide: Slide, level: int, size: tuple[int, int]) -> Image.Image:
    """The level scaled to `size`, read in bands so that memory does not grow with the slide."""
    width, height = slide.level_dimensions[level]
    result = Image.new("RGBA", size)
    rows_per_band = max(1, min(size[1], BAND_PIXELS * size[1] // max(1, width * height)))
    for top in range(0, size[1], rows_per_band):
        bottom = min(size[1], top + rows_per_band)
        first, last = top * height // size[1], max(1, -(-bottom * height // size[1]))
        band = slide.read(level, 0, first, width, last - first)
        box = (0, top * height / size[1] - first, width, bottom * height / size[1] - first)
        part = band.resize((size[0], bottom - top), Image.Resampling.BOX, box=box)
        result.paste(part.convert("RGBA"), (0, top))
    return result


def flatten(image: Image.Image, background: Colour) -> tuple[Image.Image, Image.Image | None]:
    """RGB over the background colour, and how much of each pixel was scanned (None: all of it)."""
    if image.mode == "RGB":
        return image, None
    alpha = image.getchannel("A")
    if int(np.asarray(alpha).min()) == 255:
        return image.convert("RGB"), None
    flat = Image.new("RGB", image.size, background)
    flat.paste(image, mask=alpha)
    return flat, alpha
