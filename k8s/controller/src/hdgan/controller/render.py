"""What a Job consists of: pure functions from a request and the settings to Kubernetes objects.

Objects are plain documents with the API's names. Pods pass the Pod Security level "restricted": any
user but root, a root file system that is read only, no capabilities, no API token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hdgan.controller.allowance import beyond
from hdgan.controller.facts import (
    ATTEMPT_LABEL,
    FEATURES_CONTAINER,
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
from hdgan.controller.settings import (
    SERVICE_OF,
    ImageConfig,
    Settings,
    StageName,
    StagePodConfig,
    StoreConfig,
)
from hdgan.controller.unit import Unit
from hdgan.core.request import StageRequest
from hdgan.core.resources import PodConfig, ScratchConfig, SharedPodConfig
from hdgan.core.run import API_VERSION, DatasetRun
from hdgan.core.sections import Section

Document = dict[str, Any]

STAGE_NAMES: Final[Mapping[str, StageName]] = {
    "tiler": "tiler",
    "gan-trainer": "ganTrainer",
    "candidates": "candidates",
    "extractor": "extractor",
    "classifier": "classifier",
    "dataset": "dataset",
}
"""Names in files of the nodes of the graph."""

KEY_ANNOTATION: Final = f"{GROUP}/key"
"""The whole key, which a label has no room for."""
REQUEST_FOLDER: Final = "/hdgan/request"
SCRATCH: Final = "/hdgan/scratch"
CACHE: Final = "/hdgan/cache"
CA_FOLDER: Final = "/hdgan/ca"
TERMINATION_LOG: Final = "/dev/termination-log"
RENDEZVOUS_PORT: Final = 29_500
GRACE_MARGIN: Final = 15
"""Seconds beyond a stage's grace before the kubelet kills it."""
RETRIES_PER_INDEX: Final = 2
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


@dataclass(frozen=True)
class Wanted:
    """What the pods of a stage ask for: the run's own words, else the installation's."""

    run: PodConfig
    installation: StagePodConfig

    def get(self, name: str) -> Any:
        value = getattr(self.run, name, None)
        return getattr(self.installation, name, None) if value is None else value


def wanted(run: DatasetRun, stage: str, settings: Settings) -> Wanted:
    """What the pods of a stage (a node of the graph) ask for."""
    own: dict[StageName, PodConfig] = {
        "tiler": run.spec.resources.pods.tiler,
        "ganTrainer": run.spec.resources.pods.gan_trainer,
        "candidates": run.spec.resources.pods.candidates,
        "extractor": run.spec.resources.pods.extractor,
        "classifier": run.spec.resources.pods.classifier,
        "dataset": run.spec.resources.pods.dataset,
    }
    name = STAGE_NAMES[stage]
    return Wanted(own[name], settings.pods.get(name, StagePodConfig()))


def parts_of(run: DatasetRun, stage: str, settings: Settings) -> int:
    """Pods that share a stage's work."""
    pods = wanted(run, stage, settings)
    own = pods.run.parts if isinstance(pods.run, SharedPodConfig) else None
    return pods.installation.parts if own is None else own


def nodes_of(run: DatasetRun, stage: str) -> int:
    """Machines that work on a stage together."""
    pods = run.spec.resources.pods.gan_trainer
    return pods.nodes or 1 if stage == "gan-trainer" else 1


def scratch_of(run: DatasetRun, settings: Settings) -> ScratchConfig:
    """Where the run's pods keep what may be lost."""
    return run.spec.resources.scratch or settings.scratch


def refused(run: DatasetRun, settings: Settings, namespace: str) -> str | None:
    """Why a run cannot be run in this installation; None if it can. RequestError of `store`."""
    store = settings.store(namespace, run.spec.resources.store)
    spec = run.spec
    places = {
        "spec.slides.uri": spec.slides.uri,
        "spec.slides.metadata": spec.slides.metadata,
        "spec.slides.outlines": spec.slides.outlines,
        "spec.ganTrainer.initFrom": spec.gan_trainer.init_from,
    }
    for path, uri in places.items():
        if uri is not None and not store.may_read(uri):
            allowed = ", ".join([store.uri, *store.sources])
            return (
                f"{path}: {uri} is not in what this namespace's store may read: {allowed}. Copy "
                "it there, or have its prefix added to the store's sources"
            )
    trainer = spec.resources.pods.gan_trainer
    if (trainer.nodes or 1) > 1 and not (spec.resources.queue or trainer.allow_partial_scheduling):
        return (
            f"spec.resources.pods.ganTrainer.nodes is {trainer.nodes}: without a queue some pods "
            "may wait for GPUs others hold. Name a Kueue queue in spec.resources.queue, or set "
            "allowPartialScheduling"
        )
    return beyond(run, settings, namespace)


