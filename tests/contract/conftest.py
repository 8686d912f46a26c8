"""The stores that the suite runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.object_server import running
from hdgan.core.store import Store, open_store
from hdgan.core.store_s3 import S3Store
from support.s3_server import new_bucket, point_aws_at, running_s3


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with running_s3() as endpoint:
        yield endpoint


@pytest.fixture
def s3_uri(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    point_aws_at(s3_endpoint, monkeypatch)
    return f"s3://{new_bucket(s3_endpoint)}/some/prefix"


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The S3 server of the end-to-end test."""
    with running(tmp_path_factory.mktemp("objects")) as endpoint:
        yield endpoint


@pytest.fixture
def object_server_uri(object_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    point_aws_at(object_server, monkeypatch)
    return f"s3://{new_bucket(object_server)}/some/prefix"


@pytest.fixture(params=["file", "s3", "object_server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "file":
        return str(request.getfixturevalue(f"{request.param}_uri"))
    return (tmp_path / "a store").as_uri()


@pytest.fixture
def store(uri: str) -> Iterator[Store]:
    store = open_store(uri)
    yield store
    if isinstance(store, S3Store):
        store.close()


@pytest.fixture
def other_store(uri: str) -> Iterator[Store]:
    """A store beside `store`, whose URI begins as that one's does."""
    other = open_store(f"{uri}-2")
    yield other
    if isinstance(other, S3Store):
        other.close()
