"""The controller as processes, and the commands people type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.fake_api.fates import NodeLost, Runs
from cluster.fake_api.faults import Faults
from cluster.fake_api.server import FakeApiServer
from cluster.test_controller import Cluster, cluster, crd, s3, world  # noqa: F401
from hdgan.controller import api as paths
from support.runs import DOCUMENT, changed

SECONDS = 60.0


class Replica:
    """A controller in a process of its own; its log is in a file."""

    def __init__(self, folder: Path, name: str, settings: Path, kubeconfig: Path) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hdgan.controller", settings, "--kubeconfig", kubeconfig],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HOSTNAME": name, "PYTHONUNBUFFERED": "1"},
            )

    def said(self, words: str) -> bool:
        return words in self.log.read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def eventually(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def settings_file(cluster: Cluster, tmp_path: Path) -> Path:  # noqa: F811
    document = cluster.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    election = {"name": f"lease-{cluster.namespace}", "leaseSeconds": 4, "renewSeconds": 2.4}
    document["healthPort"] = 0
    document["election"] = {**election, "retrySeconds": 0.8}
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_replica_that_is_killed_is_followed_by_the_other(
    cluster: Cluster,  # noqa: F811
    world: None,  # noqa: F811
    settings_file: Path,
    kubeconfig: Path,
    tmp_path: Path,
) -> None:
    cluster.fates["gan-trainer"] = [Runs(seconds=600)]
    first = Replica(tmp_path, "first", settings_file, kubeconfig)
    second = None
    try:
        eventually(lambda: first.said("seeing to runs"))
        second = Replica(tmp_path, "second", settings_file, kubeconfig)
        cluster.submit()
        cluster.until(lambda s: s.stage_named("gan-trainer").job is not None, seconds=SECONDS)
        eventually(lambda: "gan-trainer" in cluster.pods)
        assert not second.said("seeing to runs")
        first.process.send_signal(signal.SIGKILL)
        eventually(lambda: second.said("seeing to runs"))
        job = cluster.status().stage_named("gan-trainer").job
        assert job is not None
        cluster.api.delete(paths.JOBS, cluster.namespace, job)
        cluster.until(lambda s: s.phase == "AwaitingAnnotation", seconds=SECONDS)
        assert cluster.pods.count("tiler") == 1
        # Told to stop, it hands the Lease over and ends well.
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(SECONDS) == 0
        assert second.said("released the Lease")
    finally:
        first.end()
        if second is not None:
            second.end()


def hdgan(*words: str, kubeconfig: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hdgan.core.cli", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "KUBECONFIG": str(kubeconfig), **environment},
        timeout=SECONDS,
        check=False,
    )


def test_submit_status_and_cancel(
    cluster: Cluster,  # noqa: F811
    world: None,  # noqa: F811
    kubeconfig: Path,
    tmp_path: Path,
) -> None:
    cluster.fates["tiler"] = [Runs(seconds=600)]
    cluster.start()
    file = tmp_path / "run.yaml"

    def command(name: str, *words: str, code: int = 0) -> str:
        done = hdgan(
            name, str(file), "--namespace", cluster.namespace, *words, kubeconfig=kubeconfig
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def write(document: dict[str, Any]) -> None:
        file.write_text(yaml.safe_dump(document))

    write(DOCUMENT)
    assert "is on this machine; a cluster reads s3://" in command("submit", code=64)
    document = changed("spec.slides.uri", f"s3://{cluster.bucket}/slides")
    write(document)
    assert "submitted to namespace" in command("submit")
    assert "is there already, and the same" in command("submit")
    cluster.until(lambda s: s.stage_named("tiler").job is not None)
    shown = command("status")
    assert "small: Running (tiler" in shown
    assert '"phase": "Running"' in command("status", "--json")
    write(changed("spec.tiler.maxWhitespace", 0.25, document))
    assert "spec.tiler.maxWhitespace cannot change" in command("submit", code=75)
    write(changed("spec.suspend", True, document))
    assert "changed" in command("submit")
    cluster.until(lambda s: s.phase == "Suspended")
    assert "cancelled; its artifacts and saved work are kept" in command("cancel")
    assert cluster.api.get(paths.RUNS, cluster.namespace, "small") is None
    assert "has no DatasetRun small" in command("cancel", code=66)
    assert "has no DatasetRun small" in command("status", code=66)


def submitted(
    cluster: Cluster,  # noqa: F811
    file: Path,
    kubeconfig: Path,
    document: dict[str, Any],
    code: int = 0,
) -> str:
    file.write_text(yaml.safe_dump(document))
    words = ("submit", str(file), "--namespace", cluster.namespace)
    done = hdgan(*words, kubeconfig=kubeconfig)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_file_submitted_again_replaces_what_the_run_was_told(
    cluster: Cluster,  # noqa: F811
    kubeconfig: Path,
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.yaml"

    def submit(document: dict[str, Any], code: int = 0) -> str:
        return submitted(cluster, file, kubeconfig, document, code)

    def spec() -> dict[str, Any]:
        known = cluster.api.get(paths.RUNS, cluster.namespace, "small")
        assert known is not None
        found: dict[str, Any] = known["spec"]
        return found

    document = changed("spec.slides.uri", f"s3://{cluster.bucket}/slides")
    document = changed("spec.resources.pods", {"tiler": {"cpu": "2", "memory": "4Gi"}}, document)
    document = changed("spec.tiler.maxWhitespace", 0.25, document)
    submit(document)
    labels = {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}
    cluster.api.patch(paths.RUNS, cluster.namespace, "small", labels)

    less = changed("spec.resources.pods", {"tiler": {"cpu": "2"}}, document)
    assert "changed" in submit(less)
    assert spec()["resources"]["pods"] == {"tiler": {"cpu": "2"}}
    assert "is there already, and the same" in submit(less)
    known = cluster.api.get(paths.RUNS, cluster.namespace, "small")
    assert known is not None
    assert known["metadata"]["labels"] == {"team": "a"}
    assert known["metadata"]["annotations"] == {"note": "b"}

    # A field that may not change may not go either, and nothing else is changed then.
    without = changed("spec.tiler", {"tileSize": 64, "mpp": 1.0, "holdout": "spatial"}, document)
    assert "spec.tiler.maxWhitespace cannot change" in submit(without, code=75)
    assert spec()["tiler"]["maxWhitespace"] == 0.25
    assert spec()["resources"]["pods"] == {"tiler": {"cpu": "2"}}


def test_what_is_submitted_wins_over_others_who_write_at_the_same_time(
    cluster: Cluster,  # noqa: F811
    kubeconfig: Path,
    tmp_path: Path,
    faults: Faults,
) -> None:
    file = tmp_path / "run.yaml"
    document = changed("spec.slides.uri", f"s3://{cluster.bucket}/slides")
    submitted(cluster, file, kubeconfig, document)
    place = f"/{cluster.namespace}/datasetruns/small"
    faults.answer(409, times=2, where=lambda verb, path: verb == "PUT" and path.endswith(place))
    again = changed("spec.suspend", True, document)
    assert "changed" in submitted(cluster, file, kubeconfig, again)


def test_cancel_waits_for_the_pods_of_the_run_and_leaves_what_others_need(
    cluster: Cluster,  # noqa: F811
    world: None,  # noqa: F811
    kubeconfig: Path,
    tmp_path: Path,
) -> None:
    cluster.fates["tiler"] = [Runs(seconds=600, stop_seconds=2, stop_code=75)]
    cluster.start()
    for name in ("small", "twin"):
        cluster.submit(name)
        cluster.until(lambda s: s.stage_named("tiler").job is not None, name)

    def owners() -> list[int]:
        return [len(one["metadata"]["ownerReferences"]) for one in cluster.jobs()]

    def pods() -> list[str]:
        listed = cluster.api.list(paths.PODS, cluster.namespace).items
        return [one["status"].get("phase", "") for one in listed]

    eventually(lambda: owners() == [2] and pods() == ["Running"])

    def cancel(name: str) -> str:
        file = tmp_path / f"{name}.yaml"
        document = changed("spec.slides.uri", f"s3://{cluster.bucket}/slides")
        file.write_text(yaml.safe_dump(changed("metadata.name", name, document)))
        done = hdgan("cancel", str(file), "-n", cluster.namespace, kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        assert f"{name}: cancelled" in done.stdout
        return done.stderr

    cancel("small")
    assert pods() == ["Running"]
    eventually(lambda: owners() == [1])
    said = cancel("twin")
    assert (pods(), cluster.jobs()) == ([], [])
    assert "twin: waiting at most" in said
    assert "pod tiler-" in said


def test_cancel_does_not_wait_for_ever(
    cluster: Cluster,  # noqa: F811
    world: None,  # noqa: F811
    api_server: FakeApiServer,  # a node that keeps its pods
    kubeconfig: Path,
    tmp_path: Path,
) -> None:
    cluster.fates["tiler"] = [NodeLost(seconds=0.1)]
    cluster.start()
    cluster.submit()
    eventually(lambda: "tiler" in cluster.pods)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(changed("spec.slides.uri", f"s3://{cluster.bucket}/slides")))
    words = ("cancel", str(file), "-n", cluster.namespace, "--timeout", "3")
    done = hdgan(*words, kubeconfig=kubeconfig)
    assert done.returncode == 75, done.stdout
    (pod,) = cluster.api.list(paths.PODS, cluster.namespace).items
    name = pod["metadata"]["name"]
    assert f"pod {name}" in done.stderr
    told = f"kubectl delete pod --namespace {cluster.namespace} --force --grace-period=0 {name}"
    assert told in done.stderr


def test_logs_of_one_pod_and_of_parts(
    cluster: Cluster,  # noqa: F811
    world: None,  # noqa: F811
    api_server: FakeApiServer,
    kubeconfig: Path,
    tmp_path: Path,
) -> None:
    cluster.fates["tiler"] = [Runs(seconds=600), Runs(seconds=600), Runs(starts_after=600)]
    cluster.start()
    file = tmp_path / "run.yaml"
    document = changed("spec.slides.uri", f"s3://{cluster.bucket}/slides")
    document["spec"]["resources"] = {"pods": {"tiler": {"parts": 3}}}
    file.write_text(yaml.safe_dump(document))
    words = ("logs", str(file), "--namespace", cluster.namespace)
    before = hdgan(*words, kubeconfig=kubeconfig)
    assert (before.returncode, "has no DatasetRun small" in before.stderr) == (66, True)
    cluster.submit(resources__pods={"tiler": {"parts": 3}})

    def running() -> list[str]:
        pods = cluster.api.list(paths.PODS, cluster.namespace).items
        return sorted(
            one["metadata"]["name"] for one in pods if one["status"].get("phase") == "Running"
        )

    eventually(lambda: len(running()) == 2)
    first, second = running()
    api_server.output.say(cluster.namespace, first, "stage", "slide 1\n\n  of 3\n")
    api_server.output.say(cluster.namespace, second, "stage", "no end of line: µm")
    said = hdgan(*words, kubeconfig=kubeconfig)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines == [
        "part 0 | slide 1",
        "part 0 | ",
        "part 0 |   of 3",
        "part 1 | no end of line: µm",
    ]
    assert 'no log (container "stage" in pod' in said.stderr
    assert "is waiting to start" in said.stderr
    assert hdgan(*words, "--stage", "dataset", kubeconfig=kubeconfig).returncode == 66


def test_a_followed_log_comes_as_it_is_written_and_ends_with_the_pod(
    cluster: Cluster,  # noqa: F811
    world: None,  # noqa: F811
    api_server: FakeApiServer,
    kubeconfig: Path,
    tmp_path: Path,
) -> None:
    cluster.fates["tiler"] = [Runs(starts_after=1, seconds=6)]
    cluster.start()
    cluster.submit()
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(changed("spec.slides.uri", f"s3://{cluster.bucket}/slides")))
    eventually(lambda: bool(cluster.api.list(paths.PODS, cluster.namespace).items))
    (pod,) = cluster.api.list(paths.PODS, cluster.namespace).items
    name = pod["metadata"]["name"]
    with subprocess.Popen(
        [sys.executable, "-m", "hdgan.core.cli", "logs", file, "-f", "-n", cluster.namespace],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
    ) as process:
        assert process.stdout is not None
        for number in range(3):
            api_server.output.say(cluster.namespace, name, "stage", f"step {number}\n")
            assert process.stdout.readline() == f"step {number}\n"
        assert process.wait(SECONDS) == 0


def test_without_a_cluster_the_message_says_what_to_set(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(changed("spec.slides.uri", "s3://bucket/slides")))
    done = hdgan("submit", str(file), kubeconfig=tmp_path / "none")
    assert done.returncode == 64
    assert "Set KUBECONFIG" in done.stderr
