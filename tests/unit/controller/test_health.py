"""What probes and Prometheus are answered."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from hdgan.controller.health import Health
from hdgan.core.errors import RequestError


class Fake:
    """A controller that says of itself what the test says."""

    def __init__(self, *unseen: str, works: bool = True) -> None:
        self._unseen, self._works = list(unseen), works
        self.series = CollectorRegistry()
        Gauge("hdgan_of_its_own", "What a controller tells.", registry=self.series).set(7)

    def works(self) -> bool:
        return self._works

    def unseen(self) -> list[str]:
        return self._unseen


@pytest.fixture
def health() -> Iterator[Health]:
    served = Health(0, ["a", "b"])
    yield served
    served.stop()


def asked(health: Health, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{health.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_who_waits_to_lead_is_ready(health: Health) -> None:
    assert asked(health, "/livez") == (200, "ok\n")
    assert asked(health, "/readyz") == (200, "ok: waiting to lead\n")
    assert "hdgan_controller_leading 0.0" in asked(health, "/metrics")[1]
    assert "hdgan_controller_namespace_seen{" not in asked(health, "/metrics")[1]
    assert asked(health, "/")[0] == 404


def test_a_leader_is_ready_while_it_sees_anything(health: Health) -> None:
    health.controller = Fake()
    assert asked(health, "/readyz") == (200, "ok: leading\n")
    health.controller = Fake("b")
    status, words = asked(health, "/readyz")
    assert (status, "cannot list or watch b" in words) == (200, True)
    metrics = asked(health, "/metrics")[1]
    assert 'hdgan_controller_namespace_seen{run_namespace="a"} 1.0' in metrics
    assert 'hdgan_controller_namespace_seen{run_namespace="b"} 0.0' in metrics
    assert "hdgan_controller_leading 1.0" in metrics
    assert "hdgan_of_its_own 7.0" in metrics
    health.controller = None
    assert "hdgan_of_its_own" not in asked(health, "/metrics")[1]
    health.controller = Fake("a", "b")
    assert asked(health, "/readyz")[0] == 503
    assert asked(health, "/livez")[0] == 200


def test_a_controller_whose_threads_end_is_not_alive(health: Health) -> None:
    health.controller = Fake(works=False)
    status, words = asked(health, "/livez")
    assert (status, "see the log" in words) == (500, True)


def test_a_port_that_is_taken_is_named(health: Health) -> None:
    with pytest.raises(RequestError, match=f"port {health.port} .healthPort."):
        Health(health.port, ["a"])


def test_what_else_the_process_tells_is_added(health: Health) -> None:
    Gauge("hdgan_of_stores", "What stores tell.", registry=health.registry).set(3)
    assert "hdgan_of_stores 3.0" in asked(health, "/metrics")[1]
    assert "process_cpu_seconds_total" in asked(health, "/metrics")[1]
    Counter("hdgan_of_more_total", "More.", registry=health.registry).inc()
    page = asked(health, "/metrics")[1]
    assert "hdgan_of_more_total 1.0" in page
    assert "_created" not in page
