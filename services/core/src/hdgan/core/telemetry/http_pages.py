"""Serves a few pages over HTTP to whoever asks, from threads of its own."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self

from hdgan.core.redaction import redact

SECONDS = 10.0
"""How long a client may take to say what it wants."""
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The text format of Prometheus."""


@dataclass(frozen=True)
class Page:
    """An answer. Secrets in it do not go out."""

    text: str
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


class PageServer:
    """Answers with `answer(path)` until it is closed; calls `sent(path)` once that has gone out.
    Without a host on all addresses, of IPv4 and IPv6 where there are both. Port 0 takes a free one
    (see `port`).

    OSError if it cannot: the port is taken, or the host is none of this machine's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[str], Page],
        sent: Callable[[str], None] = lambda path: None,
    ) -> None:
        family = _family(host, port)

        class Handler(BaseHTTPRequestHandler):
            timeout = SECONDS

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                page = answer(path)
                body = redact(page.text).encode()
                self.send_response(page.status)
                self.send_header("Content-Type", page.kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                sent(path)

            def log_message(self, format: str, *args: object) -> None:
                """Stdout and stderr are for what the process itself has to say."""

        class Server(ThreadingHTTPServer):
            address_family = family
            daemon_threads = True

            def server_bind(self) -> None:
                if not host and family == socket.AF_INET6:
                    self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                super().server_bind()

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that has hung up is nothing to speak of."""
                if not isinstance(sys.exception(), ConnectionError | TimeoutError):
                    super().handle_error(request, client_address)

        self._server = Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="metrics",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _family(host: str, port: int) -> socket.AddressFamily:
    """Of a host's first address: the pods of a cluster may have addresses of IPv6 only."""
    if not host:
        return socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return places[0][0]
