"""What the test says while it goes on: a line when a step begins, one when it is over."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hdgan.controller.api import ApiError
from hdgan.core.errors import StoreUnavailable

Found = TypeVar("Found")

NO_ANSWER = (0, 429, 500, 502, 503, 504)
"""Status of answers after which asking again may help."""


class NotSeen(Exception):
    """What should have happened has not, or something else has."""


class Steps:
    """Numbers and times the steps."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._number = 0

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Says what is done, and how long it took."""
        self._number += 1
        begun = time.monotonic()
        self.say(f"== {self._number}. {what}")
        yield
        self.say(f"   ok, {time.monotonic() - begun:.0f} s")

    def say(self, text: str) -> None:
        """A line, with the time since the beginning."""
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        print(f"{minutes:3}:{seconds:02}  {text}", flush=True)


def until(
    what: str,
    look: Callable[[], Found | None],
    seconds: float,
    *,
    every: float = 1.0,
    seen: Callable[[], str] = lambda: "",
) -> Found:
    """What `look` finds as soon as it finds something. NotSeen after `seconds`, with what there is
    to be `seen` instead. What `look` raises ends it at once, unless a server only did not answer.
    """
    end = time.monotonic() + seconds
    while True:
        problem = ""
        try:
            found = look()
            if found is not None:
                return found
        except (ApiError, StoreUnavailable) as error:
            if isinstance(error, ApiError) and error.status not in NO_ANSWER:
                raise
            problem = str(error)
        if time.monotonic() > end:
            instead = problem or seen()
            raise NotSeen(f"not within {seconds:.0f} s: {what}{instead and f'. Seen: {instead}'}")
        time.sleep(every)


def expect(holds: bool, otherwise: str) -> None:
    """NotSeen, saying `otherwise`, unless something holds."""
    if not holds:
        raise NotSeen(otherwise)


def complain(text: str) -> None:
    """To stderr, in order with what was said."""
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
