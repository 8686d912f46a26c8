"""What a run may use, on one machine and on a cluster. None of it ever enters a key."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from hdgan.core.sections import Section

Quantity = Annotated[
    str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", max_length=20)
]
"""An amount as Kubernetes writes it: `500m`, `8`, `64Gi`."""
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_NAME = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_KEY = rf"^({_DNS_NAME}/)?{_LABEL_NAME}$"

ObjectName = Annotated[str, Field(pattern=rf"^{_DNS_NAME}$", min_length=1, max_length=253)]
QueueName = Annotated[str, Field(pattern=rf"^{_DNS_NAME}$", min_length=1, max_length=63)]
"""Becomes a label's value, which has at most 63 characters."""
GpuResource = Annotated[str, Field(pattern=rf"^{_DNS_NAME}/{_LABEL_NAME}$", max_length=317)]


def _is_label_key(text: str) -> str:
    # No pattern of the field: the schema of a CustomResourceDefinition cannot say one of keys.
    if re.fullmatch(LABEL_KEY, text) is None:
        raise ValueError(
            f"{text!r} is no label: letters, digits, -, _ and ., at most 63, after example.org/ "
            "where it has a prefix"
        )
    return text


LabelKey = Annotated[str, Field(max_length=317), AfterValidator(_is_label_key)]
LabelValue = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)
]


class TolerationConfig(Section):
    """A taint the pods of a stage may run in spite of."""

    key: str | None = Field(None, pattern=LABEL_KEY, max_length=317)
    """Key of the taint. Null: all, with operator `Exists`."""

    operator: Literal["Equal", "Exists"] = "Equal"
    """`Equal`: the value must be the taint's. `Exists`: any value."""

    value: LabelValue | None = None
    """Value of the taint. Null: the empty one, or any with `Exists`."""

    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Null: all."""

    toleration_seconds: int | None = Field(None, ge=0, le=31_536_000)
    """Seconds a pod stays on a node after a `NoExecute` taint appears. Null: for good."""

    @model_validator(mode="after")
    def _value_is_used(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists takes no value: leave it out, or use Equal")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("a toleration without key needs operator: Exists")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds needs effect: NoExecute")
        return self


class PodConfig(Section):
    """What the pods of one stage ask of a cluster; what is not given here is taken from the
    installation's values."""

    cpu: Quantity | None = None
    """Cores requested, such as `8`. Null: the installation's value."""

    memory: Quantity | None = None
    """Memory requested, and the limit, such as `64Gi`. Null: the installation's value."""

    gpus: int | None = Field(None, ge=0, le=64)
    """GPUs of a pod. Null: the installation's value."""

    gpu_resource: GpuResource | None = None
    """Name of the GPU resource. Null: the installation's value (`nvidia.com/gpu`)."""

    resource_claim_template: ObjectName | None = None
    """ResourceClaimTemplate (dynamic resource allocation) to take GPUs from instead of `gpus`."""

    ephemeral_storage: Quantity | None = None
    """Local disk requested. Null: the installation's value."""

    shared_memory: Quantity | None = None
    """Size of /dev/shm, part of the memory. Null: the installation's value."""

    node_selector: dict[LabelKey, LabelValue] | None = Field(None, max_length=32)
    """Labels a node must have. Null: the installation's value."""

    tolerations: list[TolerationConfig] | None = Field(None, max_length=32)
    """Taints the pods tolerate. Null: the installation's value."""

    affinity: dict[str, JsonValue] | None = Field(
        None,
        max_length=3,
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )
    """Affinity as in a pod's spec. Null: the installation's value."""

    priority_class: ObjectName | None = None
    """PriorityClass. Null: the installation's value."""

    runtime_class: ObjectName | None = None
    """RuntimeClass. Null: the installation's value."""


class SharedPodConfig(PodConfig):
    """Pods that share a stage's work."""

    parts: int | None = Field(None, ge=1, le=1000)
    """Pods the work is shared between. Null: the installation's value. The output is the same
    whatever the number."""


class TrainerPodConfig(PodConfig):
    """Pods that train the GAN."""

    nodes: int | None = Field(None, ge=1, le=64)
    """Machines that train together, one pod each. Null: 1. More than one needs a `queue` (all start
    together or none) or `allowPartialScheduling`."""

    allow_partial_scheduling: bool = False
    """Start training on several machines without a queue, although some pods may hold GPUs while
    others wait for theirs."""


