"""What Kubernetes and Prometheus ask the controller's process: `/livez`, `/readyz`, `/metrics`.

It lives while its threads do, and is ready while it waits to lead or can see at least one of its
namespaces. What it cannot see is named in the answer.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from prometheus_client.process_collector import ProcessCollector

from hdgan.core.errors import RequestError

SECONDS = 10.0
"""How long a client may take to say what it wants."""


class Watchful(Protocol):
    """What is asked of a controller."""

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
    """The server. `controller` is set once this replica leads."""

    def __init__(self, port: int, namespaces: list[str], host: str = "") -> None:
        self.controller: Watchful | None = None
        self._namespaces = namespaces
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._leading = Gauge(
            "hdgan_controller_leading", "1 while this replica leads.", registry=self._registry
        )
        self._seen = Gauge(
            "hdgan_controller_namespace_seen",
            "1 while the namespace's objects can be listed and watched.",
            ["namespace"],
            registry=self._registry,
        )
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
                return ready(self.controller, len(self._namespaces))
            case "/metrics":
                return Answer(200, self._metrics())
            case _:
                return Answer(404, "there are /livez, /readyz and /metrics\n")

    def _metrics(self) -> str:
        controller = self.controller
        self._leading.set(controller is not None)
        self._seen.clear()
        if controller is not None:
            unseen = controller.unseen()
            for name in self._namespaces:
                self._seen.labels(name).set(name not in unseen)
        return generate_latest(self._registry).decode()


class _Server(ThreadingHTTPServer):
    """On all addresses, of IPv4 and IPv6 where there are both."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    daemon_threads = True

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
