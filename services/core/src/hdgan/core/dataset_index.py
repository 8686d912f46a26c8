"""What a dataset says it holds: the pairs of `index.parquet` and the classes of `classes.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from hdgan.core.dataset_source import CLASSES, INDEX, is_shard_name
from hdgan.core.errors import DataError
from hdgan.core.json_documents import parse_object, reason
from hdgan.core.masks import UNLABELLED
from hdgan.core.parquet_tables import ParquetError, read_parquet
from hdgan.core.sections import ClassConfig

DIGESTS = {
    "image_sha256": ".png",
    "mask_sha256": ".mask.png",
    "uncertainty_sha256": ".uncertainty.png",
}
"""Columns with the SHA-256 of a pair's files, by what follows the id in the file's name."""

MAX_CLASSES_BYTES = 1 << 20

_TEXTS = ("id", "shard")
_NUMBERS = ("width", "height", "mpp")
_COLUMNS = (*_TEXTS, *_NUMBERS, *DIGESTS)
_ID = r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,79}\z"


@dataclass(frozen=True)
class Index:
    """The pairs of a dataset, kept as a table; every id is a plain file name and there once."""

    table: Any

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def columns(self) -> list[str]:
        """The columns that have a value for every pair."""
        names = self.table.column_names
        return [name for name in names if not self.table.column(name).null_count]

    def shards(self) -> list[str]:
        """Names of the shards, sorted."""
        return sorted(pc.unique(self.table.column("shard")).to_pylist())

    def ids(self, shard: str) -> list[str]:
        """Ids of a shard's pairs."""
        chosen = self.table.filter(pc.equal(self.table.column("shard"), shard))
        return list(chosen.column("id").to_pylist())

    def rows(self, shard: str) -> dict[str, dict[str, Any]]:
        """Rows of a shard's pairs by id."""
        chosen = self.table.filter(pc.equal(self.table.column("shard"), shard))
        return {row["id"]: row for row in chosen.to_pylist()}


def read_index(data: bytes, uri: str) -> Index:
    """The bytes of `index.parquet` as an index; DataError says what is wrong with them.

    Ids that differ only in case are refused: as file names some systems take them for one.
    """
    where = f"{uri}/{INDEX}"
    try:
        table = read_parquet(data, _COLUMNS)
    except ParquetError as error:
        raise DataError(f"{where}: {error}") from error
    for name in _TEXTS:
        if name not in table.column_names or not pa.types.is_string(table.schema.field(name).type):
            raise DataError(f"{where}: has no column {name!r} of texts")
        if table.column(name).null_count:
            raise DataError(f"{where}: column {name!r} has empty places")
    for field in table.schema:
        of, allowed = ("numbers", _is_number) if field.name in _NUMBERS else ("texts", _is_text)
        if not (allowed(field.type) or pa.types.is_null(field.type)):
            raise DataError(f"{where}: column {field.name!r} is of {field.type}, not of {of}")
    for name in _bad_ids(table.column("id")):
        raise DataError(
            f"{where}: id {name[:100]!r}: an id has up to 80 letters, digits, - and _, and none "
            "of the marks first"
        )
    for name in _repeated(table.column("id")):
        raise DataError(f"{where}: id {name} is there twice (small and large letters are one)")
    index = Index(table)
    for shard in index.shards():
        if not is_shard_name(shard):
            name = index.ids(shard)[0]
            raise DataError(f"{where}: id {name}: {shard!r} is no name of a shard")
    return index


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind))


def _bad_ids(ids: Any) -> Iterator[str]:
    good = pc.match_substring_regex(ids, _ID)
    yield from ids.filter(pc.invert(good)).to_pylist()


def _repeated(ids: Any) -> Iterator[str]:
    lowered = pc.ascii_lower(ids)
    if pc.count_distinct(lowered).as_py() == len(ids):
        return
    for item in pc.value_counts(lowered).to_pylist():
        if item["counts"] > 1:
            yield item["values"]


def read_classes(data: bytes, uri: str) -> list[ClassConfig]:
    """The bytes of `classes.json` as classes, in order: a class's index is its value in masks."""
    where = f"{uri}/{CLASSES}"
    try:
        items = parse_object(data, max_bytes=MAX_CLASSES_BYTES).get("classes")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise DataError(f"{where}: has no list `classes` of objects with name and color")
        if [item.pop("index", place) for place, item in enumerate(items)] != [*range(len(items))]:
            raise DataError(f"{where}: the classes are not numbered 0, 1, 2, ... in their order")
        classes = TypeAdapter(list[ClassConfig]).validate_python(items)
    except ValueError as error:
        raise DataError(f"{where}: is no list of classes: {reason(error)}") from error
    if not 2 <= len(classes) < UNLABELLED:
        raise DataError(f"{where}: {len(classes)} classes")
    return classes
