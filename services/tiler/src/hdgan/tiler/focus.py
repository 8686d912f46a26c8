"""How sharp a tile is: how much of the contrast of its structures is there within a micrometre.

A second difference of optical density over a distance r, f(x - r) - 2 f(x) + f(x + r), has a mean
square that grows with r where density jumps, and with r^4 where it changes smoothly. Its root at
1 um over its root at 6 um, times the root of 6, is therefore 1 for perfect jumps, sqrt(6) / 36 =
0.07 for smooth change, and does not depend on lamp (a constant added to density) or amount of stain
(a factor on it). Only pixels where there is contrast at 6 um take part, so that a pale tile or one
that is mostly empty is as sharp as its contours.

Measured with the tests' painted tiles of four stains at full and half stain, on 34 crops of the
CMU-1 slide (20x) and 9 of an H&E slide (40x): see `RECOMMENDED`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdgan.tiler.tissue import Colour

Floats = NDArray[np.float32]

RECOMMENDED = 0.3
"""A limit for focus. As scanned 0.45 to 1.3; blurred by a Gaussian of 1 um 0.2 to 0.5, of 2 um 0.14
to 0.25, of more below that. 0.3 is what a blur of about 1 um leaves."""

PITCH_UM = 1.0
"""Tiles are measured at the whole reduction next to this; half a micrometre is what a 20x objective
resolves, and finer pixels hold more noise than structure."""
COARSEST_UM = 1.35
"""Largest pixels on which a blur of 2 um shows."""
NEAR, FAR, WIDE = 1, 6, 24
"""Distances in reduced pixels. FAR is the size of a nucleus; over WIDE, structures are found in a
tile so blurred that none is left over FAR."""
CONTRAST = 0.06
"""Least density over FAR, ten times what noise and JPEG make: 13 % of the light."""
ENOUGH = 0.02
ENOUGH_WIDE = 0.2
"""Least share of the tissue with that contrast over FAR, over WIDE. The second is larger because a
sharp tile, too, may be smooth."""
LEAST_PIXELS = 100
DENSEST = 1.5
"""Above it light is too little to measure."""


def focus(image: Image.Image, mask: NDArray[np.bool_], white: Colour, mpp: float) -> float | None:
    """Sharpness of a tile, from 0.07 (smooth) to about 1.3, 1 being perfect jumps; no unit. None
    where there is too little structure to tell: no tissue, flat tissue, pixels above 1.35 um.

    Args:
        image: RGB.
        mask: [H, W], where it shows tissue.
        white: colour of bare glass; only tells what is too dark to measure.
        mpp: micrometres per pixel.
    """
    factor = max(1, round(PITCH_UM / mpp))
    if mpp * factor > COARSEST_UM:
        return None
    density = _density(image.reduce(factor) if factor > 1 else image, white)
    here = mask[factor // 2 :: factor, factor // 2 :: factor]
    here = here[: density.shape[0], : density.shape[1]]
    density = density[: here.shape[0], : here.shape[1]]
    return _ratio(density, here, FAR, ENOUGH) or _ratio(density, here, WIDE, ENOUGH_WIDE)


def _ratio(density: Floats, mask: NDArray[np.bool_], far: int, enough: float) -> float | None:
    """The ratio over where there is contrast over `far`; None where there is not enough."""
    if min(density.shape) <= 2 * far:
        return None
    inside = mask[far:-far, far:-far]
    coarse = _squares(density, far, far)
    where = (coarse > 2 * CONTRAST**2) & inside
    count = np.count_nonzero(where)
    if count < max(LEAST_PIXELS, enough * np.count_nonzero(inside)):
        return None
    fine = _squares(density, NEAR, far)
    return float(np.sqrt(far / NEAR * fine[where].sum() / coarse[where].sum()))


def _squares(density: Floats, distance: int, margin: int) -> Floats:
    """Squares of second differences along rows and along columns, added, without the margin."""
    height, width = density.shape
    middle = density[margin:-margin, margin:-margin] * 2
    rows, columns = slice(margin, height - margin), slice(margin, width - margin)
    across = density[rows, margin - distance : width - margin - distance] - middle
    across += density[rows, margin + distance : width - margin + distance]
    along = density[margin - distance : height - margin - distance, columns] - middle
    along += density[margin + distance : height - margin + distance, columns]
    across *= across
    along *= along
    across += along
    return across


def _density(image: Image.Image, white: Colour) -> Floats:
    """Optical density, mean of the channels, at most DENSEST."""
    total = np.zeros((image.height, image.width), np.float32)
    for band, channel in zip(image.split(), white, strict=True):
        total += _third(channel).take(np.asarray(band))
    return total


@cache
def _third(white: int) -> Floats:
    """A third of the density of each 8-bit value. Not stopped at white, so that nothing bends."""
    density = -np.log10(np.maximum(np.arange(256), 1) / max(white, 1))
    return (np.minimum(density, DENSEST) / 3).astype(np.float32)
