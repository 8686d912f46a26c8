"""What a run may ask for of a cluster: what the installation says of a stage itself, and what it
allows the runs of a namespace. Who may only make runs must not get further through them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, Final

from hdgan.controller.settings import AllowConfig, Settings, StagePodConfig
from hdgan.core.resources import PodConfig
from hdgan.core.run import DatasetRun

DEFAULT_GPU: Final = "nvidia.com/gpu"
MOST_SHOWN: Final = 200


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


def beyond(run: DatasetRun, settings: Settings, namespace: str) -> str | None:
    """The first thing a run asks for that it may not have; None if it may have everything."""
    return next(_all_beyond(run, settings, namespace), None)


def _all_beyond(run: DatasetRun, settings: Settings, namespace: str) -> Iterator[str]:
    allow = settings.allow(namespace)
    installation = {str(stage): pods for stage, pods in settings.pods.items()}

    def refusal(path: str, value: Any, allowed: str, setting: str) -> str:
        return (
            f"spec.resources.{path}: {_shown(value)} is not allowed in namespace {namespace}; "
            f"allowed: {allowed}. Leave it out, or ask whoever runs the controller to change "
            f"allow.{setting} of the namespace in its settings"
        )

    queue = run.spec.resources.queue
    if queue is not None and allow.queues is not None and queue not in allow.queues:
        yield refusal("queue", queue, _list(allow.queues), "queues")
    pods = run.spec.resources.pods
    for name, field in type(pods).model_fields.items():
        stage = field.alias or name
        own: PodConfig = getattr(pods, name)
        base = installation.get(stage, StagePodConfig())
        for key, value, allowed, setting in _beyond(own, base, allow):
            yield refusal(f"pods.{stage}.{key}", value, allowed, setting)


def _beyond(
    own: PodConfig, base: StagePodConfig, allow: AllowConfig
) -> Iterator[tuple[str, Any, str, str]]:
    """Field, value, what is allowed, and the setting that says so."""
    named = (
        ("priorityClass", own.priority_class, base.priority_class, allow.priority_classes),
        ("runtimeClass", own.runtime_class, base.runtime_class, allow.runtime_classes),
        (
            "resourceClaimTemplate",
            own.resource_claim_template,
            base.resource_claim_template,
            allow.resource_claim_templates,
        ),
    )
    settings = ("priorityClasses", "runtimeClasses", "resourceClaimTemplates")
    for (key, value, given, may), setting in zip(named, settings, strict=True):
        allowed = {*may} if given is None else {*may, given}
        if value is not None and value not in allowed:
            yield key, value, _list(allowed), setting
    yield from _gpus_beyond(own, base, allow)
    given_tolerations = base.tolerations or []
    for one in own.tolerations or []:
        if not allow.tolerations and one not in given_tolerations:
            shown = [_dump(given) for given in given_tolerations]
            yield "tolerations", _dump(one), _shown(shown) if shown else "none", "tolerations"
    # An empty selector would take the installation's away.
    for key, asked, given_nodes in (
        ("nodeSelector", own.node_selector, base.node_selector),
        ("affinity", own.affinity, base.affinity),
    ):
        if asked is not None and asked != (given_nodes or {}) and not allow.node_selection:
            yield key, asked, _shown(given_nodes) if given_nodes else "none", "nodeSelection"


def _gpus_beyond(
    own: PodConfig, base: StagePodConfig, allow: AllowConfig
) -> Iterator[tuple[str, Any, str, str]]:
    if own.resource_claim_template or base.resource_claim_template:
        return  # `gpus` counts for nothing then
    allowed = {*allow.gpu_resources}
    if base.gpu_resource or base.gpus:
        allowed.add(base.gpu_resource or DEFAULT_GPU)
    name = own.gpu_resource or base.gpu_resource or DEFAULT_GPU
    if name in allowed:
        return
    if own.gpu_resource is not None:
        yield "gpuResource", name, _list(allowed), "gpuResources"
    elif own.gpus:
        yield "gpus", f"{own.gpus} of {name}", _list(allowed), "gpuResources"


def _dump(section: Any) -> Any:
    return section.model_dump(mode="json", by_alias=True, exclude_none=True)


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
