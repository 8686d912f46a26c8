"""Edges of glass at the rim of a slide: straight grey lines and dark bands, which no tissue is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hdgan.tiler.morphology import Bools, closed, grown, opened, parts

LINE_WIDTH_UM = 150.0
"""Widest line: a coverslip's edge is some tens of micrometres; needle cores are 300 and more."""
LINE_LENGTH_UM = 2000.0
LINE_GAP_UM = 100.0
STRAIGHT_UM = 16.0
"""How far a line may deviate, root mean square, from a straight one."""
ZONE = 0.15
"""Share of the side that is the rim; a line elsewhere has to cross half of the slide."""
BAND_UM = 3000.0
BAND_SHARE = 0.1
"""Deepest band along a side: whichever is less. Deeper ones may be tissue cut off by the rim."""
BAND_COMPLETE = 0.8
"""Share of a side that a band has to run along."""


def rims(grey: Bools, um: tuple[float, float], covered: Bools) -> Bools:
    """Lines and bands in what is grey and darker than glass, with a margin of their soft borders.

    grey: [h, w]; um: micrometres per pixel, (x, y); covered: where it was scanned.
    """
    found = _vertical(grey, um, covered)
    found |= _vertical(grey.T, (um[1], um[0]), covered.T).T
    return found


def _vertical(grey: Bools, um: tuple[float, float], covered: Bools) -> Bools:
    found = _lines(grey, um)
    found |= _band(grey, um, covered)
    found |= _band(grey[:, ::-1], um, covered[:, ::-1])[:, ::-1]
    return found


def _lines(grey: Bools, um: tuple[float, float]) -> Bools:
    """Straight lines from top to bottom, more or less."""
    height, width = grey.shape
    across = max(1, round(LINE_WIDTH_UM / um[0] / 2))
    along = max(1, round(LINE_GAP_UM / um[1] / 2))
    thin = grey & ~opened(grey, (0, across))
    thin = opened(closed(thin, (along, 0)), (along, 0))
    labels, _ = parts(thin)
    result = np.zeros_like(grey)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        length = place[0].stop - place[0].start
        if length * um[1] < LINE_LENGTH_UM:
            continue
        part = labels[place] == number
        y, x = np.nonzero(part)
        at_rim = place[1].start < ZONE * width or place[1].stop > (1 - ZONE) * width
        if (at_rim or length > height / 2) and _off_line(y, x) * um[0] < STRAIGHT_UM:
            result[place] |= part
    return grown(result, (2, 2)) if result.any() else result


def _off_line(y: NDArray[np.int64], x: NDArray[np.int64]) -> float:
    """How far the middle of x in each row is from a straight line, in pixels, root mean square."""
    rows = np.bincount(y)
    used = np.flatnonzero(rows)
    middle = np.bincount(y, weights=x)[used] / rows[used]
    fit = np.polynomial.Polynomial.fit(used, middle, 1)
    return float(np.sqrt(np.mean((middle - fit(used)) ** 2)))


def _band(grey: Bools, um: tuple[float, float], covered: Bools) -> Bools:
    """A band along the left side whose inner border is straight, or nothing."""
    height, width = grey.shape
    deepest = int(min(BAND_UM / um[0], BAND_SHARE * width))
    columns = np.arange(width)[None]
    first = np.where(covered.any(axis=1), covered.argmax(axis=1), width)
    # The band may begin a pixel or two inside, where the picture was blended with nothing.
    open_ = ~grey & covered & (columns > first[:, None] + 2)
    end = np.where(open_.any(axis=1), open_.argmax(axis=1), width)
    depth = end - first
    rows = np.flatnonzero((first < width) & (depth > 4) & (depth <= deepest))
    result = np.zeros_like(grey)
    scanned = np.count_nonzero(first < width)
    if not scanned or len(rows) < BAND_COMPLETE * scanned:
        return result
    middle = np.median(end[rows])
    near = rows[np.abs(end[rows] - middle) < deepest / 2]
    fit = np.polynomial.Polynomial.fit(near, end[near], 1)
    off = np.abs(end[near] - fit(near))
    straight = near[off * um[0] < 2 * STRAIGHT_UM + um[0]]
    if len(straight) < BAND_COMPLETE * scanned:
        return result
    border = fit(np.arange(height))[:, None] + 2
    return np.asarray((columns <= border) & (columns >= 0), np.bool_)
