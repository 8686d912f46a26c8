"""What pictures consist of, learned without labels from the features the classifier will see.

Vectors of pixels on a coarse grid are standardised, reduced to their principal components and
grouped by k-means: a group is a texture, and a picture is described by how much of it shows which.
A texture is rare where few pixels of all candidates show it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.vq import kmeans2

from hdgan.nets.pyramid import NativeMap, sample_rows

GRID = 16
"""Pixels along a side of the picture whose vectors are looked at."""
REFERENCE_IMAGES = 128
"""Pictures that textures are learned from: 256 vectors each."""
COMPONENTS = 32
TEXTURES = 48
SEED = 0
BLOCK = 4096
"""Vectors that are standardised in float64 at once."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def grid_positions(side: int) -> Integers:
    """Flat indices (y * side + x) of the grid's pixels, row by row; at most GRID along a side."""
    along = (2 * np.arange(min(GRID, side)) + 1) * side // (2 * min(GRID, side))
    found: Integers = (along[:, None] * side + along[None, :]).reshape(-1).astype(np.int64)
    return found


def grid_vectors(maps: Sequence[NativeMap], side: int) -> Floats:
    """Vectors float32 [P, C] of a picture's grid, from its native maps [h, w, C_m]."""
    device = maps[0].device if isinstance(maps[0], torch.Tensor) else "cpu"
    rows = torch.from_numpy(grid_positions(side)).to(device)
    vectors: Floats = sample_rows(maps, rows, side).cpu().numpy()
    return vectors


@dataclass(frozen=True)
class Textures:
    """Learned textures: `basis` float32 [C, D], `offset` [D], `centres` [K, D]."""

    basis: Floats
    offset: Floats
    centres: Floats

    @property
    def count(self) -> int:
        return len(self.centres)

    def positions(self, vectors: Floats) -> Floats:
        """Vectors [P, C] as their principal components [P, D]."""
        return vectors @ self.basis - self.offset

    def nearest(self, positions: Floats) -> Integers:
        """The texture of each pixel, int64 [P]."""
        squares = (self.centres**2).sum(axis=1)[None, :] - 2 * positions @ self.centres.T
        found: Integers = np.argmin(squares, axis=1)
        return found


def learn_textures(vectors: Floats) -> Textures:
    """Textures of vectors [P, C]; the same vectors give the same textures.

    A channel that never changes says nothing and is left out of the components. Components are
    eigenvectors of the correlation matrix, largest eigenvalue first; k-means starts from k-means++
    (Arthur & Vassilvitskii 2007).
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    std = vectors.std(axis=0, dtype=np.float64)
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=std > 1e-9)
    correlation = np.zeros((len(scale), len(scale)))
    for first in range(0, len(vectors), BLOCK):
        standard = (vectors[first : first + BLOCK] - mean) * scale
        correlation += standard.T @ standard / len(vectors)
    _, eigenvectors = np.linalg.eigh(correlation)
    components = min(COMPONENTS, eigenvectors.shape[1])
    basis = scale[:, None] * eigenvectors[:, ::-1][:, :components]
    positions = vectors @ basis.astype(np.float32) - (mean @ basis).astype(np.float32)
    random = np.random.Generator(np.random.PCG64(SEED))
    textures = min(TEXTURES, len(np.unique(positions, axis=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a texture that no pixel shows does no harm
        centres, _ = kmeans2(positions, textures, iter=30, minit="++", rng=random)
    return Textures(
        basis.astype(np.float32), (mean @ basis).astype(np.float32), centres.astype(np.float32)
    )


def mass(textures: Integers, count: int, weights: npt.NDArray[np.floating] | None = None) -> Floats:
    """How much of a picture shows each texture, float32 [K]: shares of its pixels [P], each
    counted by its weight if there are weights."""
    counted = np.bincount(textures, weights=weights, minlength=count)
    return (counted / len(textures)).astype(np.float32)
