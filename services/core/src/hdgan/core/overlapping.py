"""Many small requests to a store whose waits overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 16
"""Requests under way at a time: fewer than a store keeps connections."""


def overlapping(work: Callable[[T], R], things: Iterable[T], at_once: int = AT_ONCE) -> list[R]:
    """What `work` returns for each thing, in their order; called by `at_once` threads, or by the
    caller's own if that is 1.

    The first error, in the order of the things, is raised after what had begun has ended; what had
    not is left.
    """
    waiting = list(things)
    if at_once == 1 or len(waiting) < 2:
        return [work(thing) for thing in waiting]
    with ThreadPoolExecutor(min(at_once, len(waiting)), thread_name_prefix="overlapping") as pool:
        futures = [pool.submit(work, thing) for thing in waiting]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
