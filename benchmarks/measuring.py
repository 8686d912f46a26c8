"""How the benchmarks measure: alternatives in turn, and memory in a process of its own."""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def median_seconds(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn so that a machine that changes its pace changes all.

    A first round warms up and does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            seconds[name].append(_seconds(run))
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Most bytes in memory during some work, bytes in memory before it, and its seconds."""

    peak: int
    before: int
    seconds: float

    def to_json(self) -> dict[str, object]:
        return {
            "peakBytes": self.peak,
            "peakAboveStartBytes": self.peak - self.before,
            "seconds": round(self.seconds, 2),
        }


def peak_memory(work: Callable[[], object]) -> Memory:
    """Runs `work` once and measures it.

    Linux only. For a process of its own: another thread's memory would count, too.
    """
    # Forget earlier peaks (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    seconds = _seconds(work)
    return Memory(_status("VmHWM"), before, seconds)


def in_fresh_process(
    work: Callable[..., T], *arguments: object, seconds: float, limit: int | None = None
) -> T | None:
    """`work(*arguments)` in a new process; None if it fails, or takes longer than `seconds`.

    Args:
        limit: most bytes of data the process may have; asking for more fails.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sending, limit, work, arguments))
    process.start()
    sending.close()
    try:
        return receiving.recv() if receiving.poll(seconds) else None
    except EOFError:  # it ended without a result
        return None
    finally:
        process.terminate()
        process.join()


def _send(
    sending: Connection, limit: int | None, work: Callable[..., T], arguments: tuple[object, ...]
) -> None:
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    sending.send(work(*arguments))


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _status(field: str) -> int:
    """Bytes of one field of this process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
