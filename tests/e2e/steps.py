"""The steps of the end-to-end test, in the order they are taken."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml

import fetch_slide
from e2e import values
from e2e.cluster import (
    ALL_RUNS,
    BUDGETS,
    CRON_JOBS,
    DEFINITIONS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    ROOT,
    Cluster,
    run_python,
)
from e2e.definition import NAME as DEFINITION
from e2e.definition import Handling, handle, same
from e2e.leftovers import Found, interesting, unexpected
from e2e.telling import NotSeen, Steps, expect, until
from hdgan.controller import api as paths
from hdgan.core.store import Store, connected, open_store
from hdgan.core.store_s3 import S3Connection

Document = dict[str, Any]

RELEASE = "hdgan"
CONTROLLER = f"{RELEASE}-controller"
CRON_JOB = f"{RELEASE}-{values.SCHEDULE}"
OUR_DEFINITION = ROOT / "k8s" / "crd" / "datasetruns.hdgan.io.yaml"
STAGES = ("tiler", "gan-trainer", "candidates", "classifier", "dataset")
MAY_TAKE_TIME = ("NotStarted", "NoPods", "Unschedulable", "NoAnswer")
"""Warnings that a small or slow node earns."""
OVER = ("Released", "Unchanged", "GateFailed", "Failed")


@dataclass
class Story:
    """What the steps have in common."""

    cluster: Cluster
    steps: Steps
    images: str
    """Pattern of the images' names."""
    namespace: str
    """Of the release, the S3 server, and the run that is disturbed."""
    calm: str
    """Of the run that is not."""
    folder: Path
    """For files of this run of the test."""
    patience: float
    """Factor of all times that are waited."""
    may_update: bool
    """Whether a definition of runs that others use may be replaced."""
    handling: Handling | None = None
    """What was done about the definition of runs."""
    installed: bool = False
    port: int = 0
    """Of this machine, where the S3 server answers."""
    told: dict[str, str] = field(default_factory=dict)
    """What was last said of each run."""
    stores: dict[str, Store] = field(default_factory=dict)

    @property
    def run_file(self) -> Path:
        """The run's file, for the `hdgan` command."""
        return self.folder / "run.yaml"

    @property
    def name(self) -> str:
        """The run's name, in both namespaces."""
        return str(values.run()["metadata"]["name"])

    def until(self, what: str, look: Callable[[], Any], seconds: float, **how: Any) -> Any:
        """As `telling.until`, with the patience asked for."""
        return until(what, look, seconds * self.patience, **how)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def store(self, prefix: str) -> Store:
        """The store of a run, opened once."""
        if prefix in self.stores:
            return self.stores[prefix]
        with connected(S3Connection(endpoint=self.endpoint, credentials=self.folder / "secret")):
            self.stores[prefix] = open_store(f"s3://{values.BUCKET}/{prefix}")
        return self.stores[prefix]

    def hdgan(self, *arguments: str | Path, prefix: str | None = None) -> str:
        """The `hdgan` command; with `prefix`, it gets that store."""
        variables = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "e2e",
            "AWS_SECRET_ACCESS_KEY": "e2e",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if prefix is not None:
            variables["HDGAN_STORE"] = f"s3://{values.BUCKET}/{prefix}"
        return self.cluster.run_hdgan(*arguments, seconds=600 * self.patience, **variables)

    def status(self, space: str, name: str | None = None) -> Document:
        """Status of a run; {} before there is one."""
        found = self.cluster.get(paths.RUNS, space, name or self.name)
        return dict(found.get("status") or {})

    def stage(self, space: str, stage: str) -> Document:
        """What the status says of a stage; {} as long as that is nothing."""
        stages = self.status(space).get("stages") or []
        return next((dict(one) for one in stages if one["name"] == stage), {})

    def brief(self, space: str, name: str | None = None) -> str:
        """A run's status in a line. NotSeen if it has failed. Says what has changed."""
        status = self.status(space, name)
        line = " ".join(
            str(status[one]) for one in ("phase", "stage", "message") if status.get(one)
        )
        which = f"{space}/{name or self.name}"
        begin = " ".join(str(status[one]) for one in ("phase", "stage") if status.get(one))
        if self.told.get(which) != begin:
            self.told[which] = begin
            self.steps.say(f"   {which}: {begin or 'not seen yet'}")
        if status.get("phase") in ("Failed", "GateFailed"):
            raise NotSeen(f"{which}: {line}")
        return line

    def reach(self, phase: str, seconds: float, *places: tuple[str, str]) -> None:
        """Wait until runs (namespace, name) are in a phase. NotSeen if one ends in another."""

        def look() -> bool | None:
            for space, name in places:
                self.brief(space, name)
            phases = [self.status(*place).get("phase") for place in places]
            if any(one in OVER and one != phase for one in phases):
                raise NotSeen(f"{places} are {phases}")
            return True if all(one == phase for one in phases) else None

        def seen() -> str:
            return "; ".join(self.brief(*place) for place in places)

        self.until(f"{places} {phase}", look, seconds, seen=seen)


