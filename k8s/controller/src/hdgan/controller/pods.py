"""The pods of a stage: one container for it, and where the features are made in the same pod, one
before it. They pass the Pod Security level "restricted": any user but root, a root file system that
is read only, no capabilities, no API token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hdgan.controller.facts import FEATURES_CONTAINER, STAGE_CONTAINER
from hdgan.controller.names import claim_name
from hdgan.controller.reporting import SCRATCH
from hdgan.controller.settings import SERVICES, Settings, StoreConfig
from hdgan.controller.unit import Unit
from hdgan.controller.wanted import (
    Wanted,
    nodes_of,
    scratch_of,
    threads,
    wanted,
)
from hdgan.core.report_request import STAGE as REPORT
from hdgan.core.request import StageRequest
from hdgan.core.resources import ScratchConfig
from hdgan.core.run import DatasetRun
from hdgan.core.sections import Section

Document = dict[str, Any]

REQUEST_FOLDER: Final = "/hdgan/request"
CACHE: Final = "/hdgan/cache"
CA_FOLDER: Final = "/hdgan/ca"
TERMINATION_LOG: Final = "/dev/termination-log"
RENDEZVOUS_PORT: Final = 29_500
GRACE_MARGIN: Final = 15
"""Seconds beyond a stage's grace before the kubelet kills it."""
SCRATCH_GROUP: Final = 65_532
"""Group of volumes that a driver makes, unless `podSecurityContext` says another: most are root's,
and nobody else's to write."""


