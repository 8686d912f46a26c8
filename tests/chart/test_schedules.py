"""Schedules: CronJobs, and what their submitter reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.helms import Document, Helm, Made, Refused
from hdgan.controller.scheduling import SCHEDULE_LABEL, document
from hdgan.controller.submitter import NAME_VARIABLE, NAMESPACE_VARIABLE, load_schedule
from hdgan.core.run import parse_run

SPEC: Document = {
    "slides": {"uri": "s3://bucket/slides/"},
    "annotations": {
        "classes": [{"name": "a", "color": "#e377c2"}, {"name": "b", "color": "#5e3c99"}]
    },
}


def values(name: str = "weekly", **more: Any) -> Document:
    """The smallest values with a schedule."""
    schedule = {"schedule": "@weekly", "spec": SPEC, **more}
    return {"stores": {"default": {"uri": "s3://bucket"}}, "schedules": {name: schedule}}


def by_name(made: list[Made], template: str) -> dict[str, Made]:
    return {one.name: one for one in made if one.template == template}


def test_cronjobs_are_as_asked_for(newest: Helm) -> None:
    jobs = by_name(newest.template("schedules"), "schedules/cronjob.yaml")
    assert set(jobs) == {"hdgan-weekly", "hdgan-monthly-retrain"}
    weekly, monthly = jobs["hdgan-weekly"], jobs["hdgan-monthly-retrain"]
    assert (weekly.namespace, monthly.namespace) == ("team-a", "team-b")
    spec = weekly.document["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["suspend"]) == ("0 3 * * 0", "Etc/UTC", False)
    assert "startingDeadlineSeconds" not in spec
    spec = monthly.document["spec"]
    assert (spec["schedule"], spec["suspend"]) == ("@monthly", True)
    assert spec["timeZone"] == "America/Argentina/Buenos_Aires"
    assert spec["startingDeadlineSeconds"] == 86400
    # The policy of the schedule is about runs, and the submitter's to keep.
    assert {job.document["spec"]["concurrencyPolicy"] for job in jobs.values()} == {"Forbid"}


def test_the_submitter_is_told_its_run_and_namespace(newest: Helm) -> None:
    made = newest.template("schedules")
    for name, job in by_name(made, "schedules/cronjob.yaml").items():
        pod = job.document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert container["command"][1:3] == ["-m", "hdgan.controller.submitter"]
        env = {one["name"]: one.get("valueFrom") for one in container["env"]}
        label = "metadata.labels['batch.kubernetes.io/job-name']"
        assert env["HDGAN_RUN_NAME"] == {"fieldRef": {"fieldPath": label}}
        assert env["HDGAN_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
        volumes = {one["name"]: one for one in pod["volumes"]}
        request = by_name(made, "schedules/request.yaml")[volumes["schedule"]["configMap"]["name"]]
        assert request.namespace == job.namespace
        assert container["command"][3] == "/hdgan/schedule/schedule.yaml"
        assert list(request.document["data"]) == ["schedule.yaml"]
        assert name.endswith(request.document["metadata"]["labels"]["hdgan.io/schedule"])
        account = pod["serviceAccountName"]
        accounts = [one for one in made if one.template == "schedules/serviceaccount.yaml"]
        assert (job.namespace, account) in {(one.namespace, one.name) for one in accounts}


def test_the_file_says_what_was_asked_for(helm: Helm) -> None:
    requests = by_name(helm.template("schedules"), "schedules/request.yaml")
    files = {
        name: yaml.safe_load(one.document["data"]["schedule.yaml"])
        for name, one in requests.items()
    }
    weekly = files["hdgan-weekly-schedule"]
    assert list(weekly) == ["concurrencyPolicy", "generator", "history", "schedule", "spec"]
    assert weekly["schedule"] == "weekly"
    assert (weekly["generator"], weekly["concurrencyPolicy"]) == ("pinned", "Forbid")
    assert weekly["history"] == {"succeeded": 3, "failed": 1}
    retrain = files["hdgan-monthly-retrain-schedule"]
    assert (retrain["generator"], retrain["concurrencyPolicy"]) == ("train", "Replace")
    assert retrain["history"] == {"succeeded": 12, "failed": 0}
    assert retrain["spec"]["synthesizer"]["count"] == 100_000_000


def test_a_part_of_the_history_has_a_default(newest: Helm) -> None:
    made = newest.template(values(history={"failed": 5}))
    (request,) = by_name(made, "schedules/request.yaml").values()
    file = yaml.safe_load(request.document["data"]["schedule.yaml"])
    assert file["history"] == {"succeeded": 3, "failed": 5}


@pytest.mark.parametrize("file", ["schedules", "everything", "network-policies"])
def test_the_submitter_understands_it(newest: Helm, file: str, tmp_path: Path) -> None:
    made = newest.template(file)
    requests = by_name(made, "schedules/request.yaml")
    assert requests
    for one in requests.values():
        path = tmp_path / "schedule.yaml"
        path.write_text(one.document["data"]["schedule.yaml"], encoding="utf-8")
        config = load_schedule(path)
        due = document(config, "x")
        parse_run({**due, "metadata": {"name": "x"}}, "schedule.yaml")
        assert config.schedule == one.document["metadata"]["labels"][SCHEDULE_LABEL]
        (job,) = [each for each in made if f"{each.name}-schedule" == one.name]
        (container,) = job.document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert {NAME_VARIABLE, NAMESPACE_VARIABLE} <= {each["name"] for each in container["env"]}


def test_names_of_runs_have_room(helm: Helm) -> None:
    """A Job's name has up to 11 characters more than its CronJob's, a run's at most 52."""
    (job,) = by_name(
        helm.template(values("x" * 30), release="hdgan-abcd"), "schedules/cronjob.yaml"
    )
    assert len(job) == 41
    with pytest.raises(
        Refused, match=r"schedules.x+: its CronJob would be named .* of 42 .*fullname"
    ):
        helm.template(values("x" * 30), release="hdgan-abcde")
    with pytest.raises(Refused):
        helm.template(values("x" * 31), release="hdgan")


REFUSED: list[tuple[Document, str]] = [
    ({"namespace": "elsewhere"}, "schedules.weekly.namespace: elsewhere is not watched; .* hdgan"),
    (
        {"spec": {**SPEC, "resources": {"store": "other"}}},
        "schedules.weekly.spec.resources.store: namespace hdgan has no store other; .* default",
    ),
    ({"schedule": "every sunday"}, "schedule"),
    ({"schedule": "CRON_TZ=UTC 0 3 * * 0"}, "schedule"),
    ({"spec": {**SPEC, "tiler": {"tilesize": 64}}}, "tilesize"),
    ({"spec": {"slides": {"uri": "s3://a/"}}}, "annotations"),
    ({"generator": "newest"}, "generator"),
]


@pytest.mark.parametrize(("more", "words"), REFUSED)
def test_schedules_that_cannot_work_are_refused(helm: Helm, more: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        helm.template(values(**more))