def make_namespaces(story: Story) -> None:
    """Namespaces that enforce Pod Security's level "restricted", with the store's credentials."""
    major, minor = story.cluster.version()
    story.steps.say(f"   Kubernetes {major}.{minor}, namespaces {story.namespace}, {story.calm}")
    expect((major, minor) >= (1, 31), "Kubernetes 1.31 or newer is needed")
    for name in (story.namespace, story.calm):
        made = story.cluster.api.create(NAMESPACES, "", values.namespace(name))
        expect(made is not None, f"there is a namespace {name} already")
        story.cluster.make(values.secret(), name)


def handle_definition(story: Story) -> None:
    """Find out what is to be done about the definition of runs; update one that differs."""
    ours = yaml.safe_load(OUR_DEFINITION.read_text(encoding="utf-8"))
    found = story.cluster.api.get(DEFINITIONS, "", DEFINITION)
    others = set() if found is None else _namespaces_with_runs(story)
    story.handling = handle(found, ours, others, story.may_update)
    story.steps.say(f"   definition of runs: {story.handling.why}")
    if story.handling.do == "update" and found is not None:
        story.cluster.api.replace(DEFINITIONS, "", {**found, "spec": ours["spec"]})


def _namespaces_with_runs(story: Story) -> set[str]:
    return {str(one["metadata"]["namespace"]) for one in story.cluster.list(ALL_RUNS)}


def start_object_server(story: Story) -> None:
    """The S3 server in the cluster, and a pod of it that is ready."""
    for document in values.server(story.images):
        story.cluster.make(document, story.namespace)

    def ready() -> bool | None:
        found = story.cluster.get(DEPLOYMENTS, story.namespace, values.SERVER)
        return True if (found.get("status") or {}).get("readyReplicas") else None

    story.until("the S3 server is ready", ready, 180)


def object_server_pod(story: Story) -> str:
    """Name of the pod that is the S3 server now. NotSeen."""
    for pod in story.cluster.list(
        paths.PODS, story.namespace, labelSelector=f"app={values.SERVER}"
    ):
        if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]:
            return str(pod["metadata"]["name"])
    raise NotSeen("the S3 server does not run")


def upload(story: Story) -> None:
    """The demo's slide and its small generator, and the credentials the store is opened with."""
    secret = story.folder / "secret"
    secret.mkdir()
    for name, value in values.secret()["stringData"].items():
        (secret / name).write_text(value)
    fetch_slide.fetch(ROOT / fetch_slide.DEFAULT_DESTINATION)
    slide = ROOT / fetch_slide.DEFAULT_DESTINATION
    slides = story.store("slides")
    slides.put_from(slide.name, slide)
    networks = story.store("skin-64")
    for file in sorted((ROOT / "examples" / "skin-64").iterdir()):
        if file.suffix in (".safetensors", ".json"):
            networks.put_from(file.name, file)
    head = slides.head(slide.name)
    expect(head is not None and head.size == slide.stat().st_size, "the slide is not in the bucket")


