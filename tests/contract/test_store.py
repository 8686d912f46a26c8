"""One suite for every kind of store: what holds for `file://` holds for `s3://`."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hdgan.core.errors import KeyMissing, NoSpace, StoreError, StoreUnavailable
from hdgan.core.store import Store, open_store
from hdgan.core.store_file import FileStore
from hdgan.core.store_s3 import S3Store
from support.s3_server import point_aws_at


def test_what_is_put_is_got(store: Store) -> None:
    store.put("a/b.bin", b"\x00one")
    assert store.get("a/b.bin") == b"\x00one"
    store.put("a/b.bin", b"")
    assert store.get("a/b.bin") == b""


def test_names_with_spaces_and_umlauts(store: Store) -> None:
    key = "slides/Präparat 1 (50%) #2+.svs"
    store.put(key, b"x")
    assert store.get(key) == b"x"
    assert list(store.list("slides/Pr")) == [key]


def test_head_tells_size_change_and_time(store: Store) -> None:
    assert store.head("x") is None
    store.put("x", b"12345")
    info = store.head("x")
    assert info is not None
    assert info.size == 5
    assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=5)
    store.put("x", b"something else")
    later = store.head("x")
    assert later is not None
    assert later.etag != info.etag


def test_missing_key_names_the_object(store: Store, tmp_path: Path) -> None:
    store.put("there", b"1")
    target = tmp_path / "target"
    for read in (
        lambda: store.get("not/there"),
        lambda: store.sha256("not/there"),
        lambda: store.get_to("not/there", target),
    ):
        with pytest.raises(KeyMissing, match="not/there") as caught:
            read()
        assert caught.value.exit_code == 66
    assert not target.exists()
    store.delete("not/there")


INVALID_KEYS = [
    "",
    "/a",
    "a//b",
    "a/",
    "../a",
    "a/../b",
    "./a",
    "a\\b",
    "a\nb",
    "a\0",
    ".hdgan-tmp-1",
    "x" * 900,
]


def test_invalid_keys_are_refused_everywhere(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"1")
    uses: list[Callable[[str], object]] = [
        lambda key: store.put(key, b"1"),
        store.get,
        store.head,
        store.delete,
        store.sha256,
        store.url,
        lambda key: store.put_if_absent(key, b"1"),
        lambda key: store.put_from(key, tmp_path / "source"),
        lambda key: store.get_to(key, tmp_path / "target"),
    ]
    for key in INVALID_KEYS:
        for use in uses:
            with pytest.raises(StoreError, match="not a valid key"):
                use(key)


def test_list_gives_keys_that_begin_with_the_prefix_in_order(store: Store) -> None:
    keys = ["a/b/2", "a/b/1", "a/b.json", "a/bc", "a0", "z"]
    for key in keys:
        store.put(key, b"")
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("a/b")) == ["a/b.json", "a/b/1", "a/b/2", "a/bc"]
    assert list(store.list("a/b/")) == ["a/b/1", "a/b/2"]
    assert list(store.list("nothing/")) == []


def test_a_large_file_streams_both_ways(store: Store, tmp_path: Path) -> None:
    # Above the multipart threshold of the S3 store.
    block = os.urandom(1 << 20)
    source = tmp_path / "source"
    with source.open("wb") as file:
        for index in range(20):
            file.write(index.to_bytes(4, "big") + block)
    expected = hashlib.sha256(source.read_bytes()).hexdigest()
    store.put_from("large", source)
    assert store.sha256("large") == expected
    target = tmp_path / "sub" / "target"
    store.get_to("large", target)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == expected
    info = store.head("large")
    assert info is not None
    assert info.size == source.stat().st_size


def test_readers_see_the_old_or_the_new_object_never_a_part(store: Store, uri: str) -> None:
    sizes = (1, 3_000_000)
    store.put("x", b"a" * sizes[0])
    done = threading.Event()
    seen: list[tuple[int, int]] = []

    def read() -> None:
        reader = open_store(uri)
        while not done.is_set():
            data = reader.get("x")
            seen.append((len(data), len(set(data))))
        if isinstance(reader, S3Store):
            reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for letter in b"bcd":
        store.put("x", bytes([letter]) * sizes[1])
        store.put("x", bytes([letter]) * sizes[0])
    done.set()
    thread.join()
    assert seen
    assert {length for length, _ in seen} <= set(sizes)
    assert {letters for _, letters in seen} == {1}


def test_put_if_absent_never_replaces(store: Store) -> None:
    assert store.put_if_absent("m", b"first")
    assert not store.put_if_absent("m", b"second")
    assert store.get("m") == b"first"


def test_of_two_racing_writers_exactly_one_wins(uri: str) -> None:
    stores = [open_store(uri), open_store(uri)]
    stores[0].probe()
    for turn in range(5):
        barrier = threading.Barrier(2)
        won: dict[int, bool] = {}

        def write(
            index: int, turn: int = turn, barrier: threading.Barrier = barrier, won: Any = won
        ) -> None:
            stores[index].put_if_absent("warm-up", b"")
            barrier.wait()
            won[index] = stores[index].put_if_absent(f"race/{turn}", b"writer %d" % index)

        threads = [threading.Thread(target=write, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won.values()) == [False, True]
        winner = next(index for index, first in won.items() if first)
        assert stores[0].get(f"race/{turn}") == b"writer %d" % winner
    for store in stores:
        if isinstance(store, S3Store):
            store.close()


def test_probe_leaves_nothing_behind(store: Store) -> None:
    store.probe()
    assert list(store.list("")) == []


def test_the_url_leads_back_to_the_object(store: Store) -> None:
    store.put("a/b.json", b"{}")
    folder, _, name = store.url("a/b.json").rpartition("/")
    other = open_store(folder)
    assert other.get(name) == b"{}"
    if isinstance(other, S3Store):
        other.close()


# What only one kind of store can do wrong.


def test_a_path_without_scheme_is_a_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s"))
    store.put("k", b"v")
    assert (tmp_path / "s" / "k").read_bytes() == b"v"
    assert store.uri == (tmp_path / "s").as_uri()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "is empty"),
        ("ftp://host/x", "unknown kind of store"),
        ("file://store/x", "three slashes"),
        ("s3://", "needs a bucket"),
        ("s3://bucket/x?y=1", "no meaning"),
    ],
)
def test_wrong_uris_are_refused(uri: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        open_store(uri)


def test_credentials_in_a_uri_are_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError, match="carries credentials") as caught:
        open_store("s3://AKIA:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)


def test_unwritable_folder_says_what_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = open_store((tmp_path / "file" / "store").as_uri())
    with pytest.raises(StoreError, match=r"cannot be used.*file/store.*use another folder"):
        store.probe()


def test_full_disk_is_no_space_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "s")
    store.put("kept", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for write in (
            lambda: store.put("kept", b"new"),
            lambda: store.put_if_absent("new", b"new"),
            lambda: store.get_to("kept", tmp_path / "s" / "copy"),
        ):
            with pytest.raises(NoSpace, match=r"No space left.*Free some space") as caught:
                write()
            assert ".hdgan-tmp-" not in str(caught.value)
    assert store.get("kept") == b"old"
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["kept"]


def test_a_disk_without_hard_links_still_creates_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    store = FileStore(tmp_path)
    assert store.put_if_absent("m", b"first")
    assert not store.put_if_absent("m", b"second")
    assert store.get("m") == b"first"
    assert list(store.list("")) == ["m"]


def test_a_server_that_ignores_if_none_match_is_found_out(s3_uri: str) -> None:
    store = open_store(s3_uri)
    assert isinstance(store, S3Store)

    def ignore(params: dict[str, Any], **_: object) -> None:
        params.pop("IfNoneMatch", None)

    store.server.client.meta.events.register("before-parameter-build.s3.PutObject", ignore)
    assert store.conditional is False
    assert store.put_if_absent("m", b"first")
    assert not store.put_if_absent("m", b"second")
    assert store.get("m") == b"first"
    store.close()


def test_a_server_that_honours_if_none_match_is_used_so(s3_uri: str) -> None:
    store = open_store(s3_uri)
    assert isinstance(store, S3Store)
    assert store.conditional is True
    store.close()


def test_a_missing_bucket_is_named(s3_uri: str) -> None:
    store = open_store("s3://no-such-bucket-here/x")
    assert isinstance(store, S3Store)
    with pytest.raises(StoreError, match=r"bucket 'no-such-bucket-here' does not exist.*create it"):
        store.probe()
    store.close()


def test_without_credentials_the_variables_are_named(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="set AWS_ACCESS_KEY_ID"):
        open_store(s3_uri).probe()


def test_an_unreachable_endpoint_is_named(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("hdgan.core.s3_connection.time.sleep", lambda _: None)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9 .*check AWS_ENDPOINT_URL"):
        open_store(s3_uri).probe()


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (403, "InvalidAccessKeyId", StoreError, "credentials are refused"),
        (403, "SignatureDoesNotMatch", StoreError, "credentials are refused"),
        (403, "AccessDenied", StoreError, "access denied"),
        (507, "XMinioStorageFull", NoSpace, "no space left"),
        (503, "SlowDown", StoreUnavailable, "SlowDown"),
        (500, "InternalError", StoreUnavailable, "InternalError"),
        (400, "ExpiredToken", StoreUnavailable, "have expired"),
        (400, "EntityTooLarge", StoreError, "EntityTooLarge"),
    ],
)
def test_refusals_are_explained_without_secrets(
    status: int,
    code: str,
    kind: type[StoreError],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code>"
        "<Message>your secret is test-secret-value of test-access-key</Message></Error>"
    ).encode()

    class Refuse(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # answers Expect: 100-continue, for which boto3 waits

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        point_aws_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
        monkeypatch.setattr("hdgan.core.s3_connection.time.sleep", lambda _: None)
        store = S3Store("bucket")
        with pytest.raises(kind, match=says) as caught:
            store.put("x", b"1")
        store.close()
        # Whether trying later may help is what a cluster goes by.
        assert caught.value.exit_code == (64 if kind is StoreError else 69)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "test-secret-value" not in str(caught.value)
    assert "test-access-key" not in str(caught.value)


def test_a_server_that_cannot_list_uploads_is_told_of(
    object_server_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(object_server_uri)
    assert list(store.unfinished()) == []
    assert "cannot list uploads in parts" in caplog.text
    assert isinstance(store, S3Store)
    store.close()
