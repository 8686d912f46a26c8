"""What people are told when a run's status changes, in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from hdgan.controller.actions import Event
from hdgan.controller.status import RunStatus, StageStatus

TOLD = ("Accepted", "Started", "ProgressHeard", "StoreReachable", "ReportWritten")
"""Conditions of which it is told when they become False."""


def events_between(before: RunStatus, after: RunStatus) -> list[Event]:
    """Events for what is different; the same change always gives the same ones."""
    events = list(_stages(before, after))
    if after.phase != before.phase:
        events += _phase(after)
    told = {c.type: (c.status, c.reason) for c in before.conditions}
    for condition in after.conditions:
        if condition.type not in TOLD:
            continue
        if condition.status == "False" and told.get(condition.type) != ("False", condition.reason):
            events.append(Event("Warning", condition.reason, condition.message))
    written = next((c for c in after.conditions if c.type == "ReportWritten"), None)
    if written is not None and written.status == "True" and "ReportWritten" not in told:
        events.append(Event("Normal", "ReportWritten", after.report or ""))
    return events


def _phase(after: RunStatus) -> Iterator[Event]:
    match after.phase:
        case "AwaitingAnnotation":
            yield Event(
                "Normal",
                "AwaitingAnnotation",
                f"{after.message}. hdgan annotations export gives the candidates out, hdgan "
                "annotations import takes the labels in",
            )
        case "Suspended":
            yield Event("Normal", "Suspended", "Suspended; what was at work has saved its state")
        case "Released":
            dice = f", macro Dice {after.macro_dice:.3f}" if after.macro_dice is not None else ""
            yield Event("Normal", "Released", f"{after.release}: {after.dataset or ''}{dice}")
        case "Unchanged":
            yield Event("Normal", "Unchanged", f"Release {after.release} has this very dataset")
        case "GateFailed":
            yield Event("Warning", "GateFailed", after.message)
        case "Failed":
            yield Event("Warning", "Failed", after.message)


def _stages(before: RunStatus, after: RunStatus) -> Iterator[Event]:
    for stage in after.stages:
        was = before.stage_named(stage.name)
        if stage.attempt > was.attempt and stage.job is not None:
            yield Event("Normal", "JobAtWork", f"{_name(stage)}: Job {stage.job}")
        if stage.last_end is not None and stage.last_end != was.last_end:
            end = stage.last_end
            yield Event("Warning", end.reason, f"{_name(stage)}, Job {end.job}: {end.message}")
        if stage.content_digest is not None and stage.content_digest != was.content_digest:
            yield Event(
                "Normal", "StageDone", f"{stage.name}: artifact {(stage.key or '')[:12]} is there"
            )


def _name(stage: StageStatus) -> str:
    return stage.name if stage.attempt <= 1 else f"{stage.name}, attempt {stage.attempt}"
