"""Where a run has got to, by what exists rather than by what was last written about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from hdgan.core.pipeline import External, NodeStatus, Observed, plan
from hdgan.core.releases import Published, release_of, verdict
from hdgan.core.run import DatasetRun
from hdgan.core.store import Store


def find_outcome(
    store: Store,
    run: DatasetRun,
    external: External,
    observed: Observed,
    last: Mapping[str, object],
) -> str:
    """The outcome of a resolved run. `last`: what the runner wrote, as `read_status` gives it."""
    published = None
    if "dataset" in observed.artifacts:
        published = verdict(store, release_of(run, external, observed, datetime.now(UTC)))
    return outcome_of(plan(run, external, observed), published, last)


def outcome_of(
    statuses: Sequence[NodeStatus], published: Published | None, last: Mapping[str, object]
) -> str:
    """The outcome that what exists proves; where it proves none, what the last runner wrote."""
    states = {s.name: s.state for s in statuses}
    if "awaiting" in states.values():
        return "AwaitingAnnotation"
    if states["gate"] == "failed":
        return "GateFailed"
    if published is not None:
        return published.verdict
    said = last.get("outcome")
    # These are about what is not there yet; all others are proved above or not true any more.
    return str(said) if said in ("Running", "Failed", "Interrupted") else "NotStarted"
