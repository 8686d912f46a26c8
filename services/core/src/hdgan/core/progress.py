"""Rate and time left of work that reports how much of it is done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One look at some work. `rate` is units per second, `eta` seconds; None while unknown."""

    done: float
    total: float | None
    unit: str
    rate: float | None
    eta: float | None


class RateMeter:
    """Turns (time, done) into `Progress`, with the rate over the last `window` seconds.

    The rate starts anew when the unit changes or `done` goes back: a stage may have several phases.
    What was done before this process started (a resumed stage) does not count towards the rate.
    """

    def __init__(self, window: float = 30.0) -> None:
        self._window = window
        self._unit: str | None = None
        self._looks: deque[tuple[float, float]] = deque()

    def update(self, now: float, done: float, total: float | None, unit: str) -> Progress:
        looks = self._looks
        if unit != self._unit or (looks and done < looks[-1][1]):
            looks.clear()
            self._unit = unit
        looks.append((now, done))
        # One look older than the window stays, so that slow work still has a rate.
        while len(looks) > 2 and looks[1][0] <= now - self._window:
            looks.popleft()
        rate: float | None = None
        seconds, gained = now - looks[0][0], done - looks[0][1]
        if seconds > 0 and gained > 0:
            rate = gained / seconds
        eta = max(0.0, total - done) / rate if rate and total is not None else None
        return Progress(done, total, unit, rate, eta)


class Throttle:
    """Lets through at most one event per `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._last: float | None = None

    def passes(self, now: float) -> bool:
        if self._last is not None and now - self._last < self._interval:
            return False
        self._last = now
        return True
