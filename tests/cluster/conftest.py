"""Fixtures of the tests that talk to a Kubernetes API server.

Without HDGAN_TEST_KUBECONFIG they talk to the fake one of `fake_api`. With it, `api_client`,
`kubeconfig` and `namespace` are those of the real cluster that kubeconfig names, and tests that use
what only the fake can give (`api_server`, `faults`, `requests`, `job_world`) are skipped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from cluster.fake_api.faults import Faults
from cluster.fake_api.jobs import SimulatedJobs
from cluster.fake_api.record import Requests
from cluster.fake_api.server import FakeApiServer

VARIABLE = "HDGAN_TEST_KUBECONFIG"


def _real() -> Path | None:
    """The kubeconfig of a real cluster, when one is to be used."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


@pytest.fixture(scope="session")
def api_server() -> Iterator[FakeApiServer]:
    """The fake server, for tests that need to see or disturb it from within."""
    if _real() is not None:
        pytest.skip(f"needs the fake API server, but {VARIABLE} names a real cluster")
    with FakeApiServer() as server:
        yield server


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig of the server the tests talk to."""
    real = _real()
    if real is not None:
        return real
    server: FakeApiServer = request.getfixturevalue("api_server")
    return server.kubeconfig(tmp_path_factory.mktemp("kube") / "config")


@pytest.fixture(scope="session")
def api_client(kubeconfig: Path) -> Iterator[client.ApiClient]:
    """The official client, talking to the fake server or to the real cluster."""
    api_client = config.new_client_from_config(str(kubeconfig))
    yield api_client
    api_client.close()


@pytest.fixture
def namespace(api_client: client.ApiClient) -> Iterator[str]:
    """A fresh namespace. It is deleted at the end, with all that is in it."""
    core = client.CoreV1Api(api_client)
    made = core.create_namespace(
        client.V1Namespace(
            metadata=client.V1ObjectMeta(
                generate_name="hdgan-test-", labels={"app.kubernetes.io/part-of": "hdgan-test"}
            )
        )
    )
    assert made.metadata is not None
    assert made.metadata.name is not None
    name = made.metadata.name
    if _real() is not None:
        _settle(core, name)
    yield name
    core.delete_namespace(name)


def _settle(core: client.CoreV1Api, namespace: str, seconds: float = 60.0) -> None:
    """Waits for what a real cluster puts into a new namespace of its own accord: watches would
    tell of it, and pods cannot be made before."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            core.read_namespaced_config_map("kube-root-ca.crt", namespace)
            core.read_namespaced_service_account("default", namespace)
        except ApiException as error:
            if error.status != 404 or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def faults(api_server: FakeApiServer) -> Iterator[Faults]:
    """Faults of the fake server. All end with the test."""
    yield api_server.faults
    api_server.faults.clear()


@pytest.fixture
def requests(api_server: FakeApiServer) -> Requests:
    """The requests the fake server gets, counted from the beginning of this test."""
    api_server.requests.clear()
    return api_server.requests


@pytest.fixture
def job_world(api_server: FakeApiServer, namespace: str) -> Iterator[Callable[..., SimulatedJobs]]:
    """Starts a simulated Job controller for this test's namespace; arguments as `SimulatedJobs`."""
    worlds: list[SimulatedJobs] = []

    def start(*args: Any, **named: Any) -> SimulatedJobs:
        world = SimulatedJobs(api_server, *args, namespace=namespace, **named)
        world.start()
        worlds.append(world)
        return world

    yield start
    for world in worlds:
        world.stop()
