"""The submitter as a program: what a schedule's Job makes and deletes in an API server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from cluster.test_controller import crd  # noqa: F401
from hdgan.controller import api as paths
from hdgan.controller.api import Api
from support.runs import changed

SECONDS = 60.0


@pytest.fixture
def api(api_client: client.ApiClient, crd: None) -> Api:  # noqa: F811
    return Api(api_client)


def submitter(
    folder: Path, kubeconfig: Path, namespace: str, name: str, **schedule: Any
) -> subprocess.CompletedProcess[str]:
    document = changed("spec.slides.uri", "s3://bucket/slides")
    file = folder / "schedule.yaml"
    file.write_text(yaml.safe_dump({"schedule": "weekly", "spec": document["spec"], **schedule}))
    return subprocess.run(
        [sys.executable, "-m", "hdgan.controller.submitter", file, "--kubeconfig", kubeconfig],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "HDGAN_RUN_NAME": name, "HDGAN_NAMESPACE": namespace},
    )


def says(api: Api, namespace: str, name: str, **status: Any) -> None:
    document = api.get(paths.RUNS, namespace, name)
    assert document is not None
    api.replace_status(paths.RUNS, namespace, {**document, "status": status})


def names(api: Api, namespace: str) -> set[str]:
    return {one["metadata"]["name"] for one in api.list(paths.RUNS, namespace).items}


def test_a_schedule_week_after_week(
    api: Api, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    def week(number: int, **schedule: Any) -> str:
        done = submitter(tmp_path, kubeconfig, namespace, f"weekly-{number}", **schedule)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert week(1) == "weekly-1: a new run\n"
    made = api.get(paths.RUNS, namespace, "weekly-1")
    assert made is not None
    assert made["metadata"]["labels"] == {"hdgan.io/schedule": "weekly"}
    assert (made["spec"]["generator"], made["spec"]["dataset"]) == ("pinned", "weekly")
    # The Job is tried again: its run is there.
    assert week(1) == "weekly-1 is there already\n"
    assert "weekly-1 is at work" in week(2)
    assert names(api, namespace) == {"weekly-1"}

    says(api, namespace, "weekly-1", phase="AwaitingAnnotation")
    assert "weekly-1 (AwaitingAnnotation) is deleted" in week(3)
    assert names(api, namespace) == {"weekly-3"}
    # Somebody has begun to label: the run is not taken away.
    says(api, namespace, "weekly-3", phase="AwaitingAnnotation", annotationsLack="1 of 2")
    assert "weekly-3 is at work" in week(4)
    says(api, namespace, "weekly-3", phase="Released")
    week(5, history={"succeeded": 0, "failed": 1})
    assert names(api, namespace) == {"weekly-5"}
    # Runs of others are none of its business.
    other = changed("metadata.name", "mine", changed("spec.slides.uri", "s3://bucket/slides"))
    api.create(paths.RUNS, namespace, other)
    week(6, concurrencyPolicy="Replace")
    assert names(api, namespace) == {"weekly-6", "mine"}


def test_what_is_wrong_with_a_schedule_is_said_and_makes_nothing(
    api: Api, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    bad = submitter(
        tmp_path, kubeconfig, namespace, "weekly-1", spec=changed("spec.tiler.mpp", -1)["spec"]
    )
    assert (bad.returncode, "spec.tiler.mpp" in bad.stderr) == (64, True)
    unknown = submitter(tmp_path, kubeconfig, namespace, "weekly-1", polizy="Allow")
    assert (unknown.returncode, "polizy" in unknown.stderr) == (64, True)
    nameless = submitter(tmp_path, kubeconfig, namespace, "")
    assert (nameless.returncode, "HDGAN_RUN_NAME" in nameless.stderr) == (64, True)
    assert names(api, namespace) == set()
