"""Calls that end in time whatever the other side does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from hdgan.core.errors import HdganError

T = TypeVar("T")

MOST_HANGING: Final = 16
"""Calls given up on that may still hang before no more are made."""


class CallsHang(HdganError):
    """So many calls to the API server neither end nor fail that only a new process helps."""

    exit_code = 75


class BoundedCalls:
    """Calls that return or raise within `seconds`, whatever the server does: each is made by a
    thread of its own, because a socket's timeout starts anew with every byte."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._left: list[threading.Thread] = []

    def hanging(self) -> int:
        """How many calls that were given up on still run."""
        self._left = [thread for thread in self._left if thread.is_alive()]
        return len(self._left)

    def make(self, call: Callable[[], T], sent: float) -> T:
        """The call's result. TimeoutError `seconds` after `sent`; CallsHang if too many hang."""
        if self.hanging() >= MOST_HANGING:
            raise CallsHang(f"{MOST_HANGING} calls to the API server hang")
        answers: queue.SimpleQueue[tuple[T] | Exception] = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((call(),))
            except Exception as error:
                answers.put(error)

        thread = threading.Thread(target=work, name="election-call", daemon=True)
        thread.start()
        try:
            answer = answers.get(timeout=max(0.0, sent + self._seconds - self._clock()))
        except queue.Empty:
            self._left.append(thread)
            raise TimeoutError(f"no answer within {self._seconds:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer[0]
