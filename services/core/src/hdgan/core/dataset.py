"""Checks a dataset the way its user reads it: every shard, every pair, every pixel of masks."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from hdgan.core.artifact import open_artifact
from hdgan.core.errors import DataError, HdganError, InputMissing, RequestError
from hdgan.core.masks import UNLABELLED, decode_mask, read_palette
from hdgan.core.sections import ClassConfig
from hdgan.core.store import Store, open_store
from hdgan.core.tar_shards import read_shard

MEMBERS = (".png", ".mask.png", ".uncertainty.png", ".json")
MAX_TABLE_BYTES = 1 << 30
MAX_JSON_BYTES = 1 << 20
MAX_PIXELS = 8192 * 8192

_ARTIFACT = re.compile(r"^(?P<store>.+)/artifacts/dataset/(?P<key>[0-9a-f]{64})$")
_SHARD = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\.tar$")
_DIGEST_COLUMNS = {"image_sha256": ".png", "mask_sha256": ".mask.png"}


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
    source = _open(uri)
    classes = _classes(source)
    rows = _index(source)
    if len(rows) < min_pairs:
        raise DataError(f"{uri}: {len(rows)} pairs, at least {min_pairs} are asked for")
    by_shard: dict[str, dict[str, dict[str, Any]]] = {}
    seen: set[str] = set()
    for row in rows:
        name, shard = row["id"], row["shard"]
        if name in seen:
            raise DataError(f"{uri}/index.parquet: id {name} is there twice")
        if not _SHARD.match(shard):
            raise DataError(f"{uri}/index.parquet: id {name}: {shard!r} is no name of a shard")
        seen.add(name)
        by_shard.setdefault(shard, {})[name] = row
    source.check_shards(set(by_shard))
    counts = np.zeros(len(classes), dtype=np.int64)
    pixels = 0
    sizes: Counter[tuple[int, int]] = Counter()
    for done, (shard, expected) in enumerate(sorted(by_shard.items()), start=1):
        with source.file(shard) as path:
            for size, found in _check_shard(path, f"{uri}/{shard}", expected, classes):
                sizes[size] += 1
                counts += found
                pixels += size[0] * size[1]
        if progress is not None:
            progress(done, len(by_shard))
    total = int(counts.sum())
    return DatasetSummary(
        uri=uri,
        pairs=len(rows),
        shards=len(by_shard),
        classes=tuple(item.name for item in classes),
        fractions=tuple(float(n / total) if total else 0.0 for n in counts),
        ignored=1 - total / pixels if pixels else 0.0,
        sizes=tuple(sorted(sizes)),
    )


class _Source:
    """The files of a dataset, wherever it lies."""

    def __init__(self, uri: str, store: Store) -> None:
        self.uri = uri
        self._store = store

    def read(self, name: str, limit: int) -> bytes:
        info = self._store.head(name)
        if info is None:
            raise RequestError(
                f"{self.uri}: there is no {name}, so this is no dataset; name the folder that "
                "`hdgan run --dataset` filled"
            )
        if info.size > limit:
            raise DataError(f"{self.uri}/{name}: {info.size} bytes; at most {limit} are read")
        return self._store.get(name)

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A local copy of a file, or the file itself where it is local anyway."""
        if self._store.uri.startswith("file://"):
            yield Path(unquote(urlsplit(self._store.url(name)).path))
            return
        with tempfile.TemporaryDirectory(prefix="hdgan-check-") as folder:
            path = Path(folder, name)
            try:
                self._store.get_to(name, path)
            except InputMissing:
                raise
            except HdganError as error:
                raise DataError(f"{self.uri}/{name}: cannot be read: {error}") from error
            yield path

    def check_shards(self, indexed: set[str]) -> None:
        """DataError if a shard is missing, or lies there and the index does not know it."""
        for name in sorted(indexed):
            if self._store.head(name) is None:
                raise DataError(f"{self.uri}/{name}: the index names this shard, it is not there")
        for name in self._store.list(""):
            if _SHARD.match(name) and name not in indexed:
                raise DataError(
                    f"{self.uri}/{name}: a shard the index does not know: it is of another "
                    "dataset; remove it"
                )


class _ArtifactSource(_Source):
    """The same, of a dataset artifact in a store."""

    def __init__(self, uri: str, store: Store, key: str) -> None:
        super().__init__(uri, store)
        artifact = open_artifact(store, "dataset", key)
        if artifact is None:
            raise RequestError(f"{uri}: there is no such dataset in {store.uri}")
        self._artifact = artifact

    def read(self, name: str, limit: int) -> bytes:
        size = self._artifact.entry(name).size
        if size > limit:
            raise DataError(f"{self.uri}/{name}: {size} bytes; at most {limit} are read")
        return self._artifact.read(name)

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="hdgan-check-") as folder:
            yield self._artifact.fetch(name, Path(folder, name))

    def check_shards(self, indexed: set[str]) -> None:
        shards = {name for name in self._artifact.names() if _SHARD.match(name)}
        for name in sorted(shards ^ indexed):
            raise DataError(f"{self.uri}/{name}: index and manifest disagree about this shard")


