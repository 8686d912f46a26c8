"""Real S3 APIs on 127.0.0.1 for tests: moto in a thread of this process, and moto and ministack in
processes of their own that check who asks."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

REGION = "us-east-1"
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}
_STARTING_SECONDS = 60


@dataclass(frozen=True)
class Keys:
    """Credentials of a user of a server."""

    access: str = "test-access-key"
    secret: str = "test-secret-value"
    token: str | None = None

    def arguments(self) -> dict[str, str | None]:
        """For boto3's clients."""
        return {
            "aws_access_key_id": self.access,
            "aws_secret_access_key": self.secret,
            "aws_session_token": self.token,
        }


@dataclass(frozen=True)
class TestServer:
    """A server and a user who may do everything with objects there."""

    __test__ = False

    endpoint: str
    keys: Keys

    def client(self, service: str) -> Any:
        return boto3.session.Session().client(
            service, endpoint_url=self.endpoint, region_name=REGION, **self.keys.arguments()
        )


@contextlib.contextmanager
def running_s3() -> Iterator[str]:
    """The server's endpoint URL, for as long as the block runs. It believes everybody."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def strict_moto(folder: Path) -> Iterator[TestServer]:
    """moto in a process of its own, that checks signatures and what users may do. folder: for it"""
    # The first three actions make the user; who asks from then on is checked.
    command = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    environment = {"INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    with _process(command, environment, folder, "/moto-api/data.json") as endpoint:
        yield _with_user(TestServer(endpoint, Keys()))


@contextlib.contextmanager
def strict_ministack(folder: Path) -> Iterator[TestServer]:
    """ministack in a process of its own, that checks signatures, clocks and what users may do."""
    command = "from ministack.app import main; import sys; sys.argv = ['ministack']; main()"
    environment = {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": "{port}",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "S3_DATA_DIR": str(folder / "s3"),
        "SERVICES": "s3,iam,sts",
        "TMPDIR": str(folder),
    }
    with _process(command, environment, folder, "/_ministack/health") as endpoint:
        yield _with_user(TestServer(endpoint, Keys("test", "test")))


def _with_user(root: TestServer) -> TestServer:
    iam = root.client("iam")
    with contextlib.closing(iam):
        iam.create_user(UserName="tester")
        iam.put_user_policy(
            UserName="tester", PolicyName="objects", PolicyDocument=json.dumps(_POLICY)
        )
        made = iam.create_access_key(UserName="tester")["AccessKey"]
    return TestServer(root.endpoint, Keys(made["AccessKeyId"], made["SecretAccessKey"]))


@contextlib.contextmanager
def _process(command: str, environment: dict[str, str], folder: Path, health: str) -> Iterator[str]:
    """The URL of a server that a line of Python starts, once it answers. {port}: a free one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    settled = {name: value.format(port=port) for name, value in environment.items()}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", command.format(port=port)],
            env={**_without_aws(), **settled},
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(port, health, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _without_aws() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def _wait_for(port: int, health: str, process: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < _STARTING_SECONDS and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", health)
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError(f"a server does not start: {log.read_text(errors='replace')[-2000:]}")


def point_aws_at(endpoint: str, monkeypatch: pytest.MonkeyPatch, keys: Keys | None = None) -> None:
    """This endpoint and these credentials, and nothing of the machine's own AWS settings."""
    keys = keys or Keys()
    forget_aws(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys.access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys.secret)
    if keys.token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", keys.token)
    monkeypatch.setenv("AWS_REGION", REGION)


def forget_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own AWS settings."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials")


def new_bucket(endpoint: str, name: str | None = None) -> str:
    """Name of a bucket nobody has used. Needs `point_aws_at`."""
    name = name or f"test-{uuid.uuid4().hex}"
    # A session of its own: boto3's common one keeps the first credentials it finds.
    client = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=REGION)
    client.create_bucket(Bucket=name)
    client.close()
    return name
