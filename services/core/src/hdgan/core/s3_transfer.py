"""Large objects of an S3 server, in parts that are read or written in parallel, in order and in
bounded memory."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from botocore import exceptions as boto_errors

from hdgan.core.s3_connection import S3Server
from hdgan.core.s3_errors import ERRORS, EXISTS, BrokenAnswer, code_of, taken
from hdgan.core.steady_file import SteadyFile
from hdgan.core.store_protocol import Content
from hdgan.core.telemetry.store_requests import transferred

T = TypeVar("T")

MOST_PARTS: Final = 10_000
"""That S3 lets an upload have."""
_MIB = 1 << 20
_CHUNK = 1 << 20
_CHECKSUM = re.compile(r"^Checksum[A-Z0-9]+$")
_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+)$")


@dataclass(frozen=True)
class Parts:
    """How an object is divided. At most `part_bytes * (at_once + 2)` are in memory at a time."""

    part_bytes: int = 8 << 20
    """At least 5 MiB, as S3 demands. Uploads above 10 000 of them have larger ones."""
    at_once: int = 8
    """Parts that are on their way at the same time."""

    def size_for(self, size: int) -> int:
        """Bytes of an upload's parts: as few as `MOST_PARTS` allow, in whole MiB."""
        least = -(-size // MOST_PARTS)
        return max(self.part_bytes, -(-least // _MIB) * _MIB)


class _Buffers:
    """Memory of parts, used again and again: fresh memory has to be cleared by the kernel first,
    and what is freed in other threads is not given back to it."""

    def __init__(self) -> None:
        self._spare: deque[bytearray] = deque()

    def take(self, length: int) -> bytearray:
        """At least so many bytes, of any content."""
        try:
            buffer = self._spare.pop()
        except IndexError:
            return bytearray(length)
        return buffer if len(buffer) >= length else bytearray(length)

    def give_back(self, buffer: bytearray) -> None:
        self._spare.append(buffer)


class Changed(Exception):
    """The object was replaced or deleted while it was read."""


@dataclass(frozen=True)
class _Version:
    """Which content of an object is read."""

    size: int
    etag: str


class _Range:
    """A range of an object, gathered from as many answers as it takes."""

    def __init__(
        self,
        bucket: str,
        name: str,
        first: int,
        length: int,
        version: _Version | None,
        buffers: _Buffers,
    ) -> None:
        """version: None: whatever is there; `self.version` then says what was."""
        self._where = {"Bucket": bucket, "Key": name}
        self._first = first
        self._length = length
        self._buffers = buffers
        self._buffer: bytearray | None = None
        self.version = version
        self._got = 0

    @property
    def data(self) -> memoryview:
        """All of it, until `release`."""
        return memoryview(self._buffer or b"")[: self._length]

    def release(self) -> None:
        """Nobody looks at its data any more."""
        if self._buffer is not None:
            self._buffers.give_back(self._buffer)
            self._buffer = None

    def attempt(self, client: Any, _: int) -> None:
        """Ask for what is still missing, and keep what comes even if it breaks off."""
        position, last = self._first + self._got, self._first + self._length - 1
        asked = {"Range": f"bytes={position}-{last}"}
        if self.version is not None:
            asked["IfMatch"] = self.version.etag
        try:
            answer = client.get_object(**self._where, **asked)
        except boto_errors.ClientError as error:
            if self.version is None and code_of(error) in ("InvalidRange", "416"):
                self._must_be_empty(client)
                return
            if self.version is not None and code_of(error) in (
                *EXISTS,
                "NoSuchKey",
                "InvalidRange",
            ):
                raise Changed from None
            raise
        with contextlib.closing(answer["Body"]) as body:
            self._check(answer, position, last)
            if self._buffer is None:
                self._buffer = self._buffers.take(self._length)
            view = self.data
            while self._got < self._length:
                read = body.readinto(view[self._got : min(self._got + _CHUNK, self._length)])
                if not read:
                    raise BrokenAnswer("a body that ended early")
                self._got += read
                transferred("read", read)

    def _check(self, answer: dict[str, Any], position: int, last: int) -> None:
        """BrokenAnswer unless it is the answer to what was asked; Changed if it is of another
        content. Learns what there is from the first one."""
        etag = str(taken(answer, "ETag"))
        length = int(taken(answer, "ContentLength"))
        told = _RANGE.match(str(answer.get("ContentRange")))
        # Without a range it is all there is: servers may say so where the range spans everything.
        begin, end, size = map(int, told.groups()) if told else (0, length - 1, length)
        if self.version is None:
            self.version = _Version(size, etag)
            self._length = min(self._length, size)
            last = min(last, size - 1)
        elif self.version != _Version(size, etag):
            raise Changed
        if (begin, end) != (position, last) or length != end - begin + 1:
            raise BrokenAnswer("another range than the one that was asked for")

    def _must_be_empty(self, client: Any) -> None:
        """What no range can be taken of."""
        found = client.head_object(**self._where)
        if int(taken(found, "ContentLength")) != 0:
            raise Changed
        self.version, self._length = _Version(0, str(taken(found, "ETag"))), 0


def read_object(
    server: S3Server,
    bucket: str,
    name: str,
    parts: Parts,
    begun: Callable[[int], None] = lambda size: None,
    keep: Callable[[int, memoryview], None] = lambda position, data: None,
) -> Generator[memoryview, None, None]:
    """The bytes of an object part by part, in order, all of one content: Changed if there is
    another one before the end. What breaks off is gone on with where it ended. A part is good until
    the next one is asked for.

    begun  called with the object's size in bytes before the first part
    keep   called with each part and where it begins, by several threads, in any order, before the
           part is handed out
    """
    buffers = _Buffers()
    first = _Range(bucket, name, 0, parts.part_bytes, None, buffers)
    server.request(first.attempt)
    version = first.version
    assert version is not None
    begun(version.size)
    keep(0, first.data)
    yield first.data
    first.release()

    def read(cancelled: threading.Event, position: int) -> _Range:
        length = min(parts.part_bytes, version.size - position)
        part = _Range(bucket, name, position, length, version, buffers)
        server.request(part.attempt, cancelled)
        keep(position, part.data)
        return part

    rest = range(parts.part_bytes, version.size, parts.part_bytes)
    with contextlib.closing(_in_order(read, rest, parts.at_once)) as read_parts:
        for part in read_parts:
            yield part.data
            part.release()


def upload(server: S3Server, bucket: str, name: str, source: SteadyFile, parts: Parts) -> None:
    """Write an object from a file. What was begun is undone if it fails."""
    part_bytes = parts.size_for(source.size)
    if source.size <= part_bytes:
        put_object(server, bucket, name, source.read(source.size))
        return
    where = {"Bucket": bucket, "Key": name}
    where["UploadId"] = server.request(
        lambda client, _: str(taken(client.create_multipart_upload(**where), "UploadId"))
    )

    def send(cancelled: threading.Event, piece: tuple[int, bytes]) -> dict[str, Any]:
        number, data = piece
        answer = server.request(
            lambda client, _: client.upload_part(**where, PartNumber=number, Body=data), cancelled
        )
        transferred("written", len(data))
        sums = {field: answer[field] for field in answer if _CHECKSUM.match(field)}
        return {"PartNumber": number, "ETag": taken(answer, "ETag"), **sums}

    pieces = (
        (number, source.read(part_bytes)) for number in range(1, -(-source.size // part_bytes) + 1)
    )
    try:
        with contextlib.closing(_in_order(send, pieces, parts.at_once)) as sent:
            named = list(sent)
        _complete(server, where, named, Content(source.size, source.sha256))
    except BaseException:
        # Whatever it was: nobody else knows of these parts, which cost money until they are gone.
        with contextlib.suppress(*ERRORS):
            server.request(lambda client, _: client.abort_multipart_upload(**where))
        raise


def put_object(server: S3Server, bucket: str, name: str, data: bytes, **more: str) -> None:
    """Write or replace an object in one request."""
    server.request(
        lambda client, _: taken(
            client.put_object(Bucket=bucket, Key=name, Body=data, **more), "ETag"
        )
    )
    transferred("written", len(data))


def _complete(
    server: S3Server, where: dict[str, str], named: list[dict[str, Any]], content: Content
) -> None:
    """Make the parts the object. If the answer was lost the second attempt finds no upload: then
    the object tells whether the first one has made it."""

    def attempt(client: Any, failures: int) -> boto_errors.ClientError | None:
        try:
            # 200 comes before the work is done: what tells that it was done is the body.
            taken(
                client.complete_multipart_upload(**where, MultipartUpload={"Parts": named}), "ETag"
            )
        except boto_errors.ClientError as error:
            if failures == 0 or code_of(error) not in ("NoSuchUpload", "404"):
                raise
            return error
        return None

    unknown = server.request(attempt)
    if unknown is None:
        return
    found, length = hashlib.sha256(), 0
    with contextlib.suppress(Changed):
        for chunk in read_object(server, where["Bucket"], where["Key"], Parts()):
            found.update(chunk)
            length += len(chunk)
    if Content(length, found.hexdigest()) != content:
        raise unknown


def _in_order(
    work: Callable[[threading.Event, Any], T], items: Iterable[Any], at_once: int
) -> Generator[T, None, None]:
    """`work(cancelled, item)` of each item, in their order, from `at_once` threads that are at most
    two items ahead of those they have at hand. Closing it waits for work that is under way."""
    cancelled = threading.Event()
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(at_once, "s3-part")
    try:
        for item in items:
            waiting.append(pool.submit(work, cancelled, item))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        cancelled.set()
        pool.shutdown(wait=True, cancel_futures=True)
