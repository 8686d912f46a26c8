"""The controller over HTTP: runs in an API server, Jobs that a simulated cluster works on, an S3
server."""

from __future__ import annotations

import copy
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from kubernetes import client

from cluster.conftest import VARIABLE
from cluster.driven_jobs import MANAGER, DrivenJobs
from cluster.fake_api.fates import CannotStart, Evicted, Fate, PodStart, Runs
from cluster.fake_api.jobs import SimulatedJobs
from hdgan.controller import api as paths
from hdgan.controller.api import Api
from hdgan.controller.controller import Controller
from hdgan.controller.looking import connection
from hdgan.controller.reading import read_status
from hdgan.controller.settings import AllowConfig, Settings
from hdgan.controller.status import RunStatus
from hdgan.core.report_request import ReportConfig
from hdgan.core.request import parse_request
from hdgan.core.store import Store, connected, open_store
from support.cluster_store import annotate, make_artifact
from support.runs import DOCUMENT
from support.s3_server import running_s3

CRD = Path(__file__).parents[2] / "k8s" / "crd" / "datasetruns.hdgan.io.yaml"
SERVICES = ("tiler", "ganTrainer", "extractor", "classifier", "synthesizer")
SECONDS = 60.0
"""Longest wait for anything; a busy machine is slow."""


@dataclass
class Cluster:
    """One namespace with a controller, and everything it talks to."""

    api: Api
    namespace: str
    settings: Settings
    store: Store
    bucket: str
    controller: Controller | None = None
    fates: dict[str, list[Fate]] = field(default_factory=dict)
    """By stage: what becomes of its next pods; then they succeed."""
    pods: list[str] = field(default_factory=list)
    """Stage and index of each pod, in order."""

    def script(self, start: PodStart) -> Fate:
        meta = start.pod["metadata"]
        stage = meta["labels"]["hdgan.io/stage"]
        self.pods.append(stage if start.index is None else f"{stage}/{start.index}")
        coming = self.fates.get(stage)
        if coming:
            return coming.pop(0)
        if meta["labels"]["hdgan.io/kind"] != "parts":
            make_artifact(self.store, stage, meta["annotations"]["hdgan.io/key"])
        return Runs(seconds=0.05, message="ended well")

    def start(self) -> Controller:
        self.controller = Controller(self.api, self.settings)
        self.controller.start()
        return self.controller

    def controller_stops(self) -> None:
        assert self.controller is not None
        self.controller.stop()
        self.controller = None

    def submit(self, name: str = "small", **changes: Any) -> dict[str, Any]:
        document = copy.deepcopy(DOCUMENT)
        document["metadata"] = {"name": name}
        document["spec"]["slides"]["uri"] = f"s3://{self.bucket}/slides"
        for path, value in changes.items():
            target = document["spec"]
            *parents, last = path.split("__")
            for parent in parents:
                target = target.setdefault(parent, {})
            target[last] = value
        made = self.api.create(paths.RUNS, self.namespace, document)
        assert made is not None
        return made

    def status(self, name: str = "small") -> RunStatus:
        document = self.api.get(paths.RUNS, self.namespace, name)
        return RunStatus() if document is None else read_status(document)

    def until(
        self, condition: Callable[[RunStatus], bool], name: str = "small", seconds: float = SECONDS
    ) -> RunStatus:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status(name)
            if condition(status):
                return status
            time.sleep(0.05)
        raise AssertionError(f"after {seconds} s: {status}\nJobs: {self.jobs()}")

    def jobs(self) -> list[dict[str, Any]]:
        return self.api.list(paths.JOBS, self.namespace).items

    def events(self) -> list[tuple[str, str]]:
        listed = self.api.list(paths.EVENTS, self.namespace).items
        return [(one["reason"], one["message"]) for one in listed]

    def told(self, *reasons: str) -> None:
        """Wait for Events with these reasons: they are made after the status is written."""
        self.until(lambda s: set(reasons) <= {reason for reason, _ in self.events()})

    def annotate(self, name: str = "small") -> None:
        digest = self.status(name).stage_named("candidates").content_digest
        assert digest is not None
        annotate(self.store, digest, DOCUMENT)

    def change(self, name: str = "small", **spec: Any) -> None:
        self.api.patch(paths.RUNS, self.namespace, name, {"spec": spec})


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with running_s3() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def crd(api_client: client.ApiClient) -> None:
    """Our CRD, in the server."""
    extensions = client.ApiextensionsV1Api(api_client)
    document = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    try:
        extensions.create_custom_resource_definition(document)
    except client.exceptions.ApiException as error:
        if error.status != 409:
            raise


