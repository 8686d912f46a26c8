"""Names: within their limits, one release's apart from another's, and selectors that stay."""

from __future__ import annotations

import re

import pytest

from chart.helms import Document, Helm, Made

LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
RELEASES = [
    "hdgan",
    "a",
    "123",
    "team.a",
    "x" * 53,
    "a-very-long-name-of-a-release-that-helm-still-takes-1",
]
SCHEDULE: Document = {
    "schedule": "@weekly",
    "spec": {
        "slides": {"uri": "s3://bucket/slides/"},
        "annotations": {
            "classes": [{"name": "a", "color": "#e377c2"}, {"name": "b", "color": "#5e3c99"}]
        },
    },
}
ALL: Document = {
    "stores": {"default": {"uri": "s3://bucket", "existingSecret": "123"}},
    "watchNamespaces": [{"name": "123"}, {"name": "true"}],
    "imagePullSecrets": ["456"],
    "schedules": {"1": SCHEDULE},
    "gc": {"enabled": True},
    "controller": {"replicas": 2, "priorityClassName": "1"},
    "networkPolicies": {
        "enabled": True,
        "store": {"cidrs": ["10.0.0.0/8"]},
        "apiServer": {"cidrs": ["10.0.0.0/8"]},
        "metadata": {"enabled": True},
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
}


def texts(node: object, path: str = "") -> list[str]:
    """Paths of names that are no text."""
    if isinstance(node, list):
        return [wrong for one in node for wrong in texts(one, f"{path}[]")]
    if not isinstance(node, dict):
        return []
    wrong = [
        f"{path}.{name}"
        for name, value in node.items()
        if name in ("name", "namespace", "serviceAccountName", "priorityClassName", "image")
        and not isinstance(value, str | dict)
    ]
    for name, value in node.items():
        if name in ("labels", "matchLabels", "annotations", "matchNames"):
            values = value.values() if isinstance(value, dict) else value
            wrong += [f"{path}.{name}" for one in values if not isinstance(one, str)]
        wrong += texts(value, f"{path}.{name}")
    return wrong


@pytest.mark.parametrize("release", RELEASES)
def test_names_are_valid_for_any_release(helm: Helm, release: str) -> None:
    made = helm.template(ALL, release=release, namespace="789")
    for one in made:
        if one.kind == "CustomResourceDefinition":
            continue
        assert LABEL.fullmatch(one.name), one.name
        assert len(one.name) <= {"CronJob": 41}.get(one.kind, 63), one.name
        assert texts(one.document) == []
        for value in one.document["metadata"]["labels"].values():
            assert len(value) <= 63


def places(made: list[Made]) -> set[tuple[str, str, str]]:
    return {(one.kind, one.namespace, one.name) for one in made}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hdgan", "hdgan-two"),
        ("a", "b"),
        ("team.a", "team-a"),
        ("x" * 52 + "1", "x" * 52 + "2"),
    ],
)
def test_two_releases_in_a_namespace_are_apart(newest: Helm, one: str, other: str) -> None:
    first = newest.template(ALL, release=one)
    second = newest.template(ALL, "crds.enabled=false", release=other)
    assert places(first) & places(second) == set()
    labels, selectors = [], []
    for made in (first, second):
        (deployment,) = [each.document["spec"] for each in made if each.kind == "Deployment"]
        labels.append(deployment["template"]["metadata"]["labels"])
        selectors.append(deployment["selector"]["matchLabels"])
    assert not selectors[0].items() <= labels[1].items()
    assert not selectors[1].items() <= labels[0].items()


FIXED = {
    "Deployment": ("selector",),
    "Service": ("clusterIP",),
    "RoleBinding": (),
}
"""Fields of `spec` that cannot change while the object exists."""


def fixed(made: list[Made]) -> dict[tuple[str, str, str], object]:
    """What cannot change, by object."""
    return {
        (one.kind, one.namespace, one.name): [
            *(one.document["spec"][name] for name in FIXED[one.kind]),
            one.document.get("roleRef"),
        ]
        for one in made
        if one.kind in FIXED
    }


@pytest.mark.parametrize("file", ["namespaces", "workload-identity", "schedules", "everything"])
def test_an_upgrade_changes_nothing_that_cannot_change(newest: Helm, file: str) -> None:
    before = fixed(newest.template("minimal"))
    more = ["commonLabels.new=label", "controller.podLabels.more=here", "tag=v2"]
    if file == "everything":
        more.append("fullnameOverride=")
    after = fixed(newest.template(file, *more))
    both = before.keys() & after.keys()
    assert {kind for kind, _, _ in both} == {"Deployment", "Service", "RoleBinding"}
    assert {place: before[place] for place in both} == {place: after[place] for place in both}


def test_another_name_is_another_deployment(newest: Helm) -> None:
    """Which is why a selector may stay the same when all is renamed."""
    made = newest.template("minimal", "fullnameOverride=other")
    assert {one.name for one in made if one.kind == "Deployment"} == {"other-controller"}
