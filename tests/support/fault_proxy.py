"""A proxy on 127.0.0.1 before a real S3 server, which does to some requests what networks and busy
servers do: resets, 503 and 500, slow and truncated answers, lost answers, requests delivered twice.

What happens to a request follows from the seed and the request's number alone. One thread for each
connection; a request and its answer are held in memory, so it is for small objects.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal
from urllib.parse import unquote, urlsplit

Fault = Literal[
    "reset before",
    "reset within the request",
    "answer lost",
    "reset within the answer",
    "truncated answer",
    "slow answer",
    "503",
    "500",
    "500 when done",
    "delivered twice",
]
FAULTS: Final[tuple[Fault, ...]] = Fault.__args__  # type: ignore[attr-defined]

_HOP = frozenset({"connection", "keep-alive", "expect", "transfer-encoding", "proxy-connection"})
_CODES = {"503": "SlowDown", "500": "InternalError", "500 when done": "InternalError"}
_SLOW_SECONDS = 0.4
_ENTRY = re.compile(rb"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", re.DOTALL)


@dataclass(frozen=True)
class FaultPlan:
    """What the proxy does."""

    seed: int = 0
    faults: tuple[Fault, ...] = ()
    rate: float = 0.0
    """Share of requests one of `faults` happens to, besides bursts."""
    burst: int = 0
    """Requests in a row that the same fault happens to."""
    burst_first: int = 0
    """Number of the first request of the first burst."""
    burst_every: int = 1
    """Requests from the beginning of a burst to that of the next."""
    ignore_conditions: bool = False
    """Leave If-None-Match out, as servers do that do not know it."""
    late_seconds: float = 0.0
    """For how long a new object is missing in listings."""
    room: int | None = None
    """Bytes that may be written before the server says that it is full; None: any number."""

    def fault(self, number: int) -> Fault | None:
        """What happens to the request of this number (from 0)."""
        if not self.faults:
            return None
        turn, within = divmod(number - self.burst_first, self.burst_every)
        if turn >= 0 and within < self.burst:
            return random.Random(f"{self.seed} burst {turn}").choice(self.faults)
        drawn = random.Random(f"{self.seed} {number}")
        return drawn.choice(self.faults) if drawn.random() < self.rate else None


@dataclass(frozen=True)
class _Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def key(self) -> str:
        """Bucket and key."""
        return unquote(urlsplit(self.target).path).lstrip("/")

    @property
    def writes(self) -> bool:
        return self.method in ("PUT", "POST")

    @property
    def lists(self) -> bool:
        return self.method == "GET" and "list-type=2" in urlsplit(self.target).query


@dataclass(frozen=True)
class _Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    length: int
    """What its Content-Length says; for HEAD more than the body has."""


class _Broken(Exception):
    """The connection to the client is to be given up."""


class FaultProxy:
    """Started by `with`; `endpoint` is its URL. `heal` makes it an honest proxy from then on."""

    def __init__(self, server: str, plan: FaultPlan) -> None:
        """server: URL of the real one."""
        parts = urlsplit(server)
        self._server = (parts.hostname or "", parts.port or 80)
        self._plan = plan
        self._lock = threading.Lock()
        self._number = 0
        self._written = 0
        self._since: dict[bytes, float] = {}
        self._healed = False
        self._closing = False
        self._open: set[socket.socket] = set()
        self.happened: Counter[str] = Counter()
        """How often each fault has happened."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def requests(self) -> int:
        """How many there have been."""
        with self._lock:
            return self._number

    def heal(self) -> None:
        self._healed = True

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        # An accept that waits is not woken by closing its socket, but by somebody who comes.
        with contextlib.suppress(OSError):
            socket.create_connection(self._socket.getsockname()[:2], timeout=5).close()
        self._thread.join()
        self._socket.close()
        with self._lock:
            still = list(self._open)
        for connection in still:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._closing:
                connection.close()
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with connection.makefile("rb") as incoming:
                while (request := _read_request(incoming, connection)) is not None:
                    self._serve(request, connection)
        except (_Broken, OSError, http.client.HTTPException, ValueError):
            pass  # the client has gone, or was to be left alone
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _serve(self, request: _Request, connection: socket.socket) -> None:
        fault = self._next(request)
        if fault is not None:
            with self._lock:
                self.happened[fault] += 1
        if fault == "reset before":
            _reset(connection)
        if fault in ("503", "500"):
            connection.sendall(_head(_refusal(int(fault), _CODES[fault]), request))
            return
        if fault == "full":
            connection.sendall(_head(_refusal(507, "InsufficientStorage"), request))
            return
        if fault == "reset within the request":
            self._break_off(request)
            _reset(connection)
        answer = self._forward(request)
        if fault == "delivered twice":
            again = self._forward(request)
            # The second answer tells of what the first did; either may be the one that arrives.
            if "uploadId" not in request.target and self._turn() % 2:
                answer = again
        if request.lists and self._plan.late_seconds and not self._healed:
            answer = self._late(answer)
        match fault:
            case "answer lost":
                _reset(connection)
            case "500 when done":
                connection.sendall(_head(_refusal(500, "InternalError"), request))
            case "reset within the answer":
                whole = _head(answer, request)
                connection.sendall(whole[: len(whole) // 2])
                _reset(connection)
            case "truncated answer":
                whole = _head(answer, request)
                connection.sendall(whole[: max(1, len(whole) - 1 - len(answer.body) // 2)])
                raise _Broken
            case "slow answer":
                self._slowly(_head(answer, request), connection)
            case _:
                connection.sendall(_head(answer, request))

    def _next(self, request: _Request) -> Fault | Literal["full"] | None:
        with self._lock:
            number = self._number
            self._number += 1
            if self._healed:
                return None
            if request.writes:
                self._since.setdefault(request.key.encode(), time.monotonic())
                self._written += len(request.body)
                if self._plan.room is not None and self._written > self._plan.room:
                    return "full"
        return self._plan.fault(number)

    def _turn(self) -> int:
        with self._lock:
            return self._number

    def _forward(self, request: _Request) -> _Answer:
        connection = http.client.HTTPConnection(*self._server, timeout=60)
        try:
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self._kept(request):
                connection.putheader(name, value)
            connection.endheaders(request.body or None)
            response = connection.getresponse()
            body = response.read()
            length = int(response.getheader("Content-Length") or len(body))
            return _Answer(response.status, response.reason, response.getheaders(), body, length)
        finally:
            connection.close()

    def _break_off(self, request: _Request) -> None:
        """Let the server have the head and half of the body."""
        with socket.create_connection(self._server, timeout=60) as server:
            lines = [f"{request.method} {request.target} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in self._kept(request)]
            head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
            server.sendall(head + request.body[: len(request.body) // 2])

    def _kept(self, request: _Request) -> list[tuple[str, str]]:
        """Headers that go on to the server."""
        left_out = {"content-length"}
        if self._plan.ignore_conditions:
            left_out.add("if-none-match")
        kept = [
            (name, value)
            for name, value in request.headers
            if name.lower() not in _HOP and name.lower() not in left_out
        ]
        if request.body or request.writes:
            kept.append(("Content-Length", str(len(request.body))))
        return [*kept, ("Connection", "close")]

    def _late(self, answer: _Answer) -> _Answer:
        """A listing without what was written just now."""
        limit = time.monotonic() - self._plan.late_seconds
        with self._lock:
            new = {key.partition(b"/")[2] for key, since in self._since.items() if since > limit}

        def shown(found: re.Match[bytes]) -> bytes:
            if unquote(found[1].decode()).encode() not in new:
                return found[0]
            with self._lock:
                self.happened["left out of a listing"] += 1
            return b""

        body = _ENTRY.sub(shown, answer.body)
        return _Answer(answer.status, answer.reason, answer.headers, body, len(body))

    def _slowly(self, data: bytes, connection: socket.socket) -> None:
        piece = max(1, len(data) // 4)
        for start in range(0, len(data), piece):
            time.sleep(_SLOW_SECONDS / 4)
            connection.sendall(data[start : start + piece])


def _read_request(incoming: BinaryIO, connection: socket.socket) -> _Request | None:
    """The next request on a connection; None when there are no more."""
    line = incoming.readline(1 << 16)
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = list(http.client.parse_headers(incoming).items())
    named = {name.lower(): value for name, value in headers}
    if named.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in named.get("transfer-encoding", "").lower():
        body = b"".join(_chunks(incoming))
    else:
        length = int(named.get("content-length", "0"))
        body = incoming.read(length)
        if len(body) < length:
            raise _Broken
    return _Request(method, target, headers, body)


def _chunks(incoming: BinaryIO) -> Iterator[bytes]:
    while size := int(incoming.readline(1 << 16).split(b";")[0], 16):
        chunk = incoming.read(size)
        if len(chunk) < size:
            raise _Broken
        yield chunk
        incoming.readline(3)
    while incoming.readline(1 << 16).strip():
        pass  # trailers


def _head(answer: _Answer, request: _Request) -> bytes:
    """The answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
    lines += [
        f"{name}: {value}"
        for name, value in answer.headers
        if name.lower() not in _HOP and name.lower() != "content-length"
    ]
    if answer.status != 204:
        lines.append(f"Content-Length: {answer.length}")
    body = b"" if request.method == "HEAD" else answer.body
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def _refusal(status: int, code: str) -> _Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    headers = [("Content-Type", "application/xml")]
    reason = http.client.responses[status]
    return _Answer(status, reason, headers, body.encode(), len(body))


def _reset(connection: socket.socket) -> None:
    """Close it so that the other side sees a reset, not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise _Broken