def _open(uri: str) -> _Source:
    uri = uri.rstrip("/") or "/"
    found = _ARTIFACT.match(uri)
    if found:
        return _ArtifactSource(uri, open_store(found["store"]), found["key"])
    if "://" not in uri:
        folder = Path(uri).absolute()
        if not folder.is_dir():
            raise RequestError(f"{uri}: there is no such folder")
        return _Source(uri, open_store(folder.as_uri()))
    return _Source(uri, open_store(uri))


def _classes(source: _Source) -> list[ClassConfig]:
    where = f"{source.uri}/classes.json"
    try:
        document = json.loads(source.read("classes.json", MAX_JSON_BYTES))
        items = document["classes"]
        if [item.pop("index", place) for place, item in enumerate(items)] != [*range(len(items))]:
            raise DataError(f"{where}: the classes are not numbered 0, 1, 2, ... in their order")
        classes = TypeAdapter(list[ClassConfig]).validate_python(items)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "wrong fields" if isinstance(error, ValidationError) else str(error)
        raise DataError(f"{where}: is no list of classes: {reason}") from error
    if not 2 <= len(classes) < UNLABELLED:
        raise DataError(f"{where}: {len(classes)} classes")
    return classes


def _index(source: _Source) -> list[dict[str, Any]]:
    where = f"{source.uri}/index.parquet"
    try:
        table = pq.read_table(pa.BufferReader(source.read("index.parquet", MAX_TABLE_BYTES)))
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{where}: is no parquet table: {error}") from error
    for name in ("id", "shard"):
        if name not in table.column_names or not pa.types.is_string(table.schema.field(name).type):
            raise DataError(f"{where}: has no column {name!r} of texts")
        if table.column(name).null_count:
            raise DataError(f"{where}: column {name!r} has empty places")
    wanted = ["id", "shard", "width", "height", "mpp", *_DIGEST_COLUMNS]
    chosen = [name for name in wanted if name in table.column_names]
    rows: list[dict[str, Any]] = table.select(chosen).to_pylist()
    return rows


def _check_shard(
    path: Path, where: str, expected: dict[str, dict[str, Any]], classes: list[ClassConfig]
) -> Iterator[tuple[tuple[int, int], np.ndarray[Any, np.dtype[np.int64]]]]:
    """Size and class counts of each pair of a shard, which must hold exactly the expected ids."""
    missing = dict(expected)
    for name, members in _pairs(path, where):
        at = f"{where}, id {name}"
        row = missing.pop(name, None)
        if row is None:
            known = "is there twice" if name in expected else "is not in the index"
            raise DataError(f"{at}: {known}")
        lacking = [suffix for suffix in MEMBERS if suffix not in members]
        if lacking:
            raise DataError(f"{at}: lacks {', '.join(name + suffix for suffix in lacking)}")
        yield _check_pair(at, name, members, row, classes)
    if missing:
        raise DataError(
            f"{where}, id {next(iter(missing))}: the index names it, the shard does not hold it"
            + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
        )


def _pairs(path: Path, where: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Members of a shard by id; those of one id lie side by side, as WebDataset wants them."""
    current, members = "", dict[str, bytes]()
    for member, data in read_shard(path):
        name, dot, rest = member.partition(".")
        if dot + rest not in MEMBERS:
            raise DataError(f"{where}, member {member}: does not belong into a dataset")
        if name != current and members:
            yield current, members
            members = {}
        current = name
        members[dot + rest] = data
    if members:
        yield current, members


def _check_pair(
    at: str,
    name: str,
    members: dict[str, bytes],
    row: dict[str, Any],
    classes: list[ClassConfig],
) -> tuple[tuple[int, int], np.ndarray[Any, np.dtype[np.int64]]]:
    for column, suffix in _DIGEST_COLUMNS.items():
        digest = row.get(column)
        if digest is not None and hashlib.sha256(members[suffix]).hexdigest() != digest:
            raise DataError(f"{at}: {name}{suffix} is not the file the index names (SHA-256)")
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
    _check_description(at, name, members[".json"], row)
    counts = np.bincount(mask_HW.ravel(), minlength=256)[: len(classes)]
    return size, counts.astype(np.int64)


def _image_size(data: bytes, at: str, modes: Iterable[str]) -> tuple[int, int]:
    """(width, height) of a PNG that decodes to the end and has one of the modes."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{at}: {image.width} x {image.height} pixels are too many")
            image.load()
            if image.mode not in modes:
                raise DataError(f"{at}: has the mode {image.mode}, not {' or '.join(modes)}")
            return image.width, image.height
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{at}: is damaged: {error}") from error


def _check_description(at: str, name: str, data: bytes, row: dict[str, Any]) -> None:
    try:
        if len(data) > MAX_JSON_BYTES:
            raise ValueError(f"{len(data)} bytes")
        document = json.loads(data)
    except ValueError as error:
        raise DataError(f"{at}: {name}.json cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{at}: {name}.json is no JSON object")
    if document.get("id", name) != name:
        raise DataError(f"{at}: {name}.json is about id {document['id']}")
    if "mpp" in row and document.get("mpp") != row["mpp"]:
        raise DataError(f"{at}: {name}.json says mpp {document.get('mpp')}, the index {row['mpp']}")