def install(story: Story) -> None:
    """The chart, with small pods."""
    assert story.handling is not None
    values_file = story.folder / "values.json"
    document = values.chart(
        story.images,
        story.namespace,
        story.calm,
        definition=story.handling.do == "install",
    )
    values_file.write_text(json.dumps(document, indent=1))
    story.installed = True
    story.cluster.run_helm(
        *("install", RELEASE, str(ROOT / "charts" / "hdgan"), "--namespace", story.namespace),
        *("--values", str(values_file), "--wait", "--timeout", _minutes(story, 5)),
    )
    found = story.cluster.get(DEFINITIONS, "", DEFINITION)
    ours = yaml.safe_load(OUR_DEFINITION.read_text(encoding="utf-8"))
    expect(same(found, ours), "the cluster's definition of runs is not the one of k8s/crd")


def helm_test(story: Story) -> None:
    """`helm test`: rights and stores."""
    said = story.cluster.run_helm(
        *("test", RELEASE, "--namespace", story.namespace, "--logs"),
        *("--timeout", _minutes(story, 5)),
    )
    expect("ok: rights and stores of" in said, f"helm test did not say ok:\n{said}")


def submit(story: Story) -> None:
    """The same run in both namespaces, by `hdgan submit`."""
    story.run_file.write_text(yaml.safe_dump(values.run(), sort_keys=False))
    disturbed = story.folder / "disturbed.yaml"
    disturbed.write_text(yaml.safe_dump(values.disturbed(), sort_keys=False))
    for space, file in ((story.namespace, disturbed), (story.calm, story.run_file)):
        story.hdgan("submit", file, "--namespace", space)
    again = story.hdgan("submit", story.run_file, "--namespace", story.calm)
    expect("is there already, and the same" in again, f"submitted again: {again}")


def delete_trainer_pod(story: Story) -> str:
    """The trainer's pod, once its state has been saved; returns the name of its Job."""
    space = story.namespace

    def look() -> tuple[str, str] | None:
        story.brief(story.calm)
        story.brief(space)
        stage = story.stage(space, "gan-trainer")
        if stage.get("state") == "done":
            raise NotSeen("training ended before it was disturbed: give it more kimg")
        if not stage.get("key") or not stage.get("job"):
            return None
        saved = story.store("disturbed").list(f"work/gan-trainer/{stage['key']}/")
        if not any(re.search(r"/state-\d+\.json$", one) for one in saved):
            return None
        for pod in _pods(story, space, stage["job"]):
            if pod["status"].get("phase") == "Running":
                return str(stage["job"]), str(pod["metadata"]["name"])
        return None

    job, pod = story.until("training has saved its state", look, 480, every=0.5)
    story.steps.say(f"   deleting pod {pod}")
    story.cluster.api.delete(paths.PODS, space, pod)
    return str(job)


def upgrade(story: Story) -> None:
    """The chart, with two replicas and other settings, while runs are at work."""
    before = _holder(story)
    jobs = _uids(story, story.calm)
    values_file = story.folder / "values.json"
    changed = values.upgraded(json.loads(values_file.read_text()))
    values_file.write_text(json.dumps(changed, indent=1))
    story.cluster.run_helm(
        *("upgrade", RELEASE, str(ROOT / "charts" / "hdgan"), "--namespace", story.namespace),
        *("--values", str(values_file), "--wait", "--timeout", _minutes(story, 5)),
    )
    budget = story.cluster.get(BUDGETS, story.namespace, CONTROLLER)
    expect(bool(budget["spec"]), "there is no PodDisruptionBudget")

    def another() -> str | None:
        holder = _holder(story)
        return holder if holder and holder != before else None

    leader = story.until("another replica works", another, 120)
    story.steps.say(f"   {before or 'nobody'} worked before, {leader} does now")
    lost = jobs - _uids(story, story.calm)
    expect(not lost, f"Jobs have gone with the upgrade: {lost}")


