"""Decides about exports into plain folders: where files go, what a folder's marker says, what is
left to do and how much room that takes. Touches nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hdgan.core.dataset_index import DIGESTS
from hdgan.core.errors import RequestError
from hdgan.core.json_documents import parse_object

MARKER = ".hdgan-export.json"
"""Says which dataset a folder is an export of, and which of its shards are all there."""

FOLDERS = {
    ".json": "metadata/{id}.json",
    ".mask.png": "masks/{id}.png",
    ".png": "images/{id}.png",
    ".uncertainty.png": "uncertainty/{id}.png",
}
"""Where a pair's files go, by what follows the id in their names in the shard. The names are the
same in all folders, as programs that read pairs from two folders expect."""

BLOCK = 4096
"""What the end of a file wastes at most on usual file systems."""

BESIDE_FILES = 8
"""More than the files beside the shards, the marker and a marker's next version are."""


@dataclass(frozen=True)
class Marker:
    """What is known about an export.

    digest    what tells its dataset from others, 64 hex digits
    shards    bytes of all files of a shard, for each shard whose files are all there
    complete  whether all shards are
    """

    digest: str
    shards: dict[str, int]
    complete: bool = False

    def with_shard(self, name: str, size: int) -> Marker:
        return replace(self, shards=self.shards | {name: size}, complete=False)

    def without(self, names: Iterable[str]) -> Marker:
        left = set(names)
        kept = {name: size for name, size in self.shards.items() if name not in left}
        return replace(self, shards=kept, complete=False)

    def whole(self) -> Marker:
        return replace(self, complete=True)

    def to_json(self) -> bytes:
        document = {"dataset": self.digest, "complete": self.complete, "shards": self.shards}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class ShardState:
    """A shard of the dataset, and which of its files are in the folder.

    size     bytes of the shard
    files    how many files it holds
    present  how many of them are there
    bytes    how many bytes those have
    """

    name: str
    size: int
    files: int
    present: int
    bytes: int


def marker_of(data: bytes | None, names: Iterable[str], digest: str, folder: str) -> Marker:
    """The marker of a folder that may be written to.

    data    the content of its marker, None if it has none
    names   all that lies in the folder, without unfinished files
    digest  that of the dataset to be exported
    RequestError if the folder holds something else.
    """
    if data is None:
        others = sorted(names)
        if others:
            raise RequestError(
                f"{folder} is not empty (it has {others[0]!r}) and is no export: name a folder "
                "that is empty or not there yet"
            )
        return Marker(digest, {})
    marker = _parsed(data)
    if marker is None:
        raise RequestError(
            f"{folder}/{MARKER} is damaged: name another folder, or remove this one and all that "
            "is in it"
        )
    if marker.digest != digest:
        raise RequestError(
            f"{folder} is an export of another dataset ({marker.digest[:12]}, not {digest[:12]}): "
            "name another folder, or remove this one and all that is in it"
        )
    return marker


def _parsed(data: bytes) -> Marker | None:
    try:
        document = parse_object(data)
        digest, complete, shards = document["dataset"], document["complete"], document["shards"]
        if not isinstance(digest, str) or not isinstance(complete, bool):
            return None
        if any(type(size) is not int for size in shards.values()):
            return None
        return Marker(digest, dict(shards), complete)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def unfinished(marker: Marker, states: Sequence[ShardState]) -> list[ShardState]:
    """The shards that are not all there, by what the marker says and the folder shows."""
    return [
        one for one in states if one.present < one.files or marker.shards.get(one.name) != one.bytes
    ]


def needed_bytes(todo: Sequence[ShardState], beside: int, *, copies: bool) -> int:
    """Room that an export needs at most, in bytes.

    todo    the shards to be exported
    beside  bytes of the files beside the shards
    copies  whether each shard is copied to the same disk while it is read
    """
    if not todo and not beside:
        return 0
    files = sum(max(0, one.size - one.bytes) for one in todo)
    ends = BLOCK * sum(one.files - one.present for one in todo)
    copy = max((one.size for one in todo), default=0) if copies else 0
    return files + ends + copy + beside + BLOCK * BESIDE_FILES


def check_vouched(columns: Sequence[str], vouched: bool, uri: str) -> None:
    """RequestError if nothing says what the bytes of a dataset's pictures must be.

    columns  columns of its index that have a value for every pair
    vouched  whether a manifest or a note lists its files with their digests
    """
    lacking = [name for name in DIGESTS if name not in columns]
    if lacking and not vouched:
        raise RequestError(
            f"{uri}/index.parquet has no {lacking[0]} for every pair, so nothing says what the "
            "files must be: "
            "export the artifact in the store (<store>/artifacts/dataset/<key>)"
        )
