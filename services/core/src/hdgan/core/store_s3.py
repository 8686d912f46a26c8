"""The store on anything that speaks S3, through boto3.

Endpoint, region and credentials come from where every AWS tool takes them (`AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_PROFILE`, a pod's role ...). Messages carry error codes, never what a server or
library printed around them, so no secret can slip through.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import logging
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as boto_errors
from botocore.config import Config
from s3transfer.exceptions import RetriesExceededError  # type: ignore[import-untyped]

from hdgan.core.atomic_file import explain_os_error, writing
from hdgan.core.errors import InternalError, KeyMissing, NoSpace, StoreError, StoreUnavailable
from hdgan.core.redaction import remember
from hdgan.core.store_protocol import PROBE_PREFIX, ObjectInfo, Unfinished, check_key

_log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_READ_ATTEMPTS = 4
_CONFLICT_ATTEMPTS = 8
_ERRORS = (
    boto_errors.BotoCoreError,
    boto_errors.ClientError,
    Boto3Error,
    RetriesExceededError,
)
# The connection broke while a body was read: boto3's own retries end when the headers are in.
_BROKEN_BODY = (
    boto_errors.IncompleteReadError,
    boto_errors.ResponseStreamingError,
    boto_errors.ReadTimeoutError,
)
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_BAD_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
        "AuthorizationHeaderMalformed",
        "InvalidSecurity",
    }
)
# They are renewed by whoever gives them out, if late.
_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestTimeTooSkewed"}
)
# What is left after boto3's own retries.
_BUSY = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "InternalError",
        "ServiceUnavailable",
        "RequestTimeout",
        "RequestTimeoutException",
        "OperationAborted",
        "XMinioServerNotInitialized",
    }
)
_FULL = frozenset(
    {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityQuotaExceeded"}
)
_NOT_CONDITIONAL = frozenset({"NotImplemented", "501", "InvalidArgument", "InvalidRequest"})
_UNKNOWN_OPERATION = frozenset({"NotImplemented", "501", "MethodNotAllowed", "405"})
_TRANSFER = TransferConfig(
    multipart_threshold=32 << 20, multipart_chunksize=32 << 20, max_concurrency=4
)


@dataclass(frozen=True)
class S3Connection:
    """How a server is reached, for programs that know several; what is None is taken from where
    every AWS tool takes it."""

    endpoint: str | None = None
    region: str | None = None
    credentials: Path | None = None
    """Folder with files named AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps
    AWS_SESSION_TOKEN, as a mounted Secret has them."""
    ca_file: Path | None = None
    """Certificate authority of the server."""

    def secrets(self) -> dict[str, str]:
        """Arguments of boto3's client; {} where the credentials are not in files."""
        if self.credentials is None:
            return {}
        names = {
            "AWS_ACCESS_KEY_ID": "aws_access_key_id",
            "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
            "AWS_SESSION_TOKEN": "aws_session_token",
        }
        found = {}
        for name, argument in names.items():
            place = self.credentials / name
            if place.is_file():
                found[argument] = place.read_text(encoding="utf-8").strip()
            elif name != "AWS_SESSION_TOKEN":
                raise StoreError(f"there is no file {place} with the store's credentials")
        remember(*found.values())
        return found


