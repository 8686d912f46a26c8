"""Frechet Inception Distance (Heusel et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_IMAGES = 2048
"""Below this the covariance of 1000 and more features is mostly noise, and FID mostly bias."""


def fid(real_ND: NDArray[np.float32], fake_MD: NDArray[np.float32]) -> float:
    """|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), in float64."""
    x, y = real_ND.astype(np.float64), fake_MD.astype(np.float64)
    means = float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum())
    c1, c2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # C_1 C_2 has the eigenvalues of the symmetric R C_2 R with R = C_1^(1/2).
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ c2 @ root)
    trace_root = float(np.sqrt(np.maximum(cross, 0)).sum())
    return means + float(np.trace(c1) + np.trace(c2)) - 2 * trace_root