def _holder(story: Story) -> str:
    lease = story.cluster.get(LEASES, story.namespace, CONTROLLER)
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _uids(story: Story, space: str) -> set[str]:
    return {str(one["metadata"]["uid"]) for one in story.cluster.list(paths.JOBS, space)}


def trained_again(story: Story, first: str) -> None:
    """Training goes on from its saved state, in another Job; status and logs say so."""
    space = story.namespace

    def resumed() -> str | None:
        story.brief(story.calm)
        story.brief(space)
        stage = story.stage(space, "gan-trainer")
        if stage.get("job") in (None, first):
            return None
        for pod in _pods(story, space, stage["job"]):
            if pod["status"].get("phase") in ("Running", "Succeeded"):
                said = story.hdgan(
                    *("logs", story.run_file, "--namespace", space, "--stage", "gan-trainer")
                )
                found = re.search(r"resumed at [0-9.]+ kimg", said)
                if found is not None:
                    return found.group()
        return None

    story.steps.say(f"   {story.until('training goes on', resumed, 300, every=2)}")
    stage = story.stage(space, "gan-trainer")
    expect(stage.get("attempt") == 2, f"attempt {stage.get('attempt')} of training, not 2")
    said = story.hdgan("status", story.run_file, "--namespace", space)
    expect(f"{story.name}: Running (gan-trainer" in said, f"hdgan status says: {said}")
    expect("attempt 2" in said, f"hdgan status says: {said}")


def annotate(story: Story) -> None:
    """Both runs wait for labels; the stand-in makes them, as in `make demo`."""
    places = (story.namespace, story.calm)
    story.reach("AwaitingAnnotation", 900, *((space, story.name) for space in places))
    for prefix in ("disturbed", "calm"):
        pictures, masks = story.folder / f"{prefix}-pictures", story.folder / f"{prefix}-masks"
        story.hdgan("annotations", "export", story.run_file, pictures, prefix=prefix)
        run_python(ROOT / "examples" / "standin_annotator.py", pictures, masks)
        said = story.hdgan("annotations", "import", story.run_file, masks, prefix=prefix)
        expect("imported 14 images as version 1" in said, f"import says: {said}")


def delete_job(story: Story, stage: str) -> None:
    """A stage's Job, by hand, while its pod runs; it is made anew."""
    space = story.namespace

    def at_work() -> str | None:
        story.brief(story.calm)
        story.brief(space)
        found = story.stage(space, stage)
        if found.get("state") == "done":
            raise NotSeen(f"{stage} ended before it was disturbed")
        if not found.get("job"):
            return None
        running = any(_runs(pod) for pod in _pods(story, space, found["job"]))
        return str(found["job"]) if running else None

    job = story.until(f"{stage} is at work", at_work, 300, every=0.3)
    story.steps.say(f"   deleting Job {job}")
    story.cluster.api.delete(paths.JOBS, space, job)

    def another() -> Document | None:
        story.brief(story.calm)
        story.brief(space)
        found = story.stage(space, stage)
        return found if found.get("job") not in (None, job) else None

    found = story.until(f"{stage} is started again", another, 120)
    end = found.get("lastEnd") or {}
    expect(end.get("reason") == "JobDeleted", f"the end of {job} is told as {end}")


def released(story: Story) -> None:
    """Both runs are released; the dataset is whole; the release can be listed."""
    places = (story.namespace, story.calm)
    story.reach("Released", 900, *((space, story.name) for space in places))
    status = story.status(story.namespace)
    said = story.hdgan("dataset", "check", status["dataset"], "--min-pairs", "24")
    expect("24 pairs in 4 shards, 64 x 64 pixels, all right" in said, f"check says: {said}")
    folder = story.folder / "dataset"
    story.hdgan("dataset", "export", status["dataset"], folder)
    expect(len(list((folder / "masks").iterdir())) == 24, "the export lacks masks")
    said = story.hdgan("releases", "list", story.name, prefix="disturbed")
    expect(f"* {status['release']}" in re.sub(r"\* \S+ \S+  ", "* ", said), f"releases: {said}")
    said = story.hdgan("status", story.run_file, "--namespace", story.namespace)
    expect(f"{story.name}: Released" in said and status["dataset"] in said, f"status: {said}")


