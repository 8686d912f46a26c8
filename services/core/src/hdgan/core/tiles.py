"""Reads what the tiler made: the index of tiles, which of them may train, and their pixels."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.errors import DataError, InputMissing, RequestError
from hdgan.core.parquet_tables import read_parquet
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.store import Store
from hdgan.core.tar_shards import read_shard

INDEX = "index.parquet"
TILE_SUFFIXES = (".png", ".jpg")
"""Endings of tiles in shards; what comes before is the tile's id."""

MAX_TILE_PIXELS = 4096 * 4096
"""No tile is larger (tiler.tileSize)."""

TILE_INDEX_SCHEMA = pa.schema(
    [
        pa.field("tile", pa.string(), nullable=False),  # id, unique in the index
        pa.field("slide", pa.string(), nullable=False),  # name of the slide below slides.uri
        pa.field("case", pa.string(), nullable=False),
        pa.field("stain", pa.string()),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("x", pa.int64(), nullable=False),  # top left corner, level-0 pixels
        pa.field("y", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),  # covered, level-0 pixels
        pa.field("height", pa.int64(), nullable=False),
        pa.field("mpp", pa.float64(), nullable=False),  # of the tile, micrometres per pixel
        pa.field("whitespace", pa.float32(), nullable=False),  # share of glass, 0 to 1
        pa.field("shard", pa.string(), nullable=False),  # file of the unit artifact
        pa.field("unit_key", pa.string(), nullable=False),  # key of the slide-tiles artifact
        pa.field("digest", pa.string(), nullable=False),  # SHA-256 of the file
    ]
)


