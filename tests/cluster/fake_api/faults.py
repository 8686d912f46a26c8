"""Faults a test switches on and off while the server runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

Where = Callable[[str, str], bool]
"""Says whether a request is hit, from its method and its path (without the query)."""

Kind = Literal["hang", "reset", "answer", "slow"]


def everywhere(method: str, path: str) -> bool:
    return True


@dataclass(eq=False)
class Fault:
    """One fault. As a context manager it ends with the block."""

    kind: Kind
    where: Where
    # How many more requests are hit. None: all.
    left: int | None = None
    code: int = 0
    retry_after: int | None = None
    seconds: float = 0.0
    # The request is carried out, and only its answer is lost.
    after: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    hits: int = 0

    def stop(self) -> None:
        """No more requests are hit. Those that hang are dropped."""
        self.ended.set()

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Faults:
    """All faults of a server. Each method switches one on and returns it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._open: set[OpenWatch] = set()
        self._silent = False

    def hang(self, where: Where = everywhere, *, after: bool = False) -> Fault:
        """Requests are accepted and never answered; with `after`, they are carried out."""
        return self._add(Fault("hang", where, after=after))

    def reset(
        self, where: Where = everywhere, *, times: int | None = None, after: bool = False
    ) -> Fault:
        """Connections are closed instead of answered; with `after`, requests are carried out."""
        return self._add(Fault("reset", where, left=times, after=after))

    def answer(
        self,
        code: int,
        *,
        times: int | None = 1,
        retry_after: int | None = None,
        where: Where = everywhere,
    ) -> Fault:
        """The next requests get this code, with Retry-After in seconds when given."""
        return self._add(Fault("answer", where, left=times, code=code, retry_after=retry_after))

    def slow(self, seconds: float, where: Where = everywhere) -> Fault:
        """Requests wait this long before anything is done."""
        return self._add(Fault("slow", where, seconds=seconds))

    def silence_watches(self) -> None:
        """Open watches, and those begun from now on, stay open and say nothing.

        Like a half-open connection: `restore_watches` helps those begun after it only.
        """
        with self._lock:
            self._silent = True
            for watch in self._open:
                watch.silent = True

    def restore_watches(self) -> None:
        """Watches begun from now on work."""
        with self._lock:
            self._silent = False

    def close_watches(self, *, clean: bool = True) -> int:
        """Ends the open watches, once; unclean: in the middle of the stream. Says how many."""
        with self._lock:
            for watch in self._open:
                watch.closing = "clean" if clean else "reset"
            return len(self._open)

    def clear(self) -> None:
        """No faults any more."""
        self.restore_watches()
        with self._lock:
            for fault in self._faults:
                fault.stop()
            self._faults.clear()

    # What the server asks.

    def hit(self, method: str, path: str) -> list[Fault]:
        """The faults that hit this request, each counted."""
        with self._lock:
            self._faults = [fault for fault in self._faults if not fault.ended.is_set()]
            found = [fault for fault in self._faults if fault.where(method, path)]
            for fault in found:
                fault.hits += 1
                if fault.left is not None:
                    fault.left -= 1
                    if fault.left == 0:
                        self._faults.remove(fault)
            return found

    def opened(self) -> OpenWatch:
        with self._lock:
            watch = OpenWatch(silent=self._silent)
            self._open.add(watch)
            return watch

    def closed(self, watch: OpenWatch) -> None:
        with self._lock:
            self._open.discard(watch)

    def open_watches(self) -> int:
        with self._lock:
            return len(self._open)

    def _add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
            return fault


@dataclass(eq=False)
class OpenWatch:
    """A watch somebody listens to."""

    silent: bool = False
    closing: Literal["", "clean", "reset"] = ""
