"""The simulated Job controller and kubelet do to Jobs and pods what real ones do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from cluster.fake_api.jobs import (
    CannotStart,
    Evicted,
    Fate,
    NodeLost,
    PodStart,
    Runs,
    SimulatedJobs,
    Unschedulable,
    oom_killed,
)
from cluster.fake_api.server import FakeApiServer

Json = dict[str, Any]
World = Callable[..., SimulatedJobs]


class Batch:
    """Jobs and pods of one namespace, through the official client."""

    def __init__(self, api_client: client.ApiClient, namespace: str) -> None:
        self._batch: Any = client.BatchV1Api(api_client)
        self._core: Any = client.CoreV1Api(api_client)
        self._namespace = namespace

    def create(self, **spec: Any) -> None:
        template = {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "busybox:1"}],
            }
        }
        body = {"metadata": {"name": "j"}, "spec": {"template": template, **spec}}
        self._batch.create_namespaced_job(self._namespace, body)

    def patch(self, **spec: Any) -> None:
        self._batch.patch_namespaced_job("j", self._namespace, {"spec": spec})

    def delete(self, policy: str) -> None:
        self._batch.delete_namespaced_job("j", self._namespace, propagation_policy=policy)

    def delete_pod(self, name: str, **more: Any) -> None:
        self._core.delete_namespaced_pod(name, self._namespace, **more)

    def exists(self) -> bool:
        return bool(self._batch.list_namespaced_job(self._namespace).items)

    def status(self) -> Any:
        return self._batch.read_namespaced_job("j", self._namespace).status

    def pods(self) -> list[Any]:
        found: list[Any] = self._core.list_namespaced_pod(self._namespace).items
        return found

    def conditions(self) -> dict[str, str]:
        """Reasons of the conditions that are True, by type."""
        return {
            one.type: one.reason for one in self.status().conditions or [] if one.status == "True"
        }

    def ends(self, type_: str) -> Any:
        """Waits for this condition, and gives the status then."""
        wait_for(lambda: type_ in self.conditions())
        return self.status()


def wait_for(test: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def batch(api_client: client.ApiClient, namespace: str) -> Batch:
    return Batch(api_client, namespace)


def first_fails(fate: Fate) -> Callable[[PodStart], Fate]:
    """The first pod of each index has this fate, the others succeed."""
    return lambda start: fate if start.attempt == 0 else Runs()


def test_a_job_runs_its_pod_and_is_complete(job_world: World, batch: Batch) -> None:
    job_world(lambda start: Runs(message="done"))
    batch.create()
    status = batch.ends("Complete")
    assert (status.active, status.ready, status.succeeded, status.failed) == (None, 0, 1, None)
    assert status.completion_time >= status.start_time
    assert [one.type for one in status.conditions] == ["SuccessCriteriaMet", "Complete"]
    pod = batch.pods()[0]
    assert pod.metadata.finalizers is None
    assert pod.metadata.owner_references[0].controller
    assert pod.status.container_statuses[0].state.terminated.message == "done"


def test_a_running_pod_is_active_and_ready(job_world: World, batch: Batch) -> None:
    job_world(lambda start: Runs(starts_after=0.2, seconds=10))
    batch.create()
    wait_for(lambda: bool(batch.pods()))
    wait_for(lambda: batch.status().active == 1)
    wait_for(lambda: bool(batch.pods()[0].status.container_statuses))
    waiting = batch.pods()[0].status.container_statuses[0].state.waiting
    assert waiting.reason == "ContainerCreating"
    wait_for(lambda: batch.status().ready == 1)
    assert batch.pods()[0].status.phase == "Running"


def test_indexes_are_run_in_order_and_not_too_many_at_once(job_world: World, batch: Batch) -> None:
    world = job_world(lambda start: Runs(seconds=0.05))
    batch.create(completionMode="Indexed", completions=5, parallelism=2)
    most = 0

    def complete() -> bool:
        nonlocal most
        status = batch.status()
        most = max(most, status.active or 0)
        return "Complete" in batch.conditions()

    wait_for(complete)
    assert most == 2
    assert [start.index for start in world.starts] == [0, 1, 2, 3, 4]
    status = batch.status()
    assert (status.completed_indexes, status.succeeded) == ("0-4", 5)
    pod = next(one for one in batch.pods() if one.metadata.name.startswith("j-3-"))
    assert pod.metadata.annotations["batch.kubernetes.io/job-completion-index"] == "3"
    assert pod.metadata.labels["batch.kubernetes.io/job-completion-index"] == "3"
    assert pod.metadata.labels["batch.kubernetes.io/job-name"] == "j"
    assert "JOB_COMPLETION_INDEX" in [one.name for one in pod.spec.containers[0].env]
    assert pod.spec.hostname == "j-3"


def test_pods_are_tried_again_up_to_the_backoff_limit(job_world: World, batch: Batch) -> None:
    world = job_world(lambda start: Runs(exit_code=2))
    batch.create(backoffLimit=2)
    status = batch.ends("Failed")
    assert status.failed == 3
    assert len(world.starts) == 3
    assert batch.conditions() == {
        "FailureTarget": "BackoffLimitExceeded",
        "Failed": "BackoffLimitExceeded",
    }


def test_a_failed_pod_is_replaced_after_a_while(job_world: World, batch: Batch) -> None:
    job_world(first_fails(Runs(exit_code=1)), backoff=0.5)
    batch.create()
    wait_for(lambda: batch.status().failed == 1)
    time.sleep(0.2)
    assert len(batch.pods()) == 1
    batch.ends("Complete")
    assert len(batch.pods()) == 2


def test_each_index_has_a_backoff_limit_of_its_own(job_world: World, batch: Batch) -> None:
    world = job_world(lambda start: Runs(exit_code=1 if start.index in (1, 2, 3) else 0))
    batch.create(completionMode="Indexed", completions=5, parallelism=5, backoffLimitPerIndex=1)
    status = batch.ends("Failed")
    assert batch.conditions()["Failed"] == "FailedIndexes"
    assert (status.completed_indexes, status.failed_indexes) == ("0,4", "1-3")
    assert [start.index for start in world.starts].count(2) == 2


def test_too_many_failed_indexes_end_the_job(job_world: World, batch: Batch) -> None:
    job_world(lambda start: Runs(exit_code=1) if start.index == 0 else Runs(seconds=30))
    batch.create(
        completionMode="Indexed",
        completions=3,
        parallelism=3,
        backoffLimitPerIndex=0,
        maxFailedIndexes=0,
    )
    batch.ends("Failed")
    assert batch.conditions()["Failed"] == "MaxFailedIndexesExceeded"


def test_the_job_fails_only_when_all_its_pods_have_ended(job_world: World, batch: Batch) -> None:
    def script(start: PodStart) -> Fate:
        return Runs(exit_code=1, seconds=0.1) if start.index else Runs(seconds=9, stop_seconds=0.5)

    job_world(script)
    batch.create(completionMode="Indexed", completions=2, parallelism=2, backoffLimit=0)
    begun = time.monotonic()
    status = batch.ends("FailureTarget")
    assert "Failed" not in batch.conditions()
    assert status.terminating == 1
    batch.ends("Failed")
    assert time.monotonic() - begun > 0.5
    assert batch.status().terminating == 0


def policy(action: str, **rule: Any) -> Json:
    return {"rules": [{"action": action, **rule}]}


EXIT_3 = {"onExitCodes": {"operator": "In", "values": [3]}}
DISRUPTED = {"onPodConditions": [{"type": "DisruptionTarget"}]}


def test_fail_job_ends_it_at_once(job_world: World, batch: Batch) -> None:
    world = job_world(lambda start: Runs(exit_code=3))
    batch.create(podFailurePolicy=policy("FailJob", **EXIT_3))
    batch.ends("Failed")
    assert len(world.starts) == 1
    assert batch.conditions()["Failed"] == "PodFailurePolicy"
    message = batch.status().conditions[0].message
    assert "Container main for pod" in message
    assert "exit code 3 matching FailJob rule at index 0" in message


@pytest.mark.parametrize("exit_code", [3, 4])
def test_ignored_failures_do_not_count(job_world: World, batch: Batch, exit_code: int) -> None:
    job_world(first_fails(Runs(exit_code=exit_code)))
    batch.create(podFailurePolicy=policy("Ignore", **EXIT_3), backoffLimit=0)
    wait_for(lambda: {"Complete", "Failed"} & batch.conditions().keys() != set())
    assert ("Complete" in batch.conditions()) == (exit_code == 3)
    assert batch.status().failed == (None if exit_code == 3 else 1)


def test_not_in_means_every_other_code(job_world: World, batch: Batch) -> None:
    job_world(lambda start: Runs(exit_code=7))
    rule = {"onExitCodes": {"operator": "NotIn", "values": [3, 4]}}
    batch.create(podFailurePolicy=policy("FailJob", **rule))
    batch.ends("Failed")
    assert batch.conditions()["Failed"] == "PodFailurePolicy"


def test_fail_index_gives_up_one_index(job_world: World, batch: Batch) -> None:
    world = job_world(lambda start: Runs(exit_code=3 if start.index == 1 else 0))
    batch.create(
        completionMode="Indexed",
        completions=2,
        parallelism=2,
        backoffLimitPerIndex=5,
        podFailurePolicy=policy("FailIndex", **EXIT_3),
    )
    batch.ends("Failed")
    assert batch.status().failed_indexes == "1"
    assert len(world.starts) == 2


@pytest.mark.parametrize("deleted", [False, True])
def test_evictions_carry_their_reason_and_can_be_ignored(
    job_world: World, batch: Batch, deleted: bool
) -> None:
    fate = Evicted(seconds=0.3, reason="PreemptionByScheduler", deleted=deleted)
    job_world(first_fails(fate))
    batch.create(podFailurePolicy=policy("Ignore", **DISRUPTED), backoffLimit=0)
    seen: list[Any] = []

    def disrupted() -> bool:
        seen.extend(
            one
            for pod in batch.pods()
            for one in pod.status.conditions or []
            if one.type == "DisruptionTarget"
        )
        return "Complete" in batch.conditions()

    wait_for(disrupted)
    assert seen[0].reason == "PreemptionByScheduler"
    assert batch.status().failed is None
    assert len(batch.pods()) == (1 if deleted else 2)
    if not deleted:
        assert "Evicted" in [pod.status.reason for pod in batch.pods()]


def test_memory_that_runs_out_is_told(job_world: World, batch: Batch) -> None:
    job_world(lambda start: oom_killed())
    batch.create(backoffLimit=0)
    batch.ends("Failed")
    ended = batch.pods()[0].status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


def test_pods_that_cannot_start_wait_and_say_why(job_world: World, batch: Batch) -> None:
    job_world(
        lambda start: (
            CannotStart(reason="ErrImagePull", message="no such image")
            if start.index == 0
            else Unschedulable(message="too large")
        )
    )
    batch.create(completionMode="Indexed", completions=2, parallelism=2)
    wait_for(lambda: len(batch.pods()) == 2)

    def said() -> bool:
        first, second = batch.pods()
        return bool(first.status.container_statuses) and bool(second.status.conditions)

    wait_for(said)
    first, second = batch.pods()
    waiting = first.status.container_statuses[0].state.waiting
    assert (waiting.reason, waiting.message) == ("ErrImagePull", "no such image")
    assert first.spec.node_name == "node-1"
    assert first.status.phase == second.status.phase == "Pending"
    unscheduled = second.status.conditions[0]
    assert (unscheduled.type, unscheduled.status) == ("PodScheduled", "False")
    assert (unscheduled.reason, unscheduled.message) == ("Unschedulable", "too large")
    assert second.spec.node_name is None
    batch.delete("Foreground")
    wait_for(lambda: not batch.exists() and not batch.pods())


def test_replacements_wait_for_the_end_when_asked_to(job_world: World, batch: Batch) -> None:
    world = job_world(first_fails(Runs(seconds=30, stop_seconds=0.4)))
    batch.create(podReplacementPolicy="Failed")
    wait_for(lambda: bool(batch.pods()) and batch.pods()[0].status.phase == "Running")
    batch.delete_pod(batch.pods()[0].metadata.name)
    wait_for(lambda: batch.status().terminating == 1)
    time.sleep(0.1)
    assert len(world.starts) == 1
    batch.ends("Complete")
    assert batch.status().failed == 1


def test_replacements_come_at_once_otherwise(job_world: World, batch: Batch) -> None:
    world = job_world(first_fails(Runs(seconds=30, stop_seconds=5)))
    batch.create()
    wait_for(lambda: bool(batch.pods()) and batch.pods()[0].status.phase == "Running")
    batch.delete_pod(batch.pods()[0].metadata.name)
    wait_for(lambda: len(world.starts) == 2, seconds=2)


def test_a_pod_is_killed_at_the_end_of_its_grace(job_world: World, batch: Batch) -> None:
    job_world(lambda start: Runs(seconds=30, stop_seconds=20), managed_by=None)
    batch.create(backoffLimit=0, podReplacementPolicy="Failed")
    wait_for(lambda: bool(batch.pods()) and batch.pods()[0].status.phase == "Running")
    begun = time.monotonic()
    batch.delete_pod(batch.pods()[0].metadata.name, grace_period_seconds=1)
    batch.ends("Failed")
    assert 0.9 < time.monotonic() - begun < 3


def test_a_lost_pod_stays_until_its_job_is_deleted(
    job_world: World, batch: Batch, api_server: FakeApiServer
) -> None:
    job_world(lambda start: NodeLost(seconds=0.1, evicted_after=0.2))
    batch.create(podReplacementPolicy="Failed", backoffLimit=0)

    def conditions() -> dict[str, tuple[str, str | None]]:
        found = [one for pod in batch.pods() for one in pod.status.conditions or []]
        return {one.type: (one.status, one.reason) for one in found}

    wait_for(lambda: conditions().get("Ready", ("", ""))[0] == "Unknown")
    wait_for(lambda: "DisruptionTarget" in conditions())
    assert conditions()["DisruptionTarget"] == ("True", "DeletionByTaintManager")
    pod = batch.pods()[0]
    assert pod.metadata.deletion_timestamp is not None
    assert pod.status.phase == "Running"
    # The Job's finalizer outlives force: nobody has said that the pod has ended.
    batch.delete_pod(pod.metadata.name, grace_period_seconds=0)
    time.sleep(0.2)
    assert len(batch.pods()) == 1
    assert batch.conditions() == {}
    batch.delete("Foreground")
    wait_for(lambda: not batch.pods() and not batch.exists())


def test_a_lost_pod_fails_when_its_node_is_taken_away(job_world: World, batch: Batch) -> None:
    job_world(first_fails(NodeLost(node_gone_after=0.2)))
    batch.create(podFailurePolicy=policy("Ignore", **DISRUPTED), backoffLimit=0)
    batch.ends("Complete")
    assert batch.status().failed is None


def test_suspended_jobs_have_no_pods(job_world: World, batch: Batch) -> None:
    job_world(first_fails(Runs(seconds=30)))
    batch.create(suspend=True)
    wait_for(lambda: "Suspended" in batch.conditions())
    assert batch.pods() == []
    assert batch.status().start_time is None
    batch.patch(suspend=False)
    wait_for(lambda: batch.status().ready == 1)
    assert "Suspended" not in batch.conditions()
    batch.patch(suspend=True)
    wait_for(lambda: batch.pods() == [])
    assert "Suspended" in batch.conditions()
    batch.patch(suspend=False)
    batch.ends("Complete")


def test_pods_that_a_suspension_ends_do_not_count(job_world: World, batch: Batch) -> None:
    job_world(first_fails(Runs(seconds=30, stop_seconds=0.2, stop_code=75)))
    batch.create(backoffLimit=0)
    wait_for(lambda: batch.status().ready == 1)
    batch.patch(suspend=True)
    wait_for(lambda: batch.status().terminating == 1)
    # Their finalizer is taken off before they are deleted.
    assert batch.pods()[0].metadata.finalizers is None
    wait_for(lambda: batch.pods() == [])
    assert (batch.status().failed, batch.status().start_time) == (None, None)
    assert batch.conditions() == {"Suspended": "JobSuspended"}
    batch.patch(suspend=False)
    batch.ends("Complete")
    assert batch.status().failed is None


def test_a_rule_can_fail_a_job_for_how_a_suspension_ended_its_pod(
    job_world: World, batch: Batch
) -> None:
    # Rules are asked about pods without the finalizer, too, as long as they are there.
    job_world(lambda start: Runs(seconds=30, stop_code=3))
    batch.create(backoffLimit=0, podFailurePolicy=policy("FailJob", **EXIT_3))
    wait_for(lambda: batch.status().ready == 1)
    batch.patch(suspend=True)
    batch.ends("Failed")
    assert batch.conditions()["Failed"] == "PodFailurePolicy"
    assert batch.status().failed is None


def test_pods_that_are_too_many_do_not_count(job_world: World, batch: Batch) -> None:
    job_world(lambda start: Runs(seconds=1.0))
    batch.create(parallelism=2, completions=2, backoffLimit=0)
    wait_for(lambda: batch.status().ready == 2)
    batch.patch(parallelism=1)
    wait_for(lambda: batch.status().active == 1)
    batch.ends("Complete")
    assert (batch.status().succeeded, batch.status().failed) == (2, None)


def test_a_job_that_has_what_it_needs_is_complete_though_suspended(
    job_world: World, batch: Batch
) -> None:
    job_world(lambda start: Runs(seconds=0.3))
    batch.create(parallelism=1)
    wait_for(lambda: batch.status().ready == 1)
    wait_for(lambda: batch.pods()[0].status.phase == "Succeeded")
    batch.patch(suspend=True)
    batch.ends("Complete")


def test_ignored_failures_make_the_next_pod_wait_like_others(
    job_world: World, batch: Batch
) -> None:
    world = job_world(first_fails(Runs(exit_code=3)), backoff=0.6)
    batch.create(podFailurePolicy=policy("Ignore", **EXIT_3), backoffLimit=0)
    wait_for(lambda: bool(batch.pods()) and batch.pods()[0].status.phase == "Failed")
    time.sleep(0.3)
    assert len(world.starts) == 1
    batch.ends("Complete")


def test_a_failed_pod_of_an_index_is_counted_when_the_next_one_is_there(
    job_world: World, batch: Batch
) -> None:
    world = job_world(
        lambda start: Runs(exit_code=1 if (start.index, start.attempt) == (0, 0) else 0),
        backoff=0.6,
    )
    batch.create(completionMode="Indexed", completions=2, parallelism=2, backoffLimitPerIndex=1)
    # Each index waits for itself only.
    wait_for(lambda: batch.status().completed_indexes == "1")
    assert len(world.starts) == 2
    (first,) = [one for one in batch.pods() if one.status.phase == "Failed"]
    assert first.metadata.finalizers == ["batch.kubernetes.io/job-tracking"]
    assert batch.status().failed is None
    batch.ends("Complete")
    assert batch.status().failed == 1
    counts = [
        one.metadata.annotations["batch.kubernetes.io/job-index-failure-count"]
        for one in batch.pods()
        if one.metadata.annotations["batch.kubernetes.io/job-completion-index"] == "0"
    ]
    assert sorted(counts) == ["0", "1"]


def test_ignored_failures_of_an_index_are_counted_on_its_pods_only(
    job_world: World, batch: Batch
) -> None:
    job_world(lambda start: Runs(exit_code=3 if start.attempt < 3 else 0))
    batch.create(
        completionMode="Indexed",
        completions=1,
        backoffLimitPerIndex=0,
        podFailurePolicy=policy("Ignore", **EXIT_3),
    )
    batch.ends("Complete")
    assert batch.status().failed is None
    name = "batch.kubernetes.io/job-index-ignored-failure-count"
    counts = [one.metadata.annotations.get(name, "0") for one in batch.pods()]
    assert sorted(counts) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_pods_stop_when_their_job_is_deleted(job_world: World, batch: Batch, policy: str) -> None:
    job_world(lambda start: Runs(seconds=30, stop_seconds=0.3))
    batch.create()
    wait_for(lambda: batch.status().ready == 1)
    batch.delete(policy)
    assert batch.exists() == (policy == "Foreground")
    wait_for(lambda: bool(batch.pods()) and bool(batch.pods()[0].metadata.deletion_timestamp))
    wait_for(lambda: not batch.pods())
    wait_for(lambda: not batch.exists())


def test_finished_jobs_go_after_their_time(job_world: World, batch: Batch) -> None:
    job_world()
    batch.create()
    batch.ends("Complete")
    time.sleep(0.1)
    assert batch.exists()
    batch.patch(ttlSecondsAfterFinished=0)
    wait_for(lambda: not batch.exists() and not batch.pods())


def test_a_deadline_ends_the_job(job_world: World, batch: Batch) -> None:
    job_world(lambda start: Runs(seconds=30))
    batch.create(activeDeadlineSeconds=1)
    batch.ends("Failed")
    assert batch.conditions()["Failed"] == "DeadlineExceeded"


@pytest.mark.parametrize("mine", [True, False])
def test_jobs_of_another_manager_are_left_alone(job_world: World, batch: Batch, mine: bool) -> None:
    job_world(managed_by="test.hdgan.dev/me")
    batch.create(managedBy="test.hdgan.dev/" + ("me" if mine else "you"))
    if mine:
        batch.ends("Complete")
    else:
        time.sleep(0.2)
        assert batch.pods() == []
        assert batch.conditions() == {}


def test_status_goes_through_the_store_like_any_write(
    job_world: World, batch: Batch, api_server: FakeApiServer, namespace: str
) -> None:
    job_world()
    batch.create()
    batch.ends("Complete")
    changes = [
        change
        for change in api_server.store.changes_after(0)
        if change.now["metadata"].get("namespace") == namespace and "jobs" in change.type_key
    ]
    assert [change.type for change in changes] == ["ADDED"] + ["MODIFIED"] * (len(changes) - 1)
    assert len(changes) >= 4
    assert all(change.now["metadata"]["generation"] == 1 for change in changes)
    last = batch.status()
    time.sleep(0.1)
    assert batch.status() == last


def test_an_error_in_a_script_is_raised_at_the_end(
    api_server: FakeApiServer, batch: Batch, namespace: str
) -> None:
    def script(start: PodStart) -> Fate:
        raise LookupError("no such pod in this script")

    world = SimulatedJobs(api_server, script, namespace=namespace)
    world.start()
    batch.create()
    wait_for(lambda: bool(batch.pods()))
    with pytest.raises(LookupError, match="no such pod"):
        world.stop()
