"""The stores that the suite runs on."""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from e2e.object_server import running
from hdgan.core.store import Store, open_store
from hdgan.core.store_s3 import S3Store
from support.s3_server import (
    Keys,
    TestServer,
    new_bucket,
    point_aws_at,
    running_s3,
    strict_ministack,
    strict_moto,
)
from support.tls_front import TlsFront, tls_front

GIVEN = "HDGAN_TEST_ENDPOINT"
"""Variable with the URL of a server the suite is to run on, too: `make test-store`."""
GIVEN_BUCKET = "HDGAN_TEST_BUCKET"
"""A bucket there; without it, one is made and removed."""

SERVERS = ["file", "moto", "ministack", "tls", "object_server"]


@functools.cache
def bucket_of(endpoint: str, keys: Keys) -> str:
    """One bucket for all tests on a server: boto3 takes its time to make a client for another."""
    client = TestServer(endpoint, keys).client("s3")
    with contextlib.closing(client):
        name = f"bucket-{uuid.uuid4().hex}"
        client.create_bucket(Bucket=name)
        return name


def fresh(endpoint: str, keys: Keys) -> str:
    """A store nobody has used."""
    return f"s3://{bucket_of(endpoint, keys)}/{uuid.uuid4().hex}/prefix"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        given = ["given_endpoint"] if os.environ.get(GIVEN) else []
        metafunc.parametrize("server", SERVERS + given)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with running_s3() as endpoint:
        yield endpoint


@pytest.fixture
def s3_uri(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in moto, in this process."""
    point_aws_at(s3_endpoint, monkeypatch)
    return fresh(s3_endpoint, Keys())


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    """moto, which checks who asks."""
    with strict_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def moto_uri(moto: TestServer, monkeypatch: pytest.MonkeyPatch) -> str:
    point_aws_at(moto.endpoint, monkeypatch, moto.keys)
    return fresh(moto.endpoint, moto.keys)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    """ministack, which checks who asks."""
    with strict_ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture
def ministack_uri(ministack: TestServer, monkeypatch: pytest.MonkeyPatch) -> str:
    point_aws_at(ministack.endpoint, monkeypatch, ministack.keys)
    return fresh(ministack.endpoint, ministack.keys)


@pytest.fixture(scope="session")
def tls(moto: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsFront]:
    """moto over TLS."""
    with tls_front(moto.endpoint, tmp_path_factory.mktemp("tls")) as front:
        yield front


@pytest.fixture
def tls_uri(tls: TlsFront, moto_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The CA is a file of ours, and checksums come behind the body."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", tls.endpoint)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls.authority))
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_supported")
    return moto_uri


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The S3 server of the end-to-end test."""
    with running(tmp_path_factory.mktemp("objects")) as endpoint:
        yield endpoint


@pytest.fixture
def object_server_uri(object_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    point_aws_at(object_server, monkeypatch)
    return fresh(object_server, Keys())


@pytest.fixture(scope="session")
def given_bucket() -> Iterator[str]:
    """The bucket that is named, on the server that is named. One that is not there is made, and
    goes in the end; so does a new one where none is named."""
    client = boto3.session.Session().client("s3", endpoint_url=os.environ[GIVEN])
    with contextlib.closing(client):
        named = os.environ.get(GIVEN_BUCKET)
        if named and _is_there(client, named):
            yield named
            return
        bucket = new_bucket(os.environ[GIVEN], named)
        yield bucket
        client.delete_bucket(Bucket=bucket)


def _is_there(client: Any, bucket: str) -> bool:
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise  # there, and not ours: no test can work
        return False
    return True


@pytest.fixture
def given_endpoint_uri(given_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A prefix of its own there, of which nothing stays."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", os.environ[GIVEN])
    prefix = f"hdgan-test-{uuid.uuid4().hex}"
    yield f"s3://{given_bucket}/{prefix}/some/prefix"
    everything = S3Store(given_bucket, prefix)
    with contextlib.closing(everything):
        for key in list(everything.list("")):
            everything.delete(key)
        for one in list(everything.unfinished()):
            everything.remove_unfinished(one)


@pytest.fixture
def uri(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if server != "file":
        return str(request.getfixturevalue(f"{server}_uri"))
    return (tmp_path / "a store").as_uri()


@pytest.fixture
def store(uri: str) -> Iterator[Store]:
    with opened(uri) as store:
        yield store


@pytest.fixture
def other_store(uri: str) -> Iterator[Store]:
    """A store beside `store`, whose URI begins as that one's does."""
    with opened(f"{uri}-2") as store:
        yield store


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Store]:
    """The store, closed in the end if it has connections."""
    store = open_store(uri)
    try:
        yield store
    finally:
        if isinstance(store, S3Store):
            store.close()
