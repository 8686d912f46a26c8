"""Objects of the Prometheus operator: off unless asked for, and looking at what is there."""

from __future__ import annotations

import pytest

from chart.alert_rules import rules
from chart.helms import Helm, Refused
from chart.judging import selects
from chart.test_controller import one

ON = [
    f"monitoring.{name}.enabled=true" for name in ("serviceMonitor", "podMonitor", "prometheusRule")
]


def test_nothing_is_made_unless_asked_for(newest: Helm) -> None:
    made = newest.template("minimal")
    assert not [each for each in made if each.template.startswith("monitoring/")]


def test_the_service_monitor_finds_the_service_and_nothing_else(newest: Helm) -> None:
    made = newest.template("minimal", *ON)
    monitor = one(made, "monitoring/servicemonitor.yaml")["spec"]
    found = [
        each
        for each in made
        if each.kind == "Service"
        and selects(monitor["selector"], each.document["metadata"]["labels"])
    ]
    (service,) = found
    assert monitor["endpoints"][0]["port"] in {
        port["name"] for port in service.document["spec"]["ports"]
    }


def test_alerts_look_at_the_jobs_the_monitors_make(newest: Helm) -> None:
    """One is named like the Service, the other like the PodMonitor in its namespace."""
    made = newest.template("minimal", *ON, release="other", namespace="ops")
    (service,) = [each for each in made if each.kind == "Service"]
    (monitor,) = [each for each in made if each.kind == "PodMonitor"]
    found = {rule["alert"]: rule for rule in rules(made)}
    series = f'up{{job="{service.name}", namespace="ops"}}'
    assert found["HdganControllerDown"]["expr"] == f"absent({series} == 1)"
    assert found["HdganControllerReplicaDown"]["expr"] == f"{series} == 0"
    assert f'up{{job="ops/{monitor.name}"}}' in found["HdganStageSilent"]["expr"]


def test_alerts_look_at_the_jobs_they_are_told(newest: Helm) -> None:
    found = {rule["alert"]: rule["expr"] for rule in rules(newest.template("everything"))}
    assert 'up{job="hdgan", ' in found["HdganControllerDown"]
    assert 'up{job="hdgan-stages"}' in found["HdganStageSilent"]


@pytest.mark.parametrize(
    ("missing", "words"),
    [("serviceMonitor", "controller's metrics.*prometheusRule.job"), ("podMonitor", "stagesJob")],
)
def test_alerts_about_what_nobody_reads_are_refused(newest: Helm, missing: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        newest.template("minimal", *ON, f"monitoring.{missing}.enabled=false")


def test_rules_and_dashboards_are_found_by_their_templates(newest: Helm) -> None:
    made = newest.template("monitoring")
    assert [each.name for each in made if each.template == "monitoring/prometheusrule.yaml"] == [
        "hdgan"
    ]


def test_labels_by_which_prometheus_finds_them(newest: Helm) -> None:
    made = newest.template("everything")
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        (found,) = [each for each in made if each.kind == kind]
        labels = found.document["metadata"]["labels"]
        assert labels["release"] == "prometheus"


def test_two_containers_at_one_address_are_one_target(newest: Helm) -> None:
    (endpoint,) = one(newest.template("everything"), "monitoring/podmonitor.yaml")["spec"][
        "podMetricsEndpoints"
    ]
    (rule,) = endpoint["relabelings"]
    assert rule["sourceLabels"] == ["__meta_kubernetes_pod_container_init"]
    assert (rule["regex"], rule["action"]) == ("true", "drop")