class S3Store:
    """A `Store` under a prefix of a bucket."""

    def __init__(
        self, bucket: str, prefix: str = "", connection: S3Connection | None = None
    ) -> None:
        if not bucket:
            raise StoreError("s3:// needs a bucket: s3://bucket/prefix")
        self.bucket = bucket
        self.prefix = f"{check_key(prefix)}/" if prefix else ""
        self._how = connection or S3Connection()
        self._connection: Any = None
        self._conditional: bool | None = None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def url(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._name(key)}"

    def close(self) -> None:
        """Close pooled connections; the next call opens them again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, key: str) -> bytes:
        return b"".join(self._stream(key))

    def get_to(self, key: str, path: Path) -> None:
        name = self._name(key)
        with writing(path) as file:
            try:
                self._client.download_fileobj(self.bucket, name, file, Config=_TRANSFER)
            except _ERRORS as error:
                raise self._explain(error, "read", key) from error

    def sha256(self, key: str) -> str:
        digest = hashlib.sha256()
        for chunk in self._stream(key):
            digest.update(chunk)
        return digest.hexdigest()

    def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        try:
            self._client.put_object(Bucket=self.bucket, Key=name, Body=data)
        except _ERRORS as error:
            raise self._explain(error, "write", key) from error

    def put_from(self, key: str, path: Path) -> None:
        name = self._name(key)
        try:
            source = path.open("rb")
        except OSError as error:
            raise explain_os_error(error, "read", path) from error
        with source:
            try:
                self._client.upload_fileobj(source, self.bucket, name, Config=_TRANSFER)
            except _ERRORS as error:
                raise self._explain(error, "write", key) from error

    def put_if_absent(self, key: str, data: bytes) -> bool:
        name = self._name(key)
        if self.conditional:
            return self._put_new(key, name, data)
        if self.head(key) is not None:
            return False
        self.put(key, data)
        return True

    @property
    def conditional(self) -> bool:
        """Whether the server honours If-None-Match; found out by trying, once."""
        if self._conditional is None:
            self._conditional = self._try_conditional()
        return self._conditional

    def head(self, key: str) -> ObjectInfo | None:
        name = self._name(key)
        try:
            found = self._client.head_object(Bucket=self.bucket, Key=name)
        except boto_errors.ClientError as error:
            if _code(error) in _MISSING:
                return None
            raise self._explain(error, "read", key) from error
        except _ERRORS as error:
            raise self._explain(error, "read", key) from error
        etag = str(found["ETag"]).strip('"')
        return ObjectInfo(int(found["ContentLength"]), etag, found["LastModified"])

    def list(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    key = str(entry["Key"])[len(self.prefix) :]
                    if not key.startswith(f"{PROBE_PREFIX}/"):
                        yield key
        except _ERRORS as error:
            raise self._explain(error, "list", prefix) from error

    def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            self._client.delete_object(Bucket=self.bucket, Key=name)
        except _ERRORS as error:
            raise self._explain(error, "delete", key) from error

    def probe(self) -> None:
        key = f"{PROBE_PREFIX}/{uuid.uuid4().hex}"
        data = uuid.uuid4().bytes
        try:
            self.put(key, data)
            if self.get(key) != data:
                raise StoreError("what was written reads back as something else")
            self.delete(key)
            self._conditional = self._try_conditional()
        except StoreError as error:
            raise type(error)(f"store {self.uri} cannot be used: {error}") from error

    def now(self) -> datetime:
        key = f"{PROBE_PREFIX}/{uuid.uuid4().hex}"
        self.put(key, b"1")
        try:
            info = self.head(key)
        finally:
            self.delete(key)
        if info is None:
            raise StoreUnavailable(
                f"{self.url(key)} is not there although it has just been written; try again"
            )
        return info.modified.astimezone(UTC)

    def unfinished(self) -> Iterator[Unfinished]:
        yield from self._unfinished_probes()
        yield from self._unfinished_uploads()

    def _unfinished_probes(self) -> Iterator[Unfinished]:
        prefix = f"{self.prefix}{PROBE_PREFIX}/"
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    name, written = str(entry["Key"]), entry["LastModified"].astimezone(UTC)
                    url = f"s3://{self.bucket}/{name}"
                    yield Unfinished(url, written, int(entry["Size"]), (name,))
        except _ERRORS as error:
            raise self._explain(error, "list", PROBE_PREFIX) from error

    def _unfinished_uploads(self) -> Iterator[Unfinished]:
        try:
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self.prefix
            )
            for page in pages:
                for entry in page.get("Uploads", []):
                    name, upload = str(entry["Key"]), str(entry["UploadId"])
                    if name.startswith(self.prefix):
                        parts = self._parts(name, upload)
                        times = [entry["Initiated"], *(one["LastModified"] for one in parts)]
                        what = f"s3://{self.bucket}/{name} (upload in parts)"
                        size = sum(int(one["Size"]) for one in parts)
                        yield Unfinished(what, max(times).astimezone(UTC), size, (name, upload))
        except boto_errors.ClientError as error:
            if _code(error) not in _UNKNOWN_OPERATION:
                raise self._explain(error, "list uploads in parts to", "") from error
            _log.warning(
                "%s: the server cannot list uploads in parts; those that were cut off stay until"
                " it removes them itself",
                self.uri,
            )
        except _ERRORS as error:
            raise self._explain(error, "list uploads in parts to", "") from error

    def _parts(self, name: str, upload: str) -> builtins.list[dict[str, Any]]:
        """What is there of an upload; nothing if it has ended meanwhile."""
        try:
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self.bucket, Key=name, UploadId=upload
            )
            return [part for page in pages for part in page.get("Parts", [])]
        except boto_errors.ClientError as error:
            if _code(error) in ("NoSuchUpload", "404"):
                return []
            raise

    def remove_unfinished(self, one: Unfinished) -> None:
        name, *upload = one.handle
        if not name.startswith(self.prefix if upload else f"{self.prefix}{PROBE_PREFIX}/"):
            raise InternalError(f"{self.uri}: {one.name} is nothing unfinished of this store")
        try:
            if upload:
                self._client.abort_multipart_upload(
                    Bucket=self.bucket, Key=name, UploadId=upload[0]
                )
            else:
                self._client.delete_object(Bucket=self.bucket, Key=name)
        except boto_errors.ClientError as error:
            if _code(error) not in ("NoSuchUpload", "404"):
                raise self._explain(error, "delete", name[len(self.prefix) :]) from error
        except _ERRORS as error:
            raise self._explain(error, "delete", name[len(self.prefix) :]) from error

    @property
    def _client(self) -> Any:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Any:
        endpoint = (
            self._how.endpoint
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
        )
        config = Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 5},
            max_pool_connections=16,
            # Servers other than Amazon's seldom have a DNS name per bucket ...
            s3={"addressing_style": "path"} if endpoint else {},
            # ... and not all know the newer checksum headers. Readers verify SHA-256 anyway.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            session = boto3.session.Session()
            region = self._how.region or session.region_name or "us-east-1"
            return session.client(
                "s3",
                config=config,
                region_name=region,
                endpoint_url=self._how.endpoint,
                verify=None if self._how.ca_file is None else str(self._how.ca_file),
                **self._how.secrets(),
            )
        except (*_ERRORS, ValueError) as error:
            raise self._explain(error, "connect to", "") from error

    def _stream(self, key: str) -> Iterator[bytes]:
        """The object's bytes in pieces, going on where a broken connection ended."""
        name = self._name(key)
        position, etag, attempts = 0, None, 0
        while True:
            # After a break: only the rest, and only if the object is still the same one.
            rest = {"Range": f"bytes={position}-", "IfMatch": etag} if position else {}
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=name, **rest)
                etag = answer["ETag"]
                with contextlib.closing(answer["Body"]) as body:
                    for chunk in body.iter_chunks(_CHUNK):
                        position += len(chunk)
                        yield cast("bytes", chunk)
                return
            except _BROKEN_BODY as error:
                attempts += 1
                if attempts == _READ_ATTEMPTS:
                    raise self._explain(error, "read", key) from error
            except _ERRORS as error:
                raise self._explain(error, "read", key) from error

    def _put_new(self, key: str, name: str, data: bytes) -> bool:
        for attempt in range(1, _CONFLICT_ATTEMPTS + 1):
            try:
                self._client.put_object(Bucket=self.bucket, Key=name, Body=data, IfNoneMatch="*")
                return True
            except boto_errors.ClientError as error:
                code = _code(error)
                if code in ("PreconditionFailed", "412"):
                    return False
                # 409: another conditional write is under way right now; ask again.
                conflict = code in ("ConditionalRequestConflict", "409")
                if not conflict or attempt == _CONFLICT_ATTEMPTS:
                    raise self._explain(error, "write", key) from error
            except _ERRORS as error:
                raise self._explain(error, "write", key) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _try_conditional(self) -> bool:
        """Write the same probe object twice, conditionally: the second must be refused."""
        key = f"{PROBE_PREFIX}/{uuid.uuid4().hex}"
        name = self._name(key)
        try:
            self._client.put_object(Bucket=self.bucket, Key=name, Body=b"1", IfNoneMatch="*")
            try:
                self._client.put_object(Bucket=self.bucket, Key=name, Body=b"2", IfNoneMatch="*")
            finally:
                self._client.delete_object(Bucket=self.bucket, Key=name)
            return False
        except boto_errors.ClientError as error:
            code = _code(error)
            if code in ("PreconditionFailed", "412"):
                return True
            if code in _NOT_CONDITIONAL:
                return False
            raise self._explain(error, "write", key) from error
        except _ERRORS as error:
            raise self._explain(error, "write", key) from error

    def _name(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _endpoint(self) -> str:
        """Scheme, host and port that are talked to, without anything secret."""
        if self._connection is None:
            return "the configured endpoint"
        parts = urlsplit(str(self._connection.meta.endpoint_url))
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}"

    def _explain(self, error: Exception, action: str, key: str) -> StoreError:
        what = f"cannot {action} s3://{self.bucket}/{self.prefix}{key}"
        where = f"at {self._endpoint()}"
        if isinstance(error, boto_errors.ClientError):
            return self._explain_answer(_code(error), what, where)
        if isinstance(error, boto_errors.NoCredentialsError | boto_errors.PartialCredentialsError):
            return StoreError(
                f"{what}: no complete credentials found; set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE) or a role"
            )
        if isinstance(error, boto_errors.ProfileNotFound):
            return StoreError(f"{what}: the profile in AWS_PROFILE does not exist; correct it")
        if isinstance(
            error,
            boto_errors.HTTPClientError
            | boto_errors.ConnectionError
            | Boto3Error
            | RetriesExceededError,
        ):
            return StoreUnavailable(
                f"{what}: no usable answer {where} ({type(error).__name__}); check"
                " AWS_ENDPOINT_URL, the network and that the server runs"
            )
        if isinstance(error, ValueError):  # what boto3 raises for a malformed endpoint
            return StoreError(f"{what}: AWS_ENDPOINT_URL is not a URL such as https://host:port")
        return StoreError(f"{what}: {type(error).__name__} {where}; check the AWS_* settings")

    def _explain_answer(self, code: str, what: str, where: str) -> StoreError:
        if code in _MISSING:
            return KeyMissing(f"{what}: there is no such object {where}")
        if code == "NoSuchBucket":
            return StoreError(
                f"{what}: bucket {self.bucket!r} does not exist {where}; create it, or correct"
                " the store's URI or AWS_ENDPOINT_URL"
            )
        if code in _BAD_CREDENTIALS:
            return StoreError(
                f"{what}: the credentials are refused {where} ({code}); check"
                " AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and the clock"
            )
        if code in _EXPIRED:
            return StoreUnavailable(
                f"{what}: the credentials have expired or the clock is wrong {where} ({code});"
                " renew AWS_SESSION_TOKEN and what belongs to it, or set the clock"
            )
        if code in ("AccessDenied", "403", "Forbidden", "AllAccessDisabled"):
            return StoreError(
                f"{what}: access denied {where}; these credentials need s3:GetObject,"
                " s3:PutObject, s3:DeleteObject and s3:ListBucket there"
            )
        if code in _FULL:
            return NoSpace(f"{what}: no space left {where} ({code}); free some or raise the quota")
        kind = StoreUnavailable if code in _BUSY or re.match(r"^(429|5\d\d)$", code) else StoreError
        return kind(f"{what}: the server answered {code} {where}; try again, see its log")


def _code(error: boto_errors.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "an unnamed error"))
