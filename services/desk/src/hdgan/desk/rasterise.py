"""Polygons to pixels: a pixel belongs to a shape when its centre lies inside.

Pixel (x, y) covers [x, x+1) x [y, y+1) and its centre is at (x + 0.5, y + 0.5), the convention of
QuPath. Edges are half-open, so shapes that share an edge share no pixel and leave no gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hdgan.core.geojson import Ring

_AT_ONCE = 1 << 18
"""Crossings of edges and rows that are computed together: some ten arrays of this length."""


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
        following = np.roll(ring, -1, axis=0)
        # Always from the upper end: an edge shared by two shapes then crosses at the very same
        # floats.
        turned = (ring[:, 1] > following[:, 1])[:, None]
        upper, lower = np.where(turned, following, ring), np.where(turned, ring, following)
        first = np.clip(np.ceil(upper[:, 1] - 0.5) - corner[1], 0, height).astype(np.int64)
        last = np.clip(np.ceil(lower[:, 1] - 0.5) - corner[1], 0, height).astype(np.int64)
        crossing = np.flatnonzero(first < last)
        ends = np.cumsum(last[crossing] - first[crossing])
        start = 0
        while start < len(crossing):
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + _AT_ONCE, side="right")))
            part = crossing[start:stop]
            _cross(toggles, upper[part], lower[part], first[part], last[part], corner)
            start = stop
    inside = np.cumsum(toggles[:, :width], axis=1) % 2 == 1
    return np.asarray(inside, dtype=np.bool_)


def _cross(
    toggles: npt.NDArray[np.int64],
    upper: Ring,
    lower: Ring,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    corner: tuple[int, int],
) -> None:
    """Mark where edges [N] cross the centre lines of the rows they span: from `first` up to, but
    not including, `last`."""
    width = toggles.shape[1] - 1
    spans = last - first
    edge = np.repeat(np.arange(len(spans)), spans)
    rows = np.arange(len(edge)) + np.repeat(first - (np.cumsum(spans) - spans), spans)
    slope = (lower[:, 0] - upper[:, 0]) / (lower[:, 1] - upper[:, 1])
    crossing = upper[edge, 0] + (rows + corner[1] + 0.5 - upper[edge, 1]) * slope[edge]
    columns = np.clip(np.ceil(crossing - 0.5) - corner[0], 0, width).astype(np.int64)
    np.add.at(toggles, (rows, columns), 1)
