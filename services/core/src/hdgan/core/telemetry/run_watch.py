"""Who is told where a local run stands: nobody, unless it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hdgan.core.gates import GateVerdict
from hdgan.core.pipeline import NodeStatus
from hdgan.core.run import DatasetRun
from hdgan.core.status_file import Outcome
from hdgan.core.store import Store


@dataclass(frozen=True)
class Standing:
    """Where a run stands. Times are seconds since 1970."""

    run: DatasetRun
    outcome: Outcome
    statuses: Sequence[NodeStatus]
    gates: Sequence[GateVerdict]
    active: str | None
    """The stage at work, or the one that failed."""
    exit_code: int | None
    """Of the stage that failed, as `hdgan run` returns it."""
    attempts: Mapping[str, int]
    """Processes started for each stage by this command."""
    started: float
    awaiting_since: float | None


class RunWatch:
    """Hears what becomes of a run, and does nothing with it."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment of the stages' processes, beside what they get anyway."""
        return {}

    def event(self, event: Mapping[str, Any]) -> bool:
        """A stage has said something. True if that was for this watch alone."""
        return False

    def stage_ended(self) -> None:
        """The stage's process has ended."""

    def stands(self, standing: Standing, store: Store) -> None:
        """Where the run stands now."""