@dataclass(frozen=True)
class PodTemplate:
    """The pods of one Job. `name`: the Job's; `requests`: by container."""

    unit: Unit
    name: str
    requests: Mapping[str, StageRequest]
    run: DatasetRun
    namespace: str
    settings: Settings

    @property
    def store(self) -> StoreConfig:
        """Where the stage reads and writes."""
        return self.settings.store(self.namespace, self.run.spec.resources.store)

    @property
    def scratch(self) -> ScratchConfig:
        """Where it keeps what may be lost."""
        return scratch_of(self.run, self.settings)

    def spec(self) -> Document:
        """Spec of the pods."""
        pods = wanted(self.run, self.unit.stage, self.settings)
        spec: Document = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": self.run.spec.resources.grace_seconds + GRACE_MARGIN,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": self._security(),
            "containers": [self._container(STAGE_CONTAINER, self.unit.stage, pods)],
            "volumes": self._volumes(pods),
        }
        if FEATURES_CONTAINER in self.requests:
            features = wanted(self.run, "extractor", self.settings)
            spec["initContainers"] = [self._container(FEATURES_CONTAINER, "extractor", features)]
        if nodes_of(self.run, self.unit.stage) > 1:
            spec["subdomain"] = self.name
        given = {
            "nodeSelector": pods.get("node_selector"),
            "affinity": pods.get("affinity"),
            "priorityClassName": pods.get("priority_class"),
            "runtimeClassName": pods.get("runtime_class"),
            "serviceAccountName": pods.installation.service_account,
            "tolerations": [_dump(one) for one in pods.get("tolerations") or []],
            "imagePullSecrets": [{"name": one} for one in self.settings.image_pull_secrets],
        }
        spec |= {key: value for key, value in given.items() if value}
        template = pods.get("resource_claim_template")
        if template:
            spec["resourceClaims"] = [{"name": "gpus", "resourceClaimTemplateName": template}]
        return spec

    def _security(self) -> Document:
        security: Document = {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            # Volumes with many files would otherwise be walked at each start.
            "fsGroupChangePolicy": "OnRootMismatch",
        }
        if self.scratch.empty_dir is None:
            security["fsGroup"] = SCRATCH_GROUP
        security |= self.settings.pod_security_context
        return {key: value for key, value in security.items() if value is not None}

    def _volumes(self, pods: Wanted) -> list[Document]:
        shared: Document = {"medium": "Memory"}
        if size := pods.get("shared_memory"):
            shared["sizeLimit"] = size
        volumes: list[Document] = [
            {"name": "request", "configMap": {"name": self.name}},
            {"name": "scratch", **self._scratch_volume()},
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": shared},
        ]
        if self.store.ca_config_map is not None:
            volumes.append({"name": "ca", "configMap": {"name": self.store.ca_config_map}})
        return volumes

    def _scratch_volume(self) -> Document:
        scratch, unit = self.scratch, self.unit
        if unit.stage == REPORT:
            return {"emptyDir": {}}  # a log, whatever the stages need
        if scratch.ephemeral is not None:
            spec = claim_spec(scratch.ephemeral.storage_class, scratch.ephemeral.size)
            return {"ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
        if scratch.claim is not None and unit.stage in ("extractor", "classifier"):
            name = claim_name(unit.features_place)
            return {"persistentVolumeClaim": {"claimName": name}}
        limit = scratch.empty_dir.size_limit if scratch.empty_dir is not None else None
        return {"emptyDir": {"sizeLimit": limit} if limit else {}}

    def _container(self, name: str, stage: str, pods: Wanted) -> Document:
        image = self.settings.images[SERVICES[self.requests[name].service]]
        mounts: list[Document] = [
            {"name": "request", "mountPath": REQUEST_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "cache", "mountPath": CACHE},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ]
        if self.store.ca_config_map is not None:
            mounts.append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
        secrets = [{"secretRef": {"name": one}} for one in pods.installation.env_secrets]
        return {
            **({"envFrom": secrets} if secrets else {}),
            "name": name,
            "image": image.image,
            "imagePullPolicy": image.pull_policy,
            "command": ["python", "-m", f"hdgan.{self.requests[name].service}"],
            "env": self._environment(name, pods),
            # Devices are claimed for the pod, so by the stage it is made for.
            "resources": resources(pods, claims=stage == self.unit.stage),
            "ports": [{"name": "metrics", "containerPort": self.settings.metrics_port}],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "terminationMessagePath": TERMINATION_LOG,
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }

    def _environment(self, container: str, pods: Wanted) -> list[Document]:
        run, store = self.run, self.store
        values = {
            "HDGAN_REQUEST": f"{REQUEST_FOLDER}/{container}.json",
            "HDGAN_GRACE_SECONDS": str(run.spec.resources.grace_seconds),
            "HDGAN_METRICS_PORT": str(self.settings.metrics_port),
            "HDGAN_TERMINATION_LOG": TERMINATION_LOG,
            "HOME": CACHE,
            "XDG_CACHE_HOME": CACHE,
            "MPLCONFIGDIR": f"{CACHE}/matplotlib",
            "NUMBA_CACHE_DIR": f"{CACHE}/numba",
            "TMPDIR": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "AWS_REGION": store.region or "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": store.checksums,
            "AWS_RESPONSE_CHECKSUM_VALIDATION": store.checksums,
            **pods.installation.env,
        }
        if store.endpoint is not None:
            values["AWS_ENDPOINT_URL_S3"] = store.endpoint
        if store.ca_config_map is not None:
            values["AWS_CA_BUNDLE"] = f"{CA_FOLDER}/ca.crt"
        nodes = nodes_of(run, self.unit.stage)
        if nodes > 1:
            domain = f"{self.namespace}.svc.{self.settings.cluster_domain}"
            values |= {
                "HDGAN_NODES": str(nodes),
                "MASTER_ADDR": f"{self.name}-0.{self.name}.{domain}",
                "MASTER_PORT": str(RENDEZVOUS_PORT),
            }
        if run.spec.resources.threads is None and (cpu := pods.get("cpu")):
            # Libraries see the node's cores, not the pod's share of them.
            values["OMP_NUM_THREADS"] = str(threads(cpu))
        environment: list[Document] = [
            {"name": key, "value": value} for key, value in values.items()
        ]
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


def claim_spec(storage_class: str | None, size: str) -> Document:
    """Spec of a claim for a volume that one node at a time may use."""
    spec: Document = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return spec


def resources(pods: Wanted, *, claims: bool = True) -> Document:
    """What a container asks for; memory is both request and limit."""
    requests: Document = {}
    limits: Document = {}
    if cpu := pods.get("cpu"):
        requests["cpu"] = cpu
    if memory := pods.get("memory"):
        requests["memory"] = limits["memory"] = memory
    if disk := pods.get("ephemeral_storage"):
        requests["ephemeral-storage"] = disk
    claimed = pods.get("resource_claim_template") if claims else None
    if (gpus := pods.get("gpus")) and not claimed:
        name = pods.get("gpu_resource") or "nvidia.com/gpu"
        requests[name] = limits[name] = str(gpus)
    asked: Document = {}
    if requests:
        asked["requests"] = requests
    if limits:
        asked["limits"] = limits
    if claimed:
        asked["claims"] = [{"name": "gpus"}]
    return asked


def _dump(section: Section) -> Document:
    document: Document = section.model_dump(mode="json", by_alias=True, exclude_none=True)
    return document
