"""Kernel Inception Distance: unbiased, so that few images are enough (Binkowski et al. 2018)."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

MAX_SUBSET = 1000
SUBSETS = 100

Features = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Kid:
    """A KID and how sure it is.

    Attributes:
        mean: mean over random subsets; may be slightly negative, as it is unbiased.
        standard_error: of that mean, from the spread of estimates on disjoint parts of the images.
        real, fake: images compared.
        subset: images of each side in a subset.
    """

    mean: float
    standard_error: float
    real: int
    fake: int
    subset: int


def mmd2(real_ND: Features, fake_MD: Features) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / D + 1)^3."""
    x, y = real_ND.astype(np.float64), fake_MD.astype(np.float64)
    n, m, dim = len(x), len(y), x.shape[1]

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = (a @ b.T / dim + 1) ** 3
        return result

    xx, yy = kernel(x, x), kernel(y, y)
    within_x = (xx.sum() - np.trace(xx)) / (n * (n - 1))
    within_y = (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within_x + within_y - 2 * kernel(x, y).mean())


def kid(real_ND: Features, fake_MD: Features, seed: int = 0) -> Kid | None:
    """KID of two sets of features; None when either has fewer than 16 images.

    Subsets of min(1000, N, M) images are drawn SUBSETS times; where that takes all images of both
    sets there is only one. The standard error is that of the mean of four estimates, each on a
    disjoint quarter of both sets.
    """
    n, m = len(real_ND), len(fake_MD)
    if min(n, m) < 16:
        return None
    size = min(MAX_SUBSET, n, m)
    choose = np.random.Generator(np.random.Philox(key=seed))
    # Where a subset is nearly everything, its repetition is no new information.
    repetitions = 1 if n == size == m else SUBSETS if size == MAX_SUBSET else 10
    estimates = []
    for _ in range(repetitions):
        real = real_ND[choose.permutation(n)[:size]]
        fake = fake_MD[choose.permutation(m)[:size]]
        estimates.append(mmd2(real, fake))
    real_parts = np.array_split(choose.permutation(n), 4)
    fake_parts = np.array_split(choose.permutation(m), 4)
    quarters = [mmd2(real_ND[a], fake_MD[b]) for a, b in zip(real_parts, fake_parts, strict=True)]
    error = float(np.std(quarters, ddof=1) / 2)
    return Kid(float(np.mean(estimates)), error, n, m, size)
