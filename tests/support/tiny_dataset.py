"""A whole dataset of a few pairs, made without any network."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hdgan.core.masks import encode_mask
from hdgan.core.sections import ClassConfig
from hdgan.core.tar_shards import write_shard

SIDE = 16


def png(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def pair_members(name: str, classes: list[ClassConfig], number: int) -> dict[str, bytes]:
    """The four files of a pair, by file name; every class has its share of the mask."""
    random = np.random.default_rng(number)
    mask_HW = (np.arange(SIDE * SIDE) % len(classes)).astype(np.uint8).reshape(SIDE, SIDE)
    return {
        f"{name}.json": json.dumps({"id": name, "mpp": 1.0}).encode(),
        f"{name}.mask.png": encode_mask(mask_HW, classes),
        f"{name}.png": png(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)),
        f"{name}.uncertainty.png": png(random.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)),
    }


def write_dataset(
    folder: Path, classes: list[ClassConfig], *, count: int = 4, shard_size: int = 2
) -> list[dict[str, Any]]:
    """Fills `folder` with shards, index.parquet and classes.json; returns the index rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for start in range(0, count, shard_size):
        shard = f"shard-{start // shard_size:05d}.tar"
        members: dict[str, bytes] = {}
        for number in range(start, min(start + shard_size, count)):
            name = f"{number:016x}"
            made = pair_members(name, classes, number)
            members |= made
            rows.append(
                {
                    "id": name,
                    "shard": shard,
                    "width": SIDE,
                    "height": SIDE,
                    "mpp": 1.0,
                    "image_sha256": hashlib.sha256(made[f"{name}.png"]).hexdigest(),
                    "mask_sha256": hashlib.sha256(made[f"{name}.mask.png"]).hexdigest(),
                    "uncertainty_sha256": hashlib.sha256(
                        made[f"{name}.uncertainty.png"]
                    ).hexdigest(),
                }
            )
        write_shard(folder / shard, members.items())
    write_index(folder, rows)
    listed = [{"index": i, "name": c.name, "color": c.color} for i, c in enumerate(classes)]
    (folder / "classes.json").write_text(json.dumps({"classes": listed}))
    return rows


def write_index(folder: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "index.parquet")
