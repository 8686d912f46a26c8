"""The report of a run that has come to rest: what it is to show, and a Job that writes it.

A run's outcome is in its status before the Job is made, and nothing of the run waits for it. There
is one Job for each run and what its report shows; it tries again itself, and one that fails is told
by the condition `ReportWritten`. What it shows is known by a digest of the status, so nobody has to
remember which report has been written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hdgan.controller.actions import CreateJob
from hdgan.controller.endings import ending
from hdgan.controller.names import key_label
from hdgan.controller.situation import RunFacts, Seen
from hdgan.controller.status import FINAL, RunStatus
from hdgan.controller.unit import Unit
from hdgan.core.report_place import report_place
from hdgan.core.report_request import STAGE, report_request
from hdgan.core.request import StageRequest

SCRATCH: Final = "/hdgan/scratch"
WRITTEN: Final = "ReportWritten"
AGAIN_SECONDS: Final = 15.0
"""When to ask again for a Job that could not be made."""


@dataclass(frozen=True)
class ReportStep:
    """What is to be done for a report: the status to write, then perhaps a Job to make."""

    status: RunStatus
    create: CreateJob | None = None
    look_again: float | None = None


def wanted_report(run: RunFacts) -> StageRequest | None:
    """The report that the status as it was read asks for; None where the run is not at rest, or
    failed before there was anything to show."""
    status = run.status
    resting = status.phase in FINAL or status.phase == "AwaitingAnnotation"
    if not (run.reports and resting and run.run is not None and status.pinned is not None):
        return None
    return report_request(
        run.run,
        status.pinned.external(),
        status.observed(),
        status.phase,
        status.message,
        release=status.release if status.phase == "Released" else None,
        store=run.store,
        scratch=SCRATCH,
    )


def report_unit(run: RunFacts) -> Unit | None:
    """What the Job of the report does that the status names."""
    key = run.status.report_key
    return None if key is None else Unit(STAGE, key, "whole", store=run.store_name)


def report_step(run: RunFacts, status: RunStatus, seen: Seen, now: datetime) -> ReportStep:
    """What comes next for the report. `status` is what has been decided besides; where that is
    another than what was read, this waits until it has been written."""
    request = wanted_report(run)
    other = (status.phase, status.message, status.stages) != (
        run.status.phase,
        run.status.message,
        run.status.stages,
    )
    if request is None or other or run.deleting or seen.store_error is not None:
        return ReportStep(status)
    if status.report_key != request.key:
        # What is of this key is seen once the status names it.
        status = status.without_condition(WRITTEN)
        return ReportStep(status.model_copy(update={"report_key": request.key}), None, 0.0)
    if any(one.type == WRITTEN for one in status.conditions):
        return ReportStep(status)
    unit = report_unit(run)
    assert unit is not None
    label = key_label(unit.place)
    job = next((one for one in seen.jobs if (one.stage, one.key) == (STAGE, label)), None)
    if job is None:
        if not seen.free_slot or seen.refusal is not None:
            return ReportStep(status, None, AGAIN_SECONDS)
        return ReportStep(status, CreateJob(unit, 1), AGAIN_SECONDS)
    if job.state == "succeeded":
        place = f"{run.store}/{report_place(run.name)}"
        status = status.with_condition(WRITTEN, "True", "Written", place, now, run.generation)
        return ReportStep(status.model_copy(update={"report": place}))
    if job.state == "failed":
        message = f"Job {job.name}: {ending(job).message}"
        return ReportStep(
            status.with_condition(WRITTEN, "False", "ReportFailed", message, now, run.generation)
        )
    return ReportStep(status)
