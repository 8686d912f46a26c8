"""Which tiles are trained on, which are held out, and the labels of a conditional training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hdgan.core.artifact import Artifact
from hdgan.core.errors import RequestError
from hdgan.core.tiles import load_index, training_rows


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


def stain_labels(split: TileSplit) -> tuple[str, ...]:
    """Names of the stains of the training tiles, sorted: the labels of a conditional generator.

    Raises:
        RequestError: a tile has no stain, or all have the same.
    """
    stains = split.index.column("stain").take(pa.array(split.train)).to_pylist()
    if None in stains:
        row = int(split.train[stains.index(None)])
        slide = split.index.column("slide")[row].as_py()
        raise RequestError(
            f"ganTrainer.conditional: stain needs the stain of every tile, but slide {slide} has "
            "none: give it in the slides' metadata, or use conditional: none"
        )
    labels = tuple(sorted(set(stains)))
    if len(labels) < 2:
        raise RequestError(
            f"ganTrainer.conditional: stain needs at least two stains, but all tiles are "
            f"{labels[0]}: use conditional: none"
        )
    return labels


def tile_labels(split: TileSplit, labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Label number of each training tile: int64 [len(train)]."""
    stains = split.index.column("stain").take(pa.array(split.train)).to_pylist()
    number = {label: i for i, label in enumerate(labels)}
    return np.array([number[stain] for stain in stains], dtype=np.int64)
