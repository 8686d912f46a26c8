"""Jobs of a real cluster, driven from here: `spec.managedBy` keeps the cluster's Job controller
away, and pods that no scheduler takes never reach a node, so neither images nor nodes are needed.

It does through the API what `fake_api.jobs` does behind the fake one, as far as the controller's
tests ask for it: pods start, run for a while, end with a code, cannot start, are evicted, are
deleted; Jobs are Complete or Failed once all their pods are over.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from cluster.fake_api.fates import CannotStart, Evicted, Fate, PodStart, Runs, Script
from hdgan.controller.api import JOBS, PODS, Api, ApiError, Conflict, NotFound
from hdgan.controller.facts import INDEX_ANNOTATION
from hdgan.controller.status import stamp

Json = dict[str, Any]
MANAGER = "hdgan.io/tests"
NO_SCHEDULER = "hdgan-tests-none"
TICK = 0.1


class DrivenJobs:
    """Plays Job controller and kubelet for the Jobs of one namespace, in a thread."""

    def __init__(self, api: Api, namespace: str, script: Script) -> None:
        self._api = api
        self._namespace = namespace
        self._script = script
        self._fates: dict[str, tuple[Fate, float]] = {}
        """By pod: what becomes of it, and when it began."""
        self._made: dict[str, int] = {}
        """Pods made, by Job and index."""
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="driven jobs", daemon=True)

    def __enter__(self) -> DrivenJobs:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not self._stop.wait(TICK):
            try:
                pods = self._api.list(PODS, self._namespace).items
                for job in self._api.list(JOBS, self._namespace).items:
                    own = [pod for pod in pods if _owner(pod) == job["metadata"]["uid"]]
                    self._drive(job, own)
            except (Conflict, NotFound):
                continue  # it has just changed: looked at again soon
            except ApiError as error:
                if error.status != 403:  # the namespace is going
                    self._error = error
            except Exception as error:
                self._error = error
                return

    def _drive(self, job: Json, pods: list[Json]) -> None:
        if job["spec"].get("managedBy") != MANAGER or _over(job):
            return
        if job["metadata"].get("deletionTimestamp"):
            return  # its pods go with it: they are on no node
        for pod in pods:
            self._advance(pod)
        if job["spec"].get("suspend"):
            return
        indexed = job["spec"].get("completionMode") == "Indexed"
        wanted = job["spec"]["completions"]
        succeeded = {_index(pod) for pod in pods if _phase(pod) == "Succeeded"}
        failed = [pod for pod in pods if _phase(pod) == "Failed"]
        active = [pod for pod in pods if _phase(pod) in ("Pending", "Running")]
        counting = [pod for pod in failed if not self._ignored(job, pod)]
        limit = job["spec"].get("backoffLimitPerIndex", job["spec"].get("backoffLimit", 6))
        per_index: dict[int | None, int] = {}
        for pod in counting:
            per_index[_index(pod)] = per_index.get(_index(pod), 0) + 1
        lost = {index for index, count in per_index.items() if count > limit}
        reason = "FailedIndexes"
        if lost and "backoffLimitPerIndex" not in job["spec"]:
            lost = set(range(wanted)) if indexed else {None}
            reason = "BackoffLimitExceeded"
        if any(self._fails_job(job, pod) for pod in failed):
            lost = set(range(wanted)) if indexed else {None}
            reason = "PodFailurePolicy"
        indexes: list[int | None] = list(range(wanted)) if indexed else [None]
        for index in indexes:
            busy = any(_index(pod) == index for pod in active)
            if index not in succeeded and index not in lost and not busy:
                self._make_pod(job, index)
        if not active and all(index in succeeded or index in lost for index in indexes):
            self._finish(job, len(succeeded), len(counting), reason if lost else None)
        elif active:
            self._count(job, len(active), len(succeeded), len(counting))

    def _make_pod(self, job: Json, index: int | None) -> None:
        name = job["metadata"]["name"]
        fresh = self._api.get(JOBS, self._namespace, name)
        if fresh is None or fresh["metadata"]["uid"] != job["metadata"]["uid"]:
            return  # it went after it was listed: nobody would remove its pod
        key = f"{job['metadata']['uid']}/{index}"
        before = self._made.get(key, 0)
        self._made[key] = before + 1
        template = job["spec"]["template"]
        suffix = f"-{index}-" if index is not None else "-"
        annotations = dict(template["metadata"].get("annotations") or {})
        if index is not None:
            annotations[INDEX_ANNOTATION] = str(index)
        pod: Json = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": f"{name}{suffix}",
                "namespace": self._namespace,
                "labels": {
                    **template["metadata"]["labels"],
                    "batch.kubernetes.io/job-name": name,
                },
                "annotations": annotations,
                "ownerReferences": [
                    {
                        "apiVersion": "batch/v1",
                        "kind": "Job",
                        "name": name,
                        "uid": job["metadata"]["uid"],
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": {**template["spec"], "schedulerName": NO_SCHEDULER},
        }
        made = self._api.create(PODS, self._namespace, pod)
        assert made is not None
        fate = self._script(PodStart(self._namespace, name, index, before, made))
        self._fates[made["metadata"]["uid"]] = (fate, time.monotonic())

    def _advance(self, pod: Json) -> None:
        fate, began = self._fates.get(pod["metadata"]["uid"], (None, 0.0))
        if fate is None or _phase(pod) in ("Succeeded", "Failed"):
            return
        container = pod["spec"]["containers"][0]["name"]
        age = time.monotonic() - began
        status: Json = {"phase": "Running", "startTime": stamp(datetime.now(UTC))}
        state: Json = {"running": {"startedAt": stamp(datetime.now(UTC))}}
        if isinstance(fate, CannotStart):
            status["phase"] = "Pending"
            state = {"waiting": {"reason": fate.reason, "message": fate.message}}
        elif isinstance(fate, Evicted) and age >= fate.seconds:
            status |= {"phase": "Failed", "reason": "Evicted", "message": fate.message}
            status["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": fate.reason}
            ]
            state = _terminated(137, "Error", "")
        elif isinstance(fate, Runs) and age >= fate.seconds:
            well = fate.exit_code == 0
            status["phase"] = "Succeeded" if well else "Failed"
            reason = fate.reason or ("Completed" if well else "Error")
            state = _terminated(fate.exit_code, reason, fate.message)
        elif _phase(pod) == status["phase"]:
            return
        status["containerStatuses"] = [
            {
                "name": container,
                "image": "none",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": state,
            }
        ]
        self._write(PODS, pod, status)

    def _ignored(self, job: Json, pod: Json) -> bool:
        return self._action(job, pod) == "Ignore"

    def _fails_job(self, job: Json, pod: Json) -> bool:
        return self._action(job, pod) == "FailJob"

    def _action(self, job: Json, pod: Json) -> str:
        states = pod["status"].get("containerStatuses") or []
        has = {
            one["type"]
            for one in pod["status"].get("conditions") or []
            if one.get("status", "True") == "True"
        }
        for rule in (job["spec"].get("podFailurePolicy") or {}).get("rules", []):
            types = {one["type"] for one in rule.get("onPodConditions") or []}
            asked = rule.get("onExitCodes") or {}
            codes = {
                one["state"].get("terminated", {}).get("exitCode", 0)
                for one in states
                if asked and asked.get("containerName") in (None, one["name"])
            } - {0}
            meant = {
                one for one in codes if (one in asked["values"]) == (asked["operator"] == "In")
            }
            if types & has or meant:
                return str(rule["action"])
        return "Count"

    def _count(self, job: Json, active: int, succeeded: int, failed: int) -> None:
        counts = {"active": active, "succeeded": succeeded, "failed": failed}
        known = job.get("status") or {}
        if {name: known.get(name, 0) for name in counts} != counts or "startTime" not in known:
            now = stamp(datetime.now(UTC))
            self._write(JOBS, job, {**known, **counts, "startTime": known.get("startTime", now)})

    def _finish(self, job: Json, succeeded: int, failed: int, lost: str | None) -> None:
        """As a real server asks for it: first why it ends, then that it has, in one write. lost:
        why it failed."""
        now = stamp(datetime.now(UTC))
        names = ("FailureTarget", "Failed") if lost else ("SuccessCriteriaMet", "Complete")
        reason = lost or "CompletionsReached"
        conditions = [
            {
                "type": name,
                "status": "True",
                "reason": reason,
                "message": "driven by a test",
                "lastProbeTime": now,
                "lastTransitionTime": now,
            }
            for name in names
        ]
        known = job.get("status") or {}
        status: Json = {
            "startTime": known.get("startTime", now),
            "succeeded": succeeded,
            "failed": failed,
            "conditions": conditions,
        }
        if job["spec"].get("completionMode") == "Indexed" and not lost:
            last = job["spec"]["completions"] - 1
            status["completedIndexes"] = f"0-{last}" if last else "0"
        if not lost:
            status["completionTime"] = now
        self._write(JOBS, job, status)

    def _write(self, collection: str, document: Json, status: Json) -> None:
        self._api.replace_status(collection, self._namespace, {**document, "status": status})


def _terminated(code: int, reason: str, message: str) -> Json:
    now = stamp(datetime.now(UTC))
    ended = {"exitCode": code, "reason": reason, "message": message}
    return {"terminated": {**ended, "startedAt": now, "finishedAt": now}}


def _owner(pod: Json) -> str | None:
    owners = pod["metadata"].get("ownerReferences") or []
    return next((str(one["uid"]) for one in owners if one["kind"] == "Job"), None)


def _phase(pod: Json) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def _index(pod: Json) -> int | None:
    text = (pod["metadata"].get("annotations") or {}).get(INDEX_ANNOTATION)
    return None if text is None else int(text)


def _over(job: Json) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(
        one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions
    )
