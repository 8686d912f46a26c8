"""How sharp a tile is: the strength of its finest structures relative to that of structures four
times as large.

Both are standard deviations of optical density in a band of sizes, over tissue. Their ratio does
not depend on how bright the lamp or how strong the stain is; defocus takes fine structures first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from hdgan.tiler.tissue import Colour, luminance_steps

# Standard deviation of the Gaussian that divides fine from coarse: half a micrometre is about what
# a 20x objective resolves; below one pixel there is nothing.
FINE_UM = 0.5
COARSE = 4.0
LEAST_STRUCTURE = 0.012
"""Optical density; coarse structure below it is noise of camera and JPEG."""

PATCH = 128
PATCHES = 3
"""A side; larger tiles are measured on 3 x 3 patches."""


def focus(image: Image.Image, mask: NDArray[np.bool_], white: Colour, mpp: float) -> float | None:
    """Sharpness of a tile, from 0 (nothing fine is left) to about 1.5; None where there is too
    little tissue or structure to tell.

    Args:
        image: RGB.
        mask: [H, W], where it shows tissue.
        white: colour of bare glass.
        mpp: micrometres per pixel.
    """
    sigma = max(1.0, FINE_UM / mpp)
    grey, unit = luminance_steps(image, white)
    fine = coarse = 0.0
    count = 0
    for left, top, side in patches(*image.size):
        inside = mask[top : top + side, left : left + side]
        if 2 * int(np.count_nonzero(inside)) < inside.size:
            continue
        patch = grey.crop((left, top, left + side, top + side))
        sharp = np.asarray(patch, dtype=np.int16)
        soft = np.asarray(patch.filter(ImageFilter.GaussianBlur(sigma)), dtype=np.int16)
        softer = np.asarray(patch.filter(ImageFilter.GaussianBlur(COARSE * sigma)), dtype=np.int16)
        border = min(side // 4, round(COARSE * sigma))
        keep = np.s_[border : side - border, border : side - border]
        fine += float(np.square(sharp[keep] - soft[keep], dtype=np.int32).sum(dtype=np.int64))
        coarse += float(np.square(soft[keep] - softer[keep], dtype=np.int32).sum(dtype=np.int64))
        count += sharp[keep].size
    if not count or (coarse / count) ** 0.5 * unit < LEAST_STRUCTURE:
        return None
    return float((fine / coarse) ** 0.5)


def patches(width: int, height: int) -> list[tuple[int, int, int]]:
    """Squares (left, top, side) that are measured: all of a small tile, a grid of a large one."""
    side = min(width, height)
    if side <= 2 * PATCH:
        return [(0, 0, side)]
    gap = (side - PATCH) / (PATCHES - 1)
    places = [round(gap * index) for index in range(PATCHES)]
    return [(left, top, PATCH) for top in places for left in places]
