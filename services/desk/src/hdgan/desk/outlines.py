"""Masks to polygons: the outlines of what has one class, along the edges of pixels.

The inverse of `rasterise`: filled again, the polygons give the very mask. Every polygon is valid
(no ring touches itself but in single points with another), which editors of polygons ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from hdgan.core.masks import UNLABELLED

MAX_SEGMENTS = 500_000
"""About seven seconds and 10 MB of GeoJSON; what is more intricate nobody edits as polygons."""
MAX_PARTS = 40_000
"""Half of what `drawing.draw` takes for one image, however small they are."""

_OUTSIDE = -1


@dataclass(frozen=True)
class Outline:
    """A connected part of a mask, by its edges."""

    value: int
    """What the mask says there; never unlabelled."""
    rings: list[list[list[int]]]
    """The outer ring, then holes: closed, each vertex (x, y) a corner of pixels."""


def outlines(mask: npt.NDArray[np.uint8]) -> list[Outline] | None:
    """The parts of a mask [H, W] that are labelled, from the top; None if it is too intricate.

    Pixels that only touch at a corner are two parts, so that nothing is pinched.
    """
    segments = _segments(mask)
    if len(segments) > MAX_SEGMENTS:
        return None
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(segments)))
    # A point inside a face may lie between two of its pixels, never on the edge of the face.
    inside = shapely.get_coordinates(shapely.point_on_surface(faces)).astype(np.int64)
    values = mask[inside[:, 1], inside[:, 0]]
    labelled = np.flatnonzero(values != UNLABELLED)
    if len(labelled) > MAX_PARTS:
        return None
    # Corners where others meet, on a straight edge of this one.
    simple = shapely.simplify(faces[labelled], 0, preserve_topology=False)
    found = [
        Outline(int(value), list(_rings(face)))
        for value, face in zip(values[labelled], simple, strict=True)
    ]
    return sorted(found, key=lambda part: min((y, x) for x, y in part.rings[0]))


def _rings(face: shapely.Polygon) -> Iterator[list[list[int]]]:
    for ring in (face.exterior, *face.interiors):
        yield shapely.get_coordinates(ring).astype(np.int64).tolist()


def _segments(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The edges between pixels of different values, and around the image [N, 2 ends, (x, y)].

    Each goes as straight as it can, to the next corner where another edge begins.
    """
    height, width = mask.shape
    padded = np.full((height + 2, width + 2), _OUTSIDE, dtype=np.int16)
    padded[1:-1, 1:-1] = mask
    across = padded[:-1, 1:-1] != padded[1:, 1:-1]  # [H+1, W]: from corner (x, y) to (x+1, y)
    down = padded[1:-1, :-1] != padded[1:-1, 1:]  # [H, W+1]: from corner (x, y) to (x, y+1)
    y, x0, x1 = _runs(across, _ends(down.T).T)
    x, y0, y1 = _runs(down.T, _ends(across).T)
    horizontal = np.stack([x0, y, x1, y], axis=1)
    vertical = np.stack([x, y0, x, y1], axis=1)
    both = np.concatenate([horizontal, vertical]).reshape(-1, 2, 2)
    return both.astype(np.float64)


def _ends(edges: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Corners [.., N+1] at which an edge [.., N] begins or ends."""
    corners = np.zeros((edges.shape[0], edges.shape[1] + 1), dtype=np.bool_)
    corners[:, :-1] |= edges
    corners[:, 1:] |= edges
    return corners


def _runs(
    edges: npt.NDArray[np.bool_], corners: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows, first and last corners of runs of edges [R, N] that pass none of `corners` [R, N+1]."""
    before = np.zeros_like(edges)
    before[:, 1:] = edges[:, :-1]
    after = np.zeros_like(edges)
    after[:, :-1] = edges[:, 1:]
    rows, first = np.nonzero(edges & (~before | corners[:, :-1]))
    _, last = np.nonzero(edges & (~after | corners[:, 1:]))
    return rows, first, last + 1
