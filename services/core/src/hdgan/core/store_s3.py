"""The store on anything that speaks S3."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from botocore import exceptions as boto_errors

from hdgan.core.atomic_file import explain_os_error, need_space, writing
from hdgan.core.errors import InternalError, StoreError, StoreUnavailable, WrongContent
from hdgan.core.s3_conditional import try_condition
from hdgan.core.s3_connection import S3Connection, S3Server
from hdgan.core.s3_errors import (
    ERRORS,
    EXISTS,
    MISSING,
    UNKNOWN_OPERATION,
    WITHOUT_REASON,
    BrokenAnswer,
    Where,
    code_of,
    explain,
    taken,
)
from hdgan.core.s3_transfer import Changed, Parts, put_object, read_object, upload
from hdgan.core.steady_file import SteadyFile
from hdgan.core.store_protocol import PROBE_PREFIX, Content, ObjectInfo, Unfinished, check_key
from hdgan.core.telemetry.store_requests import transferred

__all__ = ["S3Connection", "S3Store"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_READS: Final = 5
"""Times an object is read from its beginning, because it is replaced meanwhile."""


class S3Store:
    """A `Store` under a prefix of a bucket."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        connection: S3Connection | None = None,
        *,
        server: S3Server | None = None,
        parts: Parts | None = None,
    ) -> None:
        """server: instead of one that is reached by `connection`."""
        if not bucket:
            raise StoreError("s3:// needs a bucket: s3://bucket/prefix")
        self.bucket = bucket
        self.prefix = f"{check_key(prefix)}/" if prefix else ""
        self.server = server or S3Server(connection or S3Connection())
        self._parts = parts or Parts()
        self._conditional: bool | None = None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._name(key)}"

    def close(self) -> None:
        """Close pooled connections; the next call opens them again."""
        self.server.close()

    def get(self, key: str) -> bytes:
        name = self._name(key)

        def get() -> bytes:
            with contextlib.closing(self._read(name)) as parts:
                return b"".join(map(bytes, parts))

        return self._reading(name, get)

    def get_to(self, key: str, path: Path, *, sha256: str | None = None) -> Content:
        name = self._name(key)

        def copy() -> Content:
            digest, size = hashlib.sha256(), 0
            with writing(path) as file:
                # Parts are written by the threads that fetch them: only the digest needs an order.
                read = self._read(
                    name,
                    lambda size: need_space(path, size),
                    lambda position, part: _write_at(file.fileno(), position, part),
                )
                with contextlib.closing(read) as parts:
                    for part in parts:
                        # At once: after each update this thread would wait for all the others.
                        digest.update(part)
                        size += len(part)
                if sha256 not in (None, digest.hexdigest()):
                    raise WrongContent(f"{self.url(key)} has not the SHA-256 {sha256}")
            return Content(size, digest.hexdigest())

        try:
            return self._reading(name, copy)
        except WrongContent:
            # Something between here and there may have damaged it: seen twice, it is so.
            return self._reading(name, copy)

    def sha256(self, key: str) -> str:
        name = self._name(key)

        def digest() -> str:
            found = hashlib.sha256()
            with contextlib.closing(self._read(name)) as parts:
                for part in parts:
                    found.update(part)
            return found.hexdigest()

        return self._reading(name, digest)

    def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        with self._explained("write", name):
            put_object(self.server, self.bucket, name, data)

    def put_from(self, key: str, path: Path) -> Content:
        name = self._name(key)
        try:
            source = SteadyFile(path)
        except OSError as error:
            raise explain_os_error(error, "read", path) from error
        with source, self._explained("write", name):
            upload(self.server, self.bucket, name, source, self._parts)
            return Content(source.size, source.sha256)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        name = self._name(key)
        if self.conditional:
            with self._explained("write", name):
                return self._put_new(key, name, data)
        if self.head(key) is not None:
            return False
        self.put(key, data)
        return True

    @property
    def conditional(self) -> bool:
        """Whether the server honours If-None-Match; found out by trying, once."""
        if self._conditional is None:
            name = self._name(f"{PROBE_PREFIX}/{uuid.uuid4().hex}")
            with self._explained("write", name):
                self._conditional = try_condition(self.server, self.bucket, name)
        return self._conditional

    def head(self, key: str) -> ObjectInfo | None:
        name = self._name(key)
        with self._explained("read", name):
            return self.server.request(lambda client, _: self._head(client, name))

    def list(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        for entry in self._listed(self.prefix + prefix):
            name = str(taken(entry, "Key"))
            key = name.removeprefix(self.prefix)
            if not name.startswith(self.prefix + prefix):
                raise StoreError(
                    f"a list of {self.uri} has objects in it whose names do not begin with"
                    f" {prefix!r}: the server does not look at prefixes and cannot be used"
                )
            if not key.startswith(f"{PROBE_PREFIX}/"):
                yield key

    def delete(self, key: str) -> None:
        self._delete(self._name(key))

    def probe(self) -> None:
        key = f"{PROBE_PREFIX}/{uuid.uuid4().hex}"
        data = uuid.uuid4().bytes
        try:
            try:
                self.put(key, data)
                if self.get(key) != data:
                    raise StoreError("what was written reads back as something else")
            except BaseException:
                with contextlib.suppress(StoreError):
                    self.delete(key)
                raise
            self.delete(key)
            self._conditional = None
            _ = self.conditional
        except StoreError as error:
            raise type(error)(f"store {self.uri} cannot be used: {error}") from error

    def now(self) -> datetime:
        key = f"{PROBE_PREFIX}/{uuid.uuid4().hex}"
        try:
            self.put(key, b"1")
            info = self.head(key)
        finally:
            with contextlib.suppress(StoreError):
                self.delete(key)
        if info is None:
            raise StoreUnavailable(
                f"{self.url(key)} is not there although it has just been written; try again"
            )
        return info.modified

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        probes = f"{PROBE_PREFIX}/"
        if probes.startswith(prefix):
            yield from self._probes()
        if prefix == probes:
            return
        for entry in self._uploads(prefix):
            name, upload_id = str(taken(entry, "Key")), str(taken(entry, "UploadId"))
            if not name.startswith(self.prefix + prefix):
                continue
            parts = self._uploaded(name, upload_id)
            times = [taken(entry, "Initiated"), *(taken(one, "LastModified") for one in parts)]
            what = f"s3://{self.bucket}/{name} (upload in parts)"
            size = sum(int(taken(one, "Size")) for one in parts)
            yield Unfinished(what, max(map(_utc, times)), size, (name, upload_id))

    def _probes(self) -> Iterator[Unfinished]:
        for entry in self._listed(f"{self.prefix}{PROBE_PREFIX}/"):
            name, written = str(taken(entry, "Key")), _utc(taken(entry, "LastModified"))
            url = f"s3://{self.bucket}/{name}"
            yield Unfinished(url, written, int(taken(entry, "Size")), (name,))

    def remove_unfinished(self, one: Unfinished) -> None:
        name, *upload_id = one.handle
        if not name.startswith(self.prefix if upload_id else f"{self.prefix}{PROBE_PREFIX}/"):
            raise InternalError(f"{self.uri}: {one.name} is nothing unfinished of this store")
        if not upload_id:
            self._delete(name)
            return

        def abort(client: Any, _: int) -> None:
            try:
                client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=upload_id[0])
            except boto_errors.ClientError as error:
                if code_of(error) not in ("NoSuchUpload", "404"):
                    raise

        with self._explained("delete", name):
            self.server.request(abort)

    def _read(
        self,
        name: str,
        begun: Callable[[int], None] = lambda size: None,
        keep: Callable[[int, memoryview], None] = lambda position, data: None,
    ) -> Generator[memoryview, None, None]:
        # Explained in here: some of boto3's errors are OSErrors, which who writes files explains.
        with self._explained("read", name):
            yield from read_object(self.server, self.bucket, name, self._parts, begun, keep)

    def _reading(self, name: str, read: Callable[[], T]) -> T:
        """What `read` returns, called again if the object is another one before it ends."""
        for _ in range(MOST_READS):
            with contextlib.suppress(Changed):
                return read()
        raise StoreUnavailable(
            f"s3://{self.bucket}/{name} is replaced again and again while it is read; try again"
        )

    def _put_new(self, key: str, name: str, data: bytes) -> bool:
        def attempt(client: Any, failures: int) -> bool | None:
            try:
                taken(
                    client.put_object(Bucket=self.bucket, Key=name, Body=data, IfNoneMatch="*"),
                    "ETag",
                )
            except boto_errors.ClientError as error:
                if code_of(error) not in EXISTS:
                    raise
                return None if failures else False
            transferred("written", len(data))
            return True

        written = self.server.request(attempt)
        if written is None:
            # An attempt before may have written it, and its answer may have been lost.
            info = self.head(key)
            return info is not None and info.size == len(data) and self.get(key) == data
        return written

    def _head(self, client: Any, name: str) -> ObjectInfo | None:
        try:
            found = client.head_object(Bucket=self.bucket, Key=name)
        except boto_errors.ClientError as error:
            if code_of(error) in MISSING:
                return None
            if code_of(error) not in WITHOUT_REASON:
                raise
            # Ask in a way that the reason can be told.
            try:
                answer = client.get_object(Bucket=self.bucket, Key=name, Range="bytes=0-0")
            except boto_errors.ClientError as reason:
                if code_of(reason) in MISSING:
                    return None
                raise
            answer["Body"].close()
            raise
        etag = str(taken(found, "ETag")).strip('"')
        size = int(taken(found, "ContentLength"))
        if size < 0:
            raise BrokenAnswer("a size below 0")
        return ObjectInfo(size, etag, _utc(taken(found, "LastModified")))

    def _delete(self, name: str) -> None:
        def attempt(client: Any, _: int) -> None:
            try:
                client.delete_object(Bucket=self.bucket, Key=name)
            except boto_errors.ClientError as error:
                if code_of(error) not in MISSING:  # some servers say so
                    raise

        with self._explained("delete", name):
            self.server.request(attempt)

    def _listed(self, prefix: str) -> Iterator[dict[str, Any]]:
        def page(client: Any, _: int) -> dict[str, Any]:
            found: dict[str, Any] = client.list_objects_v2(
                Bucket=self.bucket, Prefix=prefix, **token
            )
            # An empty body or a page of some proxy would read as an empty list.
            if taken(found, "IsTruncated"):
                following = taken(found, "NextContinuationToken")
                if following == token.get("ContinuationToken"):
                    raise BrokenAnswer("a list that does not get further")
            return found

        token: dict[str, str] = {}
        while True:
            with self._explained("list", prefix):
                found = self.server.request(page)
            yield from found.get("Contents", [])
            if not found.get("IsTruncated"):
                return
            token = {"ContinuationToken": found["NextContinuationToken"]}

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Uploads in parts that have begun and not ended, of keys that begin with `prefix`."""

        def page(client: Any, _: int) -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = client.list_multipart_uploads(
                    Bucket=self.bucket, Prefix=self.prefix + prefix, **marker
                )
            except boto_errors.ClientError as error:
                if code_of(error) in UNKNOWN_OPERATION:
                    return None
                raise
            if found.get("IsTruncated"):
                following = str(taken(found, "NextKeyMarker")), found.get("NextUploadIdMarker", "")
                if following == (marker.get("KeyMarker"), marker.get("UploadIdMarker")):
                    raise BrokenAnswer("a list of uploads that does not get further")
            return found

        marker: dict[str, str] = {}
        while True:
            with self._explained("list uploads in parts to", self.prefix):
                found = self.server.request(page)
            if found is None:
                _log.warning(
                    "%s: the server cannot list uploads in parts; those that were cut off stay"
                    " until it removes them itself",
                    self.uri,
                )
                return
            yield from found.get("Uploads", [])
            if not found.get("IsTruncated"):
                return
            marker = {
                "KeyMarker": str(found.get("NextKeyMarker", "")),
                "UploadIdMarker": str(found.get("NextUploadIdMarker", "")),
            }

    def _uploaded(self, name: str, upload_id: str) -> builtins.list[dict[str, Any]]:
        """Parts of an upload; none if it has ended meanwhile."""

        def attempt(client: Any, _: int) -> builtins.list[dict[str, Any]]:
            try:
                pages = client.get_paginator("list_parts").paginate(
                    Bucket=self.bucket, Key=name, UploadId=upload_id
                )
                return [part for page in pages for part in page.get("Parts", [])]
            except boto_errors.ClientError as error:
                if code_of(error) in ("NoSuchUpload", "404"):
                    return []
                raise

        with self._explained("list the parts of", name):
            return self.server.request(attempt)

    def _name(self, key: str) -> str:
        return self.prefix + check_key(key)

    @contextlib.contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        """Errors of boto3 become StoreError."""
        try:
            yield
        except ERRORS as error:
            where = Where(action, self.bucket, name, self.server.endpoint, self.server.region)
            raise explain(error, where) from error


def _write_at(handle: int, position: int, data: memoryview) -> None:
    """Write into an open file from `position` on. OSError."""
    while data:
        written = os.pwrite(handle, data, position)
        position += written
        data = data[written:]


def _utc(time: datetime) -> datetime:
    """A server's time; one without a zone is UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
