"""How bright bare glass is across a slide: lamps and lenses light it unevenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdgan.tiler.tissue import Colour

Floats = NDArray[np.float32]

# A quadric follows a lamp's fall-off and a vignette, and cannot follow a piece of tissue.
TERMS = 6
ROUNDS = 4
SAMPLES = 40_000
LEAST_SHARE = 0.05
"""Least share of the slide that has to look like glass; below it one white holds for all of it."""
NEAR = 0.03
"""Optical density, 7 % of the light: what is further from the fit is no glass. Also how far the
fit's first guess, one white for all, may be off in most places."""
MOST = 0.25
"""Largest density the glass itself may have, 44 % of the light: as dark as tissue is, it is no
unevenness of a lamp."""


@dataclass(frozen=True)
class Glass:
    """The colour of bare glass at every place of a slide.

    white: one colour for all of it; terms: float32 [6, 3], the optical density of the glass against
    that as a quadratic surface over places from -1 to 1, for red, green and blue.
    """

    white: Colour
    terms: Floats

    def density(self, height: int, width: int) -> Floats:
        """Optical density against `white` at each pixel of a picture of the slide, [H, W, 3]."""
        places = _places(height, width)
        surface = (_basis(*places) @ self.terms).clip(-MOST, MOST)
        return np.asarray(surface.reshape(height, width, 3), np.float32)

    def colour(self, x: float, y: float) -> Colour:
        """Bare glass at a place, given as shares of the slide's width and height, 0..1."""
        place = np.array([2 * x - 1], np.float32), np.array([2 * y - 1], np.float32)
        density = (_basis(*place) @ self.terms).clip(-MOST, MOST)[0]
        red, green, blue = np.rint(np.array(self.white, np.float32) * 10**-density).clip(1, 255)
        return int(red), int(green), int(blue)


def fit_glass(density_HWC: Floats, white: Colour, covered_HW: NDArray[np.bool_]) -> Glass:
    """The glass of a small picture of a slide.

    density_HWC: optical density against `white`; negative where it is brighter. covered_HW: where
    it was scanned. The surface goes through what looks like glass and is fitted again to what then
    does: the set grows from the evenly lit area into darker corners.
    """
    height, width = covered_HW.shape
    rows = np.flatnonzero(covered_HW)
    rows = rows[:: max(1, len(rows) // SAMPLES)]
    y, x = (place[rows] for place in _places(height, width)[::-1])
    basis, seen = _basis(x, y), density_HWC.reshape(-1, 3)[rows]
    terms = np.zeros((TERMS, 3), np.float32)
    for _ in range(ROUNDS):
        glass = np.abs(seen - basis @ terms).max(axis=1) < NEAR
        if np.count_nonzero(glass) < max(100, LEAST_SHARE * len(rows)):
            return Glass(white, np.zeros((TERMS, 3), np.float32))
        terms = np.linalg.lstsq(basis[glass], seen[glass], rcond=None)[0].astype(np.float32)
    return Glass(white, terms)


def _places(height: int, width: int) -> tuple[Floats, Floats]:
    """x and y of each pixel, row by row, from -1 to 1."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    return x.reshape(-1), y.reshape(-1)


def _basis(x: Floats, y: Floats) -> Floats:
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
