"""Reads the pairs of a shard, each compared with its row of the index before it is handed out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.core.dataset_index import DIGESTS
from hdgan.core.errors import DataError
from hdgan.core.json_documents import JsonError, parse_json
from hdgan.core.tar_shards import read_shard

MEMBERS = (".png", ".mask.png", ".uncertainty.png", ".json")
"""What a pair consists of: what follows its id in the names of its files."""

MAX_MEMBER_BYTES = 1 << 28
"""More than an image of 8192 x 8192 pixels takes that cannot be compressed."""

MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredPair:
    """One pair as it lies in its shard.

    where    names shard and id in errors
    members  content by what follows the id in the file's name
    row      its row of the index
    """

    id: str
    where: str
    members: dict[str, bytes]
    row: dict[str, Any]


def read_pairs(
    path: Path, where: str, expected: Mapping[str, dict[str, Any]]
) -> Iterator[StoredPair]:
    """The pairs of a shard, one at a time; it must hold exactly those of the expected rows.

    DataError names the shard and the id of whatever is wrong: a member that does not belong there,
    a pair too many or too few, a file of another SHA-256, a JSON about something else.
    """
    missing = dict(expected)
    for name, members in _grouped(path, where):
        at = f"{where}, id {name}"
        row = missing.pop(name, None)
        if row is None:
            known = "is there twice" if name in expected else "is not in the index"
            raise DataError(f"{at}: {known}")
        lacking = [suffix for suffix in MEMBERS if suffix not in members]
        if lacking:
            raise DataError(f"{at}: lacks {', '.join(name + suffix for suffix in lacking)}")
        for column, suffix in DIGESTS.items():
            digest = row.get(column)
            if digest is not None and hashlib.sha256(members[suffix]).hexdigest() != digest:
                raise DataError(f"{at}: {name}{suffix} is not the file the index names (SHA-256)")
        _check_description(at, name, members[".json"], row)
        yield StoredPair(name, at, members, row)
    if missing:
        raise DataError(
            f"{where}, id {next(iter(missing))}: the index names it, the shard does not hold it"
            + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "")
        )


def _grouped(path: Path, where: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Members of a shard by id; those of one id lie side by side, as WebDataset wants them."""
    current, members = "", dict[str, bytes]()
    for member, data in read_shard(path, max_member=MAX_MEMBER_BYTES):
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


def _check_description(at: str, name: str, data: bytes, row: dict[str, Any]) -> None:
    try:
        document = parse_json(data, max_bytes=MAX_JSON_BYTES)
    except JsonError as error:
        raise DataError(f"{at}: {name}.json cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{at}: {name}.json is no JSON object")
    if document.get("id", name) != name:
        raise DataError(f"{at}: {name}.json is about id {str(document['id'])[:100]}")
    if "mpp" in row and document.get("mpp") != row["mpp"]:
        said = str(document.get("mpp"))[:40]
        raise DataError(f"{at}: {name}.json says mpp {said}, the index {row['mpp']}")
