"""Masks grown, shrunk and cut into their connected parts; what lies beyond the picture's border is
as its border is, so nothing is eaten away there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bools = NDArray[np.bool_]
EIGHT = np.ones((3, 3), np.bool_)


def grown(mask: Bools, reach: tuple[int, int]) -> Bools:
    """Every pixel within `reach` pixels, (y, x), of the mask; a box, not a disc."""
    return _windowed(_windowed(mask, reach[0], np.logical_or).T, reach[1], np.logical_or).T


def shrunken(mask: Bools, reach: tuple[int, int]) -> Bools:
    """Every pixel that has nothing but the mask within `reach` pixels, (y, x)."""
    return _windowed(_windowed(mask, reach[0], np.logical_and).T, reach[1], np.logical_and).T


def closed(mask: Bools, reach: tuple[int, int]) -> Bools:
    """Gaps up to twice `reach` filled."""
    return shrunken(grown(mask, reach), reach)


def opened(mask: Bools, reach: tuple[int, int]) -> Bools:
    """Only what a box of 2 `reach` + 1 pixels fits into."""
    return grown(shrunken(mask, reach), reach)


def parts(mask: Bools) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Connected parts, corners touching: a number for each pixel (0: none), and pixels of each
    number, [0] being the rest."""
    labels, count = ndimage.label(mask, structure=EIGHT)
    return labels, np.bincount(labels.reshape(-1), minlength=count + 1)


def without_small(mask: Bools, pixels: float, counted: Bools | None = None) -> Bools:
    """The parts with at least so many pixels; with `counted`, so many of those."""
    labels, sizes = parts(mask)
    if counted is not None:
        sizes = np.bincount(labels[counted].reshape(-1), minlength=len(sizes))
    large = sizes >= pixels
    large[0] = False
    kept: Bools = large[labels]
    return kept


def without_holes(mask: Bools, pixels: float) -> Bools:
    """Holes of fewer pixels filled; what reaches the border is no hole."""
    labels, count = ndimage.label(~mask)
    small = np.bincount(labels.reshape(-1), minlength=count + 1) < pixels
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        small[border] = False
    small[0] = False
    filled: Bools = mask | small[labels]
    return filled


def _windowed(mask: Bools, reach: int, together: np.ufunc) -> Bools:
    """All 2 `reach` + 1 rows around each row, together; windows are doubled until they are long
    enough."""
    window = np.pad(mask, ((reach, reach), (0, 0)), mode="edge")
    length = 1
    while length < 2 * reach + 1:
        step = min(length, 2 * reach + 1 - length)
        window = together(window[:-step], window[step:])
        length += step
    return window
