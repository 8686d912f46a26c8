"""What an installation of the controller is told: namespaces, stores, images, defaults of pods.

One YAML file, written by the Helm chart, read once when the controller starts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from hdgan.core.errors import RequestError
from hdgan.core.redaction import is_secret
from hdgan.core.resources import GpuResource, ObjectName, PodConfig, QueueName, ScratchConfig
from hdgan.core.run_errors import explain
from hdgan.core.run_file import parse_document
from hdgan.core.sections import Section

StageName = Literal[
    "tiler", "ganTrainer", "candidates", "extractor", "classifier", "dataset", "report"
]
Service = Literal["tiler", "ganTrainer", "extractor", "classifier", "synthesizer", "desk"]

SERVICES: dict[str, Service] = {
    "tiler": "tiler",
    "gan_trainer": "ganTrainer",
    "extractor": "extractor",
    "classifier": "classifier",
    "synthesizer": "synthesizer",
    "desk": "desk",
}
"""Names in files of the packages that do stages."""


OPTIONAL: frozenset[Service] = frozenset({"desk"})
"""Without its image runs get no reports."""

DEFAULT_STORE = "default"
"""The store of runs that name none."""


class StoreConfig(Section):
    """A store that runs in a namespace may name."""

    uri: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]*(/.*)?$", max_length=1024)
    """`s3://bucket/prefix`. Required."""

    sources: list[str] = Field([], max_length=64)
    """Prefixes, such as `s3://slides/`, that `slides` and `ganTrainer.initFrom` may lie under,
    besides the store itself. They are read with the store's credentials."""

    endpoint: str | None = Field(None, pattern=r"^https?://[^@?#]+$", max_length=1024)
    """URL of the server. Null: Amazon's."""

    region: str | None = Field(None, pattern=r"^[a-zA-Z0-9-]+$", max_length=64)
    """Region. Null: us-east-1."""

    checksums: Literal["when_required", "when_supported"] = "when_required"
    """Whether requests carry a CRC: only where S3 demands one, or wherever it knows one. Buckets
    with Object Lock want the latter; some servers fail over it. Our own SHA-256 is compared
    anyway."""

    secret: ObjectName | None = None
    """Secret in the run's namespace with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and perhaps
    `AWS_SESSION_TOKEN`, for the pods of stages. Null: they have an identity of their own."""

    credentials: str | None = Field(None, max_length=1024)
    """Folder in the controller's container with files of the same names. Null: the controller has
    an identity of its own."""

    ca_config_map: ObjectName | None = None
    """ConfigMap in the run's namespace with the server's certificate authority under `ca.crt`, for
    the pods of stages."""

    ca_file: str | None = Field(None, max_length=1024)
    """The same as a file in the controller's container."""

    @field_validator("sources")
    @classmethod
    def _are_prefixes(cls, values: list[str]) -> list[str]:
        for value in values:
            if not re.match(r"^s3://[a-z0-9][a-z0-9.-]*/(.*/)?$", value):
                raise ValueError(f"{value!r} must be s3://bucket/ or s3://bucket/prefix/")
        return values

    def may_read(self, uri: str) -> bool:
        """Whether a run with this store may read from `uri`."""
        whole = uri if uri.endswith("/") else f"{uri}/"
        return any(
            whole.startswith(prefix) for prefix in (f"{self.uri.rstrip('/')}/", *self.sources)
        )


class AllowConfig(Section):
    """What the runs of a namespace may ask for beyond what `pods` says of their stage. Whoever may
    only make runs is not to get at nodes, priorities or devices that are meant for others."""

    priority_classes: list[ObjectName] = Field([], max_length=64)
    """PriorityClasses runs may name."""

    runtime_classes: list[ObjectName] = Field([], max_length=64)
    """RuntimeClasses runs may name."""

    gpu_resources: list[GpuResource] = Field(["nvidia.com/gpu"], max_length=64)
    """Resources `gpus` may be of."""

    resource_claim_templates: list[ObjectName] = Field([], max_length=64)
    """ResourceClaimTemplates runs may name."""

    tolerations: bool = False
    """Whether runs may tolerate any taint, those of control planes included."""

    node_selection: bool = False
    """Whether runs may choose their nodes: `nodeSelector` and `affinity`."""

    queues: list[QueueName] | None = Field(None, max_length=64)
    """Kueue LocalQueues runs may name. Null: any."""


