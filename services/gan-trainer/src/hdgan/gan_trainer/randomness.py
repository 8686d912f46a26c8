"""Random draws keyed by (seed, step, purpose): no generator state to save, resume is exact."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def keyed_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on nothing but its three arguments."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def normal(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal float32, drawn on the CPU so that every device sees the same numbers."""
    return torch.randn(shape, generator=generator).to(device, non_blocking=True)


def sample_indices(seed: int, first: int, count: int, size: int) -> NDArray[np.int64]:
    """Which training tiles the samples `first .. first + count - 1` of the stream are.

    The stream runs through a fresh permutation of all `size` tiles per epoch, so every tile is
    seen once before any is seen twice.
    """
    positions = np.arange(first, first + count, dtype=np.int64)
    epochs = positions // size
    chosen = np.empty(count, dtype=np.int64)
    for epoch in np.unique(epochs):
        key = np.array([seed, epoch], dtype=np.uint64)
        order = np.random.Generator(np.random.Philox(key=key)).permutation(size)
        inside = epochs == epoch
        chosen[inside] = order[positions[inside] % size]
    return chosen
