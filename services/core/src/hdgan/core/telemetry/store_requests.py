"""What stores say of each request they make, for whoever listens: `/metrics` of this process.

Stores import nothing of Prometheus; without a listener each call costs a comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Final, Literal, ParamSpec, Protocol, TypeVar

from hdgan.core.errors import KeyMissing

P = ParamSpec("P")
T = TypeVar("T")

Outcome = Literal["ok", "missing", "refused", "failed", "unanswered"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("ok", "missing", "refused", "failed", "unanswered")
"""ok: also "not changed" and "there already", which are answers. missing: there is no such object.
refused: by a rule, of access above all. failed: the server's or the disk's fault. unanswered: no
connection, or none that lasted."""


class Listener(Protocol):
    """Hears of requests, from any thread."""

    def request(self, operation: str, outcome: Outcome, seconds: float) -> None:
        """One has ended. operation: as the store's interface calls it, e.g. `GetObject`."""

    def retry(self) -> None:
        """One is made again after it failed."""

    def transferred(self, direction: Literal["read", "written"], size: int) -> None:
        """Bytes of contents went through."""


class Recorded:
    """A listener that remembers what it heard, to be told again in another process."""

    def __init__(self) -> None:
        self._requests: list[tuple[str, Outcome, float]] = []
        self._retries = 0
        self._bytes: dict[Literal["read", "written"], int] = {"read": 0, "written": 0}

    def request(self, operation: str, outcome: Outcome, seconds: float) -> None:
        self._requests.append((operation, outcome, seconds))

    def retry(self) -> None:
        self._retries += 1

    def transferred(self, direction: Literal["read", "written"], size: int) -> None:
        self._bytes[direction] += size

    def tell(self) -> None:
        """Tell whoever listens in this process."""
        for request in self._requests:
            request_ended(*request)
        for _ in range(self._retries):
            retried()
        for direction, size in self._bytes.items():
            transferred(direction, size)


_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """Tell this one from now on, in this process; None: nobody."""
    global _listener
    _listener = listener


def request_ended(operation: str, outcome: Outcome, seconds: float) -> None:
    """Called by stores: a request has ended."""
    if _listener is not None:
        _listener.request(operation, outcome, seconds)


def retried() -> None:
    """Called by stores: a request is made again."""
    if _listener is not None:
        _listener.retry()


def transferred(direction: Literal["read", "written"], size: int) -> None:
    """Called by stores: bytes of contents were read or written."""
    if _listener is not None:
        _listener.transferred(direction, size)


def timed(operation: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates an operation on files: one request that takes as long as it does. None as its
    result, or KeyMissing, means that there is no such object."""

    def decorate(work: Callable[P, T]) -> Callable[P, T]:
        @wraps(work)
        def timed_work(*args: P.args, **kwargs: P.kwargs) -> T:
            if _listener is None:
                return work(*args, **kwargs)
            began = time.perf_counter()
            outcome: Outcome = "failed"
            try:
                result = work(*args, **kwargs)
                outcome = "missing" if result is None and operation == "head" else "ok"
                return result
            except (KeyMissing, FileNotFoundError, NotADirectoryError):
                outcome = "missing"
                raise
            finally:
                request_ended(operation, outcome, time.perf_counter() - began)

        return timed_work

    return decorate


def outcome_of(status: int) -> Outcome:
    """What an HTTP status means for whoever asked."""
    if status in (404, 410):
        return "missing"
    if status in (304, 409, 412) or status < 400:
        return "ok"
    return "refused" if status < 500 and status != 429 else "failed"