class NamespaceConfig(Section):
    """A namespace whose runs are seen to."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    """Its name. Required."""

    stores: dict[str, StoreConfig] = Field(min_length=1, max_length=64)
    """Stores by the name runs give them; `default` is that of runs that name none. Required."""

    allow: AllowConfig = AllowConfig()
    """What its runs may ask for."""


class ImageConfig(Section):
    """The image of one service."""

    image: str = Field(min_length=1, max_length=512)
    """Reference, best with a digest. Required."""

    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the node pulls it."""


class StagePodConfig(PodConfig):
    """What the pods of a stage ask for unless the run says otherwise."""

    service_account: ObjectName | None = None
    """ServiceAccount of the pods, for workload identity; it is given no API token. Null: the
    namespace's default."""

    labels: dict[str, str] = Field({}, max_length=64)
    """More labels of the pods."""

    annotations: dict[str, str] = Field({}, max_length=64)
    """Annotations of the pods."""

    env: dict[str, str] = Field({}, max_length=64)
    """More environment variables: proxies, for example. Everybody who may see pods sees them; what
    is secret belongs into `envSecrets`."""

    env_secrets: list[ObjectName] = Field([], max_length=16)
    """Secrets in the run's namespace whose keys become environment variables, too: those of a proxy
    with a password, for example."""

    parts: int = Field(1, ge=1, le=1000)
    """Pods that share the work of tiler and dataset."""

    @field_validator("env")
    @classmethod
    def _holds_no_secret(cls, values: dict[str, str]) -> dict[str, str]:
        secret = sorted(name for name, value in values.items() if is_secret(name, value))
        if secret:
            raise ValueError(
                f"{', '.join(secret)} would be readable in every pod's description: put it into a "
                "Secret of the runs' namespaces, and name that in envSecrets"
            )
        return values


class ElectionConfig(Section):
    """The Lease that decides which replica works."""

    name: ObjectName = "hdgan-controller"
    """Name of the Lease, in the controller's namespace."""

    lease_seconds: float = Field(30.0, ge=3, le=600)
    """How long others wait after the last renewal they saw. The Lease says it in whole seconds,
    rounded up."""

    renew_seconds: float = Field(20.0, ge=2, le=600)
    """How long after it sent its last successful renewal the leader ends itself; well below
    `leaseSeconds`. The difference is the time that a request under way then has to end."""

    retry_seconds: float = Field(4.0, ge=0.1, le=60)
    """Time between attempts, and the timeout of one; at most half of `renewSeconds`, so that one
    that fails does not end the leader."""

    @property
    def request_seconds(self) -> float:
        """Longest time for a request that changes the cluster, so that one a leader sent just
        before it ended is over before another begins."""
        return 0.9 * (self.lease_seconds - self.renew_seconds)

    @model_validator(mode="after")
    def _leaves_a_margin(self) -> Self:
        if self.renew_seconds + self.retry_seconds >= self.lease_seconds:
            raise ValueError(
                "renewSeconds + retrySeconds must be less than leaseSeconds, or two replicas may "
                "lead at once"
            )
        if 2 * self.retry_seconds > self.renew_seconds:
            raise ValueError(
                "retrySeconds must be at most half of renewSeconds, or one failed attempt ends "
                "the leader"
            )
        return self


class GarbageConfig(Section):
    """How long `python -m hdgan.controller.gc` leaves things in the stores. Others use them at the
    same time, so nothing here can be as short as `hdgan gc` takes it."""

    grace_hours: float = Field(24.0, ge=24, le=8760)
    """Hours from the mark to the removal of an artifact's manifest, and again from there to that of
    its files. At least 24: nothing may sleep longer than half of it between two steps of a
    commit."""

    keep_days: float = Field(30.0, ge=3, le=36_500)
    """Days that what a run has worked with is kept without a release. At least 3: a run says once a
    day that it still works."""

    keep_awaiting_days: float = Field(365.0, ge=3, le=36_500)
    """Days that candidates wait for annotations, with their generator, since their run was last
    seen to."""

    most_percent: float = Field(50.0, ge=0, le=100)
    """Most artifacts that one pass withdraws, in percent of all in the store; 20 always may go. A
    pass that would withdraw more withdraws none, and fails: something that keeps them may be
    lost."""


