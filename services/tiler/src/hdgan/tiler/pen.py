"""Pen marks: ink lies thick and even on the glass, over areas far larger than a cell.

Told from stains by three things together: how much light it takes (stains in a 4 um section let
more through), its hue, and that it is even over tens of micrometres. What is doubtful is tissue:
tissue that is skipped is a worse loss than a mark that is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from hdgan.tiler.tissue import Colour, optical_density

# At this resolution nuclei, fibres and silver-black membranes have blended with what is around.
UM_PER_PIXEL = 8.0

# Optical densities (red, green, blue). Haematoxylin and eosin absorb in the proportions 0.65 : 0.70
# : 0.29 and 0.07 : 0.99 : 0.11 (Ruifrok and Johnston, 2001); a section seldom passes 0.7 in the
# mean over 8 um. Inks of markers pass 0.9 in what they absorb.
BLACK = 0.85
INK = 0.9
CLEAR = 0.35
EVEN = 0.08


def pen_mask(pixels_HWC: NDArray[np.uint8], white: Colour) -> NDArray[np.bool_]:
    """Where a picture at about UM_PER_PIXEL, or coarser, shows ink, [H, W]. RGB."""
    density = optical_density(pixels_HWC, white)
    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    least, most = density.min(axis=-1), density.max(axis=-1)
    black = (least > BLACK) & (most - least < 0.35)
    blue_ink = (red > INK) & (blue < CLEAR) & (green > 0.45)
    green_ink = (red > INK) & (green < 0.6 * red) & (blue > green)
    red_ink = (red < 0.15) & (green > INK) & (blue > 0.65)
    mean = density.mean(axis=-1)
    size = 3
    local = ndimage.uniform_filter(mean, size, mode="nearest")
    squares = ndimage.uniform_filter(mean * mean, size, mode="nearest")
    deviation = np.sqrt(np.maximum(squares - local * local, 0))
    even = deviation < EVEN * np.maximum(local, 0.5) * 2
    found: NDArray[np.bool_] = (black | blue_ink | green_ink | red_ink) & even
    return found


def pen_fraction(image: Image.Image, white: Colour, mpp: float) -> float:
    """The share of a tile that is ink, 0..1. mpp: micrometres per pixel of the RGB image."""
    factor = max(1, min(round(UM_PER_PIXEL / mpp), min(image.size)))
    small = image.reduce(factor) if factor > 1 else image
    return float(pen_mask(np.asarray(small), white).mean())
