"""Tile artifacts as the tiler leaves them, small and made of noise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.store import Store, open_store
from hdgan.core.tar_shards import write_shard
from hdgan.core.tiles import TILE_INDEX_SCHEMA
from support.tiny_dataset import png

TILER_KEY = "f" * 64


@dataclass(frozen=True)
class Tiles:
    """Tiles in a store: row i of the index is `pictures[i]`."""

    store: Store
    artifact: Artifact
    index: pa.Table
    pictures: list[NDArray[np.uint8]]


def make_tiles(
    folder: Path,
    *,
    units: int = 2,
    shards: int = 2,
    per_shard: int = 4,
    side: int = 32,
    stains: tuple[str | None, ...] = (None,),
    folds: int = 1,
    sides: dict[int, int] | None = None,
) -> Tiles:
    """`units` slides with `shards` tar shards of `per_shard` tiles each.

    Args:
        stains: stain of each slide, in turn.
        folds: folds are given to tiles in turn.
        sides: sides of single tiles, by row, where they differ.
    """
    store = open_store((folder / "store").as_uri())
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    pictures: list[NDArray[np.uint8]] = []
    for unit in range(units):
        key = f"{unit:064x}"
        attempt = Attempt(store, "slide-tiles", key)
        for shard in range(shards):
            name = f"tiles-{shard:05d}.tar"
            members = {}
            for _ in range(per_shard):
                number = len(rows)
                length = (sides or {}).get(number, side)
                picture = random.integers(0, 256, (length, length, 3), dtype=np.uint8)
                data = png(picture)
                tile = f"slide{unit}-{number}"
                members[f"{tile}.png"] = data
                pictures.append(picture)
                rows.append(
                    {
                        "tile": tile,
                        "slide": f"slide{unit}",
                        "case": f"case{unit}",
                        "stain": stains[unit % len(stains)],
                        "fold": number % folds,
                        "x": 1000 * number,
                        "y": 0,
                        "width": side,
                        "height": side,
                        "mpp": 1.0,
                        "whitespace": 0.0,
                        "shard": name,
                        "unit_key": key,
                        "digest": hashlib.sha256(data).hexdigest(),
                    }
                )
            path = folder / f"{unit}-{name}"
            write_shard(path, members.items())
            attempt.add_file(name, path)
        attempt.commit({})
    index = pa.Table.from_pylist(rows, schema=TILE_INDEX_SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(index, buffer)
    making = Attempt(store, "tiler", TILER_KEY)
    making.add_bytes("index.parquet", buffer.getvalue().to_pybytes())
    return Tiles(store, making.commit({}), index, pictures)
