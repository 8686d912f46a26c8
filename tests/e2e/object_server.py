"""A small S3 server for tests: one file, standard library only, objects in a folder.

    python object_server.py FOLDER [--port 9000] [--bucket NAME]

It runs in the controller's image, so that the end-to-end test needs no other one. What it knows:
objects (PUT, GET, HEAD, DELETE; Range, If-Match, If-None-Match: *), uploads in parts, and
ListObjectsV2 with prefix and pages. It checks no signature: whoever reaches it may do everything.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
CHUNK = 1 << 20
MOST_KEYS = 1000
MOST_XML = 16 << 20
BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")


class Refusal(Exception):
    """What S3 says instead of an answer."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message or code


@dataclass(frozen=True)
class Kept:
    """An object but for its bytes, which are in the file `file` of the bucket's folder."""

    key: str
    file: str
    size: int
    etag: str
    modified: str
    kind: str


class Reader(Protocol):
    """Where a request's body is read from."""

    def read(self, size: int = -1, /) -> bytes: ...
    def readline(self, size: int = -1, /) -> bytes: ...


class Buckets:
    """Buckets in a folder, as they were left when the program ran last. For several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._keys: dict[str, list[str]] = {}
        self._kept: dict[str, dict[str, Kept]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for bucket in folder.iterdir():
            documents = [json.loads(file.read_text()) for file in bucket.glob("*.json")]
            kept = {one["key"]: Kept(**one) for one in documents}
            self._kept[bucket.name] = kept
            self._keys[bucket.name] = sorted(kept, key=_order)

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._kept)

    def make(self, bucket: str) -> None:
        if not BUCKET.match(bucket):
            raise Refusal(400, "InvalidBucketName")
        with self._lock:
            if bucket not in self._kept:
                (self._folder / bucket).mkdir()
                self._kept[bucket], self._keys[bucket] = {}, []

    def folder(self, bucket: str) -> Path:
        """Where the bucket's files are; Refusal if there is no such bucket."""
        with self._lock:
            if bucket not in self._kept:
                raise Refusal(404, "NoSuchBucket", f"there is no bucket {bucket}")
        return self._folder / bucket

    def find(self, bucket: str, key: str) -> Kept:
        self.folder(bucket)
        with self._lock:
            found = self._kept[bucket].get(key)
        if found is None:
            raise Refusal(404, "NoSuchKey", f"there is no object {key}")
        return found

    def open(self, bucket: str, key: str) -> tuple[Kept, BinaryIO]:
        """An object and its bytes, as they belong together, whatever happens to the key then."""
        folder = self.folder(bucket)
        with self._lock:
            found = self._kept[bucket].get(key)
            if found is None:
                raise Refusal(404, "NoSuchKey", f"there is no object {key}")
            return found, (folder / found.file).open("rb")

    def put(self, bucket: str, key: str, part: Path, etag: str, kind: str, *, new: bool) -> Kept:
        """Make `part`, a file in the bucket's folder, the object. new: only if there is none."""
        folder = self.folder(bucket)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        kept = Kept(key, f"{uuid.uuid4().hex}.object", part.stat().st_size, etag, now, kind)
        with self._lock:
            before = self._kept[bucket].get(key)
            if before is not None and new:
                raise Refusal(412, "PreconditionFailed", f"there is an object {key}")
            part.rename(folder / kept.file)
            # Named by the key, whose own characters no file name could have.
            described = folder / f"{hashlib.sha256(_order(key)).hexdigest()}.json"
            unready = described.with_suffix(".part")
            unready.write_text(json.dumps(asdict(kept)))
            unready.replace(described)
            self._kept[bucket][key] = kept
            if before is None:
                place = bisect_left(self._keys[bucket], _order(key), key=_order)
                self._keys[bucket].insert(place, key)
            else:
                (folder / before.file).unlink()
        return kept

    def delete(self, bucket: str, key: str) -> None:
        folder = self.folder(bucket)
        with self._lock:
            found = self._kept[bucket].pop(key, None)
            if found is not None:
                self._keys[bucket].remove(key)
                (folder / f"{hashlib.sha256(_order(key)).hexdigest()}.json").unlink()
                (folder / found.file).unlink()

    def list(self, bucket: str, prefix: str, after: str, most: int) -> tuple[list[Kept], bool]:
        """At most `most` objects whose keys begin with `prefix` and come after `after`, and whether
        there are more."""
        self.folder(bucket)
        with self._lock:
            keys = self._keys[bucket]
            start = max(
                bisect_left(keys, _order(prefix), key=_order),
                bisect_right(keys, _order(after), key=_order) if after else 0,
            )
            found: list[Kept] = []
            for key in keys[start:]:
                if not key.startswith(prefix) or len(found) > most:
                    break
                found.append(self._kept[bucket][key])
        return found[:most], len(found) > most