def settings_for(namespace: str, store: dict[str, Any], **more: Any) -> Settings:
    document = {
        "namespaces": [{"name": namespace, "stores": {"default": store}}],
        "images": {service: {"image": f"registry.test/{service}:1"} for service in SERVICES},
        "storePollSeconds": 0.2,
        "progressSeconds": 1,
        "startSeconds": 1,
        "resyncSeconds": 30,
        **more,
    }
    return Settings.model_validate(document, by_alias=True, by_name=False)


@pytest.fixture
def cluster(
    api_client: client.ApiClient,
    namespace: str,
    crd: None,
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    monkeypatch.setattr("hdgan.controller.decide.FIRST_WAIT", 0.2)
    monkeypatch.setattr("hdgan.controller.decide.SOON", 0.2)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "AWS_ACCESS_KEY_ID").write_text("access")
    (folder / "AWS_SECRET_ACCESS_KEY").write_text("the secret\n")
    bucket = namespace
    s3_client = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name="us-east-1",
        aws_access_key_id="access",
        aws_secret_access_key="the secret",
    )
    s3_client.create_bucket(Bucket=bucket)
    s3_client.put_object(Bucket=bucket, Key="slides/one.svs", Body=b"not really a slide")
    s3_client.close()
    store = {
        "uri": f"s3://{bucket}/store",
        "sources": [f"s3://{bucket}/slides/"],
        "endpoint": s3,
        "secret": "hdgan-s3",
        "credentials": str(folder),
    }
    settings = settings_for(namespace, store)
    with connected(connection(settings.store(namespace, None))):
        opened = open_store(settings.store(namespace, None).uri)
        opened.probe()
    made = Cluster(Api(api_client), namespace, settings, opened, bucket)
    yield made
    if made.controller is not None:
        made.controller.stop()


