"""The Job controller: makes pods, counts how they ended, and says when a Job is over."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cluster.fake_api import indexes, pod_states
from cluster.fake_api.api import Api
from cluster.fake_api.deletion import DeleteOptions
from cluster.fake_api.metadata import now
from cluster.fake_api.resources import JOBS, PODS

Json = dict[str, Any]

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
LONGEST_BACKOFF = 60
"""In units of the first one: really 10 s and 10 minutes."""

Born = Callable[[Json, Json, "int | None", int], None]
"""Told of each new pod: the Job, the pod, its index, and how many that index had before."""


@dataclass
class _Memory:
    """What the controller remembers of a Job."""

    born: dict[int | None, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    ignored: dict[int, int] = field(default_factory=dict)
    """By index, where each has a backoff limit of its own."""
    in_a_row: int = 0
    """Failures of any kind since a pod has succeeded."""
    noted: set[str] = field(default_factory=set)
    """UIDs of pods whose failure is in the numbers above."""
    not_before: dict[int | None, float] = field(default_factory=dict)
    """By index where each has a limit of its own, else under None."""
    finished: float | None = None


class JobController:
    """One `sync` of a Job after another, with the store's lock held."""

    def __init__(
        self,
        api: Api,
        born: Born,
        *,
        namespace: str | None,
        managed_by: str | None,
        backoff: float,
    ) -> None:
        self._namespace = namespace
        self.api = api
        self.born = born
        self._managers = (None, "kubernetes.io/job-controller", managed_by)
        self.backoff = backoff
        self._memories: dict[str, _Memory] = {}

    def step(self) -> None:
        pods: dict[str, list[Json]] = {}
        for pod in self._in_scope(PODS.type_key):
            for owner in pod["metadata"].get("ownerReferences", []):
                if owner.get("controller") and owner["kind"] == "Job":
                    pods.setdefault(owner["uid"], []).append(pod)
            if TRACKING in pod["metadata"].get("finalizers", []) and not self._has_job(pod):
                self.release(pod)
        for job in self._in_scope(JOBS.type_key):
            if job["spec"].get("managedBy") in self._managers:
                uid = job["metadata"]["uid"]
                memory = self._memories.setdefault(uid, _Memory())
                _Sync(self, job, pods.get(uid, []), memory).run()

    def _in_scope(self, type_key: str) -> list[Json]:
        found = self.api.store.all(type_key)
        return [one for place, one in found.items() if self._namespace in (None, place[0])]

    def _has_job(self, pod: Json) -> bool:
        return any(
            owner.get("controller") and self.api.store.of_uid(owner["uid"]) is not None
            for owner in pod["metadata"].get("ownerReferences", [])
        )

    def release(self, pod: Json) -> None:
        """Takes the finalizer off, and the pod away when that was all that kept it."""
        meta = pod["metadata"]
        found = self.api.store.of_uid(meta["uid"])
        if found is None or TRACKING not in found[1]["metadata"].get("finalizers", []):
            return
        left = [one for one in found[1]["metadata"]["finalizers"] if one != TRACKING]
        self.api.patch(
            PODS,
            meta["namespace"],
            meta["name"],
            {"metadata": {"finalizers": left or None}},
            "application/merge-patch+json",
        )


