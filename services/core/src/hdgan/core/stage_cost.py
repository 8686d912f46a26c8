"""What an artifact's `run-info.json` says of what it took: how long, on what, and for which run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hdgan.core.gates import finite
from hdgan.core.spent_time import Spent, read_spent

MOST_PROCESSES: Final = 100_000


@dataclass(frozen=True)
class StageCost:
    """Of all attempts at an artifact, and of all parts of it."""

    seconds: float | None = None
    """Of the attempt that finished it; None: not known."""
    device: str = ""
    """`cpu`, `cuda`; empty: not known."""
    processes: int = 1
    """That worked together, each on a device of its own."""
    started: str = ""
    """As it is written: ISO 8601 in UTC."""
    made_by: str = ""
    """Name of the run that had it made; empty: not known."""
    others: Spent = field(default_factory=Spent)
    """By attempts that were stopped, and by parts: what they have noted down."""

    @property
    def spent(self) -> Spent | None:
        """Everything; None: not known."""
        if self.seconds is None:
            return None
        return self.others + Spent(1, self.seconds, self.seconds * self.processes)

    def paid_by(self, run: str) -> bool:
        """Whether this run had it made. One that nobody is named for counts as its own."""
        return self.made_by in ("", run)


def read_cost(info: Mapping[str, Any]) -> StageCost:
    """Out of a document of any form: what is missing or makes no sense is not known."""
    seconds, processes = finite(info.get("seconds")), info.get("processes", 1)
    sensible = isinstance(processes, int) and not isinstance(processes, bool)
    return StageCost(
        seconds=seconds if seconds is not None and seconds >= 0 else None,
        device=_text(info.get("device")),
        processes=processes if sensible and 0 < processes < MOST_PROCESSES else 1,
        started=_text(info.get("startedAt")),
        made_by=_text(info.get("run")),
        others=read_spent(info.get("others")),
    )


def _text(value: Any) -> str:
    return value[:200] if isinstance(value, str) else ""
