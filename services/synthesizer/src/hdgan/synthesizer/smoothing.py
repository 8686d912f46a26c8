"""Smoothing of mask contours: each pixel takes the class most pixels in a small disc have."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hdgan.core.errors import RequestError
from hdgan.core.masks import UNLABELLED

MAX_RADIUS = 64
"""Pixels; the counts of a disc of this radius fit into 16 bits."""

_BAND_ROWS = 128


def smooth_mask(mask_HW: NDArray[np.uint8], classes: int, radius_px: float) -> NDArray[np.uint8]:
    """Majority filter of a mask uint8 [H, W] of class indices below `classes` and 255.

    A pixel votes for its class on all pixels whose centre is at most `radius_px` pixels away. The
    most votes win; among equals the pixel's own class, else the lowest index. Pixels of 255 stay
    255 and never vote; nothing lies beyond the border. Memory beside the result is that of a band
    of rows. ValueError for a radius below 1 or above 64 pixels, and for values that are no class.
    """
    if not 1 <= radius_px <= MAX_RADIUS:
        raise ValueError(f"a radius is 1 to {MAX_RADIUS} pixels, not {radius_px:g}")
    out_HW = np.empty_like(mask_HW)
    reach = int(radius_px)
    height = len(mask_HW)
    # Bands at least as tall as the disc, so that rows are not summed up many times.
    rows = max(_BAND_ROWS, 2 * reach)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        top, bottom = max(0, first - reach), min(height, last + reach)
        near_HW = mask_HW[top:bottom]
        out_HW[first:last] = _smooth_band(near_HW, first - top, last - top, classes, radius_px)
    return out_HW


def radius_in_pixels(radius_um: float, mpp: float) -> float:
    """A radius in pixels from micrometres at `mpp` micrometres per pixel.

    RequestError if it is below one pixel or above what is smoothed.
    """
    radius = round(radius_um / mpp, 9)  # 0.3 um at 0.1 um/px are 3 pixels, not 2.999
    if not 1 <= radius <= MAX_RADIUS:
        raise RequestError(
            f"synthesizer.smoothingRadius: {radius_um:g} um are {radius:.3g} pixels at {mpp:g} "
            f"um/px; use 1 to {MAX_RADIUS} pixels, {mpp:g} to {MAX_RADIUS * mpp:g} um"
        )
    return radius


def _smooth_band(
    near_HW: NDArray[np.uint8], first: int, last: int, classes: int, radius: float
) -> NDArray[np.uint8]:
    """Rows first..last of a band, smoothed with the rows around them."""
    reach = int(radius)
    own_HW = near_HW[first:last]
    best_HW = own_HW.copy()
    present = [int(v) for v in np.flatnonzero(np.bincount(near_HW.ravel(), minlength=256))]
    voting = [value for value in present if value != UNLABELLED]
    if voting and voting[-1] >= classes:
        raise ValueError(f"mask value {voting[-1]} is no class: there are {classes}")
    if len(voting) < 2:
        return best_HW  # nothing to decide between
    # Twice the votes, plus one for the pixel's own class: it wins where votes are equal.
    most_HW = np.full(own_HW.shape, -1, dtype=np.int16)
    for value in voting:
        score_HW = _votes(near_HW == value, first, last, radius, reach)
        score_HW *= 2
        score_HW += own_HW == value
        better_HW = score_HW > most_HW
        np.copyto(most_HW, score_HW, where=better_HW)
        np.copyto(best_HW, np.uint8(value), where=better_HW)
    best_HW[own_HW == UNLABELLED] = UNLABELLED
    return best_HW


def _votes(
    is_class_HW: NDArray[np.bool_], first: int, last: int, radius: float, reach: int
) -> NDArray[np.int16]:
    """Pixels of a class in the disc around each pixel of rows first..last, int16 [rows, W]."""
    height, width = is_class_HW.shape
    # Sums of a row's pixels up to each column, with the border repeated so that slices fit.
    sums = np.zeros((height, width + 2 * reach + 1), dtype=np.int16)
    np.cumsum(is_class_HW, axis=1, dtype=np.int16, out=sums[:, reach + 1 : reach + 1 + width])
    sums[:, reach + 1 + width :] = sums[:, reach + width, None]
    votes = np.zeros((last - first, width), dtype=np.int16)
    for down in range(-reach, reach + 1):
        # The disc is a stack of rows, each a box as wide as the chord there.
        half = math.isqrt(int(radius * radius - down * down))
        start, stop = max(first + down, 0), min(last + down, height)
        if start >= stop:
            continue
        rows = slice(start - down - first, stop - down - first)
        votes[rows] += sums[start:stop, reach + half + 1 : reach + half + 1 + width]
        votes[rows] -= sums[start:stop, reach - half : reach - half + width]
    return votes
