"""The order in which tiles are shown: a pure function of the seed and of how tiles lie in shards.

Shards are shuffled, gathered into blocks of a bounded size, and tiles are shuffled within a block;
so an epoch shows every tile once, and at any time only the shards of a block or two are needed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 16 << 30
"""Shards are gathered into blocks of at most this size (or of one shard, if that is larger). Sets
below it are shuffled as a whole."""

# Parts of the Philox key; never renumber, that would change every training.
_SHARDS, _TILES = 1 << 32, 2 << 32


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One pass over the tiles.

    Attributes:
        rows: which tile is shown at each position: int64 [tiles].
        blocks: shard numbers of each block.
        ends: position after the last of each block: int64 [blocks].
    """

    rows: NDArray[np.int64]
    blocks: tuple[tuple[int, ...], ...]
    ends: NDArray[np.int64]


def epoch_order(
    seed: int,
    epoch: int,
    shard_of_tile: NDArray[np.int64],
    shard_bytes: NDArray[np.int64],
    block_bytes: int = BLOCK_BYTES,
) -> Epoch:
    """The order of one epoch.

    Args:
        shard_of_tile: number of the shard that holds each tile.
        shard_bytes: size of each shard.
    """
    order = _philox(seed, epoch, _SHARDS).permutation(len(shard_bytes))
    blocks: list[list[int]] = [[]]
    filled = 0
    for shard in order.tolist():
        if blocks[-1] and filled + int(shard_bytes[shard]) > block_bytes:
            blocks.append([])
            filled = 0
        blocks[-1].append(shard)
        filled += int(shard_bytes[shard])
    by_shard = np.argsort(shard_of_tile, kind="stable")
    starts = np.searchsorted(shard_of_tile[by_shard], np.arange(len(shard_bytes) + 1))
    rows = []
    for number, block in enumerate(blocks):
        # In the order of the shards' numbers, so that the tiles alone decide the shuffle.
        tiles = np.concatenate([by_shard[starts[s] : starts[s + 1]] for s in sorted(block)])
        shuffle = _philox(seed, epoch, _TILES + number).permutation(len(tiles))
        rows.append(np.sort(tiles)[shuffle])
    ends = np.cumsum([len(part) for part in rows])
    return Epoch(np.concatenate(rows), tuple(map(tuple, blocks)), ends)


def _philox(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, purpose, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
