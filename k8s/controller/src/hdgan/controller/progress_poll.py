"""Asks running pods how far they are: many at once, none for long."""

from __future__ import annotations

import io
import json
import math
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import Any, cast

from hdgan.controller.facts import PodFacts
from hdgan.controller.status import ProgressStatus

SECONDS = 2.0
"""Longest time for one pod, from connecting to the last byte."""
AT_ONCE = 16
MOST_BYTES = 64 << 10

Fetch = Callable[[str, int], ProgressStatus | None]
"""Asks a pod at an address and port; None: not heard, which says nothing about its work."""


def fetch(address: str, port: int) -> ProgressStatus | None:
    """The progress a pod tells of at `/progress`; None if it could not be heard."""
    try:
        return _read(_document(_exchange(address, port)))
    except Exception:
        # A pod may answer anything: TLS, garbage, JSON so deep that Python gives up. Whatever it
        # is, it must not keep the other pods from being heard.
        return None


def ask(
    pods: Mapping[str, list[PodFacts]], port: int, fetch: Fetch = fetch
) -> dict[str, ProgressStatus]:
    """Progress by Job, of the Jobs of which any pod was heard. pods: the running ones of each Job;
    several are added up."""
    places = [
        (job, pod.address)
        for job, several in pods.items()
        for pod in several
        if pod.running and pod.address
    ]
    if not places:
        return {}
    with ThreadPoolExecutor(min(AT_ONCE, len(places)), "progress") as pool:
        answers = list(pool.map(lambda place: fetch(place[1], port), places))
    found: dict[str, ProgressStatus] = {}
    for (job, _), progress in zip(places, answers, strict=True):
        if progress is not None:
            found[job] = _added(found[job], progress) if job in found else progress
    return found


def _exchange(address: str, port: int) -> bytes:
    """All the pod says to our request, at most MOST_BYTES of it. OSError after SECONDS.

    By hand, because the timeout of urllib starts anew with every byte, and because it follows
    redirects and proxies: what a pod says must not send the controller anywhere else.
    """
    end = time.monotonic() + SECONDS
    host = f"[{address}]" if ":" in address else address
    # In HTTP/1.0 the end of the connection is the end of the answer.
    request = f"GET /progress HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    said = bytearray()
    with socket.create_connection((address, port), SECONDS) as connection:
        connection.settimeout(_left(end))
        connection.sendall(request.encode("ascii"))
        while len(said) < MOST_BYTES:
            connection.settimeout(_left(end))
            chunk = connection.recv(MOST_BYTES - len(said))
            if not chunk:
                break
            said += chunk
    return bytes(said)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Said:
    """What a pod has said, for a parser that wants a socket."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._said)


def _document(said: bytes) -> Any:
    answer = HTTPResponse(cast(socket.socket, _Said(said)))
    answer.begin()
    if answer.status != 200:
        raise ValueError(f"status {answer.status}")
    return json.loads(answer.read())


def _read(answer: Mapping[str, Any]) -> ProgressStatus | None:
    if answer.get("stage") and "done" not in answer:
        # A stage that has nothing to tell yet is heard all the same.
        return ProgressStatus(done=0.0)
    done = _number(answer.get("done"))
    if done is None:
        return None
    unit = answer.get("unit")
    return ProgressStatus(
        done=done,
        total=_number(answer.get("total")),
        unit=unit[:32] if isinstance(unit, str) else "",
        eta=_number(answer.get("eta")),
    )


def _number(value: Any) -> float | None:
    """A finite number; NaN would differ from itself, and so look like work that gets on."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _added(one: ProgressStatus, other: ProgressStatus) -> ProgressStatus:
    totals = None if one.total is None or other.total is None else one.total + other.total
    etas = [eta for eta in (one.eta, other.eta) if eta is not None]
    return ProgressStatus(
        done=one.done + other.done, total=totals, unit=one.unit, eta=max(etas, default=None)
    )
