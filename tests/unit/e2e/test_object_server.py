"""The S3 server of the end-to-end test, by boto3 as it comes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from e2e.object_server import running
from support.s3_server import point_aws_at

BUCKET = "bucket"


def connected(endpoint: str, **config: Any) -> Any:
    client = boto3.client("s3", endpoint_url=endpoint, config=Config(**config))
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with running(tmp_path / "objects") as endpoint:
        point_aws_at(endpoint, monkeypatch)
        client = connected(endpoint)
        yield client
        client.close()


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.parametrize("checksums", ["when_required", "when_supported"])
@pytest.mark.parametrize("body", [b"", b"x", os.urandom(3 << 20)], ids=["none", "one", "many"])
def test_an_object_comes_back_whatever_way_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checksums: str, body: bytes
) -> None:
    with running(tmp_path / "objects") as endpoint:
        point_aws_at(endpoint, monkeypatch)
        s3 = connected(endpoint, request_checksum_calculation=checksums)
        # With checksums, boto3 sends what it cannot look through beforehand in signed chunks.
        s3.put_object(Bucket=BUCKET, Key="a", Body=io.BytesIO(body))
        answer = s3.get_object(Bucket=BUCKET, Key="a")
        assert answer["Body"].read() == body
        assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        s3.close()


def test_listing_goes_through_pages_in_order_and_spells_any_name(s3: Any) -> None:
    names = [f"p/{index:03}" for index in range(25)] + ["p/a b+c&<ü>.svs", "q"]
    for name in reversed(names):
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"1")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="p/", PaginationConfig={"PageSize": 4}
    )
    found = [[one["Key"] for one in page["Contents"]] for page in pages]
    assert [len(page) for page in found] == [4] * 6 + [2]
    assert [key for page in found for key in page] == sorted(names[:-1], key=str.encode)
    rest = s3.list_objects_v2(Bucket=BUCKET, StartAfter="p/a")
    assert [one["Key"] for one in rest["Contents"]] == names[-2:]


@pytest.mark.parametrize(
    ("span", "expected"),
    [("bytes=0-0", b"0"), ("bytes=3-5", b"345"), ("bytes=7-", b"789"), ("bytes=-2", b"89")],
)
def test_a_range_is_what_was_asked_for(s3: Any, span: str, expected: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"0123456789")
    answer = s3.get_object(Bucket=BUCKET, Key="a", Range=span)
    assert answer["Body"].read() == expected
    assert answer["ContentRange"].endswith("/10")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=BUCKET, Key="a", Range="bytes=10-")
    assert code(caught) == "InvalidRange"


def test_a_reader_that_goes_on_is_told_of_a_change(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="a", Body=b"old")["ETag"]
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"new")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=BUCKET, Key="a", IfMatch=etag)
    assert code(caught) == "PreconditionFailed"


def test_parts_are_put_together_in_order(s3: Any) -> None:
    body = os.urandom(12 << 20)
    transfer = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    s3.upload_fileobj(io.BytesIO(body), BUCKET, "large", Config=transfer)
    answer = s3.get_object(Bucket=BUCKET, Key="large")
    assert answer["Body"].read() == body
    assert answer["ETag"].endswith('-3"')


def test_an_upload_that_is_given_up_leaves_nothing(s3: Any, tmp_path: Path) -> None:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="a")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="a", UploadId=upload, PartNumber=1, Body=b"1")
    s3.abort_multipart_upload(Bucket=BUCKET, Key="a", UploadId=upload)
    with pytest.raises(ClientError) as caught:
        s3.upload_part(Bucket=BUCKET, Key="a", UploadId=upload, PartNumber=2, Body=b"1")
    assert code(caught) == "NoSuchUpload"
    assert list((tmp_path / "objects" / BUCKET).iterdir()) == []


def test_objects_outlive_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for turn in range(2):
        with running(tmp_path / "objects") as endpoint:
            point_aws_at(endpoint, monkeypatch)
            s3 = connected(endpoint)
            if turn == 0:
                for name in ("kept", "gone"):
                    s3.put_object(Bucket=BUCKET, Key=name, Body=name.encode())
                s3.delete_object(Bucket=BUCKET, Key="gone")
                s3.put_object(Bucket=BUCKET, Key="kept", Body=b"twice")
            else:
                listed = s3.list_objects_v2(Bucket=BUCKET)
                assert [one["Key"] for one in listed["Contents"]] == ["kept"]
                assert s3.get_object(Bucket=BUCKET, Key="kept")["Body"].read() == b"twice"
            s3.close()


def test_what_it_does_not_know_it_refuses_and_goes_on(s3: Any) -> None:
    with pytest.raises(ClientError) as caught:
        s3.put_object_tagging(Bucket=BUCKET, Key="a", Tagging={"TagSet": []})
    assert code(caught) == "NotImplemented"
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="nowhere", Key="a")
    assert code(caught) == "NoSuchBucket"
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"1")
    assert s3.get_object(Bucket=BUCKET, Key="a")["Body"].read() == b"1"
