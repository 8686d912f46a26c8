"""Improved precision and recall (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hdgan.gan_trainer.metrics.nearest import distances

NEIGHBOURS = 3


def precision_recall(
    real_ND: NDArray[np.float32], fake_MD: NDArray[np.float32], k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Share of fakes within the reals' manifold, and of reals within the fakes' manifold.

    A set's manifold is the union of balls around its points, each as large as the distance to the
    point's k-th neighbour within the set.
    """
    return _within(fake_MD, real_ND, k), _within(real_ND, fake_MD, k)


def _within(queries: NDArray[np.float32], points: NDArray[np.float32], k: int) -> float:
    # The nearest point of each is itself.
    radii = np.concatenate(
        [np.partition(part, k, axis=1)[:, k] for part in distances(points, points)]
    )
    inside = np.concatenate([(part <= radii).any(axis=1) for part in distances(queries, points)])
    return float(inside.mean())
