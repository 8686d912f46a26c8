"""A local run as its series show it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from hdgan.core.pipeline import BY_NAME, NodeStatus
from hdgan.core.request import InputRef
from hdgan.core.telemetry.run_series import OVER, RunLook, StageLook
from hdgan.core.telemetry.run_watch import Standing

REASONS: Final = {
    64: "RequestInvalid",
    65: "DataBad",
    66: "InputMissing",
    69: "Unavailable",
    70: "Failed",
    75: "Stopped",
}
"""Why a stage failed, by exit code: the words of the controller."""


def local_look(standing: Standing, now: Callable[[], float] = time.time) -> RunLook:
    """How the run is shown; measures of its artifacts are left to whoever has read them."""
    run, outcome = standing.run, standing.outcome
    failed = outcome == "Failed"
    reason = REASONS.get(standing.exit_code or 70, REASONS[70])
    return RunLook(
        run=run.metadata.name,
        dataset=run.dataset_name,
        phase=outcome,
        failure=(standing.active or "", reason) if failed else None,
        started=standing.started,
        finished=now() if outcome in OVER else None,
        awaiting_since=standing.awaiting_since if outcome == "AwaitingAnnotation" else None,
        stages=tuple(_stage(one, standing) for one in standing.statuses),
        gates={one.name: one.passed for one in standing.gates if one.passed is not None},
    )


def artifacts_of(standing: Standing) -> dict[str, InputRef]:
    """What exists of the run, by stage."""
    return {
        one.name: InputRef(stage=one.name, key=one.key, content_digest=one.content_digest)
        for one in standing.statuses
        if one.name in BY_NAME and one.key is not None and one.content_digest is not None
    }


def _stage(status: NodeStatus, standing: Standing) -> StageLook:
    state: str = status.state
    if status.name == standing.active:
        state = {"Running": "running", "Failed": "failed"}.get(standing.outcome, state)
    attempts = standing.attempts.get(status.name, 0) if status.name in BY_NAME else None
    return StageLook(status.name, state, attempts)
