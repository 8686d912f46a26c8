"""Features of tiles, computed once and kept in the store as an artifact."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hdgan.core.artifact import Artifact, Attempt, artifact_key, open_artifact
from hdgan.core.canonical import canonical_digest
from hdgan.core.errors import InputMissing
from hdgan.core.pins import Pins
from hdgan.core.store import Store
from hdgan.core.tiles import iter_tiles
from hdgan.gan_trainer.metrics.memorisation import orientations
from hdgan.gan_trainer.metrics.views import View, view
from hdgan.nets.image_features import FeatureExtractor
from hdgan.nets.tensor_files import TensorFileError, read_npy

STAGE = "tile-features"
VERSION = 1
_FILE = "features.npy"
# Tiles in memory at a time.
_CHUNK = 64


def tile_features(
    store: Store,
    pins: Pins,
    tiles: Artifact,
    index: pa.Table,
    rows: NDArray[np.int64],
    extractor: FeatureExtractor,
    which: View,
    *,
    seed: int,
    turned: bool,
    scratch: Path,
    attempt: str,
    check: Callable[[], None],
) -> NDArray[np.float32]:
    """Features of the tiles in `rows` of the index: float32 [n, dim], in the order of `rows`.

    Taken from the store if they are there, else computed and put there.

    Args:
        turned: all eight orientations of every tile: [8 * n, dim], orientation by orientation.
        check: called between tiles; raises to give up.
    """
    key = artifact_key(
        STAGE,
        VERSION,
        {
            "rows": canonical_digest([int(row) for row in rows]),
            "view": which,
            "seed": seed,
            "turned": turned,
        },
        {"tiles": tiles.content_digest, "extractor": extractor.digest},
    )
    pins.add([(STAGE, key)])
    known = open_artifact(store, STAGE, key)
    if known is None:
        features = _compute(
            store,
            index,
            rows,
            extractor,
            which,
            seed=seed,
            turned=turned,
            scratch=scratch,
            check=check,
        )
        buffer = io.BytesIO()
        np.save(buffer, features)
        making = Attempt(
            store,
            STAGE,
            key,
            stage_version=VERSION,
            attempt=attempt,
            config={"view": which, "extractor": extractor.name},
            inputs={"tiles": tiles.content_digest},
        )
        making.add_bytes(_FILE, buffer.getvalue())
        known = making.commit({})
    try:
        return read_npy(known.read(_FILE))
    except TensorFileError as error:
        raise InputMissing(f"{known.uri(_FILE)} holds no features: {error}: delete it") from error


def _compute(
    store: Store,
    index: pa.Table,
    rows: NDArray[np.int64],
    extractor: FeatureExtractor,
    which: View,
    *,
    seed: int,
    turned: bool,
    scratch: Path,
    check: Callable[[], None],
) -> NDArray[np.float32]:
    place = {int(row): number for number, row in enumerate(rows)}
    copies = 8 if turned else 1
    features = np.empty((copies, len(rows), extractor.dim), dtype=np.float32)
    waiting: list[tuple[int, NDArray[np.uint8]]] = []

    def flush() -> None:
        for start in range(0, len(waiting), _CHUNK):
            part = waiting[start : start + _CHUNK]
            shown = np.concatenate(
                [view(p[None], which, extractor.side, seed, number) for number, p in part]
            )
            images = orientations(shown) if turned else shown
            found = extractor(images).reshape(copies, len(part), extractor.dim)
            features[:, [number for number, _ in part]] = found
            check()
        waiting.clear()

    for row, pixels in iter_tiles(store, index, rows, scratch):
        waiting.append((place[row], pixels))
        if len(waiting) == _CHUNK:
            flush()
        check()
    flush()
    return features.reshape(copies * len(rows), extractor.dim)
