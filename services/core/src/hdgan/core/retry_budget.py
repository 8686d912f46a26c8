"""How often, and how long, something that may work later is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryBudget:
    """Pauses between attempts grow from one to the next and are drawn at random between nothing and
    their length ("full jitter"): those that failed together do not come back together."""

    attempts: int = 8
    """Most attempts at one request, the first included; at least 1."""
    seconds: float = 240.0
    """No attempt begins later than this after the first one."""
    first: float = 0.25
    """Longest first pause in seconds; it doubles from one to the next ..."""
    longest: float = 20.0
    """... up to this."""

    def pause(self, failures: int, elapsed: float, drawn: float) -> float | None:
        """Seconds to wait before the next attempt; None: there is none.

        failures  attempts that failed, at least 1
        elapsed   seconds since the first one began
        drawn     a random number from 0 to 1
        """
        if failures >= self.attempts:
            return None
        # The exponent is bounded: a float cannot hold just any power.
        pause = drawn * min(self.longest, self.first * 2.0 ** min(failures - 1, 60))
        return pause if elapsed + pause <= self.seconds else None
