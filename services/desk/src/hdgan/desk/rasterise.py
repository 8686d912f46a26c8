"""Polygons to pixels: a pixel belongs to a shape when its centre lies inside.

Pixel (x, y) covers [x, x+1) x [y, y+1) and its centre is at (x + 0.5, y + 0.5), the convention of
QuPath. Edges are half-open, so shapes that share an edge share no pixel and leave no gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hdgan.core.geojson import Ring


def bounding_rows_and_columns(
    rings: Sequence[Ring], height: int, width: int
) -> tuple[slice, slice]:
    """The part of a canvas that can hold pixels of a polygon: rows, columns."""
    points = np.concatenate(rings)
    left, top = np.floor(points.min(axis=0)).astype(np.int64)
    right, bottom = np.ceil(points.max(axis=0)).astype(np.int64)
    rows = slice(*np.clip([top, bottom], 0, height).tolist())
    return rows, slice(*np.clip([left, right], 0, width).tolist())


def crossings(rings: Sequence[Ring], height: int) -> int:
    """How many centre lines of rows the edges of a polygon cross, counted for each edge."""
    total = 0
    for ring in rings:
        y0, y1 = ring[:, 1], np.roll(ring[:, 1], -1)
        first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height)
        last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height)
        total += int((last - first).sum())
    return total


def fill_polygon(
    rings: Sequence[Ring], height: int, width: int, corner: tuple[int, int] = (0, 0)
) -> npt.NDArray[np.bool_]:
    """Pixels [H, W] inside a polygon of an outer ring and holes, by the even-odd rule.

    `corner`: which pixel (x, y) of the image is the first of these; what is computed stays what it
    is for the whole image, bit for bit.

    Cost: edges times the rows each one spans, plus the area; never more than the canvas.
    """
    # toggles[y, x] counts the edges that row y's centre line crosses between the centres of pixels
    # x-1 and x; a pixel is inside where an odd number lies to its left.
    toggles = np.zeros((height, width + 1), dtype=np.int64)
    for ring in rings:
        x0, y0 = ring[:, 0], ring[:, 1]
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        for index in np.flatnonzero(y0 != y1):
            _cross(toggles, x0[index], y0[index], x1[index], y1[index], corner)
    inside = np.cumsum(toggles[:, :width], axis=1) % 2 == 1
    return np.asarray(inside, dtype=np.bool_)


def _cross(
    toggles: npt.NDArray[np.int64],
    x0: np.float64,
    y0: np.float64,
    x1: np.float64,
    y1: np.float64,
    corner: tuple[int, int],
) -> None:
    """Mark where one edge crosses the centre lines of the rows it spans: low end in, high end
    out."""
    height, width = toggles.shape[0], toggles.shape[1] - 1
    # Always from the upper end: an edge shared by two shapes then crosses at the very same floats.
    if y0 > y1:
        x0, y0, x1, y1 = x1, y1, x0, y0
    first = max(int(np.ceil(y0 - 0.5)), corner[1])
    last = min(int(np.ceil(y1 - 0.5)), corner[1] + height)
    if first >= last:
        return
    rows = np.arange(first, last)
    crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    columns = np.clip(np.ceil(crossing - 0.5) - corner[0], 0, width).astype(np.int64)
    toggles[rows - corner[1], columns] += 1
