"""What networks and busy servers do to requests: nothing of it is seen by who uses the store, as
long as it ends in time."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from hdgan.core.errors import KeyMissing, NoSpace, StoreError, StoreUnavailable, WrongContent
from hdgan.core.retry_budget import RetryBudget
from hdgan.core.s3_connection import S3Connection, S3Server
from hdgan.core.s3_transfer import Parts
from hdgan.core.store_s3 import S3Store
from support.fault_proxy import FAULTS, Fault, FaultPlan, FaultProxy
from support.prepared_answers import answers
from support.s3_server import new_bucket, point_aws_at

SMALL = Parts(part_bytes=5 << 20, at_once=3)
"""The smallest parts that S3 allows."""
LARGE = os.urandom((5 << 20) * 2 + 12345)


@dataclass(frozen=True)
class EveryOther(FaultPlan):
    """A fault happens to requests 0, 2, 4 ...: each of them has to be made again."""

    def fault(self, number: int) -> Fault | None:
        return self.faults[0] if number % 2 == 0 else None


@dataclass(frozen=True)
class Always(FaultPlan):
    """A fault happens to every request from number `since` on."""

    since: int = 0

    def fault(self, number: int) -> Fault | None:
        return self.faults[0] if number >= self.since else None


@contextlib.contextmanager
def store_at(endpoint: str, bucket: str, budget: RetryBudget | None = None) -> Iterator[S3Store]:
    """A store that does not pause."""
    server = S3Server(S3Connection(endpoint=endpoint), budget, sleep=lambda seconds: None)
    store = S3Store(bucket, "some/prefix", server=server, parts=SMALL)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    point_aws_at(s3_endpoint, monkeypatch)
    return new_bucket(s3_endpoint)


@pytest.fixture
def honest(s3_endpoint: str, bucket: str) -> Iterator[S3Store]:
    """The same store, reached without a proxy."""
    with store_at(s3_endpoint, bucket) as store:
        yield store


@pytest.mark.parametrize("fault", [one for one in FAULTS if one != "slow answer"])
def test_whatever_happens_to_every_other_request_all_is_well_in_the_end(
    fault: Fault, s3_endpoint: str, bucket: str, honest: S3Store, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(LARGE)
    with (
        FaultProxy(s3_endpoint, EveryOther(faults=(fault,))) as proxy,
        store_at(proxy.endpoint, bucket) as store,
    ):
        assert store.conditional
        store.put("small", b"1")
        assert store.get("small") == b"1"
        # Its own object is found where the answer was lost, nobody else's taken for it.
        told = store.put_if_absent("new", b"mine")
        assert told or fault == "delivered twice"  # the second delivery finds the first
        assert not store.put_if_absent("new", b"other")
        sent = store.put_from("large", source)
        assert store.get_to("large", target) == sent
        assert target.read_bytes() == LARGE
        info = store.head("large")
        assert info is not None
        assert info.size == len(LARGE)
        assert store.head("nothing") is None
        assert list(store.list("")) == ["large", "new", "small"]
        store.delete("small")
    assert proxy.happened[fault] > 5
    assert honest.get("large") == LARGE
    assert list(honest.list("")) == ["large", "new"]
    # An upload whose beginning was answered by nobody has no parts, and is found.
    for one in list(honest.unfinished()):
        assert one.size == 0
        honest.remove_unfinished(one)
    assert list(honest.unfinished()) == []


@pytest.mark.parametrize("fault", ["503", "reset before", "answer lost"])
def test_the_budget_is_kept(fault: Fault, s3_endpoint: str, bucket: str) -> None:
    with (
        FaultProxy(s3_endpoint, Always(faults=(fault,))) as proxy,
        store_at(proxy.endpoint, bucket, RetryBudget(attempts=3)) as store,
    ):
        with pytest.raises(StoreUnavailable, match=r"cannot write s3://.*127\.0\.0\.1") as caught:
            store.put("x", b"1")
        assert caught.value.exit_code == 69
        assert proxy.requests == 3


def test_a_server_that_falls_silent_is_given_up_in_time(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hdgan.core.s3_connection.READ_SECONDS", 0.2)
    body = 'HTTP/1.1 206 Partial Content\r\nETag: "1"\r\nContent-Range: bytes 0-9/10\r\n'
    for said in ("", f"{body}Content-Length: 10\r\n\r\nabc"):
        with (
            saying(said.encode()) as endpoint,
            store_at(endpoint, bucket, RetryBudget(attempts=2)) as store,
            pytest.raises(StoreUnavailable, match="check AWS_ENDPOINT_URL"),
        ):
            store.get_to("x", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_or_missing_is_asked_for_once(s3_endpoint: str, bucket: str) -> None:
    with FaultProxy(s3_endpoint, FaultPlan()) as proxy, store_at(proxy.endpoint, bucket) as store:
        with pytest.raises(KeyMissing):
            store.get("nothing")
        assert proxy.requests == 1
        assert store.head("nothing") is None
        assert proxy.requests == 2
    with (
        FaultProxy(s3_endpoint, FaultPlan(room=0)) as proxy,
        store_at(proxy.endpoint, bucket) as store,
    ):
        with pytest.raises(StoreError, match="no space left"):
            store.put("x", b"1")
        assert proxy.requests == 1


def test_wrong_credentials_are_tried_once(moto_uri: str, moto: Any) -> None:
    bucket = moto_uri.split("/")[2]
    os.environ["AWS_SECRET_ACCESS_KEY"] = "wrong"  # `moto_uri` puts it back
    with FaultProxy(moto.endpoint, FaultPlan()) as proxy, store_at(proxy.endpoint, bucket) as store:
        with pytest.raises(StoreError, match=r"credentials are refused.*SignatureDoesNotMatch"):
            store.put("x", b"1")
        assert proxy.requests == 1


def test_a_body_that_never_comes_whole_is_never_taken_for_whole(
    s3_endpoint: str, bucket: str, honest: S3Store, tmp_path: Path
) -> None:
    honest.put("small", b"x" * 100_000)
    (tmp_path / "source").write_bytes(LARGE)
    honest.put_from("large", tmp_path / "source")
    for since, key in ((0, "small"), (1, "large")):
        plan = Always(faults=("truncated answer",), since=since)
        with (
            FaultProxy(s3_endpoint, plan) as proxy,
            store_at(proxy.endpoint, bucket, RetryBudget(attempts=2)) as store,
        ):
            for read in (
                lambda key=key: store.get(key),
                lambda key=key: store.sha256(key),
                lambda key=key: store.get_to(key, tmp_path / "new" / "target"),
            ):
                with pytest.raises(StoreUnavailable):
                    read()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_read_goes_on_where_it_broke_off(s3_endpoint: str, bucket: str, honest: S3Store) -> None:
    honest.put("x", LARGE[: 4 << 20])
    asked: list[str] = []
    with (
        FaultProxy(s3_endpoint, EveryOther(faults=("truncated answer",))) as proxy,
        store_at(proxy.endpoint, bucket) as store,
    ):

        def note(params: dict[str, Any], **_: object) -> None:
            asked.append(params["headers"]["Range"])

        store.server.client.meta.events.register("before-call.s3.GetObject", note)
        assert store.get("x") == LARGE[: 4 << 20]
    first, second = asked
    assert first == f"bytes=0-{(5 << 20) - 1}"
    begin = int(second.removeprefix("bytes=").partition("-")[0])
    assert 1 << 20 < begin < 4 << 20


def test_an_object_that_is_replaced_meanwhile_is_read_from_the_beginning(
    honest: S3Store, s3_endpoint: str, bucket: str, tmp_path: Path
) -> None:
    honest.put("x", LARGE)
    newer = LARGE[::-1]
    with store_at(s3_endpoint, bucket) as store:
        calls = 0

        def replace(**_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                honest.put("x", newer)

        store.server.client.meta.events.register("after-call.s3.GetObject", replace)
        store.get_to("x", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == newer


def test_a_disk_that_fills_while_parts_arrive_is_told_and_nothing_stays(
    honest: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(LARGE)
    honest.put_from("x", tmp_path / "source")
    write = os.pwrite

    def full(handle: int, data: bytes, position: int) -> int:
        if position > 6 << 20:  # in the second part, which another thread writes
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data, position)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(NoSpace, match=r"cannot write .*target: No space left"):
            honest.get_to("x", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_file_that_changes_while_it_is_uploaded_leaves_nothing(
    honest: S3Store, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(LARGE)

    def grow(**_: object) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    honest.server.client.meta.events.register("before-call.s3.UploadPart", grow)
    with pytest.raises(StoreError, match="source was written to while it was copied"):
        honest.put_from("x", source)
    assert honest.head("x") is None
    assert list(honest.unfinished()) == []


GONE = b"<?xml version='1.0'?><Error><Code>NoSuchUpload</Code><Message>no</Message></Error>"


@pytest.mark.parametrize("replaced", [False, True])
def test_an_upload_whose_end_was_answered_by_nobody_is_looked_for(
    replaced: bool, honest: S3Store, s3_endpoint: str, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(LARGE)
    calls = 0
    with store_at(s3_endpoint, bucket) as store:

        def lose(**_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                if replaced:
                    honest.put("x", LARGE[::-1])
                # As Amazon does; moto answers as if it had been the first time.
                answers(store, "CompleteMultipartUpload", (404, GONE))
                raise ConnectionClosedError(endpoint_url=s3_endpoint)

        event = "after-call.s3.CompleteMultipartUpload"
        store.server.client.meta.events.register(event, lose)
        if replaced:  # by somebody else: whether it was complete before nobody knows
            with pytest.raises(StoreError, match="NoSuchUpload"):
                store.put_from("x", tmp_path / "source")
        else:
            store.put_from("x", tmp_path / "source")
    assert honest.get("x") == (LARGE[::-1] if replaced else LARGE)
    assert list(honest.unfinished()) == []


@pytest.mark.parametrize("before", [None, b"mine", b"other"])
def test_a_new_object_whose_answer_was_lost_is_known_by_its_bytes(
    before: bytes | None, honest: S3Store, s3_endpoint: str
) -> None:
    assert honest.conditional
    if before is not None:
        honest.put("x", before)
    calls = 0

    def lose(**_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionClosedError(endpoint_url=s3_endpoint)

    honest.server.client.meta.events.register("after-call.s3.PutObject", lose)
    assert honest.put_if_absent("x", b"mine") is (before != b"other")
    assert honest.get("x") == (before or b"mine")
    assert not honest.put_if_absent("x", b"mine")


def test_an_upload_that_is_interrupted_leaves_nothing(honest: S3Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(LARGE)

    class Interrupted(BaseException):
        pass

    def interrupt(**_: object) -> None:
        raise Interrupted

    honest.server.client.meta.events.register("before-call.s3.CompleteMultipartUpload", interrupt)
    with pytest.raises(Interrupted):
        honest.put_from("x", tmp_path / "source")
    assert list(honest.unfinished()) == []


ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>no</Message></Error>"
PORTAL = b"<html><body>Please log in, <b>dear guest"


def test_an_error_in_the_body_of_a_200_is_one(honest: S3Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(LARGE)
    left = answers(honest, "CompleteMultipartUpload", (200, ERROR), (200, ERROR))
    honest.put_from("x", tmp_path / "source")
    assert left() == 0
    assert honest.get("x") == LARGE


@pytest.mark.parametrize(
    ("operation", "use"),
    [
        ("GetObject", lambda store: store.get("x")),
        ("HeadObject", lambda store: store.head("x")),
        ("ListObjectsV2", lambda store: list(store.list(""))),
        ("CreateMultipartUpload", None),
        ("ListMultipartUploads", lambda store: list(store.unfinished())),
    ],
)
def test_what_is_not_s3_is_asked_again_and_told(
    operation: str, use: Callable[[S3Store], object] | None, honest: S3Store, tmp_path: Path
) -> None:
    honest.put("x", b"1")
    (tmp_path / "source").write_bytes(LARGE)
    use = use or (lambda store: store.put_from("y", tmp_path / "source"))

    left = answers(honest, operation, (200, PORTAL))
    use(honest)
    assert left() == 0
    answers(honest, operation, *[(200, PORTAL)] * 20)
    with pytest.raises(StoreUnavailable, match=r"check AWS_ENDPOINT_URL|answered 500"):
        use(honest)


@pytest.mark.parametrize("body", [b"", PORTAL], ids=["empty", "another page"])
@pytest.mark.parametrize(
    ("operation", "use"),
    [
        ("PutObject", lambda store, _: store.put("x", b"1")),
        ("PutObject", lambda store, _: store.put_if_absent("y", b"1")),
        ("CompleteMultipartUpload", lambda store, source: store.put_from("x", source)),
        ("ListObjectsV2", lambda store, _: list(store.list(""))),
    ],
)
def test_a_200_without_what_s3_says_is_no_success(
    operation: str,
    use: Callable[[S3Store, Path], object],
    body: bytes,
    honest: S3Store,
    tmp_path: Path,
) -> None:
    """Or an artifact would be committed without its files, and a list would be empty."""
    honest.put("there", b"1")
    assert honest.conditional
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    left = answers(honest, operation, (200, body), (200, body))
    use(honest, source)
    assert left() == 0
    assert "there" in set(honest.list(""))
    assert all(honest.get(key) in (b"1", LARGE) for key in honest.list(""))
    assert len(set(honest.list(""))) == (1 if operation == "ListObjectsV2" else 2)
    answers(honest, operation, *[(200, body)] * 20)
    with pytest.raises(StoreUnavailable):
        use(honest, source)


def listed(truncated: str, more: str = "") -> bytes:
    return (
        b"<ListBucketResult><IsTruncated>%b</IsTruncated>%b<Contents><Key>some/prefix/a</Key>"
        b"<LastModified>2026-11-01T00:00:00Z</LastModified><ETag>x</ETag><Size>1</Size></Contents>"
        b"</ListBucketResult>" % (truncated.encode(), more.encode())
    )


def test_a_list_that_does_not_get_further_ends(honest: S3Store) -> None:
    page = listed("true", "<NextContinuationToken>again</NextContinuationToken>")
    answers(honest, "ListObjectsV2", *[(200, page)] * 40)
    with pytest.raises(StoreUnavailable):
        list(honest.list(""))


def test_a_server_that_does_not_look_at_prefixes_is_refused(honest: S3Store) -> None:
    page = listed("false").replace(b"some/prefix/a", b"somebody/else")
    answers(honest, "ListObjectsV2", (200, page))
    with pytest.raises(StoreError, match="does not look at prefixes"):
        list(honest.list("pins/"))


def test_a_server_that_says_404_of_what_is_deleted_twice_is_no_trouble(honest: S3Store) -> None:
    missing = b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
    left = answers(honest, "DeleteObject", (404, missing))
    honest.delete("never there")
    assert left() == 0


@pytest.mark.parametrize("size", ["abc", "-1"])
def test_a_size_that_is_none_is_a_broken_answer(honest: S3Store, size: str) -> None:
    honest.put("x", b"1")
    page = listed("false").replace(b"<Size>1</Size>", f"<Size>{size}</Size>".encode())
    answers(honest, "ListObjectsV2", (200, page))
    assert list(honest.list(""))  # what its size is nobody has asked


def test_content_that_is_not_what_was_expected_is_no_file(honest: S3Store, tmp_path: Path) -> None:
    honest.put("x", b"one")
    with pytest.raises(WrongContent, match=r"s3://.*/x has not the SHA-256 0000") as caught:
        honest.get_to("x", tmp_path / "target", sha256="0" * 64)
    assert caught.value.exit_code == 66
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_longer_than_what_was_asked_for_is_refused(
    bucket: str, tmp_path: Path
) -> None:
    """Both with a length that says so, and behind the end that it tells."""
    head = (
        'HTTP/1.1 206 Partial Content\r\nETag: "1"\r\nLast-Modified: Sat, 28 Nov 2026 00:00:00 GMT'
        "\r\nContent-Range: bytes 0-2/3\r\n"
    )
    for told in (
        "Content-Length: 5\r\n\r\nabcde",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ):
        with (
            saying((head + told).encode()) as endpoint,
            store_at(endpoint, bucket, RetryBudget(attempts=2)) as store,
            pytest.raises(StoreUnavailable),
        ):
            store.get("x")
    behind = f"{head}Content-Length: 3\r\n\r\nabcde".encode()
    with saying(behind) as endpoint, store_at(endpoint, bucket) as store:
        # It is no part of this one, nor of the next answer.
        assert store.get("x") == b"abc"
        assert store.get("x") == b"abc"


@contextlib.contextmanager
def saying(data: bytes) -> Iterator[str]:
    """A server that says this to each request, in one piece, and keeps connections open."""
    listening = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming, contextlib.suppress(OSError):
            while incoming.readline():
                while incoming.readline().strip():
                    pass
                connection.sendall(data)

    def accept() -> None:
        while not closing.is_set():
            connection, _ = listening.accept()
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    port = listening.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        closing.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()
        listening.close()
