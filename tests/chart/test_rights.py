"""Roles allow what the programs do, and nothing else: both are compared, the programs by their
source."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from chart.helms import CHART, Document, Helm, Made
from chart.rights import Right, rights
from chart.test_matrix import settings_of
from hdgan.controller.api import Api
from hdgan.controller.check import REVIEWS, find_problems
from hdgan.controller.rights import LEASE_RIGHTS, NAMESPACE_RIGHTS


def granted(made: list[Made], template: str) -> dict[str, set[Right]]:
    """What the Roles of a template allow, by namespace."""
    return {
        one.namespace: {
            (group, resource, verb)
            for rule in one.document["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        for one in made
        if one.template == template
    }


def test_the_controller_may_do_what_it_does(newest: Helm) -> None:
    made = newest.template("namespaces", release="other", namespace="hdgan")
    done = rights("program")
    lease = {right for right in done if right[1] == "leases"}
    assert lease == {
        ("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")
    }
    roles = granted(made, "controller/role.yaml")
    assert sorted(roles) == ["dermatology", "nephrology", "pathology-2"]
    for allowed in roles.values():
        assert allowed == done - lease
    assert granted(made, "controller/election-role.yaml") == {"hdgan": lease}


def test_the_lease_is_the_one_of_the_settings(newest: Helm) -> None:
    made = newest.template("minimal", release="other")
    (role,) = [one for one in made if one.template == "controller/election-role.yaml"]
    named = [rule.get("resourceNames") for rule in role.document["rules"]]
    assert named == [["other-hdgan-controller"], None]
    (settings,) = [one for one in made if one.template == "controller/settings.yaml"]
    assert "\n  name: other-hdgan-controller\n" in settings.document["data"]["settings.yaml"]
    (binding,) = [one for one in made if one.template == "controller/election-rolebinding.yaml"]
    assert binding.document["subjects"][0]["name"] == "other-hdgan-controller"


def test_the_controllers_account_is_bound_from_the_release_namespace(newest: Helm) -> None:
    made = newest.template("namespaces", namespace="ops")
    bindings = [one for one in made if one.template == "controller/rolebinding.yaml"]
    assert len(bindings) == 3
    for one in bindings:
        (subject,) = one.document["subjects"]
        assert (subject["namespace"], subject["name"]) == ("ops", "hdgan-controller")


def test_the_submitter_may_do_what_it_does(newest: Helm) -> None:
    made = newest.template("schedules")
    allowed = granted(made, "schedules/role.yaml")
    verbs = {("hdgan.io", "datasetruns", verb) for verb in ("get", "list", "create", "delete")}
    assert allowed == {"team-a": verbs, "team-b": verbs}
    bindings = [one for one in made if one.template == "schedules/rolebinding.yaml"]
    for one in bindings:
        (subject,) = one.document["subjects"]
        assert (subject["namespace"], subject["name"]) == (one.namespace, "hdgan-submitter")


def test_the_submitter_does_what_it_may(newest: Helm) -> None:
    allowed = granted(newest.template("schedules"), "schedules/role.yaml")
    assert allowed["team-a"] == rights("submitter")


class Reviews:
    """Answers what the check asks as an API server with these Roles does; takes nothing else."""

    def __init__(self, made: list[Made]) -> None:
        self._roles = [one for one in made if one.kind == "Role"]

    def create(self, collection: str, namespace: str, document: Document) -> Document:
        assert collection == REVIEWS
        asked = document["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        allowed = any(
            asked["verb"] in rule["verbs"]
            and asked["group"] in rule["apiGroups"]
            and resource in rule["resources"]
            and asked.get("name", "") in rule.get("resourceNames", [asked.get("name", "")])
            for role in self._roles
            if role.namespace == asked["namespace"]
            for rule in role.document["rules"]
        )
        return {"status": {"allowed": allowed}}


def test_the_check_finds_the_rights_sufficient(newest: Helm, tmp_path: Path) -> None:
    """A store whose credentials are not there, so that nothing is asked of any network."""
    made = newest.template("minimal", namespace="ops")
    settings = settings_of(made, tmp_path)
    api = cast(Api, Reviews(made))
    problems = [one for one in find_problems(api, "ops", settings) if "may not" in one]
    assert problems == []


def test_the_check_knows_all_the_controller_does() -> None:
    assert rights("program") == NAMESPACE_RIGHTS | LEASE_RIGHTS


def test_without_schedules_there_is_no_submitter(newest: Helm) -> None:
    made = newest.template("minimal")
    assert not [one for one in made if one.template.startswith("schedules/")]


def test_every_rule_has_its_reason() -> None:
    for file in CHART.glob("templates/**/*role.yaml"):
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        rules = [number for number, line in enumerate(lines) if line.startswith("- apiGroups")]
        assert rules
        for number in rules:
            assert lines[number - 1].startswith("#"), f"{file.name}:{number + 1} has no comment"
