"""Every row of the table of endings: recognised, told with what to do, and counted as it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hdgan.controller.endings import (
    DISRUPTED,
    END_ROWS,
    JOB_DELETED,
    LOST,
    NO_ARTIFACT,
    PODS_GONE,
    QUEUE_SUSPENDED,
    RETRIES,
    STALLED,
    START_ROWS,
    TOO_MANY_DISRUPTIONS,
    end_of,
    ending,
    lost_since,
    starting,
)
from hdgan.controller.facts import (
    Condition,
    ContainerEnd,
    ContainerWait,
    JobFacts,
    PodFacts,
    pod_facts,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(minutes=10)
JOB = JobFacts(name="tiler-1", stage="tiler", key="k", kind="whole", attempt=1, created=EARLIER)
POD = PodFacts(name="tiler-1-abc", job="tiler-1", created=EARLIER)
ON_NODE = replace(POD, node="node-1")


def waits(reason: str) -> JobFacts:
    pod = replace(ON_NODE, waits=(ContainerWait("stage", reason, "in other words"),))
    return replace(JOB, pods=(pod,))


def unscheduled(reason: str) -> JobFacts:
    conditions = {"PodScheduled": Condition("False", reason, "0/3 nodes are available")}
    return replace(JOB, pods=(replace(POD, conditions=conditions),))


def refused(message: str) -> JobFacts:
    return replace(JOB, refusals=(message,))


ON_LOST_NODE = replace(
    ON_NODE,
    running=True,
    phase="Running",
    conditions={"Ready": Condition("Unknown", since=EARLIER)},
)

STARTS: list[tuple[str, JobFacts]] = [
    ("NodeLost", replace(JOB, pods=(ON_LOST_NODE,))),
    ("NodeLost", replace(JOB, pods=(replace(ON_NODE, running=True, deleting=EARLIER),))),
    ("QuotaExceeded", refused('pods "x" is forbidden: exceeded quota: gpus, requested: 8')),
    ("PodSecurityRefused", refused('pods "x" is forbidden: violates PodSecurity "restricted"')),
    ("LimitRangeRefused", refused("maximum memory usage per Container is 4Gi, but limit is 8Gi")),
    ("PodRefused", refused("admission webhook denied the request: no team label")),
    ("QueuedByKueue", replace(JOB, suspended=True)),
    ("ImagePullFailed", waits("ImagePullBackOff")),
    ("ImagePullFailed", waits("ErrImagePull")),
    ("ImageInvalid", waits("InvalidImageName")),
    ("ContainerConfigInvalid", waits("CreateContainerConfigError")),
    ("ContainerNotCreated", waits("CreateContainerError")),
    ("ContainerNotCreated", waits("RunContainerError")),
    ("SchedulingGated", unscheduled("SchedulingGated")),
    ("Unschedulable", unscheduled("Unschedulable")),
    ("NotStarted", waits("ContainerCreating")),
    ("NotStarted", waits("PodInitializing")),
    ("NoPods", JOB),
    (
        "SidecarRuns",
        replace(
            JOB,
            pods=(
                replace(
                    ON_NODE,
                    phase="Running",
                    ends=(ContainerEnd("stage", 0, "Completed"),),
                    others=("mesh",),
                ),
            ),
        ),
    ),
]


@pytest.mark.parametrize(("reason", "job"), STARTS)
def test_why_pods_do_not_start(reason: str, job: JobFacts) -> None:
    problem = starting(job, NOW, "team")
    assert problem is not None
    assert problem.reason == reason
    advice = next(row.advice for row in START_ROWS if row.reason == reason)
    assert advice.split("{", 1)[0] in problem.message
    assert "{" not in problem.message


def test_every_way_not_to_start_has_a_case() -> None:
    assert {row.reason for row in START_ROWS} == {reason for reason, _ in STARTS}


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, pods=(replace(ON_NODE, running=True, phase="Running"),)),
        replace(JOB, pods=(replace(ON_NODE, phase="Succeeded"),)),
        replace(JOB, state="succeeded"),
        replace(JOB, state="failed"),
        replace(JOB, deleting=True),
    ],
)
def test_what_runs_or_is_over_has_no_problem_to_start(job: JobFacts) -> None:
    assert starting(job, NOW, "team") is None


@pytest.mark.parametrize(("others", "told"), [([], False), (["mesh"], True)])
def test_only_what_still_runs_keeps_a_pod_whose_stage_has_ended(
    others: list[str], told: bool
) -> None:
    """The kubelet says that a container has ended a second or two before the pod's phase does."""
    containers = [{"name": "stage", "state": {"terminated": {"exitCode": 0}}}]
    containers += [{"name": name, "state": {"running": {}}} for name in others]
    pod = pod_facts(
        {
            "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "containerStatuses": containers},
        }
    )
    problem = starting(replace(JOB, pods=(pod,)), NOW, "team")
    assert (problem is not None) == told
    assert problem is None or problem.reason == "SidecarRuns"
    assert problem is None or "goes on: mesh" in problem.message


