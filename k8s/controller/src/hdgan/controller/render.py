"""What a Job consists of: pure functions from a request and the settings to Kubernetes objects, as
plain documents with the API's names. `pods` has what is in its pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hdgan.controller.facts import (
    ATTEMPT_LABEL,
    GROUP,
    KEY_LABEL,
    KIND_LABEL,
    MANAGED_BY,
    MANAGED_LABEL,
    RUN_LABEL,
    STAGE_CONTAINER,
    STAGE_LABEL,
)
from hdgan.controller.names import claim_name, job_name, key_label
from hdgan.controller.pods import RENDEZVOUS_PORT, PodTemplate, claim_spec
from hdgan.controller.settings import Settings, StagePodConfig
from hdgan.controller.unit import Unit
from hdgan.controller.wanted import STAGE_NAMES, nodes_of
from hdgan.core.report_request import STAGE as REPORT
from hdgan.core.request import StageRequest
from hdgan.core.resources import ScratchConfig
from hdgan.core.run import API_VERSION, DatasetRun

Document = dict[str, Any]

KEY_ANNOTATION: Final = f"{GROUP}/key"
"""The whole key, which a label has no room for."""
RETRIES_PER_INDEX: Final = 2
REPORT_RETRIES: Final = 2
REPORT_SECONDS: Final = 1800
"""Longest time for a report, with all tries."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True)
class Owner:
    """The DatasetRun something is made for."""

    name: str
    uid: str
    namespace: str

    def reference(self) -> Document:
        """As an owner of a Job. Not its controller: two runs may own one Job."""
        return {
            "apiVersion": API_VERSION,
            "kind": "DatasetRun",
            "name": self.name,
            "uid": self.uid,
        }


def job(
    unit: Unit,
    attempt: int,
    requests: Mapping[str, StageRequest],
    run: DatasetRun,
    owner: Owner,
    settings: Settings,
) -> Document:
    """The Job of an attempt. `requests`: by container, as in `request_map`."""
    name = job_name(unit.stage, unit.place, unit.kind, attempt)
    labels = _labels(unit, attempt, owner)
    nodes = nodes_of(run, unit.stage)
    # Nobody is to wait in a queue for it.
    queue = None if unit.stage == REPORT else run.spec.resources.queue
    spec: Document = {
        "backoffLimit": 0,
        "podFailurePolicy": _whole_policy(requests),
        "completions": nodes,
        "parallelism": nodes,
        "completionMode": "NonIndexed" if nodes == 1 else "Indexed",
        "podReplacementPolicy": "Failed",
        "suspend": queue is not None,
        "template": {
            "metadata": {"labels": dict(labels), "annotations": {KEY_ANNOTATION: unit.key}},
            "spec": PodTemplate(unit, name, requests, run, owner.namespace, settings).spec(),
        },
    }
    if unit.kind == "parts":
        del spec["backoffLimit"]
        spec |= {
            "completions": unit.parts,
            "parallelism": unit.parts,
            "completionMode": "Indexed",
            "backoffLimitPerIndex": RETRIES_PER_INDEX,
            "podFailurePolicy": _parts_policy(),
        }
    if unit.stage == REPORT:
        # Nothing but a note of how it ended comes of it: the cluster tries again and clears away.
        spec |= {
            "backoffLimit": REPORT_RETRIES,
            "podFailurePolicy": _parts_policy(),
            "activeDeadlineSeconds": REPORT_SECONDS,
            "ttlSecondsAfterFinished": settings.finished_job_seconds,
        }
    if settings.job_managed_by is not None:
        spec["managedBy"] = settings.job_managed_by
    if queue is not None:
        labels[QUEUE_LABEL] = queue
    pods = settings.pods.get(STAGE_NAMES[unit.stage], StagePodConfig())
    template = spec["template"]["metadata"]
    template["labels"] = {**pods.labels, **template["labels"]}  # ours are not to be changed
    template["annotations"] |= pods.annotations
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": labels,
            "annotations": {KEY_ANNOTATION: unit.key},
            "ownerReferences": [owner.reference()],
        },
        "spec": spec,
    }


def request_map(
    unit: Unit,
    attempt: int,
    requests: Mapping[str, StageRequest],
    owner: Owner,
    job_uid: str,
) -> Document:
    """The immutable ConfigMap with a Job's requests, owned by the Job."""
    name = job_name(unit.stage, unit.place, unit.kind, attempt)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": _labels(unit, attempt, owner),
            "ownerReferences": [_owned_by_job(name, job_uid)],
        },
        "immutable": True,
        "data": {
            f"{container}.json": request.model_dump_json(by_alias=True, indent=1)
            for container, request in requests.items()
        },
    }


def rendezvous(unit: Unit, attempt: int, owner: Owner, job_uid: str) -> Document:
    """The headless Service under which the pods of a training on several machines are found."""
    name = job_name(unit.stage, unit.place, unit.kind, attempt)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": _labels(unit, attempt, owner),
            "ownerReferences": [_owned_by_job(name, job_uid)],
        },
        "spec": {
            "clusterIP": "None",
            # Machine 0 waits for the others before it is ready in any other sense.
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT, "protocol": "TCP"}],
        },
    }


def claim(unit: Unit, owner: Owner, scratch: ScratchConfig) -> Document:
    """The volume that extractor and classifier use after each other; goes with its runs."""
    if scratch.claim is None:
        raise ValueError("this scratch is no claim")
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(unit.features_place),
            "namespace": owner.namespace,
            "labels": {
                MANAGED_LABEL: MANAGED_BY,
                RUN_LABEL: owner.name,
                KEY_LABEL: key_label(unit.place),
            },
            "ownerReferences": [owner.reference()],
        },
        "spec": claim_spec(scratch.claim.storage_class, scratch.claim.size),
    }


def _owned_by_job(name: str, uid: str) -> Document:
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}


def _labels(unit: Unit, attempt: int, owner: Owner) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "hdgan",
        "app.kubernetes.io/component": "stage",
        MANAGED_LABEL: MANAGED_BY,
        RUN_LABEL: owner.name,
        STAGE_LABEL: unit.stage,
        KEY_LABEL: key_label(unit.place),
        KIND_LABEL: unit.kind,
        ATTEMPT_LABEL: str(attempt),
    }


def _whole_policy(containers: Iterable[str]) -> Document:
    """One attempt is one Job, so every end fails it. The rules are there for what the Job then
    says: a pod that was deleted is gone before its Job has failed."""
    disrupted: Document = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    failed: list[Document] = [
        {"onExitCodes": {"containerName": name, "operator": "NotIn", "values": [0]}}
        for name in containers
    ]
    return {"rules": [{"action": "FailJob", **rule} for rule in (disrupted, *failed)]}


def _parts_policy() -> Document:
    """In this order: disruptions do not count, what would fail again ends the Job, all else counts.
    A stop that saved its state (75) and was no disruption counts, too: only the controller knows
    whether a stage gets any further from one to the next."""
    codes = {"containerName": STAGE_CONTAINER, "operator": "In"}
    return {
        "rules": [
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
            {"action": "FailJob", "onExitCodes": {**codes, "values": [64, 65]}},
        ]
    }
