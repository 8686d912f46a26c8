"""How bright bare glass is across a slide: lamps and lenses light it unevenly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# A quadric follows a lamp's fall-off and a vignette, and cannot follow a piece of tissue.
TERMS = 6
ROUNDS = 4
SAMPLES = 40_000
NEAR = 0.03
"""Optical density, 7 % of the light: what is further from the fit is no glass. Also how far the
fit's first guess, one white for all, may be off in most places."""
MOST = 0.25
"""Largest density the glass itself may have, 44 % of the light: as dark as tissue is, it is no
unevenness of a lamp."""


def glass_density(density_HWC: Floats, covered_HW: NDArray[np.bool_]) -> Floats:
    """Optical density of the glass under each pixel, float32 [H, W, 3].

    density_HWC: of a small picture of the slide, against one white; negative where it is brighter.
    A quadratic surface through what looks like glass, fitted again to what then does: the set grows
    from the middle of the lit area into its darker corners. Zero where too little glass shows.
    """
    height, width = covered_HW.shape
    basis = _basis(height, width)
    rows = np.flatnonzero(covered_HW)
    flat = density_HWC.reshape(-1, 3)
    rows = rows[:: max(1, len(rows) // SAMPLES)]
    terms, seen = basis[rows], flat[rows]
    fitted = np.zeros((TERMS, 3), np.float32)
    for _ in range(ROUNDS):
        away = np.abs(seen - terms @ fitted)
        glass = away.max(axis=1) < NEAR
        if np.count_nonzero(glass) < max(100, len(rows) // 20):
            return np.zeros_like(density_HWC)
        fitted = np.linalg.lstsq(terms[glass], seen[glass], rcond=None)[0].astype(np.float32)
    surface = (basis @ fitted).reshape(height, width, 3)
    # A lamp has a colour, which white accounts for; its unevenness is the same in all channels.
    return np.asarray(surface.clip(-MOST, MOST), np.float32)


def _basis(height: int, width: int) -> Floats:
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    terms = (np.ones_like(x), x, y, x * x, x * y, y * y)
    return np.stack([term.reshape(-1) for term in terms], axis=1)
