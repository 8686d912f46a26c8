"""What the controller needs to know of Jobs and pods, out of what the API server says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

GROUP: Final = "hdgan.io"
RUN_LABEL: Final = f"{GROUP}/run"
"""Name of the run a Job was made for first."""
STAGE_LABEL: Final = f"{GROUP}/stage"
KEY_LABEL: Final = f"{GROUP}/key"
"""First 40 digits of the artifact's key."""
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
KIND_LABEL: Final = f"{GROUP}/kind"
MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "hdgan-controller"
STAGE_CONTAINER: Final = "stage"
FEATURES_CONTAINER: Final = "features"
"""The extractor where it runs in the classifier's pod, before it."""
OWN_CONTAINERS: Final = frozenset({STAGE_CONTAINER, FEATURES_CONTAINER})
"""What else is in a pod (a service mesh's proxy, say) tells nothing of the stage."""
IGNORED_ANNOTATION: Final = "batch.kubernetes.io/job-index-ignored-failure-count"
INDEX_ANNOTATION: Final = "batch.kubernetes.io/job-completion-index"

Kind = Literal["whole", "parts", "commit"]
"""What a Job does of a stage: all of it, its parts, or what merges the parts."""


@dataclass(frozen=True)
class Condition:
    """A condition of a pod."""

    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None


@dataclass(frozen=True)
class ContainerEnd:
    """How a container ended. `reason` is the kubelet's: Completed, Error, OOMKilled ..."""

    container: str
    exit_code: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class ContainerWait:
    """Why a container does not run yet."""

    container: str
    reason: str
    message: str = ""


@dataclass(frozen=True)
class PodFacts:
    """One pod of a Job."""

    name: str
    job: str | None
    job_uid: str = ""
    key: str = ""
    phase: str = "Pending"
    created: datetime | None = None
    deleting: datetime | None = None
    """When it should be gone; None while nobody has deleted it."""
    index: int | None = None
    node: str | None = None
    address: str | None = None
    reason: str = ""
    message: str = ""
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    waits: tuple[ContainerWait, ...] = ()
    ends: tuple[ContainerEnd, ...] = ()
    """Of init containers first; the last end of each of our containers, also of one that was
    restarted."""
    running: bool = False
    """Whether a container of ours runs."""
    started: datetime | None = None
    """When the one that runs was started."""
    others: tuple[str, ...] = ()
    """Containers of others that run and that the pod does not end without."""
    ignored: int = 0
    """How many pods of its index were disrupted before it, which no status counts."""
    gone: bool = False
    """Whether it has been removed; what else is said of it is what was seen last."""

    @property
    def finished(self) -> bool:
        return self.gone or self.phase in ("Succeeded", "Failed")

    @property
    def failed(self) -> bool:
        """Whether it is over without having succeeded."""
        return self.phase == "Failed" or (self.gone and self.phase != "Succeeded")


JobState = Literal["live", "succeeded", "failed"]


@dataclass(frozen=True)
class JobFacts:
    """One Job the controller has made, and its pods."""

    name: str
    stage: str
    key: str
    """As in its label: the first digits."""
    kind: Kind
    attempt: int
    uid: str = ""
    created: datetime | None = None
    started: datetime | None = None
    """When it began to make pods, the last time it was told to."""
    owners: frozenset[str] = frozenset()
    """UIDs of the runs it was made for."""
    deleting: bool = False
    suspended: bool = False
    state: JobState = "live"
    ended: datetime | None = None
    reason: str = ""
    """Reason of its Failed condition."""
    message: str = ""
    completions: int = 1
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    has_ttl: bool = False
    pods: tuple[PodFacts, ...] = ()
    refusals: tuple[str, ...] = ()
    """Messages of events that say why no pod could be made."""

    @property
    def live(self) -> bool:
        return self.state == "live"

    @property
    def disruptions(self) -> int:
        """How many of its pods were disrupted, as far as that does not count as a failure."""
        most: dict[int | None, int] = {}
        for pod in self.pods:
            most[pod.index] = max(most.get(pod.index, 0), pod.ignored)
        return sum(most.values())