def test_a_node_counts_as_lost_only_after_a_while() -> None:
    just = replace(ON_LOST_NODE, conditions={"Ready": Condition("Unknown", since=NOW)})
    assert lost_since(just, NOW) is None
    assert lost_since(just, NOW + timedelta(seconds=61)) == NOW
    assert lost_since(replace(ON_NODE, deleting=NOW), NOW + timedelta(seconds=59)) is None
    assert lost_since(replace(ON_LOST_NODE, phase="Failed"), NOW) is None


def test_a_node_is_lost_when_the_cluster_says_not_ready_of_what_it_last_said_was() -> None:
    conditions = {"Ready": Condition("False", since=EARLIER), "ContainersReady": Condition("True")}
    pod = replace(ON_NODE, running=True, phase="Running", conditions=conditions)
    assert lost_since(pod, NOW) == EARLIER
    ended = {**conditions, "ContainersReady": Condition("False")}
    assert lost_since(replace(pod, conditions=ended), NOW) is None
    assert lost_since(replace(pod, deleting=NOW), NOW) is None


def failed(code: int, reason: str = "Error", message: str = "its last words") -> PodFacts:
    return replace(ON_NODE, phase="Failed", ends=(ContainerEnd("stage", code, reason, message),))


def disrupted(reason: str, code: int = 143) -> PodFacts:
    return replace(
        failed(code), conditions={"DisruptionTarget": Condition("True", reason, "why it had to go")}
    )


def by_node(reason: str) -> PodFacts:
    return replace(ON_NODE, phase="Failed", reason=reason, message="what the node says")


ENDS: list[tuple[str, str, PodFacts]] = [
    ("RequestInvalid", "none", failed(64)),
    ("DataBad", "none", failed(65)),
    ("InputMissing", "input", failed(66)),
    ("OutOfMemory", "memory", failed(137, "OOMKilled", "")),
    ("Preempted", "free", disrupted("PreemptionByScheduler")),
    ("Preempted", "free", disrupted("PreemptionByScheduler", 75)),
    ("Drained", "free", disrupted("EvictionByEvictionAPI")),
    ("Drained", "free", disrupted("DeletionByTaintManager")),
    ("NodeLost", "free", disrupted("DeletionByPodGC")),
    ("Evicted", "memory", by_node("Evicted")),
    ("Evicted", "free", disrupted("TerminationByKubelet")),
    ("NodeShutDown", "free", by_node("NodeShutdown")),
    ("NodeRefused", "free", by_node("OutOfcpu")),
    ("DeadlineExceeded", "bug", by_node("DeadlineExceeded")),
    ("Stopped", "free", failed(75)),
    ("Unavailable", "outage", failed(69)),
    ("Failed", "bug", failed(70)),
    ("Killed", "bug", failed(137)),
    ("Killed", "bug", failed(139)),
    ("Failed", "bug", failed(1)),
    ("PodFailed", "bug", by_node("")),
    # What a stage says while its node loses its network need not be true; if it is, it says so
    # again.
    ("Preempted", "free", disrupted("PreemptionByScheduler", 64)),
]


@pytest.mark.parametrize(("reason", "budget", "pod"), ENDS)
def test_how_pods_end(reason: str, budget: str, pod: PodFacts) -> None:
    end = end_of(pod)
    assert (end.reason, end.budget) == (reason, budget)
    assert len(end.message) > 20
    assert any(row.advice in end.message for row in END_ROWS if row.reason == reason)


