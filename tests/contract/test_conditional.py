"""Servers that do not create conditionally are found out, however they fail to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import object_server
from hdgan.core.errors import StoreError
from hdgan.core.s3_conditional import FIRST, OTHER, Trial, honours_condition
from hdgan.core.s3_connection import S3Connection, S3Server
from hdgan.core.store_s3 import S3Store
from support.s3_server import new_bucket, point_aws_at

WRITTEN, REFUSED = Trial("written", FIRST), Trial("refused", FIRST)


def test_only_who_writes_the_absent_and_refuses_all_else_is_relied_on() -> None:
    assert honours_condition(WRITTEN, REFUSED, REFUSED)
    # A network that delivers twice: written, but the second delivery was refused.
    assert honours_condition(REFUSED, REFUSED, REFUSED)
    for absent, equal, different in (
        (WRITTEN, WRITTEN, REFUSED),
        (WRITTEN, REFUSED, Trial("written", OTHER)),
        (WRITTEN, REFUSED, Trial("written", FIRST)),
        (WRITTEN, REFUSED, Trial("refused", OTHER)),
        (Trial("written", None), Trial("written", None), Trial("written", None)),
        (Trial("refused", None), Trial("refused", None), Trial("refused", None)),
        (WRITTEN, Trial("refused", None), REFUSED),
    ):
        assert not honours_condition(absent, equal, different)


class Quirk(object_server.Handler):
    """A server that does something else when asked to write where there is nothing."""

    quirk = ""
    deleting_fails = False

    def _dispatch(
        self, bucket: str, key: str, query: dict[str, str], body: object_server.Body
    ) -> None:
        if self.deleting_fails and self.command == "DELETE":
            raise object_server.Refusal(403, "AccessDenied")
        super()._dispatch(bucket, key, query, body)

    def _put(self, bucket: str, key: str, body: object_server.Body) -> None:
        if self.headers.get("If-None-Match") is None:
            super()._put(bucket, key, body)
            return
        if self.quirk in ("501", "400"):
            code = {"501": "NotImplemented", "400": "InvalidArgument"}[self.quirk]
            raise object_server.Refusal(int(self.quirk), code)
        if self.quirk == "writes nothing":
            body.drain()
            self._answer(200, etag="0" * 32)
            return
        if self.quirk == "denies":
            raise object_server.Refusal(403, "AccessDenied")
        if self.quirk == "takes equal content":
            with contextlib.suppress(object_server.Refusal):
                found, file = self.buckets.open(bucket, key)
                with file:
                    if body.everything(100) == file.read():
                        self._answer(200, etag=found.etag)
                        return
                raise object_server.Refusal(412, "PreconditionFailed")
        if self.quirk == "ignores it":
            self.headers.replace_header("If-None-Match", "*")
            del self.headers["If-None-Match"]
        super()._put(bucket, key, body)


@contextlib.contextmanager
def server_with(quirk: str, folder: Path, *, deleting_fails: bool = False) -> Iterator[str]:
    """Its endpoint."""

    class Bound(Quirk):
        buckets = object_server.Buckets(folder)

    Bound.quirk, Bound.deleting_fails = quirk, deleting_fails
    server = object_server.Server(("127.0.0.1", 0), Bound)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def store_with(
    quirk: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, deleting_fails: bool = False
) -> Iterator[S3Store]:
    with server_with(quirk, folder, deleting_fails=deleting_fails) as endpoint:
        point_aws_at(endpoint, monkeypatch)
        server = S3Server(S3Connection(), sleep=lambda seconds: None)
        store = S3Store(new_bucket(endpoint), "p", server=server)
        yield store
        store.close()


@pytest.mark.parametrize(
    ("quirk", "works"),
    [
        ("", True),
        ("ignores it", False),
        ("takes equal content", False),
        ("writes nothing", False),
        ("501", False),
        ("400", False),
    ],
)
def test_what_the_server_does_with_the_condition_is_found_out(
    quirk: str, works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_with(quirk, tmp_path, monkeypatch) as store:
        store.probe()
        assert store.conditional is works
        assert list(store.unfinished()) == []
        # Whatever it is, what is there is not replaced, and what is not there is written.
        assert store.put_if_absent("m", b"first")
        assert not store.put_if_absent("m", b"second")
        assert not store.put_if_absent("m", b"first")
        assert store.get("m") == b"first"


def test_a_probe_that_fails_midway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_with("denies", tmp_path, monkeypatch) as store:
        with pytest.raises(StoreError, match=r"cannot be used: cannot write .*access denied"):
            store.probe()
        assert list(store.unfinished()) == []


def test_a_probe_that_may_not_delete_says_so_and_what_stays_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_with("", tmp_path, monkeypatch, deleting_fails=True) as store:
        with pytest.raises(StoreError, match=r"cannot be used: cannot delete .*access denied"):
            store.probe()
        (left,) = store.unfinished()
        assert ".hdgan-probe/" in left.name
        assert list(store.list("")) == []
