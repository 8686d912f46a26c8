"""Cuts slides, several at a time, each in a process of its own, while the next ones are fetched. A
slide that cannot be used is an answer, not an error."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hdgan.core.claimed_folders import making, remove_unfinished
from hdgan.core.errors import InternalError, Stopped
from hdgan.core.store import open_store
from hdgan.core.telemetry.store_requests import Recorded, listen
from hdgan.tiler.opening import open_slide
from hdgan.tiler.slide import SlideError, SlideOpener
from hdgan.tiler.sources import LocalSlide
from hdgan.tiler.staging import StagedSlide, Staging, staged
from hdgan.tiler.unit import Report, Task, make_unit

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Bench:
    """Where and how slides are cut. Goes to other processes as it is."""

    store: str
    scratch: Path
    attempt: str
    cache_bytes: int
    """For copies of slides from an object store."""
    threads: int
    """For one slide."""


@dataclass(frozen=True)
class Outcome:
    """What became of a slide: reason is why it cannot be used, None if its tiles are there."""

    task: Task
    reason: str | None
    seconds: float = 0.0
    requests: Recorded = field(default_factory=Recorded, compare=False, repr=False)
    """To the store, by another process."""


Progress = Callable[[Task, int, int], None]
"""Called with a slide at work, its places examined and all its places; may raise to stop."""


def cut_all(
    tasks: Sequence[Task],
    bench: Bench,
    *,
    workers: int,
    progress: Progress,
    check_stop: Callable[[], None],
    opener: SlideOpener = open_slide,
) -> Generator[Outcome, None, None]:
    """Cut slides in `workers` processes (1: in this one), and say of each what became of it.

    check_stop: called while nothing else happens; may raise.
    """
    if not tasks:
        return
    bench.scratch.mkdir(parents=True, exist_ok=True)
    remove_unfinished(bench.scratch)
    refs = [task.ref for task in tasks]
    with (
        making(bench.scratch, "slides") as copies,
        staged(refs, copies, bench.cache_bytes, ahead=workers) as coming,
    ):
        if workers > 1:
            yield from _in_processes(tasks, coming, bench, workers, progress, check_stop)
            return
        for task, item in zip(tasks, coming, strict=True):
            _until_ready(item, check_stop)

            def report(done: int, total: int, task: Task = task) -> None:
                progress(task, done, total)

            try:
                with item as local:
                    outcome = cut_one(task, local, bench, report, check_stop, opener)
            except SlideError as error:
                outcome = Outcome(task, str(error))
            yield outcome


def cut_one(
    task: Task,
    local: LocalSlide,
    bench: Bench,
    report: Report,
    check_stop: Callable[[], None],
    opener: SlideOpener,
) -> Outcome:
    """Cut a slide that is on this machine."""
    started = time.monotonic()
    reason = None
    with making(bench.scratch, task.key[:16]) as folder:
        try:
            make_unit(
                open_store(bench.store),
                task,
                local,
                scratch=folder,
                attempt=bench.attempt,
                opener=opener,
                report=report,
                check_stop=check_stop,
                threads=bench.threads,
            )
        except SlideError as error:
            reason = str(error)
    return Outcome(task, reason, time.monotonic() - started)


def _until_ready(item: StagedSlide, check_stop: Callable[[], None]) -> None:
    """Wait for a slide without being deaf to a stop."""
    while not item.ready:
        check_stop()
        time.sleep(min(POLL_SECONDS, 0.05))


def _in_processes(
    tasks: Sequence[Task],
    coming: Staging,
    bench: Bench,
    workers: int,
    progress: Progress,
    check_stop: Callable[[], None],
) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    told, stop = context.SimpleQueue(), context.Event()
    running: dict[Future[Outcome], StagedSlide] = {}
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(told, stop, os.getpid())
    ) as pool:

        def finished() -> Iterator[Outcome]:
            """Pass on what the processes say, and take what they have done."""
            check_stop()
            while not told.empty():
                number, examined, places = told.get()
                progress(tasks[number], examined, places)
            done, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                running.pop(future).__exit__(None, None, None)
                outcome = _result(future)
                outcome.requests.tell()
                yield outcome

        try:
            for number, (task, item) in enumerate(zip(tasks, coming, strict=True)):
                # Room for the next slide may only come from one that is being cut.
                while len(running) >= workers or not item.ready:
                    if running:
                        yield from finished()
                    else:
                        _until_ready(item, check_stop)
                try:
                    local = item.__enter__()
                except SlideError as error:
                    yield Outcome(task, str(error))
                    continue
                running[pool.submit(_work, number, task, local, bench)] = item
            while running:
                yield from finished()
        finally:
            # Reached with slides at work only when something failed or was to stop.
            stop.set()
            for future in running:
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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides, and says so by `stop`


def _work(number: int, task: Task, local: LocalSlide, bench: Bench) -> Outcome:
    last = 0.0

    def check_stop() -> None:
        if _stop.is_set() or os.getppid() != _parent:
            raise Stopped("stopped when asked to")

    def report(done: int, total: int) -> None:
        nonlocal last
        check_stop()
        now = time.monotonic()
        if now - last > POLL_SECONDS or done == total:
            last = now
            _told.put((number, done, total))

    requests = Recorded()
    listen(requests)
    outcome = cut_one(task, local, bench, report, check_stop, open_slide)
    return replace(outcome, requests=requests)
