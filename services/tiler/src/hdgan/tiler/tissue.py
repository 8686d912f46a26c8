"""What counts as tissue: a per-pixel rule in optical density, relative to the slide's own white.

Beer-Lambert: a stain of some amount darkens each channel by a fixed factor, so optical density
-log10(I / white) is proportional to stain whatever the lamp. Pale eosin and collagen are light but
coloured; nuclei are dark; glass is neither. A pixel is tissue if it is clearly darker than glass or
clearly coloured.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Optical densities, each some times the noise of glass after the 3 x 3 mean. 0.05 is 11 % of the
# light absorbed, so glass may be 10 % darker than white; silver's counterstain at half its usual
# amount is as pale as that. 0.02 is a difference of 5 % between the most and the least absorbed
# channel.
DARK = 0.05
COLOURED = 0.02
# Densities are compared in bytes: 255 steps are 0.2125, more than 3 x DARK, and both limits are
# whole steps. A grey level of bright glass is 0.0018, twice a step.
STEP = 1 / 1200

BAND_PIXELS = 2**16
"""Looked at together: all that is computed of them stays in a core's cache."""


def estimate_white(thumbnail_HWC: Bytes, covered_HW: NDArray[np.bool_] | None = None) -> Colour:
    """The colour of bare glass on a slide, from a small picture of all of it.

    thumbnail_HWC: RGB. covered_HW: False where nothing was scanned. The median of pixels that are
    bright and grey; pure white where (almost) no pixel is, as in a picture of tissue alone.
    """
    pixels = thumbnail_HWC.reshape(-1, 3) if covered_HW is None else thumbnail_HWC[covered_HW]
    if not len(pixels):
        return 255, 255, 255
    red, green, blue = (pixels[:, channel] for channel in range(3))
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    glass = pixels[(low >= 200) & (high - low <= 16)]
    if len(glass) < max(16, len(pixels) // 500):
        return 255, 255, 255
    brightness = glass.sum(axis=1, dtype=np.int32)
    white = np.median(glass[brightness >= np.median(brightness)], axis=0)
    return int(white[0]), int(white[1]), int(white[2])


def tissue_mask(image: Image.Image, white: Colour) -> NDArray[np.bool_]:
    """True where a pixel of the RGB image shows tissue, [H, W].

    A 3 x 3 mean first removes sensor and JPEG noise, which on glass would look like colour.
    """
    width, height = image.size
    mask = np.empty((height, width), dtype=np.bool_)
    rows = max(16, BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(top - 1, 0), min(bottom + 1, height)
        band = image if (first, last) == (0, height) else image.crop((0, first, width, last))
        mask[top:bottom] = _tissue_mask(band, white)[top - first : bottom - first]
    return mask


def _tissue_mask(image: Image.Image, white: Colour) -> NDArray[np.bool_]:
    pixels = np.asarray(image)
    red, green, blue = (
        _density_steps(colour).take(_sum_of_nine(pixels[..., channel]))
        for channel, colour in enumerate(white)
    )
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    total = np.add(red, green, dtype=np.uint16)
    total += blue
    mask: NDArray[np.bool_] = total > round(3 * DARK / STEP)
    mask |= (high - low) > round(COLOURED / STEP)
    return mask


def whitespace(image: Image.Image, white: Colour, covered: Image.Image | None = None) -> float:
    """The fraction of the picture that shows no tissue, 0..1.

    covered: 8-bit grey, the same size: how much of each pixel was scanned; less than half counts
    as whitespace whatever colour it was given.
    """
    mask = tissue_mask(image, white)
    if covered is not None:
        mask &= np.asarray(covered) >= 128
    return whitespace_of(mask)


def whitespace_of(mask: NDArray[np.bool_]) -> float:
    """The fraction of a tissue mask that is False, 0..1."""
    return 1.0 - np.count_nonzero(mask) / mask.size


def optical_density(pixels_HWC: Bytes, white: Colour) -> NDArray[np.float32]:
    """-log10(pixel / white) of each channel, float32 [H, W, 3]; 0 where brighter than white."""
    tables = [_density_table(channel) for channel in white]
    return np.stack([table[pixels_HWC[..., c]] for c, table in enumerate(tables)], axis=-1)


@cache
def _density_table(white: int) -> NDArray[np.float32]:
    values = np.maximum(np.arange(256), 1)
    return np.maximum(-np.log10(values / max(white, 1)), 0).astype(np.float32)


@cache
def _density_steps(white: int) -> Bytes:
    """Optical density of each sum of nine 8-bit values in steps of STEP; brighter than white is 0.

    It stops at 255 steps, which are DARK by themselves, so nothing is lost.
    """
    means = np.maximum(np.arange(9 * 255 + 1) / 9, 1)
    steps = np.rint(-np.log10(means / max(white, 1)) / STEP)
    return steps.clip(0, 255).astype(np.uint8)


def _sum_of_nine(band_HW: Bytes) -> NDArray[np.uint16]:
    """The sum of each pixel and its eight neighbours; the border pixels go on outside."""
    height, width = band_HW.shape
    wide = np.empty((height + 2, width + 2), np.uint16)  # np.pad takes as long as all the rest
    wide[1:-1, 1:-1] = band_HW
    wide[0, 1:-1], wide[-1, 1:-1] = band_HW[0], band_HW[-1]
    wide[:, 0], wide[:, -1] = wide[:, 1], wide[:, -2]
    rows = wide[:-2] + wide[1:-1]
    rows += wide[2:]
    total: NDArray[np.uint16] = rows[:, :-2] + rows[:, 1:-1]
    total += rows[:, 2:]
    return total
