"""How long ago something was, for a process that may have been asleep meanwhile."""

from __future__ import annotations

import time


class Moment:
    """Now. The time a suspended machine sleeps counts (the wall clock says so), a clock that is set
    back does not hide any."""

    def __init__(self) -> None:
        self._monotonic = time.monotonic()
        self._wall = time.time()

    def seconds_ago(self) -> float:
        return max(time.monotonic() - self._monotonic, time.time() - self._wall)
