"""Addresses: what is one, what is none, and that no secret in one is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.core.errors import StoreError
from hdgan.core.redaction import redact
from hdgan.core.slides import local_path
from hdgan.core.store import open_store

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/p",
        f"s3://user:{SECRET}@bucket",
        "s3://token-alone@bucket/p",
        f"file://user:{SECRET}@host/path",
        f"https://user:{SECRET}@host/path",
        f"s3://:{SECRET}@bucket/p",
    ],
)
def test_credentials_are_refused_and_not_repeated(uri: str) -> None:
    for read in (open_store, local_path):
        with pytest.raises(StoreError, match="carries credentials: remove them") as caught:
            read(uri)
        assert SECRET.split("/")[0] not in str(caught.value)
        assert SECRET.split("/")[-1] not in str(caught.value)


def test_what_looks_like_credentials_is_taken_out_of_texts_slashes_and_all() -> None:
    text = redact(f"cannot read s3://id:{SECRET}@bucket/p/x.json: no", {})
    assert text == "cannot read s3://[redacted]@bucket/p/x.json: no"
    assert redact("http://host:80/a and b@c", {}) == "http://host:80/a and b@c"


@pytest.mark.parametrize("uri", ["s3://bucket/runs@2026/a", "s3://bucket/a:b@c"])
def test_a_key_or_path_may_have_an_at(uri: str) -> None:
    assert open_store(uri).uri == uri
    assert local_path(uri) is None
    assert local_path("file:///a@b:c@d") == Path("/a@b:c@d")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3:/u:secret@bucket", "s3: has to be followed by two slashes"),
        ("file:/store", "file: has to be followed by two slashes"),
        ("http:store", "http: has to be followed by two slashes"),
        ("s3://[u", "is no URI"),
        ("file://[bad/x", "is no URI"),
        ("http://[::1/x", "is no URI"),
        ("file:///a%00b", "no path can contain %00"),
        ("file://host/share", "three slashes"),
    ],
)
def test_what_is_no_address_is_said_to_be_none(uri: str, words: str) -> None:
    for read in (open_store, local_path):
        with pytest.raises(StoreError, match=words) as caught:
            read(uri)
        assert "secret" not in str(caught.value)


def test_paths_stay_paths() -> None:
    assert local_path("a: b/s3") == Path("a: b/s3")
    assert local_path("file:///a%20b") == Path("/a b")
    assert local_path("s3://bucket/x") is None
