"""HTTP: reads requests, applies faults, asks the api, writes answers and streams."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cluster.fake_api import discovery, routes
from cluster.fake_api.api import Answer, Api, Choice, Writing, unknown_format
from cluster.fake_api.deletion import read_options
from cluster.fake_api.faults import Fault, Faults
from cluster.fake_api.pod_output import PodOutput
from cluster.fake_api.problems import (
    Problem,
    bad_request,
    invalid_as,
    unrecognized,
    unsupported,
)
from cluster.fake_api.record import Request, Requests
from cluster.fake_api.routes import Route
from cluster.fake_api.watches import WatchRequest, follow

Json = dict[str, Any]

_LARGEST_BODY = 3 * 1024 * 1024
_WATCH_SECONDS = 1800.0
_POLL_SECONDS = 0.02


class Dropped(Exception):
    """The connection is to be closed without an answer."""


class Answered(Exception):
    """A fault has already answered."""


class HttpServer(ThreadingHTTPServer):
    """The listening socket, what its handlers share, and the connections that are open."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        api: Api,
        output: PodOutput,
        faults: Faults,
        requests: Requests,
        bookmarks: float,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api
        self.output = output
        self.faults = faults
        self.requests = requests
        self.bookmark_seconds = bookmarks
        self.stopping = threading.Event()
        self._lock = threading.Condition()
        self._connections: set[socket.socket] = set()

    def connected(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def disconnected(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
            self._lock.notify_all()

    def drop_connections(self) -> None:
        """Ends all handlers, and waits for them."""
        self.stopping.set()
        with self._lock:
            for connection in self._connections:
                _shut(connection)
            self._lock.wait_for(lambda: not self._connections, timeout=5.0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are nothing to report."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """One connection: its requests, one after another."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Head and body in one packet: in two, the second waits for the client's acknowledgement.
    wbufsize = 1 << 16
    server: HttpServer

    def setup(self) -> None:
        super().setup()
        self.server.connected(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.server.disconnected(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the record of requests is the log."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query, True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        route = routes.find(self.server.api, url.path)
        request = Request(
            self.command, url.path, query, user_agent=self.headers.get("User-Agent", "")
        )
        if route is not None:
            request.verb = route.verb(self.command, watch=_flag(query, "watch"))
            request.resource = route.resource.plural
            request.namespace, request.name = route.namespace, route.name
            request.subresource = route.subresource
        self.server.requests.add(request)
        try:
            faults = self.server.faults.hit(self.command, url.path)
            self._suffer(faults, request, after=False)
            self._answer(route, request, body, faults)
        except Answered:
            pass
        except Dropped:
            self.close_connection = True
            _shut(self.connection)
        except Problem as problem:
            self._send(request, problem.code, problem.status(), _told(problem.warnings))
        except OSError:
            raise
        except Exception as error:
            # A mistake in this server: tests should see it, not a closed connection.
            traceback.print_exc()
            self._send(request, 500, Problem(500, f"the fake has a bug: {error!r}").status())

    def _suffer(self, faults: list[Fault], request: Request, *, after: bool) -> None:
        for fault in faults:
            if fault.after != after:
                continue
            if fault.kind == "slow":
                self.server.stopping.wait(fault.seconds)
            elif fault.kind == "reset":
                raise Dropped
            elif fault.kind == "hang":
                while not (fault.ended.is_set() or self._left()):
                    time.sleep(_POLL_SECONDS)
                raise Dropped
            elif fault.kind == "answer":
                problem = Problem(fault.code, "a fault the test asked for")
                more = {}
                if fault.retry_after is not None:
                    more["Retry-After"] = str(fault.retry_after)
                    problem.details = {"retryAfterSeconds": fault.retry_after}
                self._send(request, fault.code, problem.status(), more)
                raise Answered

    def _left(self) -> bool:
        """Whether the client has gone, or the server stops."""
        if self.server.stopping.is_set():
            return True
        readable, _, _ = select.select([self.connection], [], [], 0)
        if not readable:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _answer(
        self, route: Route | None, request: Request, body: bytes, faults: list[Fault]
    ) -> None:
        if len(body) > _LARGEST_BODY:
            raise Problem(413, f"Request entity too large: limit is {_LARGEST_BODY}")
        if route is None:
            self._answer_plain(request)
            return
        if not request.verb:
            said = "the server does not allow this method on the requested resource"
            raise Problem(405, said, details={})
        if request.verb == "watch":
            self._stream(route, request)
            return
        if route.subresource == "log":
            self._log(route, request)
            return
        answer = self._do(route, request, self._parsed(route, request, body))
        self._suffer(faults, request, after=True)
        self._send(request, answer.code, answer.body, _told(answer.warnings))

    def _parsed(self, route: Route, request: Request, body: bytes) -> Any:
        """The JSON of a body. How the server complains depends on what is asked for."""
        writes = request.verb in ("create", "update")
        if writes and self._body_type() not in ("", "application/json"):
            raise unknown_format(
                ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
            )
        if not body and not writes:
            return None
        try:
            return json.loads(body)
        except ValueError as error:
            if request.verb == "patch":
                raise bad_request(f"error decoding patch: {error}") from error
            why = f"couldn't get version/kind; json parse error: {error}"
            raise unrecognized(route.resource, why, body.decode(errors="replace")) from error

    def _body_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip()

    def _answer_plain(self, request: Request) -> None:
        if request.method == "GET":
            if request.path in discovery.HEALTH:
                self._send_bytes(request, 200, b"ok", "text/plain; charset=utf-8", {})
                return
            found = discovery.find(self.server.api, request.path)
            if found is not None:
                self._send(request, 200, found)
                return
        self._send_bytes(request, 404, b"404 page not found\n", "text/plain; charset=utf-8", {})

    def _do(self, route: Route, request: Request, body: Any) -> Answer:
        api, resource, query = self.server.api, route.resource, request.query
        status = route.subresource == "status"
        how = _writing(query, request.verb)
        if route.subresource == "binding":
            api.bind(route.namespace, route.name, body["target"]["name"])
            return Answer(201, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        match request.verb:
            case "get":
                return Answer(200, api.get(resource, route.namespace, route.name))
            case "list":
                return Answer(200, api.list(resource, route.namespace, _choice(query)))
            case "create":
                return api.create(resource, route.namespace, body, how)
            case "update":
                return api.update(resource, route.namespace, route.name, body, how, status=status)
            case "patch":
                return api.patch(
                    resource,
                    route.namespace,
                    route.name,
                    body,
                    self._body_type(),
                    how,
                    status=status,
                )
            case "delete":
                options = read_options(body, query)
                return api.delete(resource, route.namespace, route.name, options)
            case _:
                options = read_options(body, query)
                return api.delete_collection(resource, route.namespace, _choice(query), options)

    # Answers.

    def _send(
        self, request: Request, code: int, body: Json, more: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(body).encode()
        self._send_bytes(request, code, data, "application/json", more or {})

    def _send_bytes(
        self, request: Request, code: int, data: bytes, kind: str, more: dict[str, str]
    ) -> None:
        request.status = code
        self.send_response(code)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **more,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _stream(self, route: Route, request: Request) -> None:
        watch = self.server.faults.opened()
        try:
            events = follow(
                self.server.api,
                _watch_request(route, request.query),
                bookmark_seconds=self.server.bookmark_seconds,
                stopped=lambda: bool(watch.closing) or self._left(),
            )
            request.status = 200
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()
            for event in events:
                if not watch.silent:
                    self._chunk(json.dumps(event).encode() + b"\n")
            while watch.silent and not (watch.closing or self._left()):
                time.sleep(_POLL_SECONDS)
            if watch.closing == "reset":
                raise Dropped
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
        except OSError as error:
            raise Dropped from error
        finally:
            self.server.faults.closed(watch)

    def _log(self, route: Route, request: Request) -> None:
        pieces = self.server.output.read(
            self.server.api, route.namespace, route.name, request.query, self._left
        )
        request.status = 200
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self._chunk(piece)
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def _flag(query: dict[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1")


def _told(warnings: tuple[str, ...]) -> dict[str, str]:
    """The header with warnings."""
    if not warnings:
        return {}
    return {"Warning": ", ".join(f"299 - {json.dumps(one)}" for one in dict.fromkeys(warnings))}


def _writing(query: dict[str, str], verb: str) -> Writing:
    causes = []
    if query.get("dryRun", "All") != "All":
        causes.append(unsupported("dryRun", [query["dryRun"]], ["All"]))
    validation = query.get("fieldValidation") or "Warn"
    levels = ["Ignore", "Strict", "Warn"]
    if validation not in levels:
        causes.append(unsupported("fieldValidation", validation, ["", *levels]))
    if causes:
        raise invalid_as(f"{verb.capitalize()}Options", "meta.k8s.io", "", causes)
    return Writing(validation, "dryRun" in query)


def _whole(query: dict[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not text.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _choice(query: dict[str, str]) -> Choice:
    return Choice(
        query.get("labelSelector", ""),
        query.get("fieldSelector", ""),
        _whole(query, "limit"),
        query.get("continue", ""),
        query.get("resourceVersion", ""),
        query.get("resourceVersionMatch", ""),
    )


def _watch_request(route: Route, query: dict[str, str]) -> WatchRequest:
    return WatchRequest(
        route.resource,
        route.namespace,
        _choice(query),
        _whole(query, "timeoutSeconds") or _WATCH_SECONDS,
        bookmarks=_flag(query, "allowWatchBookmarks"),
        initial=_flag(query, "sendInitialEvents"),
    )
