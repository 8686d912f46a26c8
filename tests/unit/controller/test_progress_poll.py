"""Pods are asked for their progress, and none that misbehaves keeps the others from being heard."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hdgan.controller import progress_poll
from hdgan.controller.facts import PodFacts
from hdgan.controller.progress_poll import ask, fetch
from hdgan.controller.status import ProgressStatus

Serve = Callable[[socket.socket], None]
GOOD = json.dumps({"done": 3, "total": 12, "unit": "kimg", "eta": 90.5}).encode()


def answer(body: bytes, head: bytes = b"HTTP/1.0 200 OK\r\n\r\n") -> Serve:
    return lambda connection: connection.sendall(head + body)


@contextmanager
def pod(serve: Serve) -> Iterator[int]:
    """A pod that says this to everybody; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(1 << 16)
                serve(connection)
            except OSError:
                pass  # the other side has had enough

    def work() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=one, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=work)
    accepting.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join()


def slow_drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    for _ in range(100):  # ten seconds, each byte in time
        connection.sendall(b" ")
        time.sleep(0.1)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    for _ in range(10_000):
        connection.sendall(b" " * (1 << 16))


def test_what_a_pod_says_is_heard() -> None:
    with pod(answer(GOOD)) as port:
        assert fetch("127.0.0.1", port) == ProgressStatus(done=3, total=12, unit="kimg", eta=90.5)


def test_a_stage_that_has_nothing_to_tell_yet_is_heard() -> None:
    with pod(answer(b'{"run": "small", "stage": "tiler", "metrics": {}}')) as port:
        assert fetch("127.0.0.1", port) == ProgressStatus(done=0)


@pytest.mark.parametrize(
    "serve",
    [
        answer(b"\x15\x03\x01\x00\x02\x02\x46", head=b""),  # what TLS says to plain HTTP
        answer(b"", head=b"no HTTP at all\r\n\r\n"),
        answer(b"", head=b""),
        answer(GOOD[:-3], head=b"HTTP/1.0 200 OK\r\nContent-Length: 500\r\n\r\n"),
        answer(b"X: y\r\n" * 500, head=b"HTTP/1.0 200 OK\r\n"),
        answer(GOOD, head=b"HTTP/1.0 500 Oh\r\n\r\n"),
        answer(b"[" * 60_000),
        answer(b"[]"),
        answer(b"{"),
        answer(b"\xff\xfe\xfd"),
        answer(b'{"done": 1' + b"0" * 400 + b"}"),
        answer(b'{"done": NaN}'),
        answer(b'{"done": "much"}'),
        endless,
    ],
)
def test_whatever_else_it_says_it_was_not_heard(serve: Serve) -> None:
    with pod(serve) as port:
        assert fetch("127.0.0.1", port) is None


def test_an_answer_that_drips_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_poll, "SECONDS", 0.5)
    with pod(slow_drip) as port:
        begun = time.monotonic()
        assert fetch("127.0.0.1", port) is None
        assert time.monotonic() - begun < 2.0


def test_nobody_is_asked_whom_a_pod_or_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def secret(connection: socket.socket) -> None:
        asked.append("asked")
        answer(GOOD)(connection)

    with pod(secret) as elsewhere:
        there = f"http://127.0.0.1:{elsewhere}"
        monkeypatch.setenv("http_proxy", there)
        head = f"HTTP/1.0 302 Found\r\nLocation: {there}/progress\r\n\r\n".encode()
        with pod(answer(b"", head)) as port:
            assert fetch("127.0.0.1", port) is None
    assert asked == []


def facts(name: str, job: str, address: str) -> PodFacts:
    return PodFacts(name=name, job=job, address=address, running=True)


def test_parts_are_added_up_and_those_not_heard_are_left_out() -> None:
    heard = {
        "10.0.0.1": ProgressStatus(done=2, total=5, unit="slides", eta=3),
        "fd00::1": ProgressStatus(done=1, total=4, unit="slides", eta=9),
        "10.0.0.3": None,
        "10.0.0.4": None,
    }
    pods = {
        "some": [facts("a", "some", "10.0.0.1"), facts("b", "some", "fd00::1")],
        "none": [facts("d", "none", "10.0.0.4")],
    }
    pods["some"].append(facts("c", "some", "10.0.0.3"))
    found = ask(pods, 9464, lambda address, port: heard[address])
    # A Job that is not here was not heard, which is not the same as not getting on.
    assert found == {"some": ProgressStatus(done=3, total=9, unit="slides", eta=9)}
