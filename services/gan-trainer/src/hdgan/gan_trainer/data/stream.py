"""Training tiles by their position in the stream, decoded ahead of their use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as StillWorking
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hdgan.core.errors import InputMissing, NoSpace, RequestError
from hdgan.core.stage import format_bytes
from hdgan.core.store import Store
from hdgan.core.tiles import TILE_SUFFIXES, decode_tile, open_unit
from hdgan.gan_trainer.data.order import BLOCK_BYTES, Epoch, epoch_order
from hdgan.gan_trainer.data.shard_cache import Shard, ShardCache
from hdgan.gan_trainer.data.split import TileSplit

# How much of the free scratch space shards may take where the run says nothing.
FREE_SHARE = 0.8
_LOOK_SECONDS = 0.5

Image = NDArray[np.uint8]


class TileStream:
    """The endless sequence of training tiles, epoch after epoch.

    Position n of the stream is the same tile in every process and after every restart.

    Args:
        split: rows of the index that train.
        tile_size: side of a tile in pixels.
        folder: on scratch, for this training alone.
        seed: decides the order.
        batch: tiles that all processes together take at a time.
        cache_bytes: most bytes of shards on disk; None: 80 % of what is free now.
        workers: threads that decode.
        owner: whether this process of the machine fetches shards for all of them.
        check_stop: called while waiting; raises to give up.
        block_bytes: see `order.BLOCK_BYTES`.

    Raises:
        RequestError: the cache is too small for the shards of three blocks.
    """

    def __init__(
        self,
        store: Store,
        split: TileSplit,
        tile_size: int,
        folder: Path,
        *,
        seed: int,
        batch: int,
        cache_bytes: int | None,
        workers: int,
        owner: bool,
        check_stop: Callable[[], None],
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._split, self._tile_size, self._check_stop = split, tile_size, check_stop
        self._batch, self._folder, self._owner = batch, folder, owner
        units, names = (split.index.column(c).to_pylist() for c in ("unit_key", "shard"))
        self._tile_names = split.index.column("tile").to_pylist()
        self._digests = split.index.column("digest").to_pylist()
        places = [(units[row], names[row]) for row in split.train.tolist()]
        numbers = {place: number for number, place in enumerate(sorted(set(places)))}
        self._shard_of_tile = np.array([numbers[place] for place in places], dtype=np.int64)
        artifacts = {unit: open_unit(store, unit) for unit, _ in numbers}
        shards = [Shard(artifacts[unit], name) for unit, name in numbers]
        sizes = np.array([shard.size for shard in shards], dtype=np.int64)
        folder.mkdir(parents=True, exist_ok=True)
        budget = _budget(sizes, cache_bytes, block_bytes, folder)
        self._epoch = lru_cache(3)(
            lambda epoch: epoch_order(seed, epoch, self._shard_of_tile, sizes, block_bytes)
        )
        self._cache = ShardCache(shards, folder, budget, owner=owner, check_stop=check_stop)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._ahead: dict[int, Future[Image]] = {}

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which training tiles (rows of `split.train`) are at these positions of the stream."""
        size = len(self._split.train)
        epochs = positions // size
        rows = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            rows[inside] = self._epoch(int(epoch)).rows[positions[inside] % size]
        return rows

    def read(self, first: int, samples: NDArray[np.int64]) -> tuple[Image, NDArray[np.int64]]:
        """Tiles at positions `first + samples`, decoded: uint8 [n, H, W, 3], and their rows.

        Raises:
            DataError: a tile is damaged.
            InputMissing: a shard or tile is not where the index says.
            RequestError: a tile has another size than the run says.
        """
        self._want(first)
        self.prefetch(first, samples)
        wanted = [self._ahead.pop(first + sample) for sample in samples.tolist()]
        images = np.empty((len(wanted), self._tile_size, self._tile_size, 3), dtype=np.uint8)
        for place, future in enumerate(wanted):
            images[place] = self._result(future)
        return images, self.rows(first + samples)

    def ready(self, first: int, samples: NDArray[np.int64], seconds: float) -> bool:
        """Whether `read` would not have to wait; waits for that for at most `seconds`."""
        self._want(first)
        self.prefetch(first, samples)
        futures = [self._ahead[position] for position in (first + samples).tolist()]
        return not wait(futures, seconds).not_done

    @property
    def decoded(self) -> int:
        """Tiles that are decoded and have not been read."""
        return sum(future.done() for future in self._ahead.values())

    def prefetch(self, first: int, samples: NDArray[np.int64]) -> None:
        """Decode the tiles at positions `first + samples` in the background."""
        positions = first + samples
        for position, row in zip(positions.tolist(), self.rows(positions).tolist(), strict=True):
            if position not in self._ahead:
                self._ahead[position] = self._workers.submit(self._decode, row)

    def some(self, count: int, seed: int) -> Image:
        """`count` training tiles chosen by `seed`, with repetition when there are too few."""
        total = len(self._split.train)
        chosen = np.random.default_rng(seed).choice(total, count, replace=total < count)
        images = np.empty((count, self._tile_size, self._tile_size, 3), dtype=np.uint8)
        # Shard by shard: all of them together may be more than the cache holds.
        for shard in np.unique(self._shard_of_tile[chosen]).tolist():
            self._cache.want([shard])
            places = np.flatnonzero(self._shard_of_tile[chosen] == shard)
            futures = [self._workers.submit(self._decode, int(chosen[p])) for p in places]
            for place, future in zip(places, futures, strict=True):
                images[place] = self._result(future)
        return images

    def discard(self) -> None:
        """Delete the shards on scratch: the training is over."""
        self.close()
        if self._owner:
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Stop all threads. Shards stay on scratch for the next start."""
        for future in self._ahead.values():
            future.cancel()
        self._cache.close()
        self._workers.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _want(self, first: int) -> None:
        """The shards of the blocks from `first` on, and of the block after those, come next.

        Earlier batches are done with: all processes see to it that each has its tiles (`ready`)
        before one of them goes on.
        """
        size = len(self._split.train)
        position, last = first, first + 2 * self._batch
        shards: list[int] = []
        while True:
            epoch: Epoch = self._epoch(position // size)
            inside = position % size
            block = int(np.searchsorted(epoch.ends, inside, side="right"))
            shards += epoch.blocks[block]
            if position > last:
                break
            position += int(epoch.ends[block]) - inside
        self._cache.want(list(dict.fromkeys(shards)))

    def _result(self, future: Future[Image]) -> Image:
        while True:
            try:
                return future.result(_LOOK_SECONDS)
            except StillWorking:
                self._check_stop()

    def _decode(self, row: int) -> Image:
        index_row = int(self._split.train[row])
        tile = self._tile_names[index_row]
        shard = int(self._shard_of_tile[row])
        found = (self._cache.read(shard, f"{tile}{suffix}") for suffix in TILE_SUFFIXES)
        data = next((one for one in found if one is not None), None)
        if data is None:
            raise InputMissing(
                f"the shard of tile {tile} does not hold it, although the index says so: delete "
                "the manifest of the tiler's artifact and run again"
            )
        pixels = decode_tile(data, self._digests[index_row], f"tile {tile}")
        if pixels.shape != (self._tile_size, self._tile_size, 3):
            raise RequestError(
                f"tile {tile} has shape {pixels.shape}, tiler.tileSize says {self._tile_size}: "
                "the tile artifact was made for another tileSize"
            )
        return pixels


def _budget(
    sizes: NDArray[np.int64], cache_bytes: int | None, block_bytes: int, folder: Path
) -> int:
    """Bytes that shards may take on disk. If that is too little to train: NoSpace where the disk is
    why, RequestError where the configuration is."""
    largest = max(block_bytes, int(sizes.max()))
    # A batch may begin in one block, take in an epoch's last and small one, and end in the next.
    needed = min(int(sizes.sum()), 3 * largest)
    here = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    free = shutil.disk_usage(folder).free + here
    budget = int(free * FREE_SHARE) if cache_bytes is None else min(cache_bytes, free)
    if budget < needed:
        short = cache_bytes is None or cache_bytes > free
        raise (NoSpace if short else RequestError)(
            f"training tiles need {format_bytes(needed)} of scratch at a time, "
            f"{format_bytes(budget)} are allowed ({format_bytes(free)} are free in {folder}): free "
            "some space, raise resources.tileCacheGigabytes, or lower tiler.shardTiles"
        )
    return budget