def load_index(artifact: Artifact) -> pa.Table:
    """The index of all accepted tiles, with the columns of `TILE_INDEX_SCHEMA`.

    InputMissing if it is not a parquet file with these columns.
    """
    where = artifact.uri(INDEX)
    try:
        table = read_parquet(artifact.read(INDEX), TILE_INDEX_SCHEMA.names)
        missing = [name for name in TILE_INDEX_SCHEMA.names if name not in table.column_names]
        if missing:
            raise InputMissing(
                f"{where} lacks the columns {', '.join(missing)}: it was made by another version "
                "of the tiler"
            )
        return table.select(TILE_INDEX_SCHEMA.names).cast(TILE_INDEX_SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise InputMissing(f"{where} is no tile index: {error}") from error


def training_rows(table: pa.Table, holdout_fold: int) -> NDArray[np.int64]:
    """Row numbers of the tiles that may train while `holdout_fold` is held out; -1 holds out none.

    Not those of the fold itself; and where a slide has tiles on both sides (spatial folds), only
    those at least one tile away from every held-out tile of that slide: neighbours share tissue.
    Distance is between rectangles, Chebyshev; one tile is the longer side of the larger of the two.
    """
    folds = _numbers(table, "fold")
    keep = folds != holdout_fold
    slides = np.asarray(table.column("slide").to_pylist(), dtype=object)
    boxes = np.stack([_numbers(table, name) for name in ("x", "y", "width", "height")], axis=1)
    for slide in set(slides[keep]) & set(slides[~keep]):
        here = slides == slide
        candidates = np.flatnonzero(here & keep)
        near = _near(boxes[candidates], boxes[here & (folds == holdout_fold)])
        keep[candidates[near]] = False
    return np.flatnonzero(keep).astype(np.int64)


def iter_tiles(
    store: Store, index: pa.Table, rows: Iterable[int], scratch: Path | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The chosen tiles as (row number in `index`, RGB uint8 [H, W, 3]), shard by shard.

    Each shard is read once, from a temporary copy in `scratch` (None: where the system keeps
    temporary files, which a shard of large tiles may not fit into); tiles come in the order of the
    shards, not of `rows`. Every file is checked against the index. InputMissing if a shard or tile
    is not there, DataError if a tile is damaged.
    """
    wanted: dict[tuple[str, str], dict[str, int]] = {}
    units, shards, tiles = (index.column(name) for name in ("unit_key", "shard", "tile"))
    for row in map(int, rows):
        place = (units[row].as_py(), shards[row].as_py())
        wanted.setdefault(place, {})[tiles[row].as_py()] = row
    digests = index.column("digest")
    with tempfile.TemporaryDirectory(prefix="hdgan-tiles-", dir=scratch) as folder:
        path = Path(folder, "shard.tar")
        for (unit, shard), names in sorted(wanted.items()):
            open_unit(store, unit).fetch(shard, path)
            left = dict(names)
            for name, data in read_shard(path):
                found = left.pop(name.rpartition(".")[0], None)
                if found is not None:
                    yield found, decode_tile(data, digests[found].as_py(), f"{shard}, {name}")
            if left:
                raise InputMissing(
                    f"{shard} of slide-tiles/{unit} lacks {len(left)} tiles the index names, "
                    f"such as {next(iter(left))}"
                )


def open_unit(store: Store, unit: str) -> Artifact:
    """The tiles of one slide, by the index's `unit_key`. InputMissing if they are not there."""
    artifact = open_artifact(store, "slide-tiles", unit)
    if artifact is None:
        raise InputMissing(
            f"artifacts/slide-tiles/{unit} in {store.uri} is not there: delete the "
            "manifest of the tiler's artifact and run again"
        )
    return artifact


def decode_tile(data: bytes, digest: str, where: str) -> NDArray[np.uint8]:
    """The pixels of a tile's file, RGB uint8 [H, W, 3], checked against its SHA-256 in the index.

    Raises DataError, which names `where`, if it is another file or no RGB picture.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise DataError(f"{where}: not the tile the index names (another SHA-256)")
    try:
        with open_picture(data, formats=("PNG", "JPEG"), max_pixels=MAX_TILE_PIXELS) as image:
            if image.mode != "RGB":
                raise DataError(f"{where}: a tile is RGB, this one is {image.mode}")
            return np.array(image, dtype=np.uint8)
    except PictureError as error:
        raise DataError(f"{where}: cannot be decoded: {error}") from error


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(table.column(name).to_numpy(), dtype=np.int64)


def _near(boxes: NDArray[np.int64], holdout: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each box (x, y, width, height), whether some held-out box is less than a tile away.

    Corners nearer than that lie in the same or in neighbouring cells of a grid, so only those are
    compared: work grows with the number of tiles, not with its square.
    """
    if min(boxes[:, 2:].min(), holdout[:, 2:].min()) < 1:
        raise RequestError("the tile index has a tile without extent: make the tiles again")
    longest = int(max(boxes[:, 2:].max(), holdout[:, 2:].max()))
    cell = 2 * longest
    occupied: dict[tuple[int, int], list[int]] = {}
    for number, (column, row) in enumerate((holdout[:, :2] // cell).tolist()):
        occupied.setdefault((column, row), []).append(number)
    members: dict[tuple[int, int], list[int]] = {}
    for number, (column, row) in enumerate((boxes[:, :2] // cell).tolist()):
        members.setdefault((column, row), []).append(number)
    near = np.zeros(len(boxes), dtype=np.bool_)
    for (column, row), inside in members.items():
        around = [
            number
            for dx in (-1, 0, 1)
            for dy in (-1, 0, 1)
            for number in occupied.get((column + dx, row + dy), ())
        ]
        if around:
            near[inside] = _pairwise_near(boxes[inside], holdout[around])
    return near


def _pairwise_near(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
    left, right = a[:, None], b[None]
    extent = np.maximum(left[..., 2:].max(-1), right[..., 2:].max(-1))
    gap = np.maximum(
        right[..., :2] - (left[..., :2] + left[..., 2:]),
        left[..., :2] - (right[..., :2] + right[..., 2:]),
    )
    near: NDArray[np.bool_] = (np.maximum(gap, 0).max(-1) < extent).any(1)
    return near
