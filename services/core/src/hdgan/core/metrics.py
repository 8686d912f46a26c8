"""`/metrics` and `/progress` of a running stage, over HTTP, from a registry of its own."""

from __future__ import annotations

import json
import math
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from hdgan.core.progress import Progress
from hdgan.core.redaction import redact

SECONDS = 10.0
"""How long a client may take to say what it wants."""


class MetricsServer:
    """Serves what a stage reports until it is closed. Port 0 takes a free one (see `port`).

    OSError if it cannot: the port is taken, or the host is none of this machine's.
    """

    def __init__(self, *, run: str, stage: str, key: str, host: str, port: int) -> None:
        self._names = {"run": run, "stage": stage}
        self._registry = CollectorRegistry()
        labels = ["run", "stage"]
        self._info = Gauge(
            "hdgan_stage_info", "What this process makes", [*labels, "key"], registry=self._registry
        )
        self._info.labels(run, stage, key).set(1)
        self._done = Gauge(
            "hdgan_stage_done", "Work done, in `unit`", [*labels, "unit"], registry=self._registry
        )
        self._total = Gauge(
            "hdgan_stage_total",
            "All the work, in `unit`",
            [*labels, "unit"],
            registry=self._registry,
        )
        self._rate = Gauge(
            "hdgan_stage_rate", "Work done per second", [*labels, "unit"], registry=self._registry
        )
        self._metric = Gauge(
            "hdgan_stage_metric",
            "Latest value of a measure the stage reports",
            [*labels, "name"],
            registry=self._registry,
        )
        self._lock = Lock()
        self._document: dict[str, object] = {"run": run, "stage": stage, "key": key, "metrics": {}}
        self._latest: dict[str, float | None] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            timeout = SECONDS

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(owner._registry))
                elif path == "/progress":
                    self._answer(200, "application/json", owner._progress_json())
                else:
                    self._answer(404, "text/plain", b"there are /metrics and /progress\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                body = redact(body.decode()).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Stdout and stderr of a stage are for its own events."""

        family = _family(host, port)

        class Server(ThreadingHTTPServer):
            address_family = family

        self._server = Server((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    def progress(self, progress: Progress) -> None:
        labels = (self._names["run"], self._names["stage"], progress.unit)
        self._done.labels(*labels).set(progress.done)
        if progress.total is not None:
            self._total.labels(*labels).set(progress.total)
        if progress.rate is not None:
            self._rate.labels(*labels).set(progress.rate)
        with self._lock:
            self._document |= {
                "done": progress.done,
                "total": progress.total,
                "unit": progress.unit,
                "rate": progress.rate,
                "eta": progress.eta,
            }

    def metric(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._metric.labels(self._names["run"], self._names["stage"], name).set(value)
        with self._lock:
            # JSON knows no NaN and no infinity.
            self._latest |= {n: v if math.isfinite(v) else None for n, v in values.items()}

    def _progress_json(self) -> bytes:
        with self._lock:
            return json.dumps(self._document | {"metrics": dict(self._latest)}).encode()

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
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return places[0][0]
