"""Names of runs that are to be looked at, now or later; each once, and never by two at a time."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class DelayQueue(Generic[T]):
    """Items with the time at which they are due. For several threads."""

    def __init__(self) -> None:
        self._due: dict[T, float] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self._at_work: set[T] = set()
        self._closed = False
        self._change = threading.Condition()

    def add(self, item: T, delay: float = 0.0) -> None:
        """Have an item looked at after `delay` seconds, or sooner if that was asked for already."""
        due = time.monotonic() + delay
        with self._change:
            known = self._due.get(item)
            if self._closed or (known is not None and known <= due):
                return
            self._due[item] = due
            self._push(due, item)
            self._change.notify()

    def take(self) -> T | None:
        """Wait for an item that is due and that nobody works on; None once closed.

        Call `done` when it has been looked at.
        """
        with self._change:
            while not self._closed:
                now = time.monotonic()
                wait = None
                while self._heap:
                    due, _, item = self._heap[0]
                    if self._due.get(item) != due or item in self._at_work:
                        heapq.heappop(self._heap)  # asked for sooner, or pushed again by `done`
                        continue
                    if due <= now:
                        heapq.heappop(self._heap)
                        del self._due[item]
                        self._at_work.add(item)
                        return item
                    wait = due - now
                    break
                self._change.wait(wait)
            return None

    def done(self, item: T) -> None:
        """The item that was taken has been looked at."""
        with self._change:
            self._at_work.discard(item)
            due = self._due.get(item)
            if due is not None:
                self._push(due, item)
            self._change.notify()

    def close(self) -> None:
        """Let everybody who waits go."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def due(self) -> int:
        """How many items are due and not taken yet."""
        now = time.monotonic()
        with self._change:
            return sum(due <= now for due in self._due.values())

    def __len__(self) -> int:
        with self._change:
            return len(self._due) + len(self._at_work)

    def _push(self, due: float, item: T) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, item))