class _Sync:
    """One look at one Job."""

    def __init__(
        self, controller: JobController, job: Json, pods: list[Json], memory: _Memory
    ) -> None:
        self._controller = controller
        self._api = controller.api
        self._job = copy.deepcopy(job)
        self._spec: Json = self._job["spec"]
        self._status: Json = self._job.setdefault("status", {})
        self._pods = pods
        self._memory = memory
        self._indexed = self._spec["completionMode"] == "Indexed"
        self._only_failed = self._spec["podReplacementPolicy"] == "Failed"
        self._leaving = "deletionTimestamp" in job["metadata"]
        self._done = indexes.parse(self._status.get("completedIndexes", ""))
        self._broken = indexes.parse(self._status.get("failedIndexes", ""))
        # Pods that are counted and may go once the status says so.
        self._ended: list[Json] = []
        # Failed pods that stay as they are until the next pod of their index is there.
        self._uncounted = 0

    def run(self) -> None:
        if pod_states.condition(self._job, "Complete") or pod_states.condition(self._job, "Failed"):
            self._clean_up()
            return
        tracked = [pod for pod in self._pods if TRACKING in pod["metadata"].get("finalizers", [])]
        if not self._spec["suspend"]:
            self._status.setdefault("startTime", now())
        over = self._over()
        self._count(tracked, over=over is not None)
        if over is None:
            over = self._limits()
        active = [pod for pod in self._pods if _is_active(pod)]
        if over is not None:
            self._say(over["type"], over.get("reason", ""), over.get("message", ""))
            for pod in active:
                self._delete(pod)
            self._count(tracked, over=True)
        elif not self._leaving:
            self._manage(active)
        self._write()

    # How it ends.

    def _over(self) -> Json | None:
        """The interim condition of a Job that is to end, as far as pods alone decide it."""
        for type_ in ("SuccessCriteriaMet", "FailureTarget"):
            found = pod_states.condition(self._job, type_)
            if found is not None:
                return found
        for pod in self._pods:
            if pod["status"].get("phase") == "Failed":
                action, told = self._policy(pod)
                if action == "FailJob":
                    return {"type": "FailureTarget", "reason": "PodFailurePolicy", "message": told}
        return None

    def _limits(self) -> Json | None:
        def failure(reason: str, message: str) -> Json:
            return {"type": "FailureTarget", "reason": reason, "message": message}

        if self._status.get("failed", 0) + self._uncounted > self._spec["backoffLimit"]:
            return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        deadline = self._spec.get("activeDeadlineSeconds")
        if deadline is not None and "startTime" in self._status and not self._spec["suspend"]:
            started = datetime.fromisoformat(self._status["startTime"])
            if (datetime.now(UTC) - started).total_seconds() >= deadline:
                return failure("DeadlineExceeded", "Job was active longer than specified deadline")
        most = self._spec.get("maxFailedIndexes")
        if most is not None and len(self._broken) > most:
            return failure(
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            )
        if self._broken and len(self._broken) + len(self._done) >= self._spec["completions"]:
            return failure("FailedIndexes", "Job has failed indexes")
        return None

    def _policy(self, pod: Json) -> tuple[str, str]:
        """What podFailurePolicy does about a failed pod, and how it says so."""
        rules = self._spec.get("podFailurePolicy", {}).get("rules", [])
        meta = pod["metadata"]
        for at, rule in enumerate(rules):
            action = rule["action"]
            ending = f"matching {action} rule at index {at}"
            if "onExitCodes" in rule:
                found = _matching_container(pod, rule["onExitCodes"])
                if found is not None:
                    name, code = found
                    return action, (
                        f"Container {name} for pod {meta['namespace']}/{meta['name']} failed with "
                        f"exit code {code} {ending}"
                    )
            for pattern in rule.get("onPodConditions", []):
                if _has_condition(pod, pattern):
                    return action, (
                        f"Pod {meta['namespace']}/{meta['name']} has condition {pattern['type']} "
                        f"{ending}"
                    )
        return "Count", ""

    # Counting.

    def _count(self, tracked: list[Json], *, over: bool) -> None:
        """Counts pods that have ended, and lets go of them. Each pod is counted once."""
        self._uncounted = 0
        active = {_index(pod) for pod in self._pods if _is_active(pod)}
        for pod in list(tracked):
            phase = pod["status"].get("phase")
            index = _index(pod)
            if phase == "Succeeded":
                self._succeed(index)
            elif self._is_failed(pod) or (
                over and not pod_states.condition(self._job, "SuccessCriteriaMet")
            ):
                counts = self._policy(pod)[0] != "Ignore"
                self._note(pod, index)
                if not over and not self._leaving and self._is_awaited(index, active):
                    self._uncounted += counts
                    continue
                if counts:
                    self._status["failed"] = self._status.get("failed", 0) + 1
            elif not (over or self._leaving):
                continue
            tracked.remove(pod)
            self._ended.append(pod)

    def _is_failed(self, pod: Json) -> bool:
        if pod["status"].get("phase") == "Failed":
            return True
        return not self._only_failed and "deletionTimestamp" in pod["metadata"]

    def _is_awaited(self, index: int | None, active: set[int | None]) -> bool:
        """Whether the next pod of this index is still to come. It takes over how often the index
        has failed, and a failed pod keeps its finalizer for so long."""
        if "backoffLimitPerIndex" not in self._spec or index is None:
            return False
        return index not in active and index not in self._done and index not in self._broken

    def _succeed(self, index: int | None) -> None:
        self._memory.in_a_row = 0
        if not self._indexed:
            self._status["succeeded"] = self._status.get("succeeded", 0) + 1
        elif index is not None and index < self._spec["completions"]:
            self._done.add(index)

    def _note(self, pod: Json, index: int | None) -> None:
        """What follows for the next pods, once for each that failed. Failures that do not count
        towards a limit make the next pod wait, too."""
        memory = self._memory
        if pod["metadata"]["uid"] in memory.noted:
            return
        memory.noted.add(pod["metadata"]["uid"])
        action, _ = self._policy(pod)
        limit = self._spec.get("backoffLimitPerIndex")
        place: int | None = None
        if limit is not None and index is not None:
            kind = memory.ignored if action == "Ignore" else memory.failures
            kind[index] = kind.get(index, 0) + 1
            if action == "FailIndex" or memory.failures.get(index, 0) > limit:
                self._broken.add(index)
            place, count = index, memory.failures.get(index, 0) + memory.ignored.get(index, 0)
        else:
            memory.in_a_row += 1
            count = memory.in_a_row
        wait = self._controller.backoff * min(2.0 ** min(count - 1, 30), LONGEST_BACKOFF)
        memory.not_before[place] = time.monotonic() + wait

    # Pods.

    def _manage(self, active: list[Json]) -> None:
        succeeded = len(self._done) if self._indexed else self._status.get("succeeded", 0)
        suspend = self._spec["suspend"]
        if suspend:
            self._remove(active)
            left = 0
        else:
            left = self._make(active, succeeded)
        completions = self._spec.get("completions")
        finished = succeeded > 0 if completions is None else succeeded >= completions
        if finished and not left:
            self._say(
                "SuccessCriteriaMet",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            )
        elif suspend:
            if not pod_states.condition(self._job, "Suspended"):
                self._say("Suspended", "JobSuspended", "Job suspended")
                # As of 1.36; its template may then change as if it had never started.
                self._status.pop("startTime", None)
        elif pod_states.condition(self._job, "Suspended"):
            pod_states.set_condition(self._job, "Suspended", "False", "JobResumed", "Job resumed")
            self._status["startTime"] = now()

    def _make(self, active: list[Json], succeeded: int) -> int:
        """Makes pods, or removes those that are too many; returns how many are active then."""
        completions, parallelism = self._spec.get("completions"), self._spec["parallelism"]
        if completions is None:
            wanted = len(active) if succeeded else parallelism
        else:
            wanted = max(0, min(parallelism, completions - succeeded))
        if len(active) > wanted:
            self._remove(active[wanted:])
            return wanted
        terminating = [pod for pod in self._pods if _is_terminating(pod)]
        taken = len(active) + (len(terminating) if self._only_failed else 0)
        missing = max(0, wanted - taken)
        per_index = "backoffLimitPerIndex" in self._spec
        if not per_index and self._waits(None):
            return len(active)
        if not self._indexed:
            for _ in range(missing):
                self._start(None)
            return len(active) + missing
        busy = {_index(pod) for pod in active}
        if self._only_failed:
            busy |= {_index(pod) for pod in terminating}
        pending = [
            index
            for index in range(self._spec["completions"])
            if index not in busy and index not in self._done and index not in self._broken
        ]
        ready = [one for one in pending[:missing] if not (per_index and self._waits(one))]
        for index in ready:
            self._start(index)
        return len(active) + len(ready)

    def _waits(self, place: int | None) -> bool:
        return time.monotonic() < self._memory.not_before.get(place, 0.0)

    def _start(self, index: int | None) -> None:
        job, meta = self._job, self._job["metadata"]
        template = copy.deepcopy(self._spec["template"])
        labels = template["metadata"].get("labels", {})
        annotations = template["metadata"].get("annotations", {})
        prefix = f"{meta['name']}-"
        if index is not None:
            labels[INDEX] = annotations[INDEX] = str(index)
            if "backoffLimitPerIndex" in self._spec:
                annotations[FAILURES] = str(self._memory.failures.get(index, 0))
                if ignored := self._memory.ignored.get(index, 0):
                    annotations[IGNORED] = str(ignored)
            template["spec"]["hostname"] = f"{meta['name']}-{index}"
            _name_index(template["spec"])
            prefix = f"{meta['name']}-{index}-"
        body = {
            "metadata": {
                "generateName": prefix,
                "labels": labels,
                "annotations": annotations,
                "finalizers": [*template["metadata"].get("finalizers", []), TRACKING],
                "ownerReferences": [
                    {
                        "apiVersion": "batch/v1",
                        "kind": "Job",
                        "name": meta["name"],
                        "uid": meta["uid"],
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": template["spec"],
        }
        pod = self._api.create(PODS, meta["namespace"], body).body
        before = self._memory.born.get(index, 0)
        self._memory.born[index] = before + 1
        self._pods.append(pod)
        self._controller.born(job, pod, index, before)

    def _remove(self, pods: list[Json]) -> None:
        """Pods that are not wanted any more: nobody counts how they end."""
        for pod in pods:
            self._controller.release(pod)
            self._delete(pod)

    def _delete(self, pod: Json) -> None:
        meta = pod["metadata"]
        self._api.delete(PODS, meta["namespace"], meta["name"])

    # Status.

    def _say(self, type_: str, reason: str, message: str) -> None:
        pod_states.set_condition(self._job, type_, "True", reason, message)

    def _write(self) -> None:
        meta, status = self._job["metadata"], self._status
        mine = [self._api.store.of_uid(pod["metadata"]["uid"]) for pod in self._pods]
        pods = [found[1] for found in mine if found is not None]
        active = [pod for pod in pods if _is_active(pod)]
        status["active"] = len(active)
        status["ready"] = sum(1 for pod in active if pod_states.condition(pod, "Ready"))
        status["terminating"] = sum(1 for pod in pods if _is_terminating(pod))
        if self._indexed:
            status["succeeded"] = len(self._done)
            status["completedIndexes"] = indexes.write(self._done)
            if "backoffLimitPerIndex" in self._spec:
                status["failedIndexes"] = indexes.write(self._broken)
        had = self._api.get(JOBS, meta["namespace"], meta["name"])
        self._conclude(had)
        for name in ("active", "succeeded", "completedIndexes"):
            if not status.get(name):
                status.pop(name, None)
        if status != had.get("status"):
            body = {**self._job, "metadata": {**meta, "resourceVersion": ""}}
            self._api.update(JOBS, meta["namespace"], meta["name"], body, status=True)
        for pod in self._ended:
            self._controller.release(pod)

    def _conclude(self, had: Json) -> None:
        """The last condition, one look after the interim one, once no pod is left running."""
        status = self._status
        if status["active"] or status["terminating"]:
            return
        if pod_states.condition(had, "SuccessCriteriaMet"):
            self._say("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            status["completionTime"] = now()
        elif failed := pod_states.condition(had, "FailureTarget"):
            self._say("Failed", failed.get("reason", ""), failed.get("message", ""))

    def _clean_up(self) -> None:
        """A finished Job: pods are let go, and after its time it goes itself."""
        for pod in self._pods:
            self._controller.release(pod)
        if self._memory.finished is None:
            self._memory.finished = time.monotonic()
        ttl = self._spec.get("ttlSecondsAfterFinished")
        if ttl is None or self._leaving or time.monotonic() - self._memory.finished < ttl:
            return
        meta = self._job["metadata"]
        self._api.delete(
            JOBS,
            meta["namespace"],
            meta["name"],
            DeleteOptions(policy="Foreground", uid=meta["uid"]),
        )


def _is_active(pod: Json) -> bool:
    return not pod_states.is_terminal(pod) and "deletionTimestamp" not in pod["metadata"]


def _is_terminating(pod: Json) -> bool:
    return not pod_states.is_terminal(pod) and "deletionTimestamp" in pod["metadata"]


def _index(pod: Json) -> int | None:
    text = pod["metadata"].get("annotations", {}).get(INDEX)
    return None if text is None else int(text)


def _name_index(spec: Json) -> None:
    """The variable that tells each container its index, where the template has none of its own."""
    source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        environment = container.setdefault("env", [])
        if not any(one["name"] == INDEX_VARIABLE for one in environment):
            environment.append({"name": INDEX_VARIABLE, "valueFrom": source})


def _matching_container(pod: Json, rule: Json) -> tuple[str, int] | None:
    """The container whose exit code the rule means. A code of 0 never matches."""
    statuses = pod["status"].get("containerStatuses", [])
    for one in (*statuses, *pod["status"].get("initContainerStatuses", [])):
        if rule.get("containerName") not in (None, one["name"]):
            continue
        code = one["state"].get("terminated", {}).get("exitCode", 0)
        if code and (code in rule["values"]) == (rule["operator"] == "In"):
            return one["name"], code
    return None


def _has_condition(pod: Json, pattern: Json) -> bool:
    return any(
        one["type"] == pattern["type"] and one["status"] == pattern.get("status", "True")
        for one in pod["status"].get("conditions", [])
    )
