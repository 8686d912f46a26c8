"""Training tiles on scratch: decoded once into a memory map, read at random from then on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hdgan.core.artifact import Artifact
from hdgan.core.atomic_file import reserve
from hdgan.core.errors import RequestError
from hdgan.core.store import Store
from hdgan.core.tiles import iter_tiles, load_index, training_rows


@dataclasses.dataclass(frozen=True)
class TileSplit:
    """Row numbers of the tile index that are trained on, and those held out."""

    index: pa.Table
    train: NDArray[np.int64]
    holdout: NDArray[np.int64]


def split_tiles(artifact: Artifact, holdout_fold: int, batch: int) -> TileSplit:
    """Choose training tiles: everything outside the holdout fold, with a gap of a tile around it.

    Raises:
        RequestError: fewer training tiles than one batch holds.
    """
    index = load_index(artifact)
    folds = np.asarray(index.column("fold").to_numpy())
    train = np.asarray(training_rows(index, holdout_fold), dtype=np.int64)
    if len(train) < batch:
        raise RequestError(
            f"only {len(train)} of {len(index)} tiles are left to train on (holdoutFold "
            f"{holdout_fold} of folds {sorted(set(folds.tolist()))}), fewer than "
            f"ganTrainer.batch {batch}: add slides, lower tiler.stride or the batch"
        )
    return TileSplit(index, train, np.flatnonzero(folds == holdout_fold))


def open_tiles(
    store: Store,
    split: TileSplit,
    tile_size: int,
    folder: Path,
    *,
    require_space: Callable[[int, str], None],
    progress: Callable[[int, int], None],
) -> NDArray[np.uint8]:
    """Memory map uint8 [len(split.train), tile_size, tile_size, 3] of the training tiles.

    Row i is tile `split.train[i]`. A map that is already there for the same tiles is used as it
    is; a half-written one never has the final name.
    """
    digests = split.index.column("digest").take(pa.array(split.train)).to_pylist()
    name = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:32]
    path = folder / f"tiles-{name}.npy"
    shape = (len(split.train), tile_size, tile_size, 3)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        require_space(int(np.prod(shape)), f"decoding {shape[0]} training tiles")
        partial = path.with_name(f"{path.stem}.{os.getpid()}.partial.npy")
        try:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            reserve(partial)
            _decode(store, split, tile_size, array, folder, progress)
            array.flush()
            del array
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    tiles: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    if tiles.shape != shape:
        raise RequestError(f"{path} has shape {tiles.shape}, expected {shape}: delete that file")
    return tiles


def _decode(
    store: Store,
    split: TileSplit,
    tile_size: int,
    array: NDArray[np.uint8],
    scratch: Path,
    progress: Callable[[int, int], None],
) -> None:
    position = {int(row): i for i, row in enumerate(split.train)}
    tiles = iter_tiles(store, split.index, split.train, scratch)
    for done, (row, pixels) in enumerate(tiles, start=1):
        if pixels.shape != (tile_size, tile_size, 3):
            tile = split.index.column("tile")[int(row)].as_py()
            raise RequestError(
                f"tile {tile} has shape {pixels.shape}, tiler.tileSize says {tile_size}: "
                "the tile artifact was made for another tileSize"
            )
        array[position[int(row)]] = pixels
        progress(done, len(split.train))
