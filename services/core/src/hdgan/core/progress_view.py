"""Shows a run while it happens: bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol

from hdgan.core.printable import printable
from hdgan.core.progress import RateMeter

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines about the same stage."""


class View(Protocol):
    """What the runner tells whoever watches."""

    def reused(self, stage: str) -> None: ...

    def started(self, stage: str) -> None: ...

    def event(self, stage: str, event: dict[str, Any]) -> None: ...

    def finished(self, stage: str, seconds: float) -> None: ...

    def say(self, message: str) -> None: ...

    def close(self) -> None: ...


def open_view(stream: IO[str], *, bars: bool | None = None) -> View:
    """Bars if `stream` is a terminal (or as `bars` says), else plain lines."""
    return BarView(stream) if (stream.isatty() if bars is None else bars) else PlainView(stream)


@contextmanager
def watched(view: View, name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show work of this process that reports (done, total); nothing of work that reports nothing.

    The view is closed in the end.
    """
    meter = RateMeter()
    started: float | None = None

    def progress(done: int, total: int) -> None:
        nonlocal started
        now = time.monotonic()
        if started is None:
            started = now
            view.started(name)
        look = meter.update(now, done, total, unit)
        view.event(name, {"event": "progress"} | vars(look))

    try:
        yield progress
        if started is not None:
            view.finished(name, time.monotonic() - started)
    finally:
        view.close()


class PlainView:
    """One line when a stage starts and ends, and one every ten seconds in between."""

    def __init__(self, stream: IO[str], interval: float = PLAIN_INTERVAL) -> None:
        self._stream = stream
        self._interval = interval
        self._last = 0.0

    def reused(self, stage: str) -> None:
        self.say(f"{stage}: reused")

    def started(self, stage: str) -> None:
        self._last = time.monotonic()
        self.say(f"{stage}: started")

    def event(self, stage: str, event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            now = time.monotonic()
            if now - self._last >= self._interval:
                self._last = now
                self.say(f"{stage}: {describe_progress(event)}")
        elif event["event"] == "log":
            self.say(f"{stage}: {describe_log(event)}")

    def finished(self, stage: str, seconds: float) -> None:
        self.say(f"{stage}: done in {format_seconds(seconds)}")

    def say(self, message: str) -> None:
        self._stream.write(printable(message) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is left open."""


class BarView:
    """A bar for the stage at work, with rate and time left; what is done stays as lines above."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console  # only a terminal pays for the import

        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def reused(self, stage: str) -> None:
        self.say(f"{stage:<12} reused")

    def started(self, stage: str) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._stop()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(stage, total=None, words="starting")
        self._progress.start()

    def event(self, stage: str, event: dict[str, Any]) -> None:
        if self._progress is None or self._task is None:
            return
        if event["event"] == "progress":
            self._progress.update(
                self._task,
                completed=_number(event.get("done")) or 0.0,
                total=_number(event.get("total")),
                words=describe_progress(event),
            )
        elif event["event"] == "log":
            self.say(f"{stage:<12} {describe_log(event)}")

    def finished(self, stage: str, seconds: float) -> None:
        self._stop()
        self.say(f"{stage:<12} done in {format_seconds(seconds)}")

    def say(self, message: str) -> None:
        self._console.print(printable(message), markup=False)

    def close(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None


def describe_progress(event: dict[str, Any]) -> str:
    """`12.5 of 40 kimg, 31%, 0.02 kimg/s, 22 min left`, with what is known."""
    done, total = _number(event.get("done")), _number(event.get("total"))
    rate, eta = _number(event.get("rate")), _number(event.get("eta"))
    unit = printable(str(event.get("unit", "")))
    parts = [f"{_short(done or 0.0)} {unit}"]
    if total is not None:
        parts = [f"{_short(done or 0.0)} of {_short(total)} {unit}"]
        if total > 0:
            parts.append(f"{100 * (done or 0.0) / total:.0f}%")
    if rate:
        if rate >= 1:
            parts.append(f"{rate:.1f} {unit}/s")
        elif rate * 60 >= 1:
            parts.append(f"{rate * 60:.1f} {unit}/min")
        else:
            parts.append(f"{rate * 3600:.1f} {unit}/h")
    if eta is not None:
        parts.append(f"{format_seconds(eta)} left")
    return ", ".join(parts)


def describe_log(event: dict[str, Any]) -> str:
    """The message, with its level when it is more than information."""
    level, message = str(event.get("level", "info")), str(event.get("message", ""))
    return message if level == "info" else f"{level}: {message}"


def format_seconds(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def _short(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None