def job_facts(
    job: Mapping[str, Any], pods: Iterable[PodFacts] = (), refusals: Iterable[str] = ()
) -> JobFacts | None:
    """A Job as the API server gives it; None if it is not one of the controller's."""
    meta, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
    labels = meta.get("labels") or {}
    if labels.get(MANAGED_LABEL) != MANAGED_BY or KEY_LABEL not in labels:
        return None
    kind = labels.get(KIND_LABEL)
    if kind not in ("whole", "parts", "commit") or not labels.get(ATTEMPT_LABEL, "").isdecimal():
        return None
    state: JobState = "live"
    reason, message, ended = "", "", None
    for condition in status.get("conditions") or []:
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            state = "succeeded" if condition["type"] == "Complete" else "failed"
            reason, message = condition.get("reason") or "", condition.get("message") or ""
            ended = parse_time(condition.get("lastTransitionTime"))
    owners = (o["uid"] for o in meta.get("ownerReferences") or [] if o.get("kind") == "DatasetRun")
    return JobFacts(
        name=meta["name"],
        stage=labels.get(STAGE_LABEL, ""),
        key=labels[KEY_LABEL],
        kind=kind,
        attempt=int(labels[ATTEMPT_LABEL]),
        uid=meta.get("uid", ""),
        created=parse_time(meta.get("creationTimestamp")),
        started=parse_time(status.get("startTime")),
        owners=frozenset(owners),
        deleting=meta.get("deletionTimestamp") is not None,
        suspended=bool(spec.get("suspend")),
        state=state,
        ended=ended,
        reason=reason,
        message=message,
        completions=spec.get("completions") or 1,
        active=status.get("active") or 0,
        succeeded=status.get("succeeded") or 0,
        failed=status.get("failed") or 0,
        has_ttl=spec.get("ttlSecondsAfterFinished") is not None,
        pods=tuple(pods),
        refusals=tuple(refusals),
    )


def pod_facts(pod: Mapping[str, Any], *, gone: bool = False) -> PodFacts:
    """A pod as the API server gives it, or gave it last."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    owners = meta.get("ownerReferences") or []
    owner: Mapping[str, Any] = next((o for o in owners if o.get("kind") == "Job"), {})
    annotations = meta.get("annotations") or {}
    index = annotations.get(INDEX_ANNOTATION)
    ignored = annotations.get(IGNORED_ANNOTATION) or ""
    statuses = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    own = [one for one in statuses if one["name"] in OWN_CONTAINERS]
    others = [
        one["name"]
        for one in status.get("containerStatuses") or []
        if own and one not in own and "running" in (one.get("state") or {}) and not gone
    ]
    waits, ends, running, started = [], [], False, None
    for container in own or statuses:
        name, state = container["name"], container.get("state") or {}
        ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
        if ended:
            ends.append(
                ContainerEnd(
                    name,
                    int(ended.get("exitCode", 0)),
                    ended.get("reason") or "",
                    ended.get("message") or "",
                )
            )
        if wait := state.get("waiting"):
            waits.append(ContainerWait(name, wait.get("reason") or "", wait.get("message") or ""))
        if (runs := state.get("running")) is not None and not gone:
            running = True
            started = parse_time(runs.get("startedAt")) or started
    return PodFacts(
        name=meta["name"],
        job=owner.get("name"),
        job_uid=owner.get("uid") or "",
        key=(meta.get("labels") or {}).get(KEY_LABEL, ""),
        phase=status.get("phase") or "Pending",
        created=parse_time(meta.get("creationTimestamp")),
        deleting=parse_time(meta.get("deletionTimestamp")),
        index=int(index) if index and index.isdecimal() else None,
        node=spec.get("nodeName"),
        address=status.get("podIP"),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        conditions={
            c["type"]: Condition(
                c.get("status", "Unknown"),
                c.get("reason") or "",
                c.get("message") or "",
                parse_time(c.get("lastTransitionTime")),
            )
            for c in status.get("conditions") or []
        },
        waits=tuple(waits),
        ends=tuple(ends),
        running=running,
        started=started,
        others=tuple(others),
        ignored=int(ignored) if ignored.isdecimal() else 0,
        gone=gone,
    )


def parse_time(text: Any) -> datetime | None:
    """A time as Kubernetes writes it, with zone; None for none."""
    if isinstance(text, datetime):
        return text
    return datetime.fromisoformat(text) if text else None
