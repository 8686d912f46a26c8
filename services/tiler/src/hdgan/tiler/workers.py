"""Cuts slides, several at a time, each in a process of its own. A slide that cannot be used is an
answer, not an error."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdgan.core.errors import InternalError, Stopped
from hdgan.core.store import open_store
from hdgan.tiler.slide import SlideError, SlideOpener, open_slide
from hdgan.tiler.sources import local_slide
from hdgan.tiler.unit import Report, Task, make_unit

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Bench:
    """Where and how slides are cut. Goes to other processes as it is."""

    store: str
    scratch: Path
    attempt: str
    threads: int
    """For one slide."""


@dataclass(frozen=True)
class Outcome:
    """What became of a slide: reason is why it cannot be used, None if its tiles are there."""

    task: Task
    reason: str | None
    seconds: float = 0.0


Progress = Callable[[Task, int, int], None]
"""Called with a slide at work, its places examined and all its places; may raise to stop."""


def cut_all(
    tasks: Sequence[Task],
    bench: Bench,
    *,
    workers: int,
    progress: Progress,
    opener: SlideOpener = open_slide,
) -> Iterator[Outcome]:
    """Cut slides in `workers` processes (1: in this one), and say of each what became of it."""
    if workers <= 1:
        for task in tasks:

            def report(done: int, total: int, task: Task = task) -> None:
                progress(task, done, total)

            yield cut_one(task, bench, report, opener)
    else:
        yield from _in_processes(tasks, bench, workers, progress)


def cut_one(task: Task, bench: Bench, report: Report, opener: SlideOpener) -> Outcome:
    """Fetch one slide if it has to be, cut it, and remove what was fetched."""
    started = time.monotonic()
    store = open_store(bench.store)
    try:
        with _folder(bench.scratch / task.key) as folder, local_slide(task.ref, folder) as local:
            make_unit(
                store,
                task,
                local,
                scratch=folder,
                attempt=bench.attempt,
                opener=opener,
                report=report,
                threads=bench.threads,
            )
    except SlideError as error:
        return Outcome(task, str(error), time.monotonic() - started)
    return Outcome(task, None, time.monotonic() - started)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """An empty folder, removed in the end; what a killed attempt left in it is of no use."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _in_processes(
    tasks: Sequence[Task], bench: Bench, workers: int, progress: Progress
) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    told, stop = context.SimpleQueue(), context.Event()
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(told, stop, os.getpid())
    ) as pool:
        futures: dict[Future[Outcome], Task] = {
            pool.submit(_work, number, task, bench): task for number, task in enumerate(tasks)
        }
        try:
            running = set(futures)
            while running:
                done, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                while not told.empty():
                    number, examined, places = told.get()
                    progress(tasks[number], examined, places)
                for future in done:
                    yield _result(future)
        finally:
            # Reached with futures left only when something failed or was to stop.
            stop.set()
            for future in futures:
                future.cancel()


def _result(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise InternalError(
            "a process that cut a slide was killed (usually: out of memory): set fewer "
            "resources.threads"
        ) from error


_told: Any = None
_stop: Any = None
_parent = 0


def _start(told: Any, stop: Any, parent: int) -> None:
    """In a new process: remember how to talk to the one that made it."""
    global _told, _stop, _parent
    _told, _stop, _parent = told, stop, parent
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)  # the parent decides, and says so by `stop`


def _work(number: int, task: Task, bench: Bench) -> Outcome:
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if _stop.is_set() or os.getppid() != _parent:
            raise Stopped("stopped when asked to")
        now = time.monotonic()
        if now - last > POLL_SECONDS or done == total:
            last = now
            _told.put((number, done, total))

    return cut_one(task, bench, report, open_slide)
