"""A port of this machine that leads to a pod: each connection is a port-forward of its own through
the API server, so that one that breaks costs that connection alone, and the next finds the pod that
is there by then."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from kubernetes import client
from kubernetes.stream import portforward

CHUNK = 1 << 16
ATTEMPTS = 5


class Forward:
    """Takes connections on 127.0.0.1 until it is closed."""

    def __init__(
        self,
        connect: Callable[[], client.ApiClient],
        namespace: str,
        find_pod: Callable[[], str],
        port: int,
    ) -> None:
        """find_pod: name of the pod that is to be talked to now."""
        self._connect = connect
        self._namespace = namespace
        self._find_pod = find_pod
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """The port of this machine."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            opened = self._open()
            if opened is None:
                return  # closed at once: whoever connected tries again
            far, session = opened
            with contextlib.closing(session), contextlib.closing(far):
                back = threading.Thread(target=_pump, args=(far, near), daemon=True)
                back.start()
                _pump(near, far)
                back.join()

    def _open(self) -> tuple[socket.socket, client.ApiClient] | None:
        for attempt in range(ATTEMPTS):
            # A client of its own: while one opens a stream, nobody else can use it.
            session = self._connect()
            try:
                stream: Any = portforward(
                    client.CoreV1Api(session).connect_get_namespaced_pod_portforward,
                    self._find_pod(),
                    self._namespace,
                    ports=str(self._port),
                )
                far: socket.socket = stream.socket(self._port)
                far.setblocking(True)
                return far, session
            except Exception:  # whatever the client makes of a server that does not answer
                session.close()
                time.sleep(attempt)
        return None


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on until one side ends; then both do. S3 answers a request that is whole, so that
    nothing is lost by that."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def forwarded(
    connect: Callable[[], client.ApiClient],
    namespace: str,
    find_pod: Callable[[], str],
    port: int,
) -> Iterator[int]:
    """The port of this machine, for as long as the block runs."""
    forward = Forward(connect, namespace, find_pod, port)
    try:
        yield forward.port
    finally:
        forward.close()