@pytest.fixture
def world(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """Jobs get pods, which make the artifacts their requests name: behind the fake server, or, in a
    real cluster, driven from here."""
    if os.environ.get(VARIABLE):
        cluster.settings = cluster.settings.model_copy(update={"job_managed_by": MANAGER})
        with DrivenJobs(cluster.api, cluster.namespace, cluster.script):
            yield
    else:
        start: Callable[..., SimulatedJobs] = request.getfixturevalue("job_world")
        start(cluster.script, backoff=0.05)
        yield


def test_a_run_goes_through_its_stages_to_a_dataset(cluster: Cluster, world: None) -> None:
    cluster.start()
    cluster.submit()
    status = cluster.until(lambda s: s.phase == "AwaitingAnnotation")
    assert status.stage_named("tiler").state == "done"
    cluster.annotate()
    status = cluster.until(lambda s: s.phase == "Released")
    before, after = ["candidates", "ranking"], ["classifier", "reranking", "dataset"]
    assert cluster.pods == ["tiler", "gan-trainer", *before, *after]
    assert status.macro_dice == 0.91
    key = status.stage_named("dataset").key
    assert status.dataset == f"s3://{cluster.bucket}/store/artifacts/dataset/{key}"
    cluster.told("AwaitingAnnotation", "Released", "JobAtWork", "StageDone")
    assert [reason for reason, _ in cluster.events()].count("StageDone") == 8
    # The frozen run and the folds are in the store, as after `hdgan run`.
    assert len(list(cluster.store.list("datasets/small/folds/"))) == 1
    assert len(list(cluster.store.list("runs/small/"))) == 1


def with_desk(cluster: Cluster) -> None:
    """Reports are written: behind the fake server by nobody, but their Jobs are there."""
    document = cluster.settings.model_dump(mode="json", by_alias=True)
    document["images"]["desk"] = {"image": "registry.test/desk:1"}
    cluster.settings = Settings.model_validate(document, by_alias=True, by_name=False)


def test_a_run_that_comes_to_rest_has_its_report_written(cluster: Cluster, world: None) -> None:
    with_desk(cluster)
    cluster.start()
    cluster.submit()
    waiting = cluster.until(lambda s: s.phase == "AwaitingAnnotation" and s.report is not None)
    assert waiting.report == f"s3://{cluster.bucket}/store/reports/small/report.html"
    (job,) = [one for one in cluster.jobs() if one["metadata"]["name"].startswith("report-")]
    request_map = cluster.api.get(paths.CONFIG_MAPS, cluster.namespace, job["metadata"]["name"])
    assert request_map is not None
    request = parse_request(request_map["data"]["stage.json"])
    assert (request.service, request.key) == ("desk", waiting.report_key)
    assert ReportConfig.model_validate_json(json.dumps(request.config)).message == waiting.message
    assert job["spec"]["ttlSecondsAfterFinished"] == cluster.settings.finished_job_seconds

    # The next one fails, with all its tries, and nothing comes of that but a note.
    cluster.fates["report"] = [Runs(exit_code=64, message="a report nobody can write")]
    cluster.annotate()
    failed = cluster.until(lambda s: any(c.reason == "ReportFailed" for c in s.conditions))
    assert (failed.phase, failed.report_key != waiting.report_key) == ("Released", True)
    assert [c.status for c in failed.conditions if c.type == "Complete"] == ["True"]
    cluster.told("ReportWritten", "ReportFailed", "Released")
    stages = ["tiler", "gan-trainer", "candidates", "ranking"]
    assert [one for one in cluster.pods if one in stages] == stages
    assert cluster.pods.count("report") == 2


def test_a_controller_that_died_after_making_the_reports_job_makes_the_rest(
    cluster: Cluster, world: None
) -> None:
    with_desk(cluster)
    cluster.fates["report"] = [Runs(seconds=20)]
    cluster.start()
    cluster.submit()
    cluster.until(lambda s: "report" in cluster.pods)
    cluster.controller_stops()
    (job,) = [one for one in cluster.jobs() if one["metadata"]["name"].startswith("report-")]
    name = job["metadata"]["name"]
    cluster.api.delete(paths.CONFIG_MAPS, cluster.namespace, name)
    cluster.start()
    cluster.until(lambda s: cluster.api.get(paths.CONFIG_MAPS, cluster.namespace, name) is not None)
    assert cluster.pods.count("report") == 1


def test_jobs_carry_their_request_and_no_secret(cluster: Cluster, world: None) -> None:
    cluster.fates["tiler"] = [Runs(seconds=60)]
    cluster.start()
    cluster.submit()
    cluster.until(lambda s: s.stage_named("tiler").job is not None)
    (job,) = cluster.jobs()
    request_map = cluster.api.get(paths.CONFIG_MAPS, cluster.namespace, job["metadata"]["name"])
    assert request_map is not None
    assert request_map["immutable"] is True
    assert request_map["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    request = json.loads(request_map["data"]["stage.json"])
    assert request["stage"] == "tiler"
    assert request["store"] == f"s3://{cluster.bucket}/store"
    assert "the secret" not in json.dumps([job, request_map])
    environment = job["spec"]["template"]["spec"]["containers"][0]["env"]
    (secret,) = [one for one in environment if one["name"] == "AWS_SECRET_ACCESS_KEY"]
    reference = {"name": "hdgan-s3", "key": "AWS_SECRET_ACCESS_KEY"}
    assert secret["valueFrom"]["secretKeyRef"] == reference


def test_parts_and_their_commit(cluster: Cluster, world: None) -> None:
    cluster.start()
    cluster.submit(resources__pods={"tiler": {"parts": 3}})
    cluster.until(lambda s: s.stage_named("tiler").state == "done")
    assert sorted(cluster.pods[:3]) == ["tiler/0", "tiler/1", "tiler/2"]
    assert cluster.pods[3] == "tiler"


def test_failures_are_tried_again_and_told(cluster: Cluster, world: None) -> None:
    cluster.fates["tiler"] = [
        Runs(exit_code=70, message="TypeError: a bug"),
        Evicted(seconds=0.05),
        Runs(exit_code=137, reason="OOMKilled"),
    ]
    cluster.start()
    cluster.submit()
    status = cluster.until(lambda s: s.stage_named("tiler").state == "done")
    stage = status.stage_named("tiler")
    assert stage.attempt == 4
    assert stage.failures == {"bug": 1, "memory": 2}
    cluster.told("Failed", "Evicted", "OutOfMemory")
    events = cluster.events()
    assert any(r == "Failed" and "TypeError: a bug" in m for r, m in events)
    assert any(r == "Evicted" and "low on resource" in m for r, m in events)
    assert any(r == "OutOfMemory" and "Raise memory" in m for r, m in events)


def test_a_drained_pod_is_no_bug_although_it_is_gone_before_its_job_has_failed(
    cluster: Cluster, world: None
) -> None:
    drained = Evicted(seconds=0.3, reason="EvictionByEvictionAPI", deleted=True)
    cluster.fates["tiler"] = [drained, drained]
    cluster.start()
    cluster.submit()
    status = cluster.until(lambda s: s.stage_named("tiler").state == "done")
    stage = status.stage_named("tiler")
    assert (stage.attempt, stage.failures) == (3, {"stalled": 2})
    assert stage.last_end is not None
    assert stage.last_end.reason in ("Drained", "Disrupted")


def test_a_job_that_the_server_refuses_is_told_and_made_once_it_may_be(
    cluster: Cluster, world: None
) -> None:
    place = cluster.settings.namespaces[0]
    allowing = place.model_copy(update={"allow": AllowConfig(node_selection=True)})
    cluster.settings = cluster.settings.model_copy(update={"namespaces": [allowing]})
    cluster.start()
    # The schema of a run leaves the inside of an affinity to the server.
    cluster.submit(resources__pods={"tiler": {"affinity": {"nodeAffinity": {"required": []}}}})
    status = cluster.until(lambda s: any(c.reason == "JobRefused" for c in s.conditions))
    assert "nodeAffinity" in status.message
    assert status.waiting_since is None
    cluster.told("JobRefused")
    assert not cluster.jobs()
    cluster.change(resources={"pods": {"tiler": {"affinity": None}}})
    status = cluster.until(lambda s: s.stage_named("tiler").state == "done", seconds=90)
    assert not any(c.reason == "JobRefused" for c in status.conditions)


def test_belongings_of_a_dead_job_of_the_same_name_are_not_taken_for_ours(
    cluster: Cluster, world: None
) -> None:
    cluster.fates["tiler"] = [Runs(seconds=2)]
    cluster.start()
    cluster.submit(suspend=True)
    cluster.until(lambda s: s.phase == "Suspended")
    # As if an earlier run had left it: owned by a Job that is no more.
    cluster.change(suspend=False)
    status = cluster.until(lambda s: s.stage_named("tiler").job is not None)
    job = status.stage_named("tiler").job
    assert job is not None
    (made,) = cluster.jobs()
    cluster.controller_stops()
    request = cluster.api.get(paths.CONFIG_MAPS, cluster.namespace, job)
    assert request is not None
    cluster.api.delete(paths.CONFIG_MAPS, cluster.namespace, job)
    owner = {**request["metadata"]["ownerReferences"][0], "uid": "0" * 8}
    old = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": job, "ownerReferences": [owner]},
        "data": {"stage.json": "{}"},
    }
    cluster.api.create(paths.CONFIG_MAPS, cluster.namespace, old)
    cluster.start()

    def ours() -> bool:
        found = cluster.api.get(paths.CONFIG_MAPS, cluster.namespace, job)
        owners = (found or {"metadata": {}})["metadata"].get("ownerReferences") or []
        return [one["uid"] for one in owners] == [made["metadata"]["uid"]]

    cluster.until(lambda s: ours() or s.stage_named("tiler").state == "done")
    assert ours() or not cluster.jobs()


def test_bad_data_fails_the_run_and_retry_goes_on(cluster: Cluster, world: None) -> None:
    cluster.fates["tiler"] = [Runs(exit_code=65, message="3 of 3 slides are unusable")]
    cluster.start()
    cluster.submit()
    status = cluster.until(lambda s: s.phase == "Failed")
    assert "3 of 3 slides are unusable" in status.message
    assert len(cluster.pods) == 1
    cluster.change(retry="after-copying")
    cluster.until(lambda s: s.stage_named("tiler").state == "done")


def test_why_pods_do_not_start_is_shown_soon(cluster: Cluster, world: None) -> None:
    cluster.fates["tiler"] = [CannotStart(message="no basic auth credentials")]
    cluster.start()
    cluster.submit()
    status = cluster.until(
        lambda s: any(c.type == "Started" and c.status == "False" for c in s.conditions)
    )
    assert "no basic auth credentials" in status.message
    cluster.told("ImagePullFailed")


def test_suspend_ends_the_job_and_resume_makes_another(cluster: Cluster, world: None) -> None:
    cluster.fates["tiler"] = [Runs(seconds=60, stop_code=75)]
    cluster.start()
    cluster.submit()
    cluster.until(lambda s: s.stage_named("tiler").job is not None and bool(cluster.pods))
    cluster.change(suspend=True)
    cluster.until(lambda s: s.phase == "Suspended" and s.stage_named("tiler").over)
    assert not cluster.jobs()
    cluster.change(suspend=False)
    status = cluster.until(lambda s: s.stage_named("tiler").state == "done")
    assert status.stage_named("tiler").failures == {}


def test_a_job_deleted_by_hand_is_made_again(cluster: Cluster, world: None) -> None:
    cluster.fates["tiler"] = [Runs(seconds=60)]
    cluster.start()
    cluster.submit()
    status = cluster.until(lambda s: s.stage_named("tiler").job is not None and bool(cluster.pods))
    job = status.stage_named("tiler").job
    assert job is not None
    cluster.api.delete(paths.JOBS, cluster.namespace, job)
    cluster.until(lambda s: s.stage_named("tiler").state == "done")
    cluster.told("JobDeleted")


def test_a_deleted_run_takes_its_jobs_along_but_not_those_another_needs(
    cluster: Cluster, world: None
) -> None:
    cluster.fates["tiler"] = [Runs(seconds=60)]
    cluster.start()
    cluster.submit("one")
    cluster.submit("two")
    for name in ("one", "two"):
        cluster.until(lambda s: s.stage_named("tiler").job is not None, name)
    (job,) = cluster.jobs()
    deadline = time.monotonic() + SECONDS
    while len(job["metadata"]["ownerReferences"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        (job,) = cluster.jobs()
    cluster.api.delete(paths.RUNS, cluster.namespace, "one")
    time.sleep(1.0)
    assert [one["metadata"]["name"] for one in cluster.jobs()] == [job["metadata"]["name"]]
    cluster.api.delete(paths.RUNS, cluster.namespace, "two")
    deadline = time.monotonic() + SECONDS
    while cluster.jobs() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not cluster.jobs()


def test_a_controller_that_dies_is_followed_by_one_that_goes_on(
    cluster: Cluster, world: None
) -> None:
    cluster.fates["gan-trainer"] = [Runs(seconds=2.0)]
    first = cluster.start()
    cluster.submit()
    cluster.until(
        lambda s: s.stage_named("gan-trainer").job is not None and "gan-trainer" in cluster.pods
    )
    first.stop()
    # What it may not have come to.
    job = cluster.status().stage_named("gan-trainer").job
    assert job is not None
    cluster.api.delete(paths.CONFIG_MAPS, cluster.namespace, job)
    cluster.start()
    deadline = time.monotonic() + SECONDS
    while cluster.api.get(paths.CONFIG_MAPS, cluster.namespace, job) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.until(lambda s: s.stage_named("gan-trainer").last_end is not None)
    cluster.until(lambda s: s.phase == "AwaitingAnnotation")
    assert cluster.pods.count("gan-trainer") == 2  # the first ended without an artifact
    assert cluster.pods.count("tiler") == 1


def test_slides_that_are_not_there_fail_the_run_until_a_retry_finds_them(
    cluster: Cluster, world: None
) -> None:
    cluster.start()
    cluster.submit(slides__uri=f"s3://{cluster.bucket}/store/more")
    status = cluster.until(lambda s: s.phase == "Failed")
    assert "no slide in" in status.message
    cluster.change(retry="once")
    cluster.until(lambda s: s.retry == "once" and s.phase == "Failed")
    cluster.store.put("more/two.svs", b"a slide")
    cluster.change(retry="twice")
    cluster.until(lambda s: s.phase == "AwaitingAnnotation")


def test_a_closed_gate_opens_with_better_annotations_and_a_retry(
    cluster: Cluster, world: None
) -> None:
    cluster.start()
    cluster.submit(gates={"minMacroDice": 0.95})
    cluster.until(lambda s: s.phase == "AwaitingAnnotation")
    cluster.annotate()
    status = cluster.until(lambda s: s.phase == "GateFailed")
    first = status.stage_named("annotations").content_digest
    digest = status.stage_named("candidates").content_digest
    assert digest is not None
    annotate(cluster.store, digest, DOCUMENT, count=2)
    cluster.change(retry="labelled-more")
    status = cluster.until(
        lambda s: s.phase == "GateFailed" and s.stage_named("annotations").content_digest != first
    )
    assert cluster.pods.count("classifier") == 2


def test_limits_that_are_corrected_release_what_is_there(cluster: Cluster, world: None) -> None:
    cluster.start()
    cluster.submit(gates={"maxKid": 0.1, "minMacroDice": 0.9, "maxDropVsLatest": 0.01})
    status = cluster.until(lambda s: s.phase == "GateFailed")
    assert "KID 0.3000 against held-out tiles is above gates.maxKid 0.1" in status.message
    assert [(one.name, one.passed) for one in status.gates] == [
        ("minMacroDice", None), ("maxKid", False), ("maxDropVsLatest", None),
    ]  # fmt: skip
    assert cluster.pods == ["tiler", "gan-trainer"]
    cluster.change(gates={"maxKid": 0.3, "minMacroDice": 0.95}, retry="kid")
    cluster.until(lambda s: s.phase == "AwaitingAnnotation")
    cluster.annotate()
    status = cluster.until(lambda s: s.phase == "GateFailed")
    assert "0.9100 on the test images is below gates.minMacroDice 0.95" in status.message
    assert "dataset" not in cluster.pods
    cluster.change(gates={"minMacroDice": 0.9}, retry="dice")
    status = cluster.until(lambda s: s.phase == "Released")
    before, after = ["candidates", "ranking"], ["classifier", "reranking", "dataset"]
    assert cluster.pods == ["tiler", "gan-trainer", *before, *after]
    assert all(one.passed for one in status.gates)
    document = json.loads(cluster.store.get(f"datasets/small/releases/{status.release}.json"))
    assert [(one["name"], one.get("measured")) for one in document["gates"]] == [
        ("minMacroDice", 0.91), ("maxKid", 0.3), ("maxDropVsLatest", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("slides__uri", "s3://someone-elses/slides", "not in what this namespace's store may read"),
        ("slides__uri", "/home/me/slides", "not in what this namespace's store may read"),
        ("resources__store", "other", "has no store 'other'"),
        ("resources__pods", {"ganTrainer": {"nodes": 2}}, "Name a Kueue queue"),
        (
            "resources__pods",
            {"tiler": {"priorityClass": "system-node-critical"}},
            "system-node-critical is not allowed in namespace",
        ),
    ],
)
def test_a_run_that_asks_for_what_it_may_not_have_fails_with_the_reason(
    cluster: Cluster, path: str, value: Any, words: str
) -> None:
    cluster.start()
    cluster.submit(**{path: value})
    status = cluster.until(lambda s: s.phase == "Failed")
    assert words in status.message
    assert not cluster.jobs()


def test_no_more_jobs_at_once_than_are_allowed(cluster: Cluster, world: None) -> None:
    cluster.settings = cluster.settings.model_copy(update={"max_active_jobs": 2})
    cluster.start()
    most = 0
    for number in range(5):
        cluster.submit(f"run-{number}", tiler__mpp=1.0 + number)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        live = [one for one in cluster.jobs() if not (one.get("status") or {}).get("conditions")]
        most = max(most, len(live))
        phases = {cluster.status(f"run-{number}").phase for number in range(5)}
        if phases == {"AwaitingAnnotation"}:
            break
        time.sleep(0.02)
    assert phases == {"AwaitingAnnotation"}
    assert most <= 2


def test_a_store_that_does_not_answer_is_told_and_the_run_goes_on_later(
    cluster: Cluster, world: None, tmp_path: Path
) -> None:
    secret = tmp_path / "credentials" / "AWS_SECRET_ACCESS_KEY"
    text = secret.read_text()
    secret.unlink()
    cluster.start()
    cluster.submit()
    cluster.until(
        lambda s: any(c.type == "StoreReachable" and c.status == "False" for c in s.conditions)
    )
    secret.write_text(text)
    cluster.until(lambda s: s.phase == "AwaitingAnnotation")


def test_annotations_that_come_before_the_run_waits_for_them_are_found(
    cluster: Cluster, world: None
) -> None:
    controller = cluster.start()
    cluster.submit()
    status = cluster.until(lambda s: s.phase == "AwaitingAnnotation")
    digest = status.stage_named("candidates").content_digest
    assert digest is not None
    annotate(cluster.store, digest, DOCUMENT)
    # As a listing sees it that was made for another run's sake.
    controller._look_for_annotations((cluster.namespace, "default"), [("other", digest)])
    cluster.until(lambda s: s.phase == "Released")


def test_waiting_runs_cost_one_listing_a_store_and_nothing_else(
    cluster: Cluster, world: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.start()
    for number in range(3):
        cluster.submit(f"run-{number}")
    for number in range(3):
        cluster.until(lambda s: s.phase == "AwaitingAnnotation", f"run-{number}")
    time.sleep(0.5)
    calls: list[str] = []
    from hdgan.core.store_s3 import S3Store

    for name in ("head", "get", "list", "put"):
        plain = getattr(S3Store, name)

        def counted(self: Any, *args: Any, plain: Any = plain, name: str = name) -> Any:
            if threading.current_thread().name != "MainThread":
                calls.append(name)
            return plain(self, *args)

        monkeypatch.setattr(S3Store, name, counted)
    time.sleep(1.0)
    assert set(calls) == {"list"}
    assert 2 <= len(calls) <= 6  # five times a second for one store
