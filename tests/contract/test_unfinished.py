"""What killed writers and probes leave is found, told apart from what is whole, and removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from hdgan.core.errors import InternalError
from hdgan.core.store import Store, Unfinished
from hdgan.core.store_file import FileStore
from hdgan.core.store_s3 import S3Store


@pytest.fixture(autouse=True)
def _lists_uploads(store: Store) -> None:
    """Where the server does not tell of uploads, nothing can be found of them."""
    if not isinstance(store, S3Store):
        return
    client, name = store.server.client, f"{store.prefix}whether/listed"
    begun = client.create_multipart_upload(Bucket=store.bucket, Key=name)
    try:
        found = client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        pytest.skip(f"this server does not list uploads in parts ({code})")
    finally:
        client.abort_multipart_upload(Bucket=store.bucket, Key=name, UploadId=begun["UploadId"])
    if not found.get("Uploads"):
        pytest.skip("this server does not list uploads in parts by the beginning of their keys")


def leave_behind(store: Store, name: str) -> None:
    """What a process leaves that is killed while it writes `name`, and while it probes."""
    if isinstance(store, FileStore):
        for path in (f"{name}/.hdgan-tmp-0123", ".hdgan-probe/4567"):
            (store.root / path).parent.mkdir(parents=True, exist_ok=True)
            (store.root / path).write_bytes(b"half")
        return
    assert isinstance(store, S3Store)
    begun = store.server.client.create_multipart_upload(
        Bucket=store.bucket, Key=store.prefix + name
    )
    store.server.client.upload_part(
        Bucket=store.bucket,
        Key=store.prefix + name,
        UploadId=begun["UploadId"],
        PartNumber=1,
        Body=b"half",
    )
    store.put(".hdgan-probe/4567", b"half")


def test_nothing_is_unfinished_where_all_is_whole(store: Store) -> None:
    assert list(store.unfinished()) == []
    store.put("a/whole", b"1")
    store.probe()
    assert list(store.unfinished()) == []


def test_what_was_cut_off_is_found_and_removed(store: Store) -> None:
    store.put("a/whole", b"1")
    before = store.now()
    leave_behind(store, "a/b")
    found = list(store.unfinished())
    assert len(found) == 2
    # By the same clock, whose seconds may be whole ones.
    for one in found:
        assert timedelta(seconds=-2) <= one.started - before <= timedelta(minutes=5)
        assert one.size == 4
    assert any("a/b" in one.name for one in found)
    assert list(store.list("")) == ["a/whole"]
    for one in found:
        store.remove_unfinished(one)
        store.remove_unfinished(one)
    assert list(store.unfinished()) == []
    assert store.get("a/whole") == b"1"


def test_what_belongs_to_another_store_is_left_alone(store: Store, other_store: Store) -> None:
    leave_behind(other_store, "a/b")
    assert list(store.unfinished()) == []
    for one in list(other_store.unfinished()):
        if isinstance(store, S3Store):
            with pytest.raises(InternalError, match="nothing unfinished"):
                store.remove_unfinished(one)
    assert len(list(other_store.unfinished())) == 2


def test_what_is_whole_cannot_be_removed_as_unfinished(store: Store) -> None:
    store.put("a/whole", b"1")
    whole = f"{store.prefix}a/whole" if isinstance(store, S3Store) else "a/whole"
    for place in (whole, f"../{whole}", f"x/../{whole}"):
        with pytest.raises(InternalError, match="nothing unfinished"):
            store.remove_unfinished(Unfinished("x", datetime.now(UTC), None, (place,)))
    assert store.get("a/whole") == b"1"


def test_the_clock_is_told_and_leaves_nothing(store: Store) -> None:
    now = store.now()
    assert now.tzinfo is not None
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=5)
    store.put("a", b"1")
    info = store.head("a")
    assert info is not None
    assert timedelta(seconds=-2) < info.modified - now < timedelta(minutes=5)
    assert list(store.unfinished()) == []
    assert list(store.list("")) == ["a"]
