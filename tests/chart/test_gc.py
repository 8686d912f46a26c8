"""Collecting garbage: the CronJob, what it is told, and that it can do nothing but reach stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from chart.helms import Document, Helm, Made, Refused
from chart.rights import exists, rights
from chart.test_controller import MINIMAL, one, pod_of, readable
from chart.test_matrix import settings_of
from chart.test_schedules import SPEC
from hdgan.controller.settings import GarbageConfig
from hdgan.core.errors import (
    HdganError,
    InputMissing,
    InternalError,
    RequestError,
    StoreUnavailable,
)

ON = "gc.enabled=true"


def cronjob(made: list[Made]) -> Document:
    """What is said of it."""
    found: Document = one(made, "gc/cronjob.yaml")["spec"]
    return found


def pod(made: list[Made]) -> Document:
    found: Document = cronjob(made)["jobTemplate"]["spec"]["template"]["spec"]
    return found


def test_there_is_nothing_of_it_unless_asked_for(newest: Helm) -> None:
    before, after = newest.template("minimal"), newest.template("minimal", ON)
    assert not [each for each in before if each.template.startswith("gc/")]
    new = {each.template: each for each in after if each not in before}
    assert sorted(new) == ["gc/cronjob.yaml", "gc/serviceaccount.yaml"]
    assert {(each.namespace, each.name) for each in new.values()} == {("hdgan", "hdgan-gc")}
    # Nor does the controller start anew for it.
    assert len(after) == len(before) + 2


def test_it_runs_when_it_is_asked_to(newest: Helm) -> None:
    spec = cronjob(newest.template("minimal", ON))
    assert (spec["schedule"], spec["timeZone"]) == ("17 3 * * *", "Etc/UTC")
    assert spec["suspend"] is False
    spec = cronjob(newest.template("everything"))
    assert (spec["schedule"], spec["timeZone"]) == ("@daily", "Europe/Berlin")
    assert spec["suspend"] is True


def test_there_is_one_pass_at_a_time(newest: Helm) -> None:
    spec = cronjob(newest.template("minimal", ON))
    job = spec["jobTemplate"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert job["podReplacementPolicy"] == "Failed"
    assert not {"parallelism", "completions"} & set(job)
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    # One that never starts ends before the next turn of a daily schedule.
    assert 3600 <= job["activeDeadlineSeconds"] < 86_400


def test_what_would_be_so_again_is_not_tried_again(newest: Helm) -> None:
    made = newest.template("minimal", ON)
    rules = cronjob(made)["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    (fail,) = [rule["onExitCodes"] for rule in rules if rule["action"] == "FailJob"]
    assert fail["containerName"] == pod(made)["containers"][0]["name"]
    final: list[type[HdganError]] = [RequestError, InputMissing, InternalError]
    assert fail["values"] == [error.exit_code for error in final]
    assert StoreUnavailable.exit_code not in fail["values"]


@pytest.mark.parametrize("file", ["minimal", "namespaces", "workload-identity", "everything"])
def test_it_reaches_stores_as_the_controller_does(newest: Helm, file: str) -> None:
    made = newest.template(file, ON)
    controller, own = pod_of(made), pod(made)
    assert readable(own) == readable(controller)
    container = own["containers"][0]
    assert container["command"][1:] == ["-m", "hdgan.controller.gc", "/etc/hdgan/settings.yaml"]
    assert exists("gc")
    for name in ("volumes", "securityContext"):
        assert own[name] == controller[name]
    for name in ("image", "imagePullPolicy", "env", "volumeMounts"):
        assert container[name] == controller["containers"][0][name]
    assert own.get("imagePullSecrets") == controller.get("imagePullSecrets")
    assert own.get("nodeSelector") == controller.get("nodeSelector")
    assert own.get("tolerations") == controller.get("tolerations")
    # It is neither one of the replicas nor behind the Service.
    labels = cronjob(made)["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    selector = one(made, "controller/deployment.yaml")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= labels.items()


def test_a_proxy_with_a_password_is_its_proxy_too(newest: Helm) -> None:
    values = {**MINIMAL, "gc": {"enabled": True}, "proxy": {"existingSecret": "proxy"}}
    (source,) = pod(newest.template(values))["containers"][0]["envFrom"]
    assert source == {"secretRef": {"name": "proxy"}}


def test_how_long_things_stay_arrives(helm: Helm, tmp_path: Path) -> None:
    settings = settings_of(helm.template("everything"), tmp_path)
    assert settings.gc == GarbageConfig(
        grace_hours=48.0, keep_days=7.5, keep_awaiting_days=10_000.0, most_percent=12.5
    )
    # The chart's defaults are the program's, and those where a value is taken away.
    for values in (MINIMAL, {**MINIMAL, "gc": {"keepDays": None}}):
        assert settings_of(helm.template(values), tmp_path).gc == GarbageConfig()


def test_its_resources_are_its_own(newest: Helm) -> None:
    container = pod(newest.template("everything"))["containers"][0]
    assert container["resources"] == {
        "requests": {"cpu": "20m", "memory": "96Mi"},
        "limits": {"memory": "384Mi"},
    }


def test_it_may_do_nothing_in_the_cluster_and_asks_for_nothing(newest: Helm) -> None:
    assert rights("gc") == set()
    made = newest.template("everything")
    own = pod(made)
    assert own["automountServiceAccountToken"] is False
    bound = {
        (subject["namespace"], subject["name"])
        for each in made
        if each.kind == "RoleBinding"
        for subject in each.document["subjects"]
    }
    assert bound
    assert ("hdgan", own["serviceAccountName"]) not in bound
    sources = [volume.get("projected", {}).get("sources", []) for volume in own["volumes"]]
    kinds = {kind for each in sources for source in each for kind in source}
    assert kinds == {"configMap", "secret"}


def test_it_has_an_identity_of_its_own(newest: Helm) -> None:
    made = newest.template("workload-identity")
    account = one(made, "gc/serviceaccount.yaml")
    role = "eks.amazonaws.com/role-arn"
    assert account["metadata"]["annotations"] == {role: "arn:aws:iam::111122223333:role/hdgan-gc"}
    assert account["automountServiceAccountToken"] is False
    assert pod(made)["serviceAccountName"] == account["metadata"]["name"] == "hdgan-gc"
    assert pod(newest.template("everything"))["serviceAccountName"] == "my-gc"


@pytest.mark.parametrize(("name", "used"), [("mine", "mine"), ("", "default")])
def test_an_account_that_exists_can_be_used(newest: Helm, name: str, used: str) -> None:
    made = newest.template(
        "minimal", ON, "serviceAccounts.gc.create=false", f"serviceAccounts.gc.name={name}"
    )
    assert "gc/serviceaccount.yaml" not in {each.template for each in made}
    assert pod(made)["serviceAccountName"] == used


def test_a_schedule_cannot_take_its_name(helm: Helm) -> None:
    values = {**MINIMAL, "schedules": {"gc": {"schedule": "@weekly", "spec": SPEC}}}
    helm.template(values)
    with pytest.raises(Refused, match=r"schedules.gc: its CronJob would be named hdgan-gc"):
        helm.template(values, ON)
    # In another namespace it is another object.
    helm.template({**values, "watchNamespaces": [{"name": "team"}]}, ON)
