"""Where a whole slide has tissue, from a small picture of it: every piece, and no pen, no specks,
no edges of glass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from hdgan.tiler.pen import UM_PER_PIXEL, pen_mask
from hdgan.tiler.tissue import COLOURED, DARK, Colour, optical_density

LEAST_UM = 50.0
"""Diameter of the smallest piece that is kept: a few cells."""

TOGETHER_UM = 100.0
"""Bits nearer than this count as one piece: septa of fat, a torn edge."""

PEN_UM = 150.0
"""Diameter of the smallest spot of pen."""

LINE_UM = 150.0
LINE_LENGTH_UM = 3000.0
"""Grey lines thinner and longer than this are edges of glass."""

NEUTRAL = 0.06
"""Largest difference between the densities of two channels in what is grey."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TissueMap:
    """mask, pen: bool [h, w] of the small picture; areas: of the pieces in square micrometres, the
    largest first."""

    mask: Bools
    pen: Bools
    areas: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """For `slide.json`; areas in square millimetres."""
        return {
            "pieces": len(self.areas),
            "areasMm2": [round(area / 1e6, 4) for area in self.areas[:100]],
            "share": round(float(self.mask.mean()), 6),
            "penShare": round(float(self.pen.mean()), 6),
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
        um_per_pixel: of the picture, (x, y).
        covered: [h, w], where the slide was scanned; None: everywhere.
    """
    pixels = np.asarray(image)
    um = float(np.sqrt(um_per_pixel[0] * um_per_pixel[1]))
    smooth = np.stack(
        [ndimage.uniform_filter(pixels[..., c], 3, mode="nearest") for c in range(3)], axis=-1
    )
    density = optical_density(smooth, white)
    density = np.maximum(density - _glass(density), 0)
    spread = density.max(axis=-1) - density.min(axis=-1)
    found = (density.mean(axis=-1) > DARK) | (spread > COLOURED)
    scanned = np.ones(found.shape, dtype=np.bool_) if covered is None else covered
    found &= scanned
    pen = _pen(image, white, um) & scanned
    found &= ~pen
    found &= ~_edges(found & (spread < NEUTRAL), density, um)
    mask, areas = _pieces(found, um)
    return TissueMap(mask, pen, areas)


def _pen(image: Image.Image, white: Colour, um: float) -> Bools:
    """Ink and a rim around it, where it is pale; at the resolution it is told from stains at."""
    factor = max(1, min(round(UM_PER_PIXEL / um), min(image.size)))
    small = image.reduce(factor)
    ink = _large(pen_mask(np.asarray(small), white), PEN_UM, um * factor)
    ink = ndimage.binary_dilation(ink, iterations=2)
    whole: Bools = ink.repeat(factor, axis=0).repeat(factor, axis=1)[: image.height, : image.width]
    return whole


def _glass(density_HWC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Density of the glass around each pixel, where it is uneven: a smooth field over what is
    nearly white and grey. Never above DARK, so that it cannot hide tissue that is dark."""
    mean = density_HWC.mean(axis=-1)
    spread = density_HWC.max(axis=-1) - density_HWC.min(axis=-1)
    glass = ((mean < DARK) & (spread < COLOURED)).astype(np.float32)
    sigma = max(density_HWC.shape[:2]) / 16
    weight = ndimage.gaussian_filter(glass, sigma, mode="nearest", truncate=2.0)
    fields = []
    for channel in range(3):
        lit = ndimage.gaussian_filter(
            density_HWC[..., channel] * glass, sigma, mode="nearest", truncate=2.0
        )
        # Where no glass is near, the slide's own white has to do.
        fields.append(np.where(weight > 0.02, lit / np.maximum(weight, 1e-6), 0))
    field: NDArray[np.float32] = np.minimum(np.stack(fields, axis=-1), DARK).astype(np.float32)
    return field


def _large(mask: Bools, diameter_um: float, um: float) -> Bools:
    """The connected parts of a mask of at least a disc's area."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not count:
        return mask
    sizes = np.bincount(labels.reshape(-1))
    large = sizes * um * um >= np.pi / 4 * diameter_um**2
    large[0] = False
    kept: Bools = large[labels]
    return kept


def _edges(grey: Bools, density_HWC: NDArray[np.float32], um: float) -> Bools:
    """Grey parts that are thin and long, or a frame along the rim: edges of slide and coverslip,
    black marks of scanners."""
    labels, count = ndimage.label(grey, structure=np.ones((3, 3)))
    result = np.zeros(grey.shape, dtype=np.bool_)
    if not count:
        return result
    height, width = grey.shape
    sizes = np.bincount(labels.reshape(-1))
    dark = density_HWC.min(axis=-1) > 0.6
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = place[0].stop - place[0].start, place[1].stop - place[1].start
        length = max(rows, columns)
        thickness = sizes[number] / length
        line = thickness * um < LINE_UM and length * um > LINE_LENGTH_UM
        part = labels[place] == number
        at_rim = (
            place[0].start == 0
            or place[1].start == 0
            or place[0].stop == height
            or place[1].stop == width
        )
        # A black block that fills its box is no tissue, which is ragged.
        block = sizes[number] > 0.9 * rows * columns and dark[place][part].mean() > 0.9
        strip = at_rim and min(rows, columns) < 0.02 * max(height, width) and length > 0.3 * height
        if (line and sizes[number] > 0) or block or strip:
            result[place] |= part
    return result


def _pieces(found: Bools, um: float) -> tuple[Bools, tuple[float, ...]]:
    """What belongs to a piece that is large enough, and the areas of these pieces in um^2."""
    reach = max(1, round(TOGETHER_UM / 2 / um))
    near = ndimage.distance_transform_edt(~found) <= reach
    labels, _ = ndimage.label(near, structure=np.ones((3, 3)))
    sizes = np.bincount(labels[found].reshape(-1), minlength=int(labels.max()) + 1)
    large = sizes * um * um >= np.pi / 4 * LEAST_UM**2
    large[0] = False
    mask: Bools = found & large[labels]
    areas = sorted((float(size * um * um) for size in sizes[large]), reverse=True)
    return mask, tuple(areas)
