"""Distances between sets of feature vectors, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK = 512


def distances(
    queries_ND: NDArray[np.float32], points_MD: NDArray[np.float32]
) -> Iterator[NDArray[np.float64]]:
    """Euclidean distances of queries to all points, some queries at a time: [<= CHUNK, M]."""
    points = points_MD.astype(np.float64)
    norms = np.square(points).sum(axis=1)
    for start in range(0, len(queries_ND), CHUNK):
        part = queries_ND[start : start + CHUNK].astype(np.float64)
        squares = np.square(part).sum(axis=1)[:, None] + norms - 2 * part @ points.T
        yield np.sqrt(np.maximum(squares, 0))


def nearest(queries_ND: NDArray[np.float32], points_MD: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of each query to the nearest point: [N]."""
    return np.concatenate([part.min(axis=1) for part in distances(queries_ND, points_MD)])
