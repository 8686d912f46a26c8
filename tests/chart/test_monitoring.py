"""Objects of the Prometheus operator: off unless asked for, and looking at what is there."""

from __future__ import annotations

from chart.helms import Helm
from chart.judging import selects
from chart.test_controller import one

ON = [f"monitoring.{name}.enabled=true" for name in ("serviceMonitor", "prometheusRule")]


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


def test_alerts_look_at_the_job_the_service_monitor_makes(newest: Helm) -> None:
    """Which is named like the Service."""
    made = newest.template("minimal", *ON, release="other", namespace="ops")
    (service,) = [each for each in made if each.kind == "Service"]
    series = f'up{{job="{service.name}", namespace="ops"}}'
    rules = one(made, "monitoring/prometheusrule.yaml")["spec"]["groups"][0]["rules"]
    assert [rule["expr"] for rule in rules] == [f"absent({series} == 1)", f"{series} == 0"]
    assert "{{ $labels.pod }}" in rules[1]["annotations"]["description"]


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
