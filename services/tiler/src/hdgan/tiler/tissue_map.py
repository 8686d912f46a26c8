"""Where a whole slide has tissue, from a small picture of it: every piece, and no pen, no specks,
no edges of glass. In doubt it is tissue: a place that is looked at for nothing costs a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from hdgan.tiler.glass import Glass, fit_glass
from hdgan.tiler.morphology import (
    Bools,
    closed,
    grown,
    parts,
    without_holes,
    without_small,
)
from hdgan.tiler.pen import UM_PER_PIXEL, pen_mask
from hdgan.tiler.rims import rims
from hdgan.tiler.tissue import Colour

Floats = NDArray[np.float32]

THIRDS = np.full(3, 1 / 3, np.float32)

LEAST_UM = 50.0
"""Diameter of the smallest piece that is certainly kept: a few cells."""
LEAST_AREA = 0.6 * np.pi / 4 * LEAST_UM**2
"""Square micrometres, a disc of 39 um: what is smaller is dust. Less than LEAST_UM's, because a
piece's border pixels are pale."""

# Optical densities of the mean of all channels, and of the difference between two. Lower than for
# a tile's pixels: pixels of this picture are means of hundreds, so noise is below 0.002, and the
# unevenness of the glass has been taken off.
DARK = 0.018
COLOURED = 0.014
NOISE = 6.0
"""At least so many standard deviations of the glass."""
SINGLE = 1.6
"""Times as much for a single pixel; otherwise the mean of 3 x 3 is what counts. Septa of fat are
thinner than a pixel."""

FAINT_UM = 160.0
FAINT_CAP = 0.04
FAINT_DARK = 0.012
FAINT_COLOURED = 0.008
"""Density and difference that count in the mean over FAINT_UM, of pixels cut off at FAINT_CAP. The
fit of the glass is off by up to 0.005."""

TOGETHER_UM = 120.0
"""Gaps up to this belong to a piece: cells of fat are 50 to 100 um and empty."""
HOLE_AREA = 1e6
"""Square micrometres: larger holes are glass."""
MARGIN_UM = 16.0
"""Added around every piece, and around pen, whose border is soft."""
BORDER_UM = 48.0
"""So near to pen and edges, bits that belong to no piece are taken for their soft border."""

MOST_DARK = 0.5
"""Share of a slide that may be darker than a tenth of the light; above it the picture is something
else, say fluorescence, and everything is looked at."""

NEUTRAL = 0.05
"""Largest difference between the densities of channels in what is grey, plus a tenth of density."""
OPAQUE = 0.9
"""Density in every channel of printed black: 13 % of the light."""
GREYNESS = 0.35
"""Largest difference between densities of channels in black, as a share of the largest."""


@dataclass(frozen=True)
class TissueMap:
    """What a small picture of a slide shows where.

    mask: tissue; pen: ink, over glass or tissue; rubbish: edges of glass, printed black; all bool
    [h, w] of the picture, no two at once. mask goes some 50 um beyond what is stained. areas: of
    its connected pieces in square micrometres, without that margin, the largest first. glass: its
    colour from place to place.
    """

    mask: Bools
    pen: Bools
    rubbish: Bools
    areas: tuple[float, ...]
    glass: Glass

    def to_json(self) -> dict[str, Any]:
        """For `slide.json`; areas in square millimetres."""
        return {
            "pieces": len(self.areas),
            "areasMm2": [round(area / 1e6, 4) for area in self.areas[:100]],
            "share": round(float(self.mask.mean()), 6),
            "penShare": round(float(self.pen.mean()), 6),
            "rubbishShare": round(float(self.rubbish.mean()), 6),
        }


def tissue_map(
    image: Image.Image,
    white: Colour,
    um_per_pixel: tuple[float, float],
    covered: Bools | None = None,
) -> TissueMap:
    """Find the tissue of a slide.

    Args:
        image: RGB, the whole slide.
        white: the colour of bare glass.
        um_per_pixel: of the picture, (x, y). Up to 25, pieces of 50 um are found; in a coarser
            picture what is smaller than two pixels is not.
        covered: [h, w], where the slide was scanned; None: everywhere.
    """
    factor = (_factor(um_per_pixel[0], image.width), _factor(um_per_pixel[1], image.height))
    um = (um_per_pixel[0] * factor[0], um_per_pixel[1] * factor[1])
    small = image if factor == (1, 1) else image.reduce(factor)
    scanned = np.ones((small.height, small.width), np.bool_)
    if covered is not None:
        scanned = np.asarray(Image.fromarray(covered.astype(np.uint8) * 255).reduce(factor)) >= 128
    mask, core, pen, rubbish, glass = _found(np.asarray(small), white, um, scanned)
    areas = _areas(mask, core, um[0] * um[1])

    def whole(field: Bools) -> Bools:
        large = field.repeat(factor[1], axis=0).repeat(factor[0], axis=1)
        large = large[: image.height, : image.width]
        return large if covered is None else large & covered

    return TissueMap(whole(mask), whole(pen), whole(rubbish), areas, glass)


