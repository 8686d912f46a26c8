"""A port that leads to a pod, with the stream through the API server replaced by a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from kubernetes import client

from e2e import forward
from e2e.forward import forwarded
from e2e.object_server import running
from support.s3_server import point_aws_at


class Session:
    """Stands for a client of the API server."""

    def close(self) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    with running(tmp_path / "objects") as endpoint:
        yield int(endpoint.rpartition(":")[2])


@pytest.mark.parametrize("failures", [0, 2])
def test_large_objects_pass_over_connections_that_break(
    server: int, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    opened: list[socket.socket] = []
    pods: list[str] = []

    class Stream:
        def __init__(self, _: Any, pod: str, namespace: str, ports: str) -> None:
            assert (namespace, ports) == ("e2e", "9000")
            pods.append(pod)
            if len(pods) <= failures:
                raise OSError("no answer")

        def socket(self, _: int) -> socket.socket:
            opened.append(socket.create_connection(("127.0.0.1", server)))
            return opened[-1]

    monkeypatch.setattr(forward, "portforward", Stream)
    monkeypatch.setattr("e2e.forward.time.sleep", lambda _: None)

    def connect() -> client.ApiClient:
        return cast(client.ApiClient, Session())

    with forwarded(connect, "e2e", lambda: f"pod-{len(pods)}", 9000) as port:
        endpoint = f"http://127.0.0.1:{port}"
        point_aws_at(endpoint, monkeypatch)
        s3 = boto3.client("s3", endpoint_url=endpoint)
        s3.create_bucket(Bucket="bucket")
        body = bytes(range(256)) * 20_000
        s3.put_object(Bucket="bucket", Key="a", Body=body)
        # The pod goes, and with it what was connected: the next request finds another one.
        opened[-1].shutdown(socket.SHUT_RDWR)
        assert s3.get_object(Bucket="bucket", Key="a")["Body"].read() == body
        s3.close()
    assert len(opened) >= 2
    assert pods[-1] == f"pod-{len(pods) - 1}"