class PodsConfig(Section):
    """What the pods of each stage ask of a cluster; `hdgan run` does not look at it."""

    tiler: SharedPodConfig = SharedPodConfig()
    """Slides to tiles. Reads many slides at once with several parts."""

    gan_trainer: TrainerPodConfig = TrainerPodConfig()
    """Tiles to generator, on one machine or several."""

    candidates: PodConfig = PodConfig()
    """Generator to the images an expert labels."""

    extractor: PodConfig = PodConfig()
    """Features. Where scratch is not a claim, it runs in the classifier's pod, before it, and only
    cpu, memory, gpus and gpuResource of it count."""

    classifier: PodConfig = PodConfig()
    """Features to classifiers."""

    dataset: SharedPodConfig = SharedPodConfig()
    """The synthesizer's dataset."""


class EmptyDirConfig(Section):
    """Scratch in the pod's own folder on its node."""

    size_limit: Quantity | None = None
    """Most it may hold; the pod is evicted beyond. Null: what the node has."""


class EphemeralConfig(Section):
    """Scratch on a volume that is made with the pod and goes with it."""

    storage_class: ObjectName | None = None
    """StorageClass. Null: the cluster's default."""

    size: Quantity = "100Gi"
    """Size of the volume, such as `100Gi`."""


class ClaimConfig(Section):
    """Scratch on one volume that extractor and classifier use after each other."""

    storage_class: ObjectName | None = None
    """StorageClass, whose volumes should bind when a pod first uses them. Null: the cluster's
    default."""

    size: Quantity = "100Gi"
    """Size of the volume, such as `100Gi`."""


class ScratchConfig(Section):
    """Where pods keep what may be lost, feature shards above all: one of the three."""

    empty_dir: EmptyDirConfig | None = None
    """The pod's own folder on its node."""

    ephemeral: EphemeralConfig | None = None
    """A volume for each pod."""

    claim: ClaimConfig | None = None
    """One volume for extractor and classifier, which then run as two Jobs on its node; other stages
    use the pod's own folder."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [self.empty_dir, self.ephemeral, self.claim]
        if sum(one is not None for one in given) != 1:
            raise ValueError("give exactly one of emptyDir, ephemeral and claim")
        return self


class ResourcesConfig(Section):
    """What a run may use. Never enters a key; on a cluster it may be changed while the run
    exists."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run. `auto`: CUDA if there is one, else the CPU."""

    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of a stage (torch and BLAS). Null: all cores."""

    grace_seconds: int = Field(60, ge=1, le=86_400)
    """Seconds a stage gets to save its state when it is told to stop. 60: most states are small;
    give more for large networks on slow stores."""

    processes: int | None = Field(None, ge=1, le=64)
    """Processes that train the GAN together on one machine; at most one for each group of
    `minibatchStdGroup` images in a batch. Null: one per GPU, one on a CPU."""

    peer_timeout_seconds: int = Field(600, ge=1, le=86_400)
    """How long a training process waits for another before all of them end with an error. 600:
    longer than saving a large state takes."""

    slide_cache_gigabytes: float = Field(100.0, gt=0, le=1_000_000)
    """Scratch space for copies of slides from an object store, in 10^9 bytes: the next ones are
    fetched while one is cut. 100: several of the largest. One slide is always fetched."""

    tile_cache_gigabytes: float | None = Field(None, gt=0, le=1_000_000)
    """Most scratch space for training tiles, in 10^9 bytes; further ones are fetched when they are
    needed. Null: 80 % of what is free."""

    store: str | None = Field(
        None, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63
    )
    """On a cluster: name of one of the stores the installation declares for the namespace. Null:
    `default`. `hdgan run` takes `--store`."""

    pods: PodsConfig = PodsConfig()
    """On a cluster: what the pods of each stage ask for."""

    scratch: ScratchConfig | None = None
    """On a cluster: where pods keep what may be lost. Null: the installation's value. `hdgan run`
    takes `--scratch`."""

    queue: QueueName | None = None
    """On a cluster: name of a Kueue LocalQueue, which then starts the Jobs. Null: they start at
    once."""

    stall_seconds: int = Field(3600, ge=60, le=604_800)
    """On a cluster: seconds a running stage may go without progress before it is started again from
    its saved state. 3600: an hour is longer than any step or evaluation takes."""

    lost_node_seconds: int | None = Field(None, ge=60, le=604_800)
    """On a cluster: seconds after which a stage whose node does not answer is started on another.
    Null: never by itself, because a node that is cut off may still be writing; the run says which
    command to type."""
