"""One table of every way in which a pod does not start, or ends.

A row says how it is recognised, what it counts against, and what a person is told. `starting`
looks at pods that should run and do not, `ending` at those that are over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from hdgan.controller.facts import STAGE_CONTAINER, ContainerEnd, JobFacts, PodFacts

Budget = Literal["free", "outage", "bug", "memory", "input", "none"]
"""What an end counts against.

free    nothing while the work gets further, else `stalled`
outage  so many in a row (see `RETRIES`) without getting further
bug, memory, input   so many in all
none    it would end the same way again: the run fails
"""

RETRIES: Final[dict[str, int]] = {
    "stalled": 2,
    "outage": 10,
    "bug": 2,
    "memory": 2,
    "input": 1,
    "none": 0,
}
"""How many ends of a kind are followed by another attempt. Outages: for about half an hour."""

IN_A_ROW: Final = ("stalled", "outage")
"""Kinds that are forgotten when the work has got further."""

NOT_READY_SECONDS = 60.0
"""How long a node may not answer before its pods count as lost."""


@dataclass(frozen=True)
class StartProblem:
    """Why pods do not start: shown, while Kubernetes goes on trying."""

    reason: str
    message: str
    since: datetime | None = None
    """Since when it has been so, as far as that is known."""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended. `message`: what happened and what to do."""

    reason: str
    message: str
    budget: Budget


@dataclass(frozen=True)
class StartRow:
    """A way not to start. `found` gives details where it applies, else None."""

    reason: str
    found: Callable[[JobFacts, datetime], str | None]
    advice: str


@dataclass(frozen=True)
class EndRow:
    """A way to end. `found` gives details where it applies, else None."""

    reason: str
    found: Callable[[PodFacts], str | None]
    advice: str
    budget: Budget


def _waits(*reasons: str) -> Callable[[JobFacts, datetime], str | None]:
    def found(job: JobFacts, now: datetime) -> str | None:
        for pod in job.pods:
            for wait in pod.waits:
                if wait.reason in reasons:
                    return (
                        f"container {wait.container} of {pod.name}: {wait.message or wait.reason}"
                    )
        return None

    return found


def _refused(*words: str) -> Callable[[JobFacts, datetime], str | None]:
    def found(job: JobFacts, now: datetime) -> str | None:
        for text in job.refusals:
            if any(word in text for word in words):
                return text
        return None

    return found


def _scheduled(*reasons: str) -> Callable[[JobFacts, datetime], str | None]:
    def found(job: JobFacts, now: datetime) -> str | None:
        for pod in job.pods:
            condition = pod.conditions.get("PodScheduled")
            if condition and condition.status == "False" and condition.reason in reasons:
                return f"{pod.name}: {condition.message or condition.reason}"
        return None

    return found


def _lost(job: JobFacts, now: datetime) -> str | None:
    for pod in job.pods:
        if lost_since(pod, now) is not None:
            return f"node {pod.node}, where {pod.name} is"
    return None


def lost_since(pod: PodFacts, now: datetime) -> datetime | None:
    """Since when a pod's node does not answer; None while it does, or the pod is over."""
    if pod.finished or pod.node is None:
        return None
    patience = timedelta(seconds=NOT_READY_SECONDS)
    # Past its deletion by its grace and more, and still there: nobody on the node carries it out.
    if pod.deleting is not None and now - pod.deleting > patience:
        return pod.deleting
    ready, containers = pod.conditions.get("Ready"), pod.conditions.get("ContainersReady")
    # The pods of a node that does not answer are marked as not ready by the cluster, while what
    # the node said last was that all containers are.
    contradicts = (
        ready is not None
        and ready.status == "False"
        and pod.deleting is None
        and containers is not None
        and containers.status == "True"
    )
    unknown = ready is not None and ready.status == "Unknown"
    if (unknown or contradicts) and ready is not None and ready.since is not None:
        return ready.since if now - ready.since > patience else None
    return None


def _kueue(job: JobFacts, now: datetime) -> str | None:
    return f"Job {job.name} is suspended" if job.suspended else None


def _slow(job: JobFacts, now: datetime) -> str | None:
    for pod in job.pods:
        if pod.phase == "Pending" and pod.node is not None and not pod.running:
            names = ", ".join(wait.container for wait in pod.waits)
            return f"{pod.name} on {pod.node}: {names or 'its containers'} not started yet"
    return None


