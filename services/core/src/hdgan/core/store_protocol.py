"""What a store is: the operations that `file://` and `s3://` share, and what a key may look like.

An object appears whole or not at all. Listing may be late or incomplete and is never trusted for
correctness; whoever needs certainty reads a key whose name he knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from hdgan.core.atomic_file import TEMPORARY
from hdgan.core.errors import StoreError

MAX_KEY = 800
PROBE_PREFIX = ".hdgan-probe"


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows of an object without reading it."""

    size: int
    """Bytes."""
    etag: str
    """Changes when the content changes; otherwise opaque."""
    modified: datetime
    """Time of the last write, in UTC."""


@dataclass(frozen=True)
class Content:
    """What was copied to or from a store, computed from the very bytes that were copied."""

    size: int
    """Bytes."""
    sha256: str
    """Hex."""


@dataclass(frozen=True)
class Unfinished:
    """Something of a write or a probe that nobody has finished: its process was killed, or is still
    at it. Only time tells: what was begun or touched long ago is garbage."""

    name: str
    """What and where it is, for people."""
    started: datetime
    """When it was begun or last written to, by the server's clock, in UTC."""
    size: int | None
    """Bytes; None where the store does not tell."""
    handle: tuple[str, ...] = field(default=(), repr=False)
    """How the store finds it again; for `remove_unfinished` alone."""


class Store(Protocol):
    """Objects under keys. Every method raises StoreError; reading an absent key KeyMissing."""

    @property
    def uri(self) -> str:
        """The store's own URI, without a trailing slash."""

    def get(self, key: str) -> bytes:
        """The object's bytes, all in memory: for small objects."""

    def get_to(self, key: str, path: Path, *, sha256: str | None = None) -> Content:
        """Stream the object to a file, which appears whole or not at all; returns what it holds.

        sha256  hex digest it must have: WrongContent, and no file, if it has another. None: any
        NoSpace before anything is written if it does not fit.
        """

    def sha256(self, key: str) -> str:
        """Hex SHA-256 of the object's bytes, computed while streaming them."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object."""

    def put_from(self, key: str, path: Path) -> Content:
        """Write or replace an object with the content of a file, streamed; returns what was
        written. StoreError, and no object, if the file changes meanwhile."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless one is there; False if one is.

        After a network error that was retried, one with the same bytes counts as our own. Where the
        store has no conditional write (S3 servers that ignore If-None-Match, disks without hard
        links) two writers at the same moment may both get True: read back what counts.
        """

    def head(self, key: str) -> ObjectInfo | None:
        """Size, etag and time of an object, or None."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix` ("" for all), in lexicographic order. Not authoritative."""

    def delete(self, key: str) -> None:
        """Remove an object; it is no error if there is none."""

    def url(self, key: str) -> str:
        """The object's URI, for people and logs."""

    def probe(self) -> None:
        """Write, read and delete a small object. StoreError says what to do if that fails."""

    def now(self) -> datetime:
        """The time by the clock that `ObjectInfo.modified` and `Unfinished.started` are told by,
        in UTC, perhaps up to a second late. Writes and deletes a tiny object."""

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """What writes and probes that were cut off have left, and those under way, of keys that
        begin with `prefix` (of files: in its folder). Not authoritative, as `list` is not."""

    def remove_unfinished(self, one: Unfinished) -> None:
        """Remove what `unfinished` has found; no error if it is gone. A write that is still under
        way fails by it, and leaves nothing."""


def check_key(key: str) -> str:
    """The key itself if it is a valid one: relative, `/` between non-empty parts, no `..`."""
    reason = None
    if not key:
        reason = "it is empty"
    elif len(key.encode("utf-8", "surrogatepass")) > MAX_KEY:
        reason = f"it is longer than {MAX_KEY} bytes"
    elif key.startswith("/"):
        reason = "it begins with /"
    elif "\\" in key or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", key):
        reason = "it contains a backslash or a control character"
    else:
        for part in key.split("/"):
            if part in ("", ".", ".."):
                reason = f"it has the part {part!r}"
            elif part.startswith(TEMPORARY):
                reason = f"names that begin with {TEMPORARY} are reserved"
            elif len(part.encode()) > 255:
                reason = "one of its parts is longer than 255 bytes"
    if reason is not None:
        raise StoreError(
            f"{key[:100]!r} is not a valid key: {reason}. Use names separated by /, such as"
            " a/b.json"
        )
    return key