class Settings(Section):
    """The controller's configuration."""

    namespaces: list[NamespaceConfig] = Field(min_length=1, max_length=256)
    """Namespaces whose runs are seen to. Required."""

    images: dict[Service, ImageConfig]
    """Image of each service. Required, but for `desk`: without it runs get no reports."""

    image_pull_secrets: list[ObjectName] = Field([], max_length=16)
    """Secrets in the runs' namespaces to pull images with."""

    pods: dict[StageName, StagePodConfig] = Field({})
    """Defaults of the pods of each stage."""

    pod_security_context: dict[str, JsonValue] = Field({})
    """Added to the pods' security context: `runAsUser` and `fsGroup`, for example."""

    scratch: ScratchConfig = ScratchConfig.model_validate({"emptyDir": {}})
    """Scratch of runs that do not say."""

    cluster_domain: str = Field("cluster.local", max_length=253)
    """The cluster's DNS domain."""

    metrics_port: int = Field(9464, ge=1024, le=65535)
    """Port on which stages serve `/metrics` and `/progress`."""

    health_port: int = Field(8081, ge=0, le=65535)
    """Port on which the controller serves `/livez`, `/readyz` and `/metrics`. 0: any free one."""

    max_active_jobs: int = Field(20, ge=1, le=10_000)
    """Most Jobs at once in each namespace; further ones wait for their turn."""

    finished_job_seconds: int = Field(3600, ge=0, le=31_536_000)
    """How long finished Jobs and their logs are kept, once their outcome is in the run's status."""

    resync_seconds: float = Field(300.0, ge=1, le=86_400)
    """How often everything is looked at again, whatever watches say."""

    store_poll_seconds: float = Field(60.0, ge=0.1, le=3600)
    """How often a store is asked for new annotations."""

    progress_seconds: float = Field(30.0, ge=1, le=3600)
    """How often progress is read from pods and written to status."""

    start_seconds: float = Field(45.0, ge=1, le=3600)
    """How long a pod may take to start before the reason is sought and shown."""

    job_managed_by: str | None = Field(None, max_length=63)
    """`spec.managedBy` of Jobs, for a Job controller other than the cluster's."""

    election: ElectionConfig = ElectionConfig()
    """Which replica works."""

    gc: GarbageConfig = GarbageConfig()
    """How long things stay in the stores that nothing needs any more."""

    @model_validator(mode="after")
    def _all_services_have_images(self) -> Self:
        missing = sorted(set(SERVICES.values()) - OPTIONAL - set(self.images))
        if missing:
            raise ValueError(f"images lacks {', '.join(missing)}")
        names = [one.name for one in self.namespaces]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"namespaces names {', '.join(twice)} more than once")
        return self

    def store(self, namespace: str, name: str | None) -> StoreConfig:
        """The store a run in a namespace means. RequestError if there is none of this name."""
        stores = next((one.stores for one in self.namespaces if one.name == namespace), {})
        found = stores.get(name or DEFAULT_STORE)
        if found is None:
            known = ", ".join(sorted(stores)) or "none"
            raise RequestError(
                f"spec.resources.store: namespace {namespace} has no store "
                f"{name or DEFAULT_STORE!r}; declared are: {known}"
            )
        return found

    def allow(self, namespace: str) -> AllowConfig:
        """What the runs of a namespace may ask for."""
        return next((one.allow for one in self.namespaces if one.name == namespace), AllowConfig())


def load_settings(path: Path) -> Settings:
    """Read the configuration file. RequestError with path, value and what is allowed."""
    document = parse_document(path)
    try:
        return Settings.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        raise RequestError(explain(error, Settings, str(path))) from None
