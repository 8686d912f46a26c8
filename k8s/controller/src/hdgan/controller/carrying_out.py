"""Carries out what was decided, against the API server. Each of it may be repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from hdgan.controller import api as paths
from hdgan.controller import render
from hdgan.controller.actions import (
    CreateJob,
    DeleteClaim,
    DeleteJob,
    DisownJob,
    Event,
    ForceDeletePods,
    OwnJob,
    SetTtl,
)
from hdgan.controller.api import Api, Conflict, Document, NotFound
from hdgan.controller.facts import KEY_LABEL, STAGE_CONTAINER, JobFacts, job_facts, pod_facts
from hdgan.controller.names import claim_name, job_name, key_label
from hdgan.controller.reporting import wanted_report
from hdgan.controller.requests import requests_for
from hdgan.controller.settings import Settings
from hdgan.controller.situation import RunFacts
from hdgan.controller.status import stamp
from hdgan.controller.unit import Unit
from hdgan.controller.wanted import nodes_of, scratch_of
from hdgan.core.pipeline import External, Observed
from hdgan.core.redaction import redact
from hdgan.core.report_request import STAGE as REPORT
from hdgan.core.request import StageRequest

ClusterAction = CreateJob | OwnJob | DisownJob | DeleteJob | ForceDeletePods | DeleteClaim | SetTtl
COMPONENT = "hdgan-controller"
MAX_EVENT_MESSAGE = 1000


@dataclass(frozen=True)
class Made:
    """A Job that is there now."""

    job: Document
    complete: bool
    """Whether all that its pods need is there, too."""


class CarryingOut:
    """Changes a cluster. `lead` is called before each change and raises where this replica does
    not lead (any more)."""

    def __init__(self, api: Api, settings: Settings, lead: Callable[[], object]) -> None:
        self._api = api
        self._settings = settings
        self._lead = lead

    def create_job(
        self,
        run: RunFacts,
        version: str,
        unit: Unit,
        attempt: int,
        external: External,
        observed: Observed,
    ) -> Made | None:
        """Make the Job of an attempt and what belongs to it. None if, looking again, the run is
        not as it was when that was decided, or something else is still there for the artifact:
        another Job at work, pods of one that is gone, a volume on its way out.

        version: the run's resourceVersion as decided on.
        """
        assert run.run is not None
        # What was decided on may have been late. Asked now, the server answers with the present.
        fresh = self._api.get(paths.RUNS, run.namespace, run.name)
        if fresh is None or fresh["metadata"]["resourceVersion"] != version:
            return None
        name = job_name(unit.stage, unit.place, unit.kind, attempt)
        selector = f"{KEY_LABEL}={key_label(unit.place)}"
        listed = self._api.list(paths.JOBS, run.namespace, labelSelector=selector)
        others = [job for one in listed.items if (job := job_facts(one)) is not None]
        if any(job.live and job.name != name for job in others):
            return None
        uids = {job.uid for job in others if job.name == name}
        pods = self._api.list(paths.PODS, run.namespace, labelSelector=selector).items
        if any(not pod.finished and pod.job_uid not in uids for pod in map(pod_facts, pods)):
            return None
        owner = owner_of(run)
        requests = self._requests(run, unit, external, observed)
        scratch = scratch_of(run.run, self._settings)
        if scratch.claim is not None and unit.stage in ("extractor", "classifier"):
            wanted = render.claim(unit, owner, scratch)
            if not self._ensure_claim(run, wanted):
                return None
        self._lead()
        document = render.job(unit, attempt, requests, run.run, owner, self._settings)
        made = self._api.create(paths.JOBS, run.namespace, document)
        if made is None:
            made = self._api.get(paths.JOBS, run.namespace, name)
            if made is None or made["metadata"].get("deletionTimestamp"):
                return None
        uid = made["metadata"]["uid"]
        return Made(made, self.complete_job(run, unit, attempt, uid, external, observed))

    def complete_job(
        self,
        run: RunFacts,
        unit: Unit,
        attempt: int,
        uid: str,
        external: External,
        observed: Observed,
    ) -> bool:
        """Make what the pods of a Job need and a controller that died may not have made. False if
        what an earlier Job of the same name left is in the way: it is deleted, try again."""
        assert run.run is not None
        owner = owner_of(run)
        requests = self._requests(run, unit, external, observed)
        belongings = [(paths.CONFIG_MAPS, render.request_map(unit, attempt, requests, owner, uid))]
        if nodes_of(run.run, unit.stage) > 1:
            belongings.append((paths.SERVICES, render.rendezvous(unit, attempt, owner, uid)))
        made = [self._ensure(collection, run.namespace, one, uid) for collection, one in belongings]
        return all(made)

    def _requests(
        self, run: RunFacts, unit: Unit, external: External, observed: Observed
    ) -> dict[str, StageRequest]:
        """By container."""
        assert run.run is not None
        if unit.stage == REPORT:
            request = wanted_report(run)
            assert request is not None
            return {STAGE_CONTAINER: request}
        return requests_for(unit, run.run, external, observed, self._settings, run.namespace)

    def _ensure(self, collection: str, namespace: str, document: Document, uid: str) -> bool:
        """Make what belongs to the Job of this UID. False if that of another is in the way."""
        self._lead()
        if self._api.create(collection, namespace, document) is not None:
            return True
        name = document["metadata"]["name"]
        known = self._api.get(collection, namespace, name)
        if known is None:
            return False
        meta = known["metadata"]
        owners = {one.get("uid") for one in meta.get("ownerReferences") or []}
        if uid in owners and not meta.get("deletionTimestamp"):
            return True
        self._api.delete(collection, namespace, name, uid=meta["uid"])
        return False

    def _ensure_claim(self, run: RunFacts, wanted: Document) -> bool:
        """Make a volume, or become an owner of the one that is there. False while that goes."""
        self._lead()
        if self._api.create(paths.CLAIMS, run.namespace, wanted) is not None:
            return True
        name = wanted["metadata"]["name"]
        known = self._api.get(paths.CLAIMS, run.namespace, name)
        if known is None or known["metadata"].get("deletionTimestamp"):
            return False
        owners = known["metadata"].get("ownerReferences") or []
        if all(one.get("uid") != run.uid for one in owners):
            version = known["metadata"]["resourceVersion"]
            mine = [*owners, owner_of(run).reference()]
            change = {"metadata": {"ownerReferences": mine, "resourceVersion": version}}
            try:
                self._api.patch(paths.CLAIMS, run.namespace, name, change)
            except (NotFound, Conflict):
                return False
        return True

    def change(self, run: RunFacts, action: ClusterAction, jobs: dict[str, JobFacts]) -> None:
        """All but making Jobs."""
        self._lead()
        match action:
            case OwnJob(name):
                self._change_owners(run, name, add=True)
            case DisownJob(name):
                self._change_owners(run, name, add=False)
            case DeleteJob(name):
                uid = jobs[name].uid if name in jobs else None
                self._api.delete(paths.JOBS, run.namespace, name, uid=uid, propagation="Foreground")
            case ForceDeletePods(names):
                for name in names:
                    self._api.delete(paths.PODS, run.namespace, name, force=True)
            case DeleteClaim(key):
                self._api.delete(paths.CLAIMS, run.namespace, claim_name(key))
            case SetTtl(name):
                seconds = self._settings.finished_job_seconds
                self._patch_job(run, name, {"spec": {"ttlSecondsAfterFinished": seconds}})

    def _change_owners(self, run: RunFacts, name: str, *, add: bool) -> None:
        job = self._api.get(paths.JOBS, run.namespace, name)
        if job is None:
            return
        owners = job["metadata"].get("ownerReferences") or []
        others = [one for one in owners if one.get("uid") != run.uid]
        wanted = [*others, owner_of(run).reference()] if add else others
        if wanted == owners or not wanted:
            return  # without an owner nobody would ever remove it
        version = job["metadata"]["resourceVersion"]
        change = {"metadata": {"ownerReferences": wanted, "resourceVersion": version}}
        self._patch_job(run, name, change)

    def _patch_job(self, run: RunFacts, name: str, change: Document) -> None:
        try:
            self._api.patch(paths.JOBS, run.namespace, name, change)
        except (NotFound, Conflict):
            return  # the next round sees it as it is now, and decides again

    def tell(self, run: RunFacts, event: Event, now: datetime) -> None:
        """Record an Event; the same one again raises its count."""
        digest = hashlib.sha256(f"{run.uid}{event.reason}{event.message}".encode()).hexdigest()
        name = f"{run.name}.{digest[:16]}"
        document: Document = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": run.namespace},
            "involvedObject": {**owner_of(run).reference(), "namespace": run.namespace},
            "type": event.kind,
            "reason": event.reason,
            "message": redact(event.message)[:MAX_EVENT_MESSAGE],
            "firstTimestamp": stamp(now),
            "lastTimestamp": stamp(now),
            "count": 1,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": "",
        }
        if self._api.create(paths.EVENTS, run.namespace, document) is not None:
            return
        known = self._api.get(paths.EVENTS, run.namespace, name)
        if known is not None:
            count = int(known.get("count") or 1) + 1
            change = {"count": count, "lastTimestamp": stamp(now)}
            self._api.patch(paths.EVENTS, run.namespace, name, change)


def owner_of(run: RunFacts) -> render.Owner:
    """The run as an owner."""
    return render.Owner(run.name, run.uid, run.namespace)
