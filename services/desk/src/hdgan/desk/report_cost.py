"""Cost in the report: how long each stage took, on what, and what of that this run paid for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hdgan.core.artifact import Artifact
from hdgan.core.pipeline import ANNOTATIONS, GATE, NodeStatus
from hdgan.core.stage_cost import read_cost
from hdgan.desk.report_text import NOTHING, duration


@dataclass(frozen=True)
class Cost:
    """What one stage took."""

    stage: str
    seconds: float | None
    """Of all attempts and parts."""
    device_seconds: float | None
    """The same times processes: each has a device of its own."""
    attempts: int
    """Parts are counted, too."""
    device: str
    processes: int
    started: str
    made_by: str
    """The run that made it; empty if it was this one."""
    share: float = 0.0
    """Of the longest stage, 0 to 1: how long its bar is."""

    @property
    def time(self) -> str:
        return duration(self.seconds)

    @property
    def device_time(self) -> str:
        found = self.device_seconds
        return NOTHING if found is None else f"{found:,.0f}"


def costs(
    run: str, artifacts: Mapping[str, Artifact], statuses: Sequence[NodeStatus]
) -> list[Cost]:
    """One row per stage that has an artifact, in the order they run."""
    rows = []
    for status in statuses:
        artifact = artifacts.get(status.name)
        if artifact is not None and status.name not in (ANNOTATIONS, GATE):
            rows.append(cost_of(run, status.name, artifact.run_info()))
    longest = max((row.seconds or 0.0 for row in rows), default=0.0)
    return [
        replace(row, share=(row.seconds or 0.0) / longest if longest > 0 else 0.0) for row in rows
    ]


def cost_of(run: str, stage: str, info: Mapping[str, Any]) -> Cost:
    """What run-info.json of a stage says."""
    found = read_cost(info)
    spent = found.spent
    return Cost(
        stage=stage,
        seconds=None if spent is None else spent.seconds,
        device_seconds=None if spent is None else spent.device_seconds,
        attempts=1 if spent is None else spent.attempts,
        device=found.device or NOTHING,
        processes=found.processes,
        started=found.started.replace("T", " ").replace("Z", " UTC"),
        made_by="" if found.paid_by(run) else found.made_by,
    )


def cost_section(
    run: str, artifacts: Mapping[str, Artifact], statuses: Sequence[NodeStatus]
) -> dict[str, Any] | None:
    """What the page shows of the cost; None before anything is made."""
    rows = costs(run, artifacts, statuses)
    if not rows:
        return None
    own = [row for row in rows if not row.made_by]
    return {
        "rows": rows,
        "total": duration(sum(row.seconds or 0.0 for row in own)),
        "device_total": f"{sum(row.device_seconds or 0.0 for row in own):,.0f}",
        "others": len(rows) - len(own),
        "other_total": duration(sum(row.seconds or 0.0 for row in rows if row.made_by)),
        "extractor": any(s.name == "extractor" and s.state == "skipped" for s in statuses),
    }