def _factor(um: float, side: int) -> int:
    """How many pixels are taken together, so that one is about UM_PER_PIXEL."""
    return max(1, min(round(UM_PER_PIXEL / um), side // 8))


def _found(
    pixels_HWC: NDArray[np.uint8], white: Colour, um: tuple[float, float], scanned: Bools
) -> tuple[Bools, Bools, Bools, Bools, Glass]:
    """Tissue, what of it is no margin, pen, rubbish; and the glass."""
    pixel_area = um[0] * um[1]
    density = -np.log10(np.maximum(pixels_HWC, 1) / np.array(white, np.float32))
    glass = fit_glass(density, white, scanned)
    density = density - glass.density(*scanned.shape)
    mean = density @ THIRDS
    spread = _difference(density)
    bright = np.count_nonzero(scanned & (mean < 1)) >= (1 - MOST_DARK) * np.count_nonzero(scanned)
    pen = np.zeros_like(scanned)
    if bright:
        pen = pen_mask(np.maximum(density, 0), float(np.sqrt(pixel_area))) & scanned
        pen = _grown_um(pen, MARGIN_UM, um)

    dark, coloured = _limits(mean, scanned)
    smooth = np.stack(
        [ndimage.uniform_filter(density[..., c], 3, mode="nearest") for c in range(3)], axis=-1
    )
    seeds = (smooth @ THIRDS > dark) | (_difference(smooth) > coloured)
    seeds |= (mean > SINGLE * dark) | (spread > SINGLE * coloured)
    seeds &= scanned

    rubbish = np.zeros_like(scanned)
    if bright:
        rubbish = rims((mean > dark) & (spread < NEUTRAL + 0.1 * mean), um, scanned)
        rubbish |= _printed(density, seeds)
        rubbish &= scanned & ~pen
    # What is left along a mark is its soft border; a piece shows more than that.
    border = _grown_um(pen | rubbish | ~scanned, BORDER_UM, um)
    density[border] = 0
    faint = _faint(density, um)
    core = closed(seeds, _reach(TOGETHER_UM / 2, um))
    seeds = (seeds | faint) & scanned & ~pen & ~rubbish
    bare = ((mean > dark) | (spread > coloured) | faint) & seeds & ~border
    pieces = closed(seeds, _reach(TOGETHER_UM / 2, um)) & scanned & ~pen & ~rubbish
    pieces = without_small(pieces, LEAST_AREA / pixel_area, counted=bare)
    pieces = without_holes(pieces, HOLE_AREA / pixel_area)
    mask = _grown_um(pieces, MARGIN_UM, um) & scanned & ~pen & ~rubbish
    return mask, core & mask, pen & scanned, rubbish, glass


def _areas(mask: Bools, core: Bools, pixel_area: float) -> tuple[float, ...]:
    """Of the connected pieces in square micrometres, without their margins, the largest first."""
    labels, sizes = parts(mask)
    solid = np.bincount(labels[core].reshape(-1), minlength=len(sizes))
    sizes = np.where(solid > 0, solid, sizes)[1:]
    return tuple(sorted((float(size * pixel_area) for size in sizes), reverse=True))


def _difference(density_HWC: Floats) -> Floats:
    """Between the most and the least dense channel."""
    red, green, blue = density_HWC[..., 0], density_HWC[..., 1], density_HWC[..., 2]
    most = np.maximum(np.maximum(red, green), blue)
    return np.asarray(most - np.minimum(np.minimum(red, green), blue), np.float32)


def _faint(density_HWC: Floats, um: tuple[float, float]) -> Bools:
    """What is too pale to be seen pixel by pixel and is seen over FAINT_UM: fat, mucus.

    Densities are cut off first, so that a speck does not count, and dark tissue not far beyond its
    border.
    """
    size = tuple(2 * reach + 1 for reach in _reach(FAINT_UM / 2, um))
    capped = density_HWC.clip(-FAINT_CAP, FAINT_CAP)
    red, green, blue = (
        ndimage.uniform_filter(capped[..., c], size, mode="nearest") for c in range(3)
    )
    mean = (red + green + blue) / 3
    spread = _difference(np.stack([red, green, blue], axis=-1))
    found: Bools = (mean > FAINT_DARK) | (spread > FAINT_COLOURED)
    return found


def _limits(mean: Floats, scanned: Bools) -> tuple[float, float]:
    """Densities above which a pixel is dark, coloured: NOISE deviations of the glass at least."""
    glass = mean[scanned & (np.abs(mean) < 2 * DARK)]
    if len(glass) < 100:
        return DARK, COLOURED
    # The lower half: what is darker than the middle may be tissue.
    middle = np.median(glass)
    below = middle - glass[glass < middle]
    noise = 1.48 * float(np.median(below)) if len(below) else 0.0
    return max(DARK, NOISE * noise), max(COLOURED, NOISE * noise)


def _printed(density_HWC: Floats, seeds: Bools) -> Bools:
    """Black blocks and bars that stand on glass. Black within tissue is pigment, silver, a fold."""
    least = np.minimum(np.minimum(density_HWC[..., 0], density_HWC[..., 1]), density_HWC[..., 2])
    difference = _difference(density_HWC)
    black = (least > OPAQUE) & (difference < GREYNESS * (least + difference))
    result = np.zeros_like(seeds)
    if not black.any():
        return result
    soft = grown(black, (2, 2))
    labels, sizes = parts(soft)
    ring = grown(soft, (4, 4)) & ~grown(soft, (1, 1))
    around = _spread(labels, 4)
    stained = np.bincount(around[ring & seeds], minlength=len(sizes))
    total = np.bincount(around[ring], minlength=len(sizes))
    alone = stained <= 0.2 * total
    alone[0] = False
    result |= alone[labels]
    return result


def _spread(labels: NDArray[np.int32], reach: int) -> NDArray[np.int32]:
    """Every number spread `reach` pixels around; the larger one wins."""
    return np.asarray(ndimage.maximum_filter(labels, 2 * reach + 1, mode="nearest"))


def _reach(distance_um: float, um: tuple[float, float]) -> tuple[int, int]:
    """(y, x) pixels, at least one."""
    return max(1, round(distance_um / um[1])), max(1, round(distance_um / um[0]))


def _grown_um(mask: Bools, distance_um: float, um: tuple[float, float]) -> Bools:
    return grown(mask, _reach(distance_um, um)) if mask.any() else mask