def test_every_way_to_end_has_a_case() -> None:
    rows = {(row.reason, row.budget) for row in END_ROWS}
    assert rows == {(reason, budget) for reason, budget, _ in ENDS}
    assert {row.budget for row in END_ROWS} - {"free"} <= set(RETRIES)


def test_last_words_of_a_container_are_told() -> None:
    assert "its last words" in end_of(failed(70)).message
    assert (
        "features: exit code 1"
        in end_of(replace(failed(1), ends=(ContainerEnd("features", 1),))).message
    )


def test_a_job_ends_as_the_worst_of_its_pods() -> None:
    pods = (failed(75), disrupted("PreemptionByScheduler"), failed(65), failed(70))
    parts = replace(JOB, state="failed", kind="parts")
    assert ending(replace(parts, pods=pods)).reason == "DataBad"
    assert ending(replace(parts, pods=pods[:2])).budget == "free"


def test_machines_that_train_together_end_as_the_one_that_was_disrupted() -> None:
    pods = (failed(137), failed(70), disrupted("PreemptionByScheduler", 75))
    job = replace(JOB, state="failed", pods=pods)
    assert (ending(job).reason, ending(job).budget) == ("Preempted", "free")
    said = "Pod team/x has condition DisruptionTarget matching FailJob rule at index 0"
    unseen = replace(job, pods=pods[:2], message=said)
    assert (ending(unseen).reason, ending(unseen).budget) == ("Disrupted", "free")


def test_a_failed_job_whose_pods_are_gone_says_what_is_known() -> None:
    job = replace(JOB, state="failed", reason="BackoffLimitExceeded", message="too often")
    assert ending(job).reason == "PodsGone"
    late = replace(job, reason="DeadlineExceeded")
    assert ending(late).reason == "DeadlineExceeded"


@pytest.mark.parametrize(
    ("message", "reason", "budget"),
    [
        ("Pod team/x has condition DisruptionTarget matching", "Disrupted", "free"),
        ("Container stage for pod team/x failed with exit code 64 m", "RequestInvalid", "none"),
        ("Container stage for pod team/x failed with exit code 75 m", "Stopped", "free"),
        ("Container features for pod team/x failed with exit code 69", "Unavailable", "outage"),
    ],
)
def test_what_the_job_says_tells_how_pods_ended_that_nobody_saw(
    message: str, reason: str, budget: str
) -> None:
    job = replace(JOB, state="failed", reason="PodFailurePolicy", message=message)
    unseen = replace(ON_NODE, phase="Running", gone=True)
    for pods in ((), (unseen,)):
        end = ending(replace(job, pods=pods))
        assert (end.reason, end.budget) == (reason, budget)
    # Seen once, a pod tells more than its Job.
    seen = replace(disrupted("PreemptionByScheduler"), gone=True)
    assert ending(replace(job, pods=(seen,))).reason == "Preempted"


def test_what_a_queue_has_ended_is_no_bug() -> None:
    job = replace(JOB, state="failed", reason="PodFailurePolicy", suspended=True)
    end = ending(replace(job, pods=(failed(143),)))
    assert (end.reason, end.budget) == ("TakenBackByQueue", "free")


def test_a_part_that_succeeded_at_last_is_not_to_blame() -> None:
    pods = (
        replace(failed(64), index=0),
        replace(failed(75), name="b", index=1),
        replace(ON_NODE, name="c", index=0, phase="Succeeded"),
    )
    assert ending(replace(JOB, state="failed", pods=pods)).reason == "Stopped"


def test_the_page_names_every_reason() -> None:
    page = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    fixed = [STALLED, LOST, JOB_DELETED, NO_ARTIFACT, DISRUPTED, PODS_GONE]
    fixed += [QUEUE_SUSPENDED, TOO_MANY_DISRUPTIONS]
    reasons = {row.reason for row in START_ROWS} | {row.reason for row in END_ROWS}
    reasons |= {end.reason for end in fixed}
    assert {reason for reason in reasons if f"`{reason}`" not in page} == set()
