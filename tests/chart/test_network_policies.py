"""Who reaches whom with NetworkPolicies on: worked out from the policies as a network would."""

from __future__ import annotations

import pytest

from chart.helms import Helm, Made
from chart.judging import pods
from chart.network import Place, allowed

STAGE = {
    "app.kubernetes.io/name": "hdgan",
    "app.kubernetes.io/instance": "hdgan",
    "app.kubernetes.io/component": "stage",
    "app.kubernetes.io/managed-by": "hdgan-controller",
}
TILER = Place("team-a", {**STAGE, "hdgan.io/stage": "tiler"})
RANK = Place("team-a", {**STAGE, "hdgan.io/stage": "gan-trainer"})
OTHER_RANK = Place("team-b", RANK.labels)
MINIO = Place("minio", {"app": "minio"})
PROMETHEUS = Place("observability", {"app.kubernetes.io/name": "prometheus"})
STRANGER = Place("elsewhere", {"app.kubernetes.io/name": "prometheus"})
NEIGHBOUR = Place("team-a", {"app": "something"})
API = Place(address="10.0.0.10")
DNS = Place(address="169.254.20.10")
METADATA = Place(address="169.254.169.254")
INTERNET = Place(address="198.51.100.1")


def place(made: list[Made], component: str) -> Place:
    """A pod the chart makes itself."""
    found = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: Place(
            one.namespace, pod["metadata"]["labels"]
        )
        for one, pod in pods(made)
    }
    return found[component]


def test_what_is_needed_passes_and_nothing_else(newest: Helm) -> None:
    made = newest.template("network-policies", namespace="ops")
    controller, check, submitter, gc = (
        place(made, name) for name in ("controller", "check", "submitter", "gc")
    )
    flows = [
        # Stages: the store, names, each other where they train together.
        (TILER, MINIO, 9000, True),
        (TILER, MINIO, 443, False),
        (TILER, API, 6443, False),
        (OTHER_RANK, API, 6443, False),
        (TILER, INTERNET, 443, False),
        (TILER, METADATA, 80, False),
        (TILER, NEIGHBOUR, 80, False),
        (TILER, RANK, 29500, False),
        (RANK, RANK, 29500, True),
        (RANK, RANK, 41234, True),
        (RANK, OTHER_RANK, 29500, False),
        (RANK, TILER, 9999, False),
        # The controller: store, API server, progress of stages.
        (controller, MINIO, 9000, True),
        (controller, API, 6443, True),
        (controller, API, 443, False),
        (controller, TILER, 9999, True),
        (controller, OTHER_RANK, 9999, True),
        (controller, TILER, 9464, False),
        (controller, METADATA, 80, False),
        (check, API, 6443, True),
        (check, MINIO, 9000, True),
        (check, TILER, 9999, False),
        # The submitter: the API server.
        (submitter, API, 6443, True),
        (submitter, MINIO, 9000, False),
        (submitter, TILER, 9999, False),
        # Who collects garbage: the store.
        (gc, MINIO, 9000, True),
        (gc, MINIO, 443, False),
        (gc, API, 6443, False),
        (gc, INTERNET, 443, False),
        (gc, METADATA, 80, False),
        (gc, TILER, 9999, False),
        (gc, controller, 8081, False),
        # Those who come in.
        (PROMETHEUS, TILER, 9999, True),
        (PROMETHEUS, TILER, 29500, False),
        (PROMETHEUS, controller, 8081, True),
        (PROMETHEUS, submitter, 8081, False),
        (PROMETHEUS, gc, 8081, False),
        (STRANGER, TILER, 9999, False),
        (STRANGER, controller, 8081, False),
        (NEIGHBOUR, TILER, 9999, False),
        (NEIGHBOUR, RANK, 29500, False),
    ]
    wrong = [
        (source, target, port)
        for source, target, port, expected in flows
        if allowed(made, source, target, port) is not expected
    ]
    assert wrong == []
    for one in (TILER, RANK, controller, check, submitter, gc):
        for port, expected in ((53, True), (5353, True), (80, False)):
            assert allowed(made, one, DNS, port, "UDP") is expected


def test_others_pods_are_left_alone(newest: Helm) -> None:
    made = newest.template("network-policies", namespace="ops")
    assert allowed(made, NEIGHBOUR, INTERNET, 443)
    assert allowed(made, STRANGER, NEIGHBOUR, 80)


@pytest.mark.parametrize("asked_for", [False, True])
def test_metadata_is_reached_only_when_asked_for(newest: Helm, asked_for: bool) -> None:
    """The store is "everywhere" here, port 80 included: that is not to include it."""
    flag = f"networkPolicies.metadata.enabled={str(asked_for).lower()}"
    made = newest.template("workload-identity", flag, namespace="team-a")
    for one in (TILER, place(made, "controller"), place(made, "gc")):
        assert allowed(made, one, INTERNET, 443)
        assert allowed(made, one, Place(address="2001:db8::1"), 443)
        assert allowed(made, one, METADATA, 80) is asked_for
        assert not allowed(made, one, Place(address="fd00:ec2::254"), 80)


def test_names_are_found_where_name_servers_are_by_default(newest: Helm) -> None:
    made = newest.template("workload-identity", namespace="team-a")
    server = Place("kube-system", {"k8s-app": "kube-dns"})
    assert allowed(made, TILER, server, 53, "UDP")
    assert allowed(made, TILER, server, 53)
    assert not allowed(made, TILER, Place("minio", {"k8s-app": "kube-dns"}), 53, "UDP")


def test_there_are_none_unless_asked_for(newest: Helm) -> None:
    assert not [one for one in newest.template("minimal") if one.kind == "NetworkPolicy"]


@pytest.mark.parametrize(
    "template",
    [
        "networkpolicies/default-deny.yaml",
        "networkpolicies/dns.yaml",
        "networkpolicies/store.yaml",
        "networkpolicies/api-server.yaml",
        "networkpolicies/ranks.yaml",
        "networkpolicies/stage-metrics.yaml",
        "networkpolicies/metadata.yaml",
    ],
)
def test_each_namespace_has_its_own(newest: Helm, template: str) -> None:
    made = newest.template(
        "network-policies", "networkPolicies.metadata.enabled=true", namespace="ops"
    )
    where = [one.namespace for one in made if one.template == template]
    left_out = {
        "networkpolicies/ranks.yaml": {"ops"},
        "networkpolicies/stage-metrics.yaml": {"ops"},
        # No schedule there: nothing talks to the API server.
        "networkpolicies/api-server.yaml": {"team-a"},
    }
    assert sorted(where) == sorted({"ops", "team-a", "team-b"} - left_out.get(template, set()))


def test_the_controllers_policy_is_where_the_controller_is(newest: Helm) -> None:
    made = newest.template("network-policies", namespace="ops")
    template = "networkpolicies/controller-metrics.yaml"
    assert [one.namespace for one in made if one.template == template] == ["ops"]