def compare(story: Story) -> None:
    """Every stage has the same content digest, disturbed or not."""
    digests = []
    for space in (story.namespace, story.calm):
        stages = story.status(space)["stages"]
        digests.append({one["name"]: one.get("contentDigest") for one in stages})
    for stage in STAGES:
        one, other = (found.get(stage) for found in digests)
        expect(one is not None and one == other, f"{stage}: {one} disturbed, {other} undisturbed")
        attempts = story.stage(story.namespace, stage).get("attempt")
        story.steps.say(f"   {stage:<12} {one}  {attempts} attempt(s)")
    calm = {one["name"]: one.get("lastEnd") for one in story.status(story.calm)["stages"]}
    expect(not any(calm.values()), f"the undisturbed run was disturbed: {calm}")
    warned = [
        f"{one['reason']}: {one.get('message')}"
        for one in story.cluster.list(paths.EVENTS, story.calm)
        if one["involvedObject"].get("kind") == "DatasetRun"
        and one.get("type") == "Warning"
        and one["reason"] not in MAY_TAKE_TIME
    ]
    expect(not warned, f"the undisturbed run was warned of: {warned}")


def fire(story: Story, number: int, phase: str) -> None:
    """The schedule makes a run named after the Job, with its generator pinned."""
    space = story.namespace
    cron_job = story.cluster.get(CRON_JOBS, space, CRON_JOB)
    name = f"{CRON_JOB}-{number}"
    made = story.cluster.api.create(paths.JOBS, space, values.fired(cron_job, name))
    expect(made is not None, f"there is a Job {name} already")

    def there() -> Document | None:
        return story.cluster.api.get(paths.RUNS, space, name)

    run = story.until(f"the schedule makes the run {name}", there, 120)
    expect(run["spec"]["generator"] == "pinned", "its generator is not pinned")
    expect(
        run["metadata"]["labels"].get("hdgan.io/schedule") == values.SCHEDULE,
        "its label does not name the schedule",
    )
    story.reach(phase, 480, (space, name))


def generator_is_kept(story: Story) -> None:
    """The schedule's runs have the first run's generator, and a dataset of their own."""
    first = {one["name"]: one for one in story.status(story.namespace)["stages"]}
    status = story.status(story.namespace, f"{CRON_JOB}-1")
    again = {one["name"]: one for one in status["stages"]}
    expect(
        again["dataset"]["contentDigest"] != first["dataset"]["contentDigest"],
        "other seeds gave the same dataset",
    )
    pinned = status["pinned"]["generator"]["contentDigest"]
    expect(pinned == first["gan-trainer"]["contentDigest"], "the generator is another one")
    said = story.hdgan("releases", "list", story.name, prefix="disturbed")
    expect(len(said.splitlines()) == 2, f"not two releases: {said}")


def no_pod_was_refused(story: Story) -> None:
    """Pod Security had nothing to say, and was there."""
    for space in (story.namespace, story.calm):
        found = story.cluster.get(NAMESPACES, "", space)
        labels = found["metadata"]["labels"]
        expect(
            labels["pod-security.kubernetes.io/enforce"] == "restricted",
            f"{space} does not enforce the level restricted any more",
        )
        refused = [
            str(one.get("message"))
            for one in story.cluster.list(paths.EVENTS, space)
            if "violates PodSecurity" in str(one.get("message"))
        ]
        expect(not refused, f"pods were refused: {refused}")


