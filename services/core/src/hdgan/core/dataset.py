"""Checks a dataset the way its user reads it: every shard, every pair, every pixel of masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hdgan.core.dataset_index import read_classes, read_index
from hdgan.core.dataset_pairs import StoredPair, read_pairs
from hdgan.core.dataset_source import CLASSES, INDEX, open_dataset
from hdgan.core.errors import DataError, RequestError
from hdgan.core.masks import decode_mask, read_palette
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.sections import ClassConfig

MAX_PIXELS = 8192 * 8192


@dataclass(frozen=True)
class DatasetSummary:
    """What a dataset that passed its check holds."""

    uri: str
    pairs: int
    shards: int
    classes: tuple[str, ...]
    fractions: tuple[float, ...]
    """Share of each class among all labelled pixels."""
    ignored: float
    """Share of all pixels that have no label (255)."""
    sizes: tuple[tuple[int, int], ...]
    """All (width, height) that occur, in pixels."""


def check_dataset(
    uri: str,
    *,
    min_pairs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetSummary:
    """Read a whole dataset and make sure that it is what its index says.

    uri       folder, `s3://` prefix, or `<store>/artifacts/dataset/<key>`
    progress  called with (shards done, shards)
    DataError names the shard and the id that are wrong; RequestError if there is no dataset.
    """
    source = open_dataset(uri)
    classes = read_classes(source.read(CLASSES), uri)
    index = read_index(source.read(INDEX), uri)
    if len(index) < min_pairs:
        raise DataError(f"{uri}: {len(index)} pairs, at least {min_pairs} are asked for")
    shards = index.shards()
    source.shard_sizes(set(shards))
    counts = np.zeros(len(classes), dtype=np.int64)
    pixels = 0
    sizes: Counter[tuple[int, int]] = Counter()
    for done, shard in enumerate(shards, start=1):
        with source.shard(shard) as path:
            for pair in read_pairs(path, f"{uri}/{shard}", index.rows(shard)):
                size, found = _look_at(pair, classes)
                sizes[size] += 1
                counts += found
                pixels += size[0] * size[1]
        if progress is not None:
            progress(done, len(shards))
    total = int(counts.sum())
    return DatasetSummary(
        uri=uri,
        pairs=len(index),
        shards=len(shards),
        classes=tuple(item.name for item in classes),
        fractions=tuple(float(n / total) if total else 0.0 for n in counts),
        ignored=1 - total / pixels if pixels else 0.0,
        sizes=tuple(sorted(sizes)),
    )


def _look_at(
    pair: StoredPair, classes: list[ClassConfig]
) -> tuple[tuple[int, int], np.ndarray[Any, np.dtype[np.int64]]]:
    """(width, height) and pixels of each class of a pair whose pictures are what they must be."""
    at, name, members, row = pair.where, pair.id, pair.members, pair.row
    size = _image_size(members[".png"], f"{at}: {name}.png", {"RGB"})
    width, height = size
    if (row.get("width", width), row.get("height", height)) != size:
        raise DataError(
            f"{at}: is {width} x {height} pixels, the index says "
            f"{row.get('width')} x {row.get('height')}"
        )
    uncertainty = _image_size(
        members[".uncertainty.png"], f"{at}: {name}.uncertainty.png", {"I;16", "I"}
    )
    if uncertainty != size:
        raise DataError(f"{at}: the uncertainty is {uncertainty}, the image {size} pixels")
    mask_at = f"{at}: {name}.mask.png"
    try:
        mask_HW = decode_mask(
            members[".mask.png"], classes=len(classes), shape=(height, width), source=mask_at
        )
        palette = read_palette(members[".mask.png"], source=mask_at)
    except RequestError as error:
        raise DataError(str(error)) from error
    for index, item in enumerate(classes):
        if index >= len(palette) or palette[index] != item.rgb:
            raise DataError(
                f"{mask_at}: colour {index} of the palette is not that of class {item.name} "
                f"({item.color})"
            )
    counts = np.bincount(mask_HW.ravel(), minlength=256)[: len(classes)]
    return size, counts.astype(np.int64)


def _image_size(data: bytes, at: str, modes: Iterable[str]) -> tuple[int, int]:
    """(width, height) of a PNG that decodes to the end and has one of the modes."""
    try:
        with open_picture(data, max_pixels=MAX_PIXELS) as image:
            image.load()
            if image.mode not in modes:
                raise DataError(f"{at}: has the mode {image.mode}, not {' or '.join(modes)}")
            return image.width, image.height
    except PictureError as error:
        raise DataError(f"{at}: {error}") from error
