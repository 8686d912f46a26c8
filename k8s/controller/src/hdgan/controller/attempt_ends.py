"""How attempts at stages have ended, as a change of a run's status tells."""

from __future__ import annotations

from typing import Final

from hdgan.controller.decide import SUSPENDED
from hdgan.controller.endings import END_ROWS, FIXED_ENDINGS
from hdgan.controller.status import RunStatus

SUCCEEDED: Final = "Succeeded"
REASONS: Final = frozenset(
    {SUCCEEDED, SUSPENDED}
    | {row.reason for row in END_ROWS}
    | {one.reason for one in FIXED_ENDINGS}
)
"""Every way there is."""


def ends_between(before: RunStatus, after: RunStatus) -> list[tuple[str, str]]:
    """Stage and reason of each attempt whose end has been taken into the status."""
    ended = []
    for stage in after.stages:
        was = before.stage_named(stage.name)
        if was.over or not stage.over or stage.attempt < was.attempt:
            continue  # of less attempts: it goes on, for another run, and is taken up again
        if stage.last_end is not None and stage.last_end != was.last_end:
            ended.append((stage.name, stage.last_end.reason))
        elif was.stopping == SUSPENDED or after.phase == "Suspended":
            ended.append((stage.name, SUSPENDED))
        else:
            ended.append((stage.name, SUCCEEDED))
    return ended