def uninstall(story: Story) -> None:
    """Nothing of the release is left but what is meant to stay; nothing in the bucket changes."""
    objects = _objects(story)
    story.cluster.run_helm(
        *("uninstall", RELEASE, "--namespace", story.namespace, "--wait"),
        *("--timeout", _minutes(story, 5)),
    )
    story.installed = False
    spaces = (story.namespace, story.calm)

    def clean() -> bool | None:
        return True if not any(unexpected(_found(story, space)) for space in spaces) else None

    def seen() -> str:
        return str([one for space in spaces for one in unexpected(_found(story, space))])

    story.until("nothing of the release is left", clean, 120, every=3, seen=seen)
    for space in spaces:
        kinds = sorted(one.kind for one in _found(story, space))
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        story.steps.say(f"   stays in {space}: {counts}")
    found = story.cluster.get(DEFINITIONS, "", DEFINITION)
    expect("deletionTimestamp" not in found["metadata"], "the definition of runs goes")
    expect(_objects(story) == objects, "the bucket's content has changed")


def cancel_runs(story: Story) -> None:
    """Without a controller, runs can still be removed, and all that was theirs goes along."""
    for space in (story.namespace, story.calm):
        story.hdgan("cancel", story.run_file, "--namespace", space)
    for one in story.cluster.list(paths.RUNS, story.namespace):
        story.cluster.api.delete(paths.RUNS, story.namespace, one["metadata"]["name"])

    def left() -> list[Found]:
        return [
            one
            for space in (story.namespace, story.calm)
            for one in _found(story, space)
            if one.kind != "Lease" and not one.name.endswith("-check")
        ]

    def gone() -> bool | None:
        return True if not left() else None

    story.until("the runs' Jobs are gone", gone, 120, every=3, seen=lambda: str(left()))


def _objects(story: Story) -> dict[str, tuple[int, str]]:
    """Size and ETag of everything in the bucket."""
    s3 = boto3.client(
        "s3",
        endpoint_url=story.endpoint,
        region_name="us-east-1",
        aws_access_key_id="e2e",
        aws_secret_access_key="e2e",
    )
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=values.BUCKET)
    found = {
        str(one["Key"]): (int(one["Size"]), str(one["ETag"]))
        for page in pages
        for one in page.get("Contents", [])
    }
    s3.close()
    return found


def _found(story: Story, space: str) -> list[Found]:
    return [
        one
        for kind, collection in story.cluster.kinds()
        for one in interesting(kind, story.cluster.list(collection, space))
    ]


def _pods(story: Story, space: str, job: str) -> list[Document]:
    selector = f"batch.kubernetes.io/job-name={job}"
    return [
        one
        for one in story.cluster.list(paths.PODS, space, labelSelector=selector)
        if "deletionTimestamp" not in one["metadata"]
    ]


def _runs(pod: Document) -> bool:
    """Whether one of its containers is at work."""
    states = [
        one.get("state") or {}
        for kind in ("initContainerStatuses", "containerStatuses")
        for one in pod["status"].get(kind) or []
    ]
    return any("running" in one for one in states)


def _minutes(story: Story, minutes: float) -> str:
    return f"{round(60 * minutes * story.patience)}s"


def clean_up(story: Story) -> None:
    """Remove everything the test has made. Nothing of it may still be at work afterwards."""
    cluster = story.cluster
    if story.installed:
        cluster.run_helm("uninstall", RELEASE, "--namespace", story.namespace, "--ignore-not-found")
    for space in (story.namespace, story.calm):
        cluster.api.delete(NAMESPACES, "", space)

    def gone() -> bool | None:
        spaces = (story.namespace, story.calm)
        there = [space for space in spaces if cluster.api.get(NAMESPACES, "", space)]
        return None if there else True

    story.until("the namespaces are gone", gone, 300)
    if story.handling is None or story.handling.do != "install":
        return
    if cluster.api.get(DEFINITIONS, "", DEFINITION) is None:
        return
    others = _namespaces_with_runs(story)
    if others:
        story.steps.say(f"   the definition of runs stays: {', '.join(others)} has runs by now")
        return
    cluster.api.delete(DEFINITIONS, "", DEFINITION)
    begun = time.monotonic()
    while cluster.api.get(DEFINITIONS, "", DEFINITION) and time.monotonic() - begun < 60:
        time.sleep(1)
