"""The Lease part of an API server over real HTTP, with the ways an API server fails; and, run as a
program, a replica that leads by it and does what it is told on stdin."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import re
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from kubernetes.client import ApiClient, Configuration, CoordinationV1Api

from hdgan.controller.election import Elector, NotLeading, end_process
from hdgan.controller.kubernetes_lease import KubernetesLease
from hdgan.controller.settings import ElectionConfig

NAMESPACE = "hdgan-system"
NAME = "hdgan-controller"
SHORT = ElectionConfig.model_construct(
    name=NAME, lease_seconds=1.5, renew_seconds=0.9, retry_seconds=0.3
)
"""Below what an installation may ask for. The Lease says 2 seconds."""

Mode = Literal[
    "healthy",
    "hangs",
    "hangs before reading",
    "resets",
    "carries out, then resets",
    "carries out, then hangs",
    "reads well, writes hang",
    "trickles body",
    "trickles headers",
    "is slow",
    "500",
    "409",
    "not a lease",
]
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")


class LeaseStore:
    """One Lease as the API server keeps it: replaced only by who knows its last version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = 100
        self.lease: dict[str, Any] | None = None

    def get(self) -> tuple[int, dict[str, Any]]:
        with self._lock:
            return (200, self.lease) if self.lease else (404, status(404))

    def create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self.lease:
                return 409, status(409)
            return self._write(body, str(uuid.uuid4()), 201)

    def replace(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if not self.lease:
                return 404, status(404)
            for field in ("uid", "resourceVersion"):
                if body["metadata"].get(field) != self.lease["metadata"][field]:
                    return 409, status(409)
            return self._write(body, self.lease["metadata"]["uid"], 200)

    def seed(self, holder: str, seconds: int, **labels: str) -> None:
        """Put a Lease there, as if `holder` had held it."""
        moment = "2026-01-02T03:04:05.000000Z"
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "leaseTransitions": 4,
            "acquireTime": moment,
            "renewTime": moment,
        }
        metadata = {"name": NAME, "namespace": NAMESPACE, "labels": labels}
        self.create({"metadata": metadata, "spec": spec})

    def _write(self, body: dict[str, Any], uid: str, code: int) -> tuple[int, dict[str, Any]]:
        spec = body["spec"]
        for field in ("acquireTime", "renewTime"):
            # What Go's parser of a MicroTime accepts.
            if spec.get(field) is not None and not MICRO_TIME.fullmatch(spec[field]):
                return 400, status(400)
        if not (isinstance(spec["leaseDurationSeconds"], int) and spec["leaseDurationSeconds"] > 0):
            return 422, status(422)
        self._version += 1
        lease = copy.deepcopy(body)
        lease["apiVersion"], lease["kind"] = "coordination.k8s.io/v1", "Lease"
        lease["metadata"] |= {
            "uid": uid,
            "resourceVersion": str(self._version),
            "creationTimestamp": "2026-01-02T03:04:05Z",
        }
        self.lease = lease
        return code, lease


def status(code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}


class HostileServer:
    """Serves a store at `url`, in the way `mode` says from now on."""

    def __init__(self, store: LeaseStore) -> None:
        self.store = store
        self.mode: Mode = "healthy"
        self.stopping = threading.Event()
        self.requests = 0
        outer = self

        class Handler(_Handler):
            hostile = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.stopping.set()  # Ends everything that hangs.
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def serving(store: LeaseStore) -> Iterator[HostileServer]:
    server = HostileServer(store)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def lease_api(url: str) -> Iterator[KubernetesLease]:
    """The real client for a server at `url`."""
    configuration = Configuration(host=url)
    configuration.proxy = None
    configuration.retries = False
    with ApiClient(configuration) as client:
        yield KubernetesLease(CoordinationV1Api(client), NAMESPACE, NAME, SHORT.retry_seconds)


class _Handler(BaseHTTPRequestHandler):
    hostile: HostileServer
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        # With its errors: clients here go away whenever they like.
        with contextlib.suppress(OSError):
            if self.hostile.mode == "hangs before reading":
                self.hostile.stopping.wait()
                self.close_connection = True
            else:
                super().handle_one_request()
            return
        self.close_connection = True

    def do_GET(self) -> None:
        self._serve(self.hostile.store.get, writes=False)

    def do_POST(self) -> None:
        body = self._body()
        self._serve(lambda: self.hostile.store.create(body), writes=True)

    def do_PUT(self) -> None:
        body = self._body()
        self._serve(lambda: self.hostile.store.replace(body), writes=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _serve(self, carry_out: Callable[[], tuple[int, dict[str, Any]]], writes: bool) -> None:
        self.hostile.requests += 1
        mode = self.hostile.mode
        if mode in ("hangs", "hangs before reading"):
            self._hang()
        elif mode == "resets":
            self._reset()
        elif mode == "500":
            self._answer(500, status(500))
        elif mode == "409" and writes:
            self._answer(409, status(409))
        elif mode == "not a lease":
            self._answer(200, {"kind": "Status", "status": "Success"})
        elif mode == "carries out, then resets" and writes:
            carry_out()
            self._reset()
        elif mode == "carries out, then hangs":
            carry_out()
            self._hang()
        elif mode == "reads well, writes hang" and writes:
            self._hang()
        elif mode == "is slow":
            answer = carry_out()
            self.hostile.stopping.wait(0.5)
            self._answer(*answer)
        elif mode == "trickles body":
            code, found = carry_out()
            data = json.dumps(found).encode()
            self._head(code, len(data))
            self._trickle(data)
        elif mode == "trickles headers":
            carry_out()
            self._trickle(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" * 9)
        else:
            self._answer(*carry_out())

    def _head(self, code: int, size: int) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def _answer(self, code: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self._head(code, len(data))
        self.wfile.write(data)

    def _hang(self) -> None:
        self.hostile.stopping.wait()
        self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _trickle(self, data: bytes) -> None:
        # Faster than one a second: the read timeout (0.3 s) must begin anew with each byte.
        self.close_connection = True
        for number in range(len(data)):
            self.wfile.write(data[number : number + 1])
            self.wfile.flush()
            if self.hostile.stopping.wait(0.1):
                return


def lead(url: str, identity: str, how: str) -> None:
    """Lead, say so on stdout, then obey stdin: `act` acts if allowed, `block` blocks the main
    thread, `seize` does so with the interpreter's lock held, `release` hands over and ends."""

    def say(text: str) -> None:
        # In one piece: print() writes the end of the line on its own, and two threads speak.
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    with lease_api(url) as api:
        elector = Elector(
            api,
            SHORT,
            identity,
            on_lost=end_process(43) if how == "ends" else lambda reason: say(f"lost {reason}"),
            backstop=how == "ends",
        )
        if not elector.wait_to_lead(threading.Event()):
            sys.exit(1)
        say("leads")
        for line in sys.stdin:
            match line.strip():
                case "act":
                    try:
                        elector.require()
                        say("acted")
                    except NotLeading:
                        say("refused")
                case "block":
                    while True:
                        time.sleep(3600)
                case "seize":
                    say("seizes")
                    ctypes.PyDLL(None).sleep(60)
                case "release":
                    say(f"released {elector.release()}")
                    return


if __name__ == "__main__":
    lead(*sys.argv[1:])
