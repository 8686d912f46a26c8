"""Why a Job whose pods run is ended by the controller: it gets no further, or its node is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from hdgan.controller.endings import LOST, STALLED, TOO_MANY_DISRUPTIONS, Ending, lost_since
from hdgan.controller.facts import JobFacts, PodFacts
from hdgan.controller.situation import RunFacts, Seen
from hdgan.controller.status import RunStatus
from hdgan.core.resources import ResourcesConfig

STALLED_MARK, LOST_MARK, DISRUPTED_MARK = "Stalled", "NodeLost", "DisruptedTooOften"
MARKS: Final[Mapping[str, Ending]] = {
    STALLED_MARK: STALLED,
    LOST_MARK: LOST,
    DISRUPTED_MARK: TOO_MANY_DISRUPTIONS,
}
"""How an attempt has ended that was marked so (`StageStatus.stopping`)."""

SILENCE_SECONDS = 120.0
"""How long running pods may not be heard before that is told."""
DEAF_FACTOR = 4
"""How many times `stallSeconds` pods that were heard once may be silent: it may be the network that
has gone, so this is long."""
DISRUPTIONS, DISRUPTIONS_PER_PART = 20, 10
"""Pods a live Job may lose before it is looked at whether that leads anywhere."""


def lost_pods(job: JobFacts, now: datetime) -> Iterator[PodFacts]:
    """Pods whose node does not answer."""
    return (pod for pod in job.pods if lost_since(pod, now) is not None)


def why_stop(resources: ResourcesConfig, job: JobFacts, seen: Seen, now: datetime) -> str | None:
    """The mark of what is wrong with a live Job so that it is to be ended; None if nothing is."""
    if resources.lost_node_seconds is not None:
        patience = timedelta(seconds=resources.lost_node_seconds)
        since = [s for pod in job.pods if (s := lost_since(pod, now)) is not None]
        if since and now - min(since) > patience:
            return LOST_MARK
    if (
        job.kind == "parts"
        and job.disruptions > DISRUPTIONS + DISRUPTIONS_PER_PART * job.completions
    ):
        return DISRUPTED_MARK
    if job.suspended or not any(pod.running for pod in job.pods) or seen.progress_heard is None:
        return None
    if any(lost_pods(job, now)):
        return None  # told as such: what a node that is cut off does nobody knows
    # Pods that were waited for, in a queue or for a node, have done nothing wrong meanwhile.
    begun = [pod.started for pod in job.pods if pod.running and pod.started is not None]
    moved = max([*begun, seen.progress_changed or seen.progress_heard])
    patience = timedelta(seconds=resources.stall_seconds)
    silent = now - max([*begun, seen.progress_heard])
    if silent > timedelta(seconds=SILENCE_SECONDS):
        return STALLED_MARK if silent > DEAF_FACTOR * patience else None
    return STALLED_MARK if now - moved > patience else None


def say_heard(
    status: RunStatus, run: RunFacts, job: JobFacts, seen: Seen, now: datetime
) -> RunStatus:
    """Tell where pods run that do not tell how far they are."""
    begun = [pod.started for pod in job.pods if pod.running and pod.started is not None]
    if not begun:
        return status.without_condition("ProgressHeard")
    last = max([*begun, *([seen.progress_heard] if seen.progress_heard else [])])
    if now - last <= timedelta(seconds=SILENCE_SECONDS):
        return status.without_condition("ProgressHeard")
    message = (
        f"the pods of Job {job.name} run, but do not answer the controller at their metrics port: "
        "a NetworkPolicy or a service mesh may be in the way. Until they do, work that hangs is "
        "not noticed"
    )
    return status.with_condition("ProgressHeard", "False", "NoAnswer", message, now, run.generation)
