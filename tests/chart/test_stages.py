"""Stages: the pods the controller makes out of the chart's settings find what they need."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from chart.helms import Helm
from chart.judging import selects
from chart.test_controller import one
from chart.test_matrix import FILES, settings_of
from hdgan.controller import render
from hdgan.controller.requests import requests_for
from hdgan.controller.settings import StageName
from hdgan.controller.unit import Unit
from hdgan.core.pipeline import External, Observed
from hdgan.core.report_request import report_request
from hdgan.core.request import InputRef
from support.runs import small_run

KEY = "ab" * 32
EXTERNAL = External(slides_key="work/slides/x.json", slides_digest="5" * 64)
OBSERVED = Observed(
    {
        name: InputRef(stage=name, key="1" * 64, content_digest="2" * 64)
        for name in ("tiler", "gan-trainer", "candidates", "annotations", "classifier")
    }
)
STAGES = ["tiler", "gan-trainer", "candidates", "classifier", "dataset"]


@pytest.mark.parametrize("file", FILES)
def test_pods_of_stages_find_their_accounts_and_are_found(
    newest: Helm, file: str, tmp_path: Path
) -> None:
    made = newest.template(file, "monitoring.podMonitor.enabled=true")
    settings = settings_of(made, tmp_path)
    accounts = {(each.namespace, each.name) for each in made if each.kind == "ServiceAccount"}
    accounts.add(("hdgan", "made-by-terraform"))
    monitor = one(made, "monitoring/podmonitor.yaml")["spec"]
    for space in settings.namespaces:
        owner = render.Owner("small", "8a8c3ad3-9d25-4a3e-8f5a-1c7b2f3d4e5f", space.name)
        for stage in STAGES:
            unit = Unit(stage, KEY, "whole", features_key="cd" * 32)
            run = small_run()
            requests = requests_for(unit, run, EXTERNAL, OBSERVED, settings, space.name)
            job = render.job(unit, 1, requests, run, owner, settings)
            pod = job["spec"]["template"]
            account = pod["spec"].get("serviceAccountName")
            assert account is None or (space.name, account) in accounts
            assert pod["spec"]["automountServiceAccountToken"] is False
            assert selects(monitor["selector"], pod["metadata"]["labels"])
            assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "hdgan"
            ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
            assert monitor["podMetricsEndpoints"][0]["port"] in ports
    assert monitor["namespaceSelector"]["matchNames"] == [each.name for each in settings.namespaces]


def test_each_stage_has_an_account_in_each_namespace(newest: Helm, tmp_path: Path) -> None:
    made = newest.template("namespaces")
    found = {
        (each.namespace, each.name)
        for each in made
        if each.template == "stages/serviceaccounts.yaml"
    }
    settings = settings_of(made, tmp_path)
    named = {pods.service_account for pods in settings.pods.values()}
    assert len(named) == len(get_args(StageName))
    assert found == {(space.name, name) for space in settings.namespaces for name in named}


def test_identities_are_those_asked_for(newest: Helm, tmp_path: Path) -> None:
    made = newest.template("workload-identity")
    settings = settings_of(made, tmp_path)
    assert settings.pods["classifier"].service_account == "made-by-terraform"
    assert settings.pods["dataset"].service_account is None
    accounts = {each.name: each.document for each in made if each.kind == "ServiceAccount"}
    assert "made-by-terraform" not in accounts
    assert "hdgan-dataset" not in accounts
    role = "eks.amazonaws.com/role-arn"
    annotations = accounts["hdgan-gan-trainer"]["metadata"]["annotations"]
    assert annotations[role] == "arn:aws:iam::111122223333:role/hdgan-stages"
    assert "annotations" not in accounts["hdgan-tiler"]["metadata"]


def test_a_namespace_adds_annotations_of_its_own(newest: Helm) -> None:
    made = newest.template("namespaces")
    cost = {
        each.namespace
        for each in made
        if each.template == "stages/serviceaccounts.yaml"
        and "annotations" in each.document["metadata"]
    }
    assert cost == {"dermatology"}
    made = newest.template("everything")
    (tiler,) = [each for each in made if each.name == "my-tiler"]
    assert tiler.document["metadata"]["annotations"] == {"example.org/a": "1"}


def test_reports_are_written_by_pods_like_those_of_stages(newest: Helm, tmp_path: Path) -> None:
    made = newest.template("network-policies")
    settings = settings_of(made, tmp_path)
    assert settings.images["desk"].image.split("/")[-1].startswith("hdgan-desk:")
    run = small_run()
    request = report_request(
        run, EXTERNAL, OBSERVED, "Failed", "", store="s3://bucket/store", scratch="/scratch"
    )
    unit = Unit("report", request.key, "whole")
    namespace = settings.namespaces[0].name
    owner = render.Owner("small", "8a8c3ad3-9d25-4a3e-8f5a-1c7b2f3d4e5f", namespace)
    pod = render.job(unit, 1, {"stage": request}, run, owner, settings)["spec"]["template"]
    accounts = {(each.namespace, each.name) for each in made if each.kind == "ServiceAccount"}
    assert (namespace, pod["spec"]["serviceAccountName"]) in accounts
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"memory": "2Gi"}
    policies = {
        each.name
        for each in made
        if each.kind == "NetworkPolicy"
        and each.namespace == namespace
        and selects(each.document["spec"]["podSelector"], pod["metadata"]["labels"])
    }
    assert {"hdgan-store", "hdgan-dns", "hdgan-default-deny"} <= policies
    assert "hdgan-api-server" not in policies


def test_reports_can_be_turned_off(newest: Helm, tmp_path: Path) -> None:
    made = newest.template("minimal", "report.enabled=false")
    assert "desk" not in settings_of(made, tmp_path).images