def job(
    unit: Unit,
    attempt: int,
    requests: Mapping[str, StageRequest],
    run: DatasetRun,
    owner: Owner,
    settings: Settings,
) -> Document:
    """The Job of an attempt. `requests`: by container, as in `request_map`."""
    name = job_name(unit.stage, unit.key, unit.kind, attempt)
    labels = _labels(unit, attempt, owner)
    nodes = nodes_of(run, unit.stage)
    spec: Document = {
        "backoffLimit": 0,
        "podFailurePolicy": _whole_policy(requests),
        "completions": nodes,
        "parallelism": nodes,
        "completionMode": "NonIndexed" if nodes == 1 else "Indexed",
        "podReplacementPolicy": "Failed",
        "suspend": run.spec.resources.queue is not None,
        "template": {
            "metadata": {"labels": dict(labels), "annotations": {KEY_ANNOTATION: unit.key}},
            "spec": _pod(unit, name, requests, run, owner, settings),
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
    if settings.job_managed_by is not None:
        spec["managedBy"] = settings.job_managed_by
    if run.spec.resources.queue is not None:
        labels[QUEUE_LABEL] = run.spec.resources.queue
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
    name = job_name(unit.stage, unit.key, unit.kind, attempt)
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
    name = job_name(unit.stage, unit.key, unit.kind, attempt)
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
            "name": claim_name(unit.features_key or unit.key),
            "namespace": owner.namespace,
            "labels": {
                MANAGED_LABEL: MANAGED_BY,
                RUN_LABEL: owner.name,
                KEY_LABEL: key_label(unit.key),
            },
            "ownerReferences": [owner.reference()],
        },
        "spec": _claim_spec(scratch.claim.storage_class, scratch.claim.size),
    }


def _claim_spec(storage_class: str | None, size: str) -> Document:
    spec: Document = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return spec


def _owned_by_job(name: str, uid: str) -> Document:
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}


def _labels(unit: Unit, attempt: int, owner: Owner) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "hdgan",
        "app.kubernetes.io/component": "stage",
        MANAGED_LABEL: MANAGED_BY,
        RUN_LABEL: owner.name,
        STAGE_LABEL: unit.stage,
        KEY_LABEL: key_label(unit.key),
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


def _pod(
    unit: Unit,
    name: str,
    requests: Mapping[str, StageRequest],
    run: DatasetRun,
    owner: Owner,
    settings: Settings,
) -> Document:
    store = settings.store(owner.namespace, run.spec.resources.store)
    pods = wanted(run, unit.stage, settings)
    scratch = scratch_of(run, settings)
    containers = {
        STAGE_CONTAINER: _container(
            STAGE_CONTAINER, unit.stage, unit, name, requests, run, owner, settings
        )
    }
    if FEATURES_CONTAINER in requests:
        containers[FEATURES_CONTAINER] = _container(
            FEATURES_CONTAINER, "extractor", unit, name, requests, run, owner, settings
        )
    spec: Document = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": run.spec.resources.grace_seconds + GRACE_MARGIN,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            # Volumes with many files would otherwise be walked at each start.
            "fsGroupChangePolicy": "OnRootMismatch",
            **settings.pod_security_context,
        },
        "containers": [containers[STAGE_CONTAINER]],
        "volumes": _volumes(unit, name, pods, store, scratch),
    }
    if FEATURES_CONTAINER in containers:
        spec["initContainers"] = [containers[FEATURES_CONTAINER]]
    if nodes_of(run, unit.stage) > 1:
        spec["subdomain"] = name
    given = {
        "nodeSelector": pods.get("node_selector"),
        "affinity": pods.get("affinity"),
        "priorityClassName": pods.get("priority_class"),
        "runtimeClassName": pods.get("runtime_class"),
        "serviceAccountName": pods.installation.service_account,
    }
    spec |= {key: value for key, value in given.items() if value}
    tolerations = pods.get("tolerations")
    if tolerations:
        spec["tolerations"] = [_dump(one) for one in tolerations]
    template = pods.get("resource_claim_template")
    if template:
        spec["resourceClaims"] = [{"name": "gpus", "resourceClaimTemplateName": template}]
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": one} for one in settings.image_pull_secrets]
    return spec


def _dump(section: Section) -> Document:
    document: Document = section.model_dump(mode="json", by_alias=True, exclude_none=True)
    return document


def _volumes(
    unit: Unit, name: str, pods: Wanted, store: StoreConfig, scratch: ScratchConfig
) -> list[Document]:
    shared: Document = {"medium": "Memory"}
    if size := pods.get("shared_memory"):
        shared["sizeLimit"] = size
    volumes: list[Document] = [
        {"name": "request", "configMap": {"name": name}},
        {"name": "scratch", **_scratch_volume(unit, scratch)},
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": shared},
    ]
    if store.ca_config_map is not None:
        volumes.append({"name": "ca", "configMap": {"name": store.ca_config_map}})
    return volumes