def _order(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # Headers and body leave in two writes: the second must not wait for an acknowledgement.
    disable_nagle_algorithm = True
    timeout = 120
    buckets: Buckets

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing but refusals is worth a line."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path, errors="surrogateescape").lstrip("/").partition("/")
        query = {
            name: values[0]
            for name, values in parse_qs(parts.query, keep_blank_values=True).items()
        }
        body = self._body()
        try:
            self._dispatch(bucket, key, query, body)
        except Refusal as refusal:
            sys.stderr.write(f"{self.command} {parts.path}: {refusal.status} {refusal.code}\n")
            body.drain()
            self._refuse(refusal)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _dispatch(self, bucket: str, key: str, query: dict[str, str], body: Body) -> None:
        if "x-amz-copy-source" in self.headers:
            raise Refusal(501, "NotImplemented", "copying is not known here")
        match self.command, bool(bucket), bool(key):
            case "GET" | "HEAD", False, _:
                self._list_buckets()
            case "PUT", True, False:
                body.drain()
                self.buckets.make(bucket)
                self._answer(200)
            case "HEAD", True, False:
                self.buckets.folder(bucket)
                self._answer(200)
            case "GET", True, False if "location" in query:
                self.buckets.folder(bucket)
                self._answer(200, _xml("LocationConstraint", ""))
            case "GET", True, False if query.get("list-type") == "2":
                self._list(bucket, query)
            case "GET" | "HEAD", True, True:
                self._read(bucket, key)
            case "PUT", True, True if "partNumber" in query:
                self._put_part(bucket, query, body)
            case "PUT", True, True if not query or set(query) == {"x-id"}:
                self._put(bucket, key, body)
            case "POST", True, True if "uploads" in query:
                self._begin_upload(bucket, key)
            case "POST", True, True if "uploadId" in query:
                self._complete_upload(bucket, key, query, body)
            case "DELETE", True, True if "uploadId" in query:
                shutil.rmtree(self._upload(bucket, query), ignore_errors=True)
                self._answer(204)
            case "DELETE", True, True:
                self.buckets.delete(bucket, key)
                self._answer(204)
            case _:
                raise Refusal(501, "NotImplemented", f"{self.command} {self.path[:200]}")

    def _list_buckets(self) -> None:
        inner = "".join(f"<Bucket><Name>{name}</Name></Bucket>" for name in self.buckets.names())
        self._answer(200, _xml("ListAllMyBucketsResult", f"<Buckets>{inner}</Buckets>"))

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        if query.get("delimiter"):
            raise Refusal(501, "NotImplemented", "delimiters are not known here")
        prefix = query.get("prefix", "")
        after = query.get("start-after", "")
        if "continuation-token" in query:
            try:
                after = base64.urlsafe_b64decode(query["continuation-token"]).decode()
            except ValueError:
                raise Refusal(400, "InvalidArgument", "continuation-token") from None
        most = query.get("max-keys", str(MOST_KEYS))
        if not most.isdecimal():
            raise Refusal(400, "InvalidArgument", "max-keys")
        found, more = self.buckets.list(bucket, prefix, after, min(int(most), MOST_KEYS))
        url = query.get("encoding-type") == "url"

        def name(key: str) -> str:
            return quote(key, safe="/") if url else escape(key)

        inner = f"<Name>{bucket}</Name><Prefix>{name(prefix)}</Prefix>"
        inner += f"<MaxKeys>{most}</MaxKeys><KeyCount>{len(found)}</KeyCount>"
        inner += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        inner += "<EncodingType>url</EncodingType>" if url else ""
        if more and found:
            token = base64.urlsafe_b64encode(found[-1].key.encode()).decode()
            inner += f"<NextContinuationToken>{token}</NextContinuationToken>"
        for one in found:
            inner += f"<Contents><Key>{name(one.key)}</Key><Size>{one.size}</Size>"
            inner += f"<ETag>&quot;{one.etag}&quot;</ETag><StorageClass>STANDARD</StorageClass>"
            inner += (
                f"<LastModified>{one.modified.replace('+00:00', 'Z')}</LastModified></Contents>"
            )
        self._answer(200, _xml("ListBucketResult", inner))

    def _read(self, bucket: str, key: str) -> None:
        kept, file = self.buckets.open(bucket, key)
        with file:
            wanted = self.headers.get("If-Match")
            if wanted is not None and wanted.strip('"') not in ("*", kept.etag):
                raise Refusal(412, "PreconditionFailed", f"{key} has changed")
            span = requested_span(self.headers.get("Range"), kept.size)
            first, last = span or (0, kept.size - 1)
            self.send_response(200 if span is None else 206)
            self.send_header("ETag", f'"{kept.etag}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", kept.kind)
            modified = datetime.fromisoformat(kept.modified)
            self.send_header("Last-Modified", format_datetime(modified, usegmt=True))
            if span is not None:
                self.send_header("Content-Range", f"bytes {first}-{last}/{kept.size}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            if self.command == "GET":
                file.seek(first)
                _copy(file, self.wfile, last - first + 1)

    def _put(self, bucket: str, key: str, body: Body) -> None:
        condition = self.headers.get("If-None-Match")
        if condition not in (None, "*"):
            raise Refusal(501, "NotImplemented", "If-None-Match can only be *")
        with self._received(self.buckets.folder(bucket), body) as (part, digest):
            kind = self.headers.get("Content-Type") or "binary/octet-stream"
            kept = self.buckets.put(bucket, key, part, digest, kind, new=condition == "*")
        self._answer(200, etag=kept.etag)

    def _begin_upload(self, bucket: str, key: str) -> None:
        folder = self.buckets.folder(bucket) / f"{uuid.uuid4().hex}.upload"
        folder.mkdir()
        inner = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
        inner += f"<UploadId>{folder.stem}</UploadId>"
        self._answer(200, _xml("InitiateMultipartUploadResult", inner))

    def _upload(self, bucket: str, query: dict[str, str]) -> Path:
        found = re.fullmatch(r"[0-9a-f]{32}", query["uploadId"])
        folder = self.buckets.folder(bucket) / f"{query['uploadId']}.upload"
        if found is None or not folder.is_dir():
            raise Refusal(404, "NoSuchUpload")
        return folder

    def _put_part(self, bucket: str, query: dict[str, str], body: Body) -> None:
        folder = self._upload(bucket, query)
        number = query["partNumber"]
        if not number.isdecimal() or not 1 <= int(number) <= 10_000:
            raise Refusal(400, "InvalidArgument", "partNumber")
        with self._received(folder, body) as (part, digest):
            # The digest is part of the name: it has to be the one that is named in the end.
            part.rename(folder / f"{int(number)}-{digest}")
        self._answer(200, etag=digest)

    def _complete_upload(self, bucket: str, key: str, query: dict[str, str], body: Body) -> None:
        folder = self._upload(bucket, query)
        named = _parts(body.everything(MOST_XML))
        digests = hashlib.md5(usedforsecurity=False)
        whole = folder / "whole"
        with whole.open("wb") as target:
            for number, etag in named:
                if re.fullmatch(r"[0-9a-f]{32}", etag) is None:
                    raise Refusal(400, "InvalidPart")
                digests.update(bytes.fromhex(etag))
                try:
                    with (folder / f"{number}-{etag}").open("rb") as source:
                        shutil.copyfileobj(source, target, CHUNK)
                except FileNotFoundError:
                    raise Refusal(400, "InvalidPart", f"part {number}") from None
        new = self.headers.get("If-None-Match") == "*"
        etag = f"{digests.hexdigest()}-{len(named)}"
        self.buckets.put(bucket, key, whole, etag, "binary/octet-stream", new=new)
        shutil.rmtree(folder, ignore_errors=True)
        inner = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><ETag>&quot;{etag}&quot;</ETag>"
        self._answer(200, _xml("CompleteMultipartUploadResult", inner))

    def _body(self) -> Body:
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        length = int(self.headers.get("Content-Length") or 0)
        plain = Chunks(self.rfile) if chunked else Exactly(self.rfile, length)
        signed = self.headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
        return Body(plain, Chunks(plain) if signed else plain)

    @contextlib.contextmanager
    def _received(self, folder: Path, body: Body) -> Iterator[tuple[Path, str]]:
        """The body as a file in `folder`, and its MD5; it is removed if it is left there."""
        part = folder / f"{uuid.uuid4().hex}.part"
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with part.open("wb") as file:
                while chunk := body.payload.read(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            body.drain()
            yield part, digest.hexdigest()
        finally:
            part.unlink(missing_ok=True)

    def _answer(self, status: int, text: str = "", etag: str | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        if etag is not None:
            self.send_header("ETag", f'"{etag}"')
        if data:
            self.send_header("Content-Type", "application/xml")
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, refusal: Refusal) -> None:
        inner = f"<Code>{refusal.code}</Code><Message>{escape(refusal.message)}</Message>"
        with contextlib.suppress(ConnectionError):
            self._answer(refusal.status, f"<?xml version='1.0'?><Error>{inner}</Error>")


class Exactly:
    """So many bytes of a stream."""

    def __init__(self, source: Reader, length: int) -> None:
        self._source = source
        self._left = length

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._source.read(wanted) if wanted else b""
        if len(data) < wanted:
            raise ConnectionError("the request broke off")
        self._left -= len(data)
        return data

    def readline(self, size: int = -1, /) -> bytes:
        data = self._source.readline(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


class Chunks:
    """What is in chunks, each with its size before it: HTTP's own, or those that are signed one by
    one. What comes after the last one is read over."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._left = 0
        self._over = False

    def read(self, size: int = -1, /) -> bytes:
        parts = []
        while not self._over and size != 0:
            if self._left == 0:
                self._next()
                continue
            data = self._source.read(self._left if size < 0 else min(size, self._left))
            if not data:
                raise ConnectionError("the request broke off")
            parts.append(data)
            self._left -= len(data)
            size -= len(data) if size > 0 else 0
            if self._left == 0:
                self._source.readline(3)
        return b"".join(parts)

    def readline(self, size: int = -1, /) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (size < 0 or len(line) < size):
            data = self.read(1)
            if not data:
                break
            line += data
        return line

    def _next(self) -> None:
        line = self._source.readline(1000)
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError:
            raise ConnectionError("the request broke off") from None
        if self._left == 0:
            self._over = True
            while self._source.readline(1000).strip():
                pass


@dataclass(frozen=True)
class Body:
    """A request's body: as it is sent, and what it says."""

    sent: Reader
    payload: Reader

    def drain(self) -> None:
        """Read what is left, so that the connection can be used again."""
        while self.sent.read(CHUNK):
            pass

    def everything(self, most: int) -> bytes:
        """All of it, if it is no longer than `most` bytes."""
        data = self.payload.read(most)
        if self.payload.read(1):
            raise Refusal(400, "EntityTooLarge")
        self.drain()
        return data


def requested_span(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte that a Range asks for; None for all of them."""
    if header is None:
        return None
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    if start >= size or start > end:
        raise Refusal(416, "InvalidRange")
    return start, end


def _parts(document: bytes) -> list[tuple[int, str]]:
    """Numbers and ETags of the parts an upload consists of, in order."""
    if b"<!" in document:
        raise Refusal(400, "MalformedXML")
    try:
        root = ElementTree.fromstring(document)
        found = [
            (
                int(part.findtext("{*}PartNumber") or ""),
                (part.findtext("{*}ETag") or "").strip('"'),
            )
            for part in root.iter()
            if part.tag.rpartition("}")[2] == "Part"
        ]
    except (ElementTree.ParseError, ValueError):
        raise Refusal(400, "MalformedXML") from None
    numbers = [number for number, _ in found]
    if not found or numbers != sorted(set(numbers)):
        raise Refusal(400, "InvalidPartOrder")
    return found


def _copy(source: BinaryIO, target: BufferedIOBase, length: int) -> None:
    while length:
        data = source.read(min(CHUNK, length))
        target.write(data)
        length -= len(data)


def _xml(name: str, inner: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="{NAMESPACE}">{inner}</{name}>'


class Server(ThreadingHTTPServer):
    """Listens on IPv6, too, where that is there and no address is named."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        self._dual = not address[0] and socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if self._dual else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        if self._dual:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def server(folder: Path, address: str, port: int, buckets: tuple[str, ...] = ()) -> Server:
    """The server, not serving yet, with these buckets; port 0: any free one."""
    known = Buckets(folder)
    for bucket in buckets:
        known.make(bucket)

    class Bound(Handler):
        buckets = known

    return Server((address, port), Bound)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """The server's endpoint URL on 127.0.0.1, for as long as the block runs."""
    made = server(folder, "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="A small S3 server for tests.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--bucket", action="append", default=[], help="made if it is not there")
    options = parser.parse_args()
    made = server(options.folder, "", options.port, tuple(options.bucket))
    # PID 1 is not ended by a signal it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(f"serving {options.folder} on port {made.server_port}", flush=True)
    made.serve_forever()


if __name__ == "__main__":
    main()
