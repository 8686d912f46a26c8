"""Opens the store a URI names; the rest of the code imports everything about stores from here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from hdgan.core.errors import KeyMissing, NoSpace, StoreError, WrongContent
from hdgan.core.store_file import FileStore
from hdgan.core.store_protocol import Content, ObjectInfo, Store, Unfinished, check_key
from hdgan.core.uris import file_path, is_path, split_uri

if TYPE_CHECKING:
    from hdgan.core.store_s3 import S3Connection

__all__ = [
    "Content",
    "KeyMissing",
    "NoSpace",
    "ObjectInfo",
    "Store",
    "StoreError",
    "Unfinished",
    "WrongContent",
    "check_key",
    "connected",
    "open_store",
]


_connection: ContextVar[S3Connection | None] = ContextVar("connection", default=None)


@contextmanager
def connected(connection: S3Connection) -> Iterator[None]:
    """Within, this thread opens S3 stores by `connection` instead of the AWS_* settings."""
    token = _connection.set(connection)
    try:
        yield
    finally:
        _connection.reset(token)


def open_store(uri: str) -> Store:
    """The store at `file:///path` (or a plain path) or `s3://bucket/prefix`. Does no I/O yet."""
    if is_path(uri):
        if not uri:
            raise StoreError("the store's URI is empty: use file:///path or s3://bucket/prefix")
        return FileStore(Path(uri))
    parts = split_uri(uri)
    if parts.query or parts.fragment:
        raise StoreError(f"{uri}: ? and # have no meaning in a store URI; remove them")
    if parts.scheme == "file":
        return FileStore(file_path(parts))
    if parts.scheme == "s3":
        from hdgan.core.store_s3 import S3Store  # boto3 takes half a second: only who needs it

        # Raw: S3 URIs have no escapes.
        return S3Store(parts.netloc, parts.path.strip("/"), _connection.get())
    raise StoreError(f"{uri}: unknown kind of store; use file:///path or s3://bucket/prefix")
