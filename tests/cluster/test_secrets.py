"""The controller writes no secret anywhere, whatever pods, registries and servers say."""

from __future__ import annotations

import copy
import json
import os
import socket
import urllib.request
from pathlib import Path

import pytest
import yaml

from cluster.fake_api.fates import CannotStart, Runs
from cluster.fake_api.server import FakeApiServer
from cluster.test_controller import Cluster, cluster, crd, s3, world  # noqa: F401
from cluster.test_program import Replica, eventually, hdgan, settings_file  # noqa: F401
from hdgan.controller import api as paths
from support import canaries
from support.runs import DOCUMENT

SAID = (
    f"RuntimeError: signed with {canaries.KEY_ID} via {canaries.PROXY}, token {canaries.WEB_TOKEN},"
    f" x-amz-security-token: {canaries.SESSION_TOKEN}, as Bearer {canaries.BEARER}"
)
PULLING = f"failed to pull https://bob:{canaries.ENDPOINT_PASSWORD}@registry.test/v2/: 401"
# A pod's own status is what the kubelet writes; all else is the controller's.
WRITTEN = (
    paths.RUNS,
    paths.JOBS,
    paths.EVENTS,
    paths.CONFIG_MAPS,
    paths.SERVICES,
    paths.CLAIMS,
    "apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_controller_lets_no_secret_out(
    cluster: Cluster,  # noqa: F811
    world: None,  # noqa: F811
    settings_file: Path,  # noqa: F811
    api_server: FakeApiServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "credentials"
    (folder / "AWS_ACCESS_KEY_ID").write_text(canaries.KEY_ID)
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(f"{canaries.SECRET}\n")
    (folder / "AWS_SESSION_TOKEN").write_text(canaries.SESSION_TOKEN)
    kubeconfig = api_server.kubeconfig(folder / "kubeconfig")
    kubeconfig.write_text(kubeconfig.read_text().replace("no-secret", canaries.BEARER))
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, canaries.PROXY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    port = free_port()
    document = yaml.safe_load(settings_file.read_text()) | {"healthPort": port}
    # A second store that nothing answers for: what its client says is not ours.
    stores = document["namespaces"][0]["stores"]
    stores["away"] = copy.deepcopy(stores["default"]) | {"endpoint": "http://127.0.0.1:1"}
    settings_file.write_text(yaml.safe_dump(document))

    cluster.fates["tiler"] = [Runs(exit_code=64, message=json.dumps({"message": SAID}))]
    cluster.fates["candidates"] = [CannotStart(message=PULLING)]
    replica = Replica(tmp_path, "controller", settings_file, kubeconfig)
    try:
        eventually(lambda: replica.said("seeing to runs"))
        cluster.submit()
        cluster.until(lambda s: s.phase == "Failed")
        cluster.told("Failed")
        cluster.submit("pulls", tiler__maxWhitespace=0.25)
        pulls = cluster.until(
            lambda s: any("registry.test" in one.message for one in s.conditions), "pulls"
        )
        cluster.submit("away", resources={"store": "away"})
        cluster.until(
            lambda s: any("no usable answer" in one.message for one in s.conditions), "away"
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = answer.read()
        arguments = Path(f"/proc/{replica.process.pid}/cmdline").read_bytes()
    finally:
        replica.end()
    shown = hdgan(
        "status", str(_run_file(tmp_path)), "-n", cluster.namespace, kubeconfig=kubeconfig
    )
    assert "signed with [redacted]" in shown.stdout, shown.stderr
    assert any("https://[redacted]@registry.test" in one.message for one in pulls.conditions)

    written = {
        f"{collection} {one['metadata']['name']}": json.dumps(one).encode()
        for collection in WRITTEN
        for one in cluster.api.list(collection, cluster.namespace).items
    }
    kinds = {name.split("/")[-1].split()[0] for name in written}
    assert {"datasetruns", "jobs", "events", "configmaps"} <= kinds
    written |= {key: cluster.store.get(key) for key in cluster.store.list("")}
    written |= {"log": replica.log.read_bytes(), "metrics": metrics, "arguments": arguments}
    written |= {"status": (shown.stdout + shown.stderr).encode()}
    assert b"seeing to runs" in written["log"]
    assert b"hdgan_controller_leading" in metrics
    assert b'hdgan_store_requests_total{operation="' in metrics
    assert canaries.leaks(written) == []
    assert canaries.leaks({"environment": json.dumps(dict(os.environ)).encode()}), "they were there"


def _run_file(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT))
    return path
