"""What a run's status says for its series. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from hdgan.controller.attempt_ends import REASONS
from hdgan.controller.facts import parse_time
from hdgan.controller.reading import store_name
from hdgan.controller.settings import DEFAULT_STORE
from hdgan.controller.status import RunStatus, StageStatus
from hdgan.core.pipeline import BY_NAME
from hdgan.core.request import InputRef
from hdgan.core.telemetry.run_measures import Measures
from hdgan.core.telemetry.run_series import RunLook, StageLook

Place = tuple[str, str]
"""Namespace and name of a store."""

FAILURES: Final = REASONS | {"SpecInvalid", "InputUnusable"}
"""Why runs fail."""
OTHER: Final = "Other"
"""In place of a reason that another version of the controller has written."""


@dataclass(frozen=True)
class KnownRun:
    """A run as the API server told of it last."""

    namespace: str
    name: str
    dataset: str
    store: str
    """Name of its store."""
    status: RunStatus
    artifacts: Mapping[str, InputRef]
    """Those the status names, by stage."""

    @property
    def place(self) -> Place:
        return self.namespace, self.store


def known_run(namespace: str, document: dict[str, Any], status: RunStatus) -> KnownRun:
    """Out of its object, which may not be what the schema says."""
    name = str(document["metadata"]["name"])
    spec = document.get("spec")
    dataset = spec.get("dataset") if isinstance(spec, dict) else None
    try:
        artifacts = status.observed().artifacts
    except ValidationError:  # keys that are none
        artifacts = {}
    return KnownRun(
        namespace=namespace,
        name=name,
        dataset=dataset if isinstance(dataset, str) and dataset else name,
        store=store_name(document) or DEFAULT_STORE,
        status=status,
        artifacts=artifacts,
    )


def look_at(run: KnownRun, measures: Mapping[str, Measures] | None = None) -> RunLook:
    """How the run is shown. measures: what is known of its artifacts, by stage."""
    status = run.status
    failed = failure(status)
    return RunLook(
        run=run.name,
        dataset=run.dataset,
        phase=status.phase,
        namespace=run.namespace,
        store=run.store,
        failure=failed,
        started=_seconds(status.started_at),
        finished=_seconds(status.finished_at),
        awaiting_since=_seconds(status.awaiting_since),
        stages=tuple(_stage(one, failed) for one in status.stages),
        gates={one.name: one.passed for one in status.gates if one.passed is not None},
        measures=measures or {},
    )


def failure(status: RunStatus) -> tuple[str, str] | None:
    """Stage and reason of a run that has failed; the stage is empty where it is none's fault."""
    if status.phase != "Failed":
        return None
    condition = next((one for one in status.conditions if one.type == "Failed"), None)
    reason = condition.reason if condition is not None else OTHER
    if reason not in FAILURES:
        return status.stage or "", OTHER
    ends = [(one.last_end.at, one) for one in status.stages if one.last_end is not None]
    by_end = [(at, one) for at, one in ends if one.last_end and one.last_end.reason == reason]
    if by_end:
        return max(by_end, key=lambda found: found[0])[1].name, reason
    return status.stage or "", reason


def _stage(stage: StageStatus, failed: tuple[str, str] | None) -> StageLook:
    state = stage.state
    if not stage.over:
        state = "running"
    elif failed is not None and failed[0] == stage.name:
        state = "failed"
    return StageLook(stage.name, state, stage.attempt if stage.name in BY_NAME else None)


def _seconds(text: str | None) -> float | None:
    """A time of a status in seconds since 1970; None where it is none."""
    try:
        moment: datetime | None = parse_time(text)
        return None if moment is None else moment.timestamp()
    except (ValueError, OverflowError):
        return None