def _others_run(job: JobFacts, now: datetime) -> str | None:
    for pod in job.pods:
        ended = {end.container for end in pod.ends}
        # A pod whose only container has ended is Running, too, until its node has looked again.
        if pod.others and not pod.running and STAGE_CONTAINER in ended and not pod.finished:
            goes_on = ", ".join(pod.others)
            return f"the stage in {pod.name} has ended, another container goes on: {goes_on}"
    return None


def _no_pods(job: JobFacts, now: datetime) -> str | None:
    return f"Job {job.name} has no pod yet" if not job.pods else None


START_ROWS: Final[tuple[StartRow, ...]] = (
    StartRow(
        "NodeLost",
        _lost,
        "The node does not answer. If it is switched off for certain, type: kubectl delete pod "
        "{pod} --namespace {namespace} --force --grace-period=0",
    ),
    StartRow(
        "QuotaExceeded",
        _refused("exceeded quota", "failed quota"),
        "The namespace's ResourceQuota leaves no room: raise it, or wait for other work to end",
    ),
    StartRow(
        "PodSecurityRefused",
        _refused("violates PodSecurity"),
        "The namespace's Pod Security level refuses the pods: look at podSecurityContext and "
        "scratch in the installation's values",
    ),
    StartRow(
        "LimitRangeRefused",
        _refused("maximum cpu", "maximum memory", "minimum cpu", "minimum memory"),
        "The namespace's LimitRange refuses what the pods ask for: change resources.pods, suspend "
        "the run and let it go on",
    ),
    StartRow(
        "PodRefused",
        _refused(""),
        "The API server refuses to make the pods: correct what it names",
    ),
    StartRow(
        "QueuedByKueue",
        _kueue,
        "It waits in its queue: kubectl get workloads --namespace {namespace} tells for what",
    ),
    StartRow(
        "ImagePullFailed",
        _waits("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"),
        "Correct the image's name, push it, or give imagePullSecrets; the node goes on trying",
    ),
    StartRow(
        "ImageInvalid",
        _waits("InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
        "Correct the image in the installation's values, then suspend the run and let it go on",
    ),
    StartRow(
        "ContainerConfigInvalid",
        _waits("CreateContainerConfigError"),
        "A Secret or ConfigMap the pod needs is not there, or lacks a key: create it",
    ),
    StartRow(
        "ContainerNotCreated",
        _waits("CreateContainerError", "RunContainerError", "StartError", "CrashLoopBackOff"),
        "The node cannot start the container: see kubectl describe pod",
    ),
    StartRow(
        "SchedulingGated",
        _scheduled("SchedulingGated"),
        "Something holds the pod back with a scheduling gate: a queue, usually",
    ),
    StartRow(
        "Unschedulable",
        _scheduled("Unschedulable", "SchedulerError"),
        "No node has what it asks for: add nodes, or change resources.pods (GPUs, memory, "
        "nodeSelector, tolerations), suspend the run and let it go on",
    ),
    StartRow(
        "SidecarRuns",
        _others_run,
        "Whatever adds it must make it a native sidecar (an init container with restartPolicy: "
        "Always), or leave these pods alone",
    ),
    StartRow(
        "NotStarted",
        _slow,
        "The node pulls the image or prepares volumes; kubectl describe pod tells more",
    ),
    StartRow(
        "NoPods",
        _no_pods,
        "The cluster's Job controller has not made one: see kubectl describe job",
    ),
)


def _disrupted(*reasons: str) -> Callable[[PodFacts], str | None]:
    def found(pod: PodFacts) -> str | None:
        condition = pod.conditions.get("DisruptionTarget")
        if condition is None or condition.status != "True" or condition.reason not in reasons:
            return None
        return condition.message or condition.reason

    return found


def _pod_reason(*reasons: str) -> Callable[[PodFacts], str | None]:
    def found(pod: PodFacts) -> str | None:
        return (pod.message or pod.reason) if pod.reason in reasons else None

    return found


def _failed_container(pod: PodFacts) -> ContainerEnd | None:
    return next((end for end in pod.ends if end.exit_code != 0), None)


def _exit(*codes: int, reason: str | None = None) -> Callable[[PodFacts], str | None]:
    def found(pod: PodFacts) -> str | None:
        end = _failed_container(pod)
        if end is None or (codes and end.exit_code not in codes):
            return None
        if reason is not None and end.reason != reason:
            return None
        return _told(end)

    return found


def _told(end: ContainerEnd) -> str:
    said = " ".join(end.message.split())
    return f"{end.container}: {said}" if said else f"{end.container}: exit code {end.exit_code}"


def _killed(pod: PodFacts) -> str | None:
    end = _failed_container(pod)
    return _told(end) if end is not None and 128 < end.exit_code < 160 else None


def _any(pod: PodFacts) -> str | None:
    return pod.message or pod.reason or f"{pod.name} is {pod.phase}"


END_ROWS: Final[tuple[EndRow, ...]] = (
    # What was disrupted comes first: whatever a container said while its node went away, it says
    # again if it was true.
    EndRow(
        "Preempted",
        _disrupted("PreemptionByScheduler"),
        "Pods of higher priority needed the node; it is started again",
        "free",
    ),
    EndRow(
        "Drained",
        _disrupted("EvictionByEvictionAPI", "DeletionByTaintManager"),
        "Its node was drained or tainted; it is started again elsewhere",
        "free",
    ),
    EndRow(
        "NodeLost",
        _disrupted("DeletionByPodGC"),
        "Its node went away; it is started again on another",
        "free",
    ),
    EndRow(
        "Evicted",
        _pod_reason("Evicted"),
        "Its node ran short, usually of local disk: ask for more ephemeralStorage, or bound "
        "scratch with sizeLimit",
        "memory",
    ),
    EndRow(
        "Evicted",
        _disrupted("TerminationByKubelet"),
        "Its node ended it, being short of something or shutting down; it is started again",
        "free",
    ),
    EndRow(
        "NodeShutDown",
        _pod_reason("NodeShutdown", "Terminated", "NodeLost", "Shutdown"),
        "Its node was shut down; it is started again on another",
        "free",
    ),
    EndRow(
        "NodeRefused",
        _pod_reason(
            "UnexpectedAdmissionError",
            "NodeAffinity",
            "OutOfcpu",
            "OutOfmemory",
            "OutOfpods",
            "OutOfephemeral-storage",
            "OutOfnvidia.com/gpu",
            "TopologyAffinityError",
        ),
        "Its node had no room for it after all; it is started again",
        "free",
    ),
    EndRow(
        "RequestInvalid",
        _exit(64),
        "Correct what it names: if that is in resources or outside the run, set spec.retry then, "
        "else make another run",
        "none",
    ),
    EndRow("DataBad", _exit(65), "Look at the data it names, then set spec.retry", "none"),
    EndRow(
        "InputMissing",
        _exit(66),
        "Restore what is missing; features on scratch are made again by themselves",
        "input",
    ),
    EndRow(
        "OutOfMemory",
        _exit(reason="OOMKilled"),
        "Raise memory in resources.pods, or use smaller batches",
        "memory",
    ),
    EndRow(
        "DeadlineExceeded",
        _pod_reason("DeadlineExceeded"),
        "It took longer than a limit that something in the cluster set on it",
        "bug",
    ),
    EndRow(
        "Unavailable",
        _exit(69),
        "The store does not answer, or a disk is full; it is tried again, for about half an hour",
        "outage",
    ),
    EndRow("Stopped", _exit(75), "It was stopped early and saved its state", "free"),
    EndRow(
        "Failed",
        _exit(70),
        "See its log with hdgan logs; if it fails again, report it with that log",
        "bug",
    ),
    EndRow(
        "Killed",
        _killed,
        "It was killed from outside; if that was its own signal, see its log with hdgan logs",
        "bug",
    ),
    EndRow("Failed", _exit(), "See its log with hdgan logs", "bug"),
    EndRow("PodFailed", _any, "See kubectl describe pod", "bug"),
)

STALLED: Final = Ending(
    "Stalled",
    "It ran without getting further and was stopped; it is started again from its saved state. "
    "resources.stallSeconds says how long it may",
    "free",
)
LOST: Final = Ending(
    "NodeLost",
    "Its node did not answer for resources.lostNodeSeconds; it is started again on another",
    "free",
)
JOB_DELETED: Final = Ending(
    "JobDeleted", "Its Job was deleted by somebody; it is made again", "free"
)
DISRUPTED: Final = Ending(
    "Disrupted",
    "Its pod was evicted, preempted or deleted, or its node went away; it is started again",
    "free",
)
QUEUE_SUSPENDED: Final = Ending(
    "TakenBackByQueue",
    "Its queue took its place back, for others; it waits for its turn again",
    "free",
)
PODS_GONE: Final = Ending(
    "PodsGone",
    "Its pods are gone, so nothing more is known; it is started again",
    "free",
)
TOO_MANY_DISRUPTIONS: Final = Ending(
    "DisruptedTooOften",
    "Its pods were evicted, preempted or lost so often that it was stopped; it is started again. "
    "Nodes that fill up are the usual reason: ask for more ephemeralStorage",
    "free",
)
NO_ARTIFACT: Final = Ending(
    "ArtifactMissing", "It ended well, but its artifact is not in the store", "bug"
)

FIXED_ENDINGS: Final = (
    STALLED,
    LOST,
    JOB_DELETED,
    DISRUPTED,
    QUEUE_SUSPENDED,
    PODS_GONE,
    TOO_MANY_DISRUPTIONS,
    NO_ARTIFACT,
)
"""Ends that no pod has to tell."""


def starting(job: JobFacts, now: datetime, namespace: str) -> StartProblem | None:
    """Why a Job's pods do not run; None if they do, or it is over. Of one that is being deleted
    only what holds that up: a node that is lost."""
    if not job.live or (job.deleting and _lost(job, now) is None):
        return None
    waiting = [pod for pod in job.pods if not (pod.running or pod.finished)]
    if _lost(job, now) is None and job.pods and not waiting and not job.refusals:
        return None
    for row in START_ROWS:
        found = row.found(job, now)
        if found is not None:
            pod = next((p.name for p in job.pods if p.name in found), "")
            advice = row.advice.format(pod=pod, namespace=namespace)
            begun = [one.created for one in waiting if one.created is not None]
            since = min(begun) if begun else job.started or job.created
            return StartProblem(row.reason, f"{found}. {advice}.", since)
    return None


def ending(job: JobFacts) -> Ending:
    """How a failed Job ended: by the worst of its failed pods (the rows' order of budgets), and
    where they are gone unseen, by what the Job says."""
    done = {pod.index for pod in job.pods if pod.phase == "Succeeded"} - {None}
    known = [pod for pod in job.pods if _tells(pod) and pod.index not in done]
    if job.suspended:
        return QUEUE_SUSPENDED
    disrupted = [pod for pod in known if _is_disrupted(pod)]
    if job.kind != "parts" and disrupted:
        # The others only ended because of that one.
        return end_of(disrupted[0])
    if job.kind != "parts" and known and "condition DisruptionTarget" in job.message:
        return DISRUPTED
    if known:
        return max((end_of(pod) for pod in known), key=lambda end: _SEVERITY.index(end.budget))
    if job.reason == "DeadlineExceeded":
        return Ending("DeadlineExceeded", f"{job.message}", "bug")
    # In the words of Kubernetes' Job controller, see `render` for the rules it follows.
    code = re.search(r"[Cc]ontainer (\S+) for pod (\S+) failed with exit code (\d+)", job.message)
    if code is not None:
        end = ContainerEnd(code[1], int(code[3]))
        return end_of(PodFacts(code[2].rpartition("/")[2], job.name, phase="Failed", ends=(end,)))
    if "condition DisruptionTarget" in job.message:
        return DISRUPTED
    said = f"{job.message.rstrip('.')}. " if job.message else ""
    return replace(PODS_GONE, message=f"{said}{PODS_GONE.message}")


def _tells(pod: PodFacts) -> bool:
    """Whether a pod has failed, and one can see why."""
    return pod.failed and (
        pod.phase == "Failed" or _failed_container(pod) is not None or _is_disrupted(pod)
    )


def _is_disrupted(pod: PodFacts) -> bool:
    condition = pod.conditions.get("DisruptionTarget")
    return condition is not None and condition.status == "True"


_SEVERITY: Final[Sequence[Budget]] = ("free", "outage", "input", "memory", "bug", "none")


def end_of(pod: PodFacts) -> Ending:
    """How one failed pod ended."""
    for row in END_ROWS:
        found = row.found(pod)
        if found is not None:
            return Ending(row.reason, f"{found.rstrip('.')}. {row.advice}.", row.budget)
    raise AssertionError("the last row finds everything")
