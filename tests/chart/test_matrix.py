"""What holds for all that the chart makes, whatever the values: each file in `values`, Helm 3 and
4."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from chart.helms import CHART, VALUES, Helm, Made
from chart.judging import not_restricted, pods, problems
from hdgan.controller.settings import Settings, load_settings

FILES = sorted(file.stem for file in VALUES.glob("*.yaml"))
matrix = pytest.mark.parametrize("file", FILES)
CLUSTER_WIDE = {"CustomResourceDefinition"}


def settings_of(made: list[Made], folder: Path) -> Settings:
    """The settings the chart made, read as the controller reads them."""
    (found,) = [one for one in made if one.template == "controller/settings.yaml"]
    file = folder / "settings.yaml"
    file.write_text(found.document["data"]["settings.yaml"], encoding="utf-8")
    return load_settings(file)


@matrix
def test_lint_has_nothing_to_say(helm: Helm, file: str) -> None:
    helm.run("lint", "--strict", str(CHART), *helm.given(file))


@matrix
def test_every_object_is_valid_in_strict_mode(helm: Helm, file: str) -> None:
    wrong = {f"{one.kind} {one.name}": problems(one) for one in helm.template(file)}
    assert {name: found for name, found in wrong.items() if found} == {}


@matrix
def test_every_object_says_where_it_is_and_whose(helm: Helm, file: str) -> None:
    made = helm.template(file)
    places = [(one.kind, one.namespace, one.name) for one in made]
    assert len(places) == len(set(places))
    for one in made:
        assert bool(one.namespace) == (one.kind not in CLUSTER_WIDE)
        if one.template != "extra-objects.yaml":
            labels = one.document["metadata"]["labels"]
            assert labels["app.kubernetes.io/name"] == "hdgan"
            assert labels["app.kubernetes.io/instance"] == "hdgan"
            assert labels["app.kubernetes.io/managed-by"] == "Helm"


@matrix
def test_the_controller_understands_its_settings(helm: Helm, file: str, tmp_path: Path) -> None:
    settings = settings_of(helm.template(file), tmp_path)
    given = yaml.safe_load((VALUES / f"{file}.yaml").read_text(encoding="utf-8"))
    names = [one["name"] for one in given.get("watchNamespaces", [{"name": "hdgan"}])]
    assert [one.name for one in settings.namespaces] == names


@matrix
def test_every_pod_is_restricted(helm: Helm, file: str) -> None:
    made = helm.template(file)
    assert {one.kind for one, _ in pods(made)} >= {"Deployment", "Pod"}
    for one, pod in pods(made):
        assert not_restricted(pod["spec"]) == [], one.name
        mounted = {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])


@matrix
def test_rights_are_in_namespaces_and_spelled_out(helm: Helm, file: str) -> None:
    made = helm.template(file)
    assert not [one for one in made if one.kind.startswith("ClusterRole")]
    roles = {(one.namespace, one.name): one.document for one in made if one.kind == "Role"}
    for role in roles.values():
        for rule in role["rules"]:
            assert "*" not in str(rule)
            assert "secrets" not in rule["resources"]
    bindings = [one for one in made if one.kind == "RoleBinding"]
    assert {(one.namespace, one.document["roleRef"]["name"]) for one in bindings} == set(roles)
    accounts = {(one.namespace, one.name) for one in made if one.kind == "ServiceAccount"}
    for one in bindings:
        assert one.document["roleRef"]["kind"] == "Role"
        for subject in one.document["subjects"]:
            assert (subject["namespace"], subject["name"]) in accounts


@matrix
def test_only_those_that_talk_to_the_cluster_get_a_token(helm: Helm, file: str) -> None:
    made = helm.template(file)
    for one in made:
        if one.kind == "ServiceAccount":
            assert one.document["automountServiceAccountToken"] is False
    bound = {
        (subject["namespace"], subject["name"])
        for one in made
        if one.kind == "RoleBinding"
        for subject in one.document["subjects"]
    }
    for one, pod in pods(made):
        talks = pod["metadata"]["labels"]["app.kubernetes.io/component"] != "gc"
        assert pod["spec"]["automountServiceAccountToken"] is talks
        assert ((one.namespace, pod["spec"]["serviceAccountName"]) in bound) is talks


@matrix
def test_helm_3_and_4_make_the_same(programs: dict[str, Helm], file: str) -> None:
    both = [
        {(one.kind, one.namespace, one.name): one for one in helm.template(file)}
        for helm in programs.values()
    ]
    assert all(one == both[0] for one in both)