def _scratch_volume(unit: Unit, scratch: ScratchConfig) -> Document:
    if scratch.ephemeral is not None:
        spec = _claim_spec(scratch.ephemeral.storage_class, scratch.ephemeral.size)
        return {"ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
    if scratch.claim is not None and unit.stage in ("extractor", "classifier"):
        return {"persistentVolumeClaim": {"claimName": claim_name(unit.features_key or unit.key)}}
    limit = scratch.empty_dir.size_limit if scratch.empty_dir is not None else None
    return {"emptyDir": {"sizeLimit": limit} if limit else {}}


def _container(
    container: str,
    stage: str,
    unit: Unit,
    name: str,
    requests: Mapping[str, StageRequest],
    run: DatasetRun,
    owner: Owner,
    settings: Settings,
) -> Document:
    store = settings.store(owner.namespace, run.spec.resources.store)
    image: ImageConfig = settings.images[SERVICE_OF[STAGE_NAMES[stage]]]
    pods = wanted(run, stage, settings)
    mounts: list[Document] = [
        {"name": "request", "mountPath": REQUEST_FOLDER, "readOnly": True},
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "cache", "mountPath": CACHE},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if store.ca_config_map is not None:
        mounts.append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
    document: Document = {
        "name": container,
        "image": image.image,
        "imagePullPolicy": image.pull_policy,
        "command": ["python", "-m", f"hdgan.{requests[container].service}"],
        "env": _environment(container, unit, name, run, owner, settings, store, pods),
        "resources": _resources(pods),
        "ports": [{"name": "metrics", "containerPort": settings.metrics_port}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    return document


def _environment(
    container: str,
    unit: Unit,
    name: str,
    run: DatasetRun,
    owner: Owner,
    settings: Settings,
    store: StoreConfig,
    pods: Wanted,
) -> list[Document]:
    values = {
        "HDGAN_REQUEST": f"{REQUEST_FOLDER}/{container}.json",
        "HDGAN_GRACE_SECONDS": str(run.spec.resources.grace_seconds),
        "HDGAN_METRICS_PORT": str(settings.metrics_port),
        "HDGAN_TERMINATION_LOG": TERMINATION_LOG,
        "HOME": CACHE,
        "XDG_CACHE_HOME": CACHE,
        "MPLCONFIGDIR": f"{CACHE}/matplotlib",
        "NUMBA_CACHE_DIR": f"{CACHE}/numba",
        "TMPDIR": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "AWS_REGION": store.region or "us-east-1",
        **pods.installation.env,
    }
    if store.endpoint is not None:
        values["AWS_ENDPOINT_URL_S3"] = store.endpoint
    if store.ca_config_map is not None:
        values["AWS_CA_BUNDLE"] = f"{CA_FOLDER}/ca.crt"
    nodes = nodes_of(run, unit.stage)
    if nodes > 1:
        domain = f"{owner.namespace}.svc.{settings.cluster_domain}"
        values |= {
            "HDGAN_NODES": str(nodes),
            "MASTER_ADDR": f"{name}-0.{name}.{domain}",
            "MASTER_PORT": str(RENDEZVOUS_PORT),
        }
    if run.spec.resources.threads is None and (cpu := pods.get("cpu")):
        # Libraries see the node's cores, not the pod's share of them.
        values["OMP_NUM_THREADS"] = str(threads(cpu))
    environment: list[Document] = [{"name": key, "value": value} for key, value in values.items()]
    environment.append(
        {
            "name": "HDGAN_METRICS_HOST",
            "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}},
        }
    )
    if store.secret is not None:
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            reference: Document = {"name": store.secret, "key": variable}
            if variable == "AWS_SESSION_TOKEN":
                reference["optional"] = True
            environment.append({"name": variable, "valueFrom": {"secretKeyRef": reference}})
    return environment


def _resources(pods: Wanted) -> Document:
    requests: Document = {}
    limits: Document = {}
    if cpu := pods.get("cpu"):
        requests["cpu"] = cpu
    if memory := pods.get("memory"):
        requests["memory"] = limits["memory"] = memory
    if disk := pods.get("ephemeral_storage"):
        requests["ephemeral-storage"] = disk
    claimed = pods.get("resource_claim_template")
    if (gpus := pods.get("gpus")) and not claimed:
        name = pods.get("gpu_resource") or "nvidia.com/gpu"
        requests[name] = limits[name] = str(gpus)
    resources: Document = {}
    if requests:
        resources["requests"] = requests
    if limits:
        resources["limits"] = limits
    if claimed:
        resources["claims"] = [{"name": "gpus"}]
    return resources


_FACTORS: Final[Mapping[str, float]] = {
    "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def threads(cpu: str) -> int:
    """Whole cores of a quantity, at least one."""
    digits = cpu.rstrip("mkKMGTi")
    return max(1, math.floor(float(digits) * _FACTORS[cpu[len(digits) :]]))
