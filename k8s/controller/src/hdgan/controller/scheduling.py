"""What a schedule does when its time has come: a pure function of its runs so far."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field, JsonValue

from hdgan.controller.facts import GROUP
from hdgan.controller.status import FINAL, Phase
from hdgan.core.run import API_VERSION
from hdgan.core.sections import Section

SCHEDULE_LABEL: Final = f"{GROUP}/schedule"
"""Name of the schedule a run was made by."""
SEEDS: Final = 2**31


class HistoryConfig(Section):
    """How many runs that are over a schedule keeps; older ones are deleted, not their artifacts."""

    succeeded: int = Field(3, ge=0, le=1000)
    """Released or unchanged."""

    failed: int = Field(1, ge=0, le=1000)
    """Failed, or stopped by a gate."""


class ScheduleConfig(Section):
    """A schedule as the submitter is given it."""

    schedule: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    """Its name. Required."""

    generator: Literal["pinned", "train"] = "pinned"
    """`spec.generator` of the runs, unless their spec says it."""

    concurrency_policy: Literal["Forbid", "Allow", "Replace"] = "Forbid"
    """What happens while an earlier run is at work: nothing is made, another one is, or it is
    deleted in favour of a new one."""

    history: HistoryConfig = HistoryConfig()
    """Runs that are kept."""

    spec: dict[str, JsonValue]
    """Spec of the runs. Required."""


@dataclass(frozen=True)
class ScheduledRun:
    """A run that a schedule has made before."""

    name: str
    uid: str
    created: datetime
    phase: Phase
    annotating: bool = False
    """Whether it waits for annotations of which there are some."""


@dataclass(frozen=True)
class Turn:
    """What is to be done this time, and why."""

    create: bool
    delete: tuple[ScheduledRun, ...]
    why: str


def turn(config: ScheduleConfig, runs: Sequence[ScheduledRun]) -> Turn:
    """Whether to make a run now, and which earlier ones go.

    A run that waits for annotations nobody has begun is superseded by the new one: else they would
    pile up. One whose annotations have been begun counts as at work.
    """
    newest_first = sorted(runs, key=lambda run: (run.created, run.name), reverse=True)
    waiting = [run for run in newest_first if run.phase == "AwaitingAnnotation"]
    idle = [run for run in waiting if not run.annotating]
    busy = [run for run in newest_first if run.phase not in FINAL and run not in idle]
    old = [*_beyond(newest_first, config.history)]
    if busy and config.concurrency_policy == "Forbid":
        names = ", ".join(run.name for run in busy)
        return Turn(False, tuple(old), f"{names} is at work: no other run is made meanwhile")
    if config.concurrency_policy == "Replace":
        return Turn(True, (*busy, *idle, *old), "a new run")
    return Turn(True, (*idle, *old), "a new run")


def _beyond(newest_first: Sequence[ScheduledRun], history: HistoryConfig) -> list[ScheduledRun]:
    good = [run for run in newest_first if run.phase in ("Released", "Unchanged")]
    bad = [run for run in newest_first if run.phase in ("Failed", "GateFailed")]
    return [*good[history.succeeded :], *bad[history.failed :]]


def document(config: ScheduleConfig, name: str) -> dict[str, Any]:
    """The DatasetRun to make. What the schedule's spec says is left as it is; otherwise the dataset
    has the schedule's name, and a pinned generator gets a seed of its own each time."""
    spec: dict[str, Any] = deepcopy(dict(config.spec))
    if spec.get("generator") is None:
        spec["generator"] = config.generator
    if spec.get("dataset") is None:
        spec["dataset"] = config.schedule
    synthesizer = spec.setdefault("synthesizer", {}) or {}
    if spec["generator"] == "pinned" and synthesizer.get("seed") is None:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % SEEDS
        spec["synthesizer"] = {**synthesizer, "seed": seed}
    return {
        "apiVersion": API_VERSION,
        "kind": "DatasetRun",
        "metadata": {"name": name, "labels": {SCHEDULE_LABEL: config.schedule}},
        "spec": spec,
    }
