"""What Kubernetes and Prometheus ask the controller's process: `/livez`, `/readyz`, `/metrics`.

It lives while its threads do, and is ready while it waits to lead or can see at least one of its
namespaces. What it cannot see is named in the answer.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from hdgan.core.errors import RequestError
from hdgan.core.telemetry import catalogue
from hdgan.core.telemetry.run_series import empty

SECONDS = 10.0
"""How long a client may take to say what it wants."""


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


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    text: str


def live(controller: Watchful | None) -> Answer:
    """Whether the process is worth keeping. None: it waits to lead."""
    if controller is not None and not controller.works():
        return Answer(500, "a thread of the controller has ended: see the log\n")
    return Answer(200, "ok\n")


def ready(controller: Watchful | None, namespaces: int) -> Answer:
    """Whether it does what it is there for, as far as it is its turn."""
    if controller is None:
        return Answer(200, "ok: waiting to lead\n")
    unseen = controller.unseen()
    if not unseen:
        return Answer(200, "ok: leading\n")
    words = f"cannot list or watch {', '.join(unseen)}: see the log\n"
    return Answer(503 if len(unseen) == namespaces else 200, words)


class Health:
    """The server. `controller` is set once this replica leads; what else the process has to tell
    Prometheus may be added to `registry`."""

    def __init__(self, port: int, namespaces: list[str], host: str = "") -> None:
        self.controller: Watchful | None = None
        self.namespaces = namespaces
        self.registry: CollectorRegistry = _Registry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Shown(self))
        try:
            self._server = _Server((host, port), _handler(self._answer))
        except OSError as error:
            raise RequestError(
                f"cannot listen on port {port} (healthPort): {error.strerror or error}"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str) -> Answer:
        match path.partition("?")[0]:
            case "/livez":
                return live(self.controller)
            case "/readyz":
                return ready(self.controller, len(self.namespaces))
            case "/metrics":
                return Answer(200, generate_latest(self.registry).decode())
            case _:
                return Answer(404, "there are /livez, /readyz and /metrics\n")


class _Registry(CollectorRegistry):
    """Without the time at which each series began: nobody asks for it, and it would double their
    number."""

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family


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


class _Server(ThreadingHTTPServer):
    """On one address; without a host on all, of IPv4 and IPv6 where there are both."""

    daemon_threads = True

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        one_of_ipv4 = bool(place[0]) and ":" not in place[0]
        both = socket.has_dualstack_ipv6() and not one_of_ipv4
        self.address_family = socket.AF_INET6 if both else socket.AF_INET
        super().__init__(place, handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _handler(answer: Callable[[str], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS

        def do_GET(self) -> None:
            found = answer(self.path)
            data = found.text.encode()
            self.send_response(found.status)
            self.send_header("Content-Type", CONTENT_TYPE_LATEST)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: probes come every few seconds."""

    return Handler
