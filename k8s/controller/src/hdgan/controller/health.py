"""What Kubernetes and Prometheus ask the controller's process: `/livez`, `/readyz`, `/metrics`.

It lives while its threads do, and is ready while it waits to lead or can see at least one of its
namespaces. What it cannot see is named in the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from hdgan.core.errors import RequestError
from hdgan.core.telemetry import catalogue
from hdgan.core.telemetry.http_pages import METRICS_TYPE, Page, PageServer
from hdgan.core.telemetry.registry import Registry
from hdgan.core.telemetry.run_series import empty


class Series(Protocol):
    """What a controller tells Prometheus."""

    def collect(self) -> Iterable[Metric]:
        """All of it, without waiting for anybody."""


class Watchful(Protocol):
    """What is asked of a controller."""

    @property
    def series(self) -> Series:
        """What it tells Prometheus."""

    def works(self) -> bool:
        """Whether all its threads live."""

    def unseen(self) -> list[str]:
        """Namespaces nothing is decided for."""


def live(controller: Watchful | None) -> Page:
    """Whether the process is worth keeping. None: it waits to lead."""
    if controller is not None and not controller.works():
        return Page("a thread of the controller has ended: see the log\n", status=500)
    return Page("ok\n")


def ready(controller: Watchful | None, namespaces: int) -> Page:
    """Whether it does what it is there for, as far as it is its turn."""
    if controller is None:
        return Page("ok: waiting to lead\n")
    unseen = controller.unseen()
    if not unseen:
        return Page("ok: leading\n")
    words = f"cannot list or watch {', '.join(unseen)}: see the log\n"
    return Page(words, status=503 if len(unseen) == namespaces else 200)


class Health:
    """The server. `controller` is set once this replica leads; what else the process has to tell
    Prometheus may be added to `registry`."""

    def __init__(self, port: int, namespaces: list[str], host: str = "") -> None:
        self.controller: Watchful | None = None
        self.namespaces = namespaces
        self.registry: CollectorRegistry = Registry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Shown(self))
        try:
            self._server = PageServer(host, port, self._answer)
        except OSError as error:
            raise RequestError(
                f"cannot listen on port {port} (healthPort): {error.strerror or error}"
            ) from error

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    def stop(self) -> None:
        """End the server."""
        self._server.close()

    def _answer(self, path: str) -> Page:
        match path:
            case "/livez":
                return live(self.controller)
            case "/readyz":
                return ready(self.controller, len(self.namespaces))
            case "/metrics":
                return Page(generate_latest(self.registry).decode(), METRICS_TYPE)
            case _:
                return Page("there are /livez, /readyz and /metrics\n", status=404)


class _Shown(Collector):
    """Whether the replica leads, what it cannot see, and all that it tells while it leads."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        controller = self._health.controller
        leading, seen = empty(catalogue.CONTROLLER_LEADING), empty(catalogue.CONTROLLER_SEEN)
        leading.add_metric([], float(controller is not None))
        yield leading
        if controller is not None:
            unseen = controller.unseen()
            for name in self._health.namespaces:
                seen.add_metric([name], float(name not in unseen))
        yield seen
        if controller is not None:
            yield from controller.series.collect()

    def describe(self) -> Iterator[Metric]:
        """Nothing: what is told depends on whether it leads."""
        return iter(())
