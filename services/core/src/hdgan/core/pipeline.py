"""The stage graph as values, and pure functions over it: keys, requests, what is ready, what waits.

Nothing here reads a store or a clock. `hdgan.core.observe` finds out what exists, `local` (and, on
a cluster, the controller) does what `plan` says comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import JsonValue

from hdgan.core.artifact import artifact_key
from hdgan.core.canonical import canonical_digest
from hdgan.core.gates import GateVerdict, Measured, failed, verdicts
from hdgan.core.request import InputRef, StageRequest
from hdgan.core.run import DatasetRun, RunSpec
from hdgan.core.sections import Section, semantic

STAGE_VERSIONS: Final[Mapping[str, int]] = {
    "slide-tiles": 2,
    "tiler": 2,
    "gan-trainer": 2,
    "drift": 1,
    "candidates": 2,
    "ranking": 1,
    "reranking": 1,
    "annotations": 1,
    "extractor": 3,
    "classifier": 3,
    "dataset": 4,
}
"""One number per stage, raised when the bytes or the meaning of its output change."""

Config = dict[str, JsonValue]

ANNOTATIONS: Final = "annotations"
GATE: Final = "gate"
HELD: Final = frozenset({"candidates", "ranking", "extractor", "classifier", "dataset"})
"""Nodes that are not begun once a gate has said no. Tiles and drift are worth having all the same,
and to know what should be labelled next most of all."""


RANKING: Final = "ranking"
RERANKING: Final = "reranking"
ADVICE: Final = frozenset({RANKING, RERANKING})
"""Nodes that tell a person which candidates to label, before the first labels and after them.
Nothing is made from what they make, so it enters no release."""
CHOSEN_FROM: Final = frozenset({"gan-trainer", "candidates", RANKING})
"""Nodes whose artifacts a person who is to label needs, for as long as that takes."""


@dataclass(frozen=True)
class External:
    """What a run depends on that no stage makes, pinned when the run starts."""

    slides_key: str
    """Where the snapshot of the slides lies in the store."""
    slides_digest: str
    init_digest: str | None = None
    """Digest of the networks `ganTrainer.initFrom` names; None without it."""
    facts_key: str | None = None
    """Where the store keeps what is known about the slides; None if that is nothing."""
    facts_digest: str | None = None
    folds: InputRef | None = None
    """The tiler's artifact whose folds are kept; None for the first run of a name."""
    folds_digest: str | None = None
    """SHA-256 of its folds.parquet."""
    release: str | None = None
    """The release whose generator is used; None: one is trained."""
    generator: InputRef | None = None
    """That release's artifacts."""
    candidates: InputRef | None = None
    before: InputRef | None = None
    """The tiling that release was made with."""

    def taken_over(self) -> dict[str, InputRef]:
        """Artifacts by node that are used as they are, whatever the run's sections say."""
        given = {"gan-trainer": self.generator, "candidates": self.candidates}
        return {name: one for name, one in given.items() if one is not None}

    def references(self) -> list[InputRef]:
        """All artifacts of other runs that this one reads."""
        given = (self.folds, self.generator, self.candidates, self.before)
        return [one for one in given if one is not None]


@dataclass(frozen=True)
class Node:
    """One stage in the graph. `semantic` is what enters its key, `context` what it is told of
    other sections."""

    name: str
    service: str
    inputs: Mapping[str, str]
    """Name of the input -> node that makes it (or `annotations`)."""
    section: Callable[[RunSpec], Section]
    semantic: Callable[[RunSpec], dict[str, Any]]
    context: Callable[[RunSpec, External], Config]
    pinned: bool = False
    """Only where a release's generator is used."""
    cache: bool = False
    """Fills a cache on scratch instead of making an artifact; needed only by the next node."""


def _classes(spec: RunSpec) -> list[JsonValue]:
    return [{"name": item.name, "color": item.color} for item in spec.annotations.classes]


def _dump(section: Section) -> Config:
    values: Config = section.model_dump(mode="json", by_alias=True)
    return values


def _trainer_context(spec: RunSpec, external: External) -> Config:
    context: Config = {
        "tileSize": spec.tiler.tile_size,
        "mpp": spec.tiler.mpp,
        "processes": spec.resources.processes,
        "peerTimeoutSeconds": spec.resources.peer_timeout_seconds,
        "tileCacheGigabytes": spec.resources.tile_cache_gigabytes,
        "holdout": spec.tiler.holdout,
    }
    if spec.gan_trainer.init_from is not None:
        context |= {"initFrom": spec.gan_trainer.init_from, "initDigest": external.init_digest}
    return context


def _features(spec: RunSpec, external: External) -> Config:
    return {"blocks": spec.extractor.blocks, "dtype": spec.extractor.dtype}


_ANNOTATED: Final = {
    "generator": "gan-trainer",
    "candidates": "candidates",
    "annotations": "annotations",
}

NODES: Final[tuple[Node, ...]] = (
    Node(
        "tiler",
        "tiler",
        {},
        lambda spec: spec.tiler,
        lambda spec: {"slides": semantic(spec.slides), "tiler": semantic(spec.tiler)},
        lambda spec, external: {
            "slides": external.slides_key,
            "slideFacts": external.facts_key,
            "slidesConfig": _dump(spec.slides),
            "slideCacheGigabytes": spec.resources.slide_cache_gigabytes,
        },
    ),
    Node(
        "gan-trainer",
        "gan_trainer",
        {"tiles": "tiler"},
        lambda spec: spec.gan_trainer,
        lambda spec: {"ganTrainer": semantic(spec.gan_trainer)},
        _trainer_context,
    ),
    Node(
        "drift",
        "gan_trainer",
        {"tiles": "tiler", "generator": "gan-trainer"},
        lambda spec: spec.gan_trainer,
        lambda spec: {
            "drift": {
                "seed": spec.gan_trainer.seed,
                "metricSamples": spec.gan_trainer.metric_samples,
                "featureExtractor": spec.gan_trainer.feature_extractor,
            }
        },
        lambda spec, external: {},
        pinned=True,
    ),
    Node(
        "candidates",
        "synthesizer",
        {"generator": "gan-trainer"},
        lambda spec: spec.candidates,
        lambda spec: {"candidates": semantic(spec.candidates)},
        lambda spec, external: {"mpp": spec.tiler.mpp, "tileSize": spec.tiler.tile_size},
    ),
    Node(
        RANKING,
        "synthesizer",
        {"generator": "gan-trainer", "candidates": "candidates"},
        lambda spec: spec.candidates,
        lambda spec: {"extractor": semantic(spec.extractor)},
        _features,
    ),
    Node(
        "extractor",
        "extractor",
        _ANNOTATED,
        lambda spec: spec.extractor,
        lambda spec: {"extractor": semantic(spec.extractor), "classes": _classes(spec)},
        lambda spec, external: {"classes": _classes(spec), "mpp": spec.tiler.mpp},
        cache=True,
    ),
    Node(
        "classifier",
        "classifier",
        _ANNOTATED,
        lambda spec: spec.classifier,
        lambda spec: {
            "classifier": semantic(spec.classifier),
            "extractor": semantic(spec.extractor),
            "classes": _classes(spec),
            "mpp": spec.tiler.mpp,
        },
        lambda spec, external: {
            "classes": _classes(spec),
            "mpp": spec.tiler.mpp,
            "extractor": _dump(spec.extractor),
        },
    ),
    Node(
        RERANKING,
        "synthesizer",
        {"generator": "gan-trainer", "candidates": "candidates", "ensemble": "classifier"},
        lambda spec: spec.candidates,
        lambda spec: {},
        lambda spec, external: {},
    ),
    Node(
        "dataset",
        "synthesizer",
        {"generator": "gan-trainer", "ensemble": "classifier"},
        lambda spec: spec.synthesizer,
        lambda spec: {
            "synthesizer": semantic(spec.synthesizer),
            "extractor": semantic(spec.extractor),
            "classes": _classes(spec),
            "mpp": spec.tiler.mpp,
        },
        lambda spec, external: {
            "classes": _classes(spec),
            "mpp": spec.tiler.mpp,
            "blocks": spec.extractor.blocks,
            "dtype": spec.extractor.dtype,
            "extractor": _dump(spec.extractor),
        },
    ),
)

BY_NAME: Final[Mapping[str, Node]] = {node.name: node for node in NODES}


@dataclass(frozen=True)
class Observed:
    """What exists: artifacts by node name, and what decides whether to go on."""

    artifacts: Mapping[str, InputRef] = field(default_factory=dict)
    """Also `annotations`, when there are any for these candidates that are complete."""
    annotations_lack: str | None = None
    """What is still missing from annotations that exist but are not complete."""
    measured: Measured = field(default_factory=Measured)
    """What gates look at."""
    drift_kid: float | None = None
    """KID of the tiles against a pinned generator's samples: of new slides' tiles, else of all."""

    @property
    def macro_dice(self) -> float | None:
        """Macro Dice on the test images, once the classifier is there and has been looked at."""
        return None if self.measured.scores is None else self.measured.scores.macro_dice


State = Literal["done", "ready", "waiting", "skipped", "awaiting", "failed"]


@dataclass(frozen=True)
class NodeStatus:
    """Where one node (or the gates) of a run stands.

    done      it exists, or all gates let through      ready     all it needs exists
    waiting   for an earlier node                      skipped   a cache nobody needs now
    awaiting  a person's annotations                   failed    a gate says no
    """

    name: str
    state: State
    key: str | None = None
    content_digest: str | None = None
    reason: str = ""


def nodes_of(external: External) -> tuple[Node, ...]:
    """The stages of a run, in the order they run."""
    return tuple(node for node in NODES if external.release is not None or not node.pinned)


def node_inputs(node: Node, observed: Observed) -> dict[str, InputRef] | None:
    """The input artifacts of a node, or None while one of them does not exist."""
    found = {name: observed.artifacts.get(source) for name, source in node.inputs.items()}
    present = {name: ref for name, ref in found.items() if ref is not None}
    return present if len(present) == len(found) else None


def node_key(
    node: Node, run: DatasetRun, external: External, inputs: Mapping[str, InputRef]
) -> str:
    """Key of a node's output. `run` is resolved."""
    digests = {name: ref.content_digest for name, ref in inputs.items()}
    if node.name == "tiler":
        digests["slides"] = external.slides_digest
        if external.facts_digest is not None:
            digests["slideFacts"] = external.facts_digest
        if external.folds_digest is not None:
            digests["folds"] = external.folds_digest
    if node.name == "drift" and external.before is not None:
        digests["before"] = external.before.content_digest
    if node.name == "gan-trainer" and external.init_digest is not None:
        digests["init"] = external.init_digest
    rerun = {str(name): token for name, token in run.spec.rerun.items()}
    return artifact_key(
        node.name,
        STAGE_VERSIONS[node.name],
        node.semantic(run.spec),
        digests,
        rerun=rerun.get(node.name),
    )


def known_key(node: Node, run: DatasetRun, external: External, observed: Observed) -> str | None:
    """Key of a node's output, or None while an input is missing."""
    inputs = node_inputs(node, observed)
    return None if inputs is None else node_key(node, run, external, inputs)


def plan(run: DatasetRun, external: External, observed: Observed) -> list[NodeStatus]:
    """Where every node and the gates stand, in the order they run."""
    statuses: list[NodeStatus] = []
    gate = gate_status(run, observed)
    for node in nodes_of(external):
        if node.name == "extractor":
            statuses.append(_annotations_status(run, observed, gate))
        if node.name == "dataset":
            statuses.append(gate)
        statuses.append(_node_status(node, run, external, observed, gate))
    return statuses


def _node_status(
    node: Node,
    run: DatasetRun,
    external: External,
    observed: Observed,
    gate: NodeStatus,
) -> NodeStatus:
    key = known_key(node, run, external, observed)
    if node.cache and "classifier" in observed.artifacts:
        return NodeStatus(node.name, "skipped", key, reason="the classifier is there already")
    if node.name == "drift" and _same(observed.artifacts.get("tiler"), external.before):
        return NodeStatus(node.name, "skipped", key, reason="the tiles are the release's")
    reference = observed.artifacts.get(node.name)
    if reference is not None:
        return NodeStatus(node.name, "done", reference.key, reference.content_digest)
    if node.name in ADVICE and run.spec.candidates.select == "random":
        return NodeStatus(node.name, "skipped", key, reason="candidates.select is random")
    if node.name == RANKING and ANNOTATIONS in observed.artifacts:
        return NodeStatus(node.name, "skipped", key, reason="the candidates are labelled already")
    if key is None:
        missing = [s for s in node.inputs.values() if s not in observed.artifacts]
        return NodeStatus(node.name, "waiting", reason=f"for {', '.join(missing)}")
    if (gate.state == "failed" and node.name in HELD) or (
        gate.state != "done" and node.name == "dataset"
    ):
        return NodeStatus(node.name, "waiting", key, reason="for the gates")
    if node.name == "classifier":
        # Its features are made by the node before it, which runs whenever this one has to.
        return NodeStatus(node.name, "waiting", key, reason="for extractor")
    return NodeStatus(node.name, "ready", key)


def _same(one: InputRef | None, other: InputRef | None) -> bool:
    return one is not None and other is not None and one.content_digest == other.content_digest


def _annotations_status(run: DatasetRun, observed: Observed, gate: NodeStatus) -> NodeStatus:
    reference = observed.artifacts.get(ANNOTATIONS)
    if reference is not None:
        return NodeStatus(ANNOTATIONS, "done", reference.key, reference.content_digest)
    if gate.state == "failed":
        return NodeStatus(ANNOTATIONS, "waiting", reason="for the gates")
    if "candidates" not in observed.artifacts:
        return NodeStatus(ANNOTATIONS, "waiting", reason="for candidates")
    if run.spec.candidates.select == "ranked" and RANKING not in observed.artifacts:
        return NodeStatus(ANNOTATIONS, "waiting", reason=f"for {RANKING}")
    asked = run.spec.annotations
    return NodeStatus(
        ANNOTATIONS,
        "awaiting",
        reason=observed.annotations_lack
        or f"{asked.total} candidates are to be labelled: {asked.train} to train, {asked.val} to "
        f"validate, {asked.test} to test",
    )


def gate_status(run: DatasetRun, observed: Observed) -> NodeStatus:
    """What the gates have decided together. They fail with the first that does, and name all that
    do; those on the dataset itself are waited for once it is there."""
    decided = gate_verdicts(run, observed)
    reasons = failed(decided)
    if reasons:
        return NodeStatus(GATE, "failed", reason="; ".join(reasons))
    if "classifier" not in observed.artifacts:
        return NodeStatus(GATE, "waiting", reason="for classifier")
    if any(one.passed is None and _can_decide(one, observed) for one in decided):
        return NodeStatus(GATE, "waiting", reason="for what has to be measured")
    if not decided:
        return NodeStatus(GATE, "done", reason="no gate is set")
    passed = [one.sentence for one in decided if one.passed]
    reason = passed[0] if len(passed) == 1 else f"{len(passed)} gates are passed so far"
    return NodeStatus(GATE, "done", reason=reason)


def gate_verdicts(run: DatasetRun, observed: Observed) -> list[GateVerdict]:
    """What each gate of a run that is set has decided."""
    digests = {name: one.content_digest for name, one in observed.artifacts.items()}
    return verdicts(run.spec, digests, observed.measured)


def _can_decide(one: GateVerdict, observed: Observed) -> bool:
    """Whether what it looks at exists, now that the classifier does."""
    return one.name != "minPairs" or "dataset" in observed.artifacts


def annotations_lack(run: DatasetRun, document: Mapping[str, Any]) -> str | None:
    """Why annotations (the content of annotations.json) are not what the run asks for, or None."""
    asked = run.spec.annotations
    classes = [(item.get("name"), str(item.get("color")).lower()) for item in document["classes"]]
    expected = [(item.name, item.color.lower()) for item in asked.classes]
    if classes != expected:
        return (
            f"the annotations were made with the classes {_spelled(classes)}, the run says "
            f"{_spelled(expected)}: correct annotations.classes, or import them again"
        )
    counts: dict[str, int] = {"train": 0, "val": 0, "test": 0}
    for image in document["images"]:
        counts[image["split"]] = counts.get(image["split"], 0) + 1
    wanted = {"train": asked.train, "val": asked.val, "test": asked.test}
    short = [
        f"{counts[split]} of {count} for {split}"
        for split, count in wanted.items()
        if counts[split] < count
    ]
    return f"labelled so far: {', '.join(short)}" if short else None


def _spelled(classes: list[tuple[Any, str]]) -> str:
    return ", ".join(f"{name} {color}" for name, color in classes)


def stage_request(
    node: Node,
    run: DatasetRun,
    external: External,
    observed: Observed,
    *,
    store: str,
    scratch: str,
) -> StageRequest:
    """What the node's service is started with. All its inputs exist; `run` is resolved."""
    inputs = node_inputs(node, observed)
    if inputs is None:
        raise ValueError(f"{node.name} is not ready: an input does not exist")
    key = node_key(node, run, external, inputs)
    context = node.context(run.spec, external)
    if node.name == "classifier":
        context["featuresKey"] = node_key(BY_NAME["extractor"], run, external, inputs)
    if node.name == "drift" and external.before is not None:
        inputs = {**inputs, "before": external.before}
    if node.name == "tiler" and external.folds is not None:
        inputs = {**inputs, "folds": external.folds}
    return StageRequest(
        run=run.metadata.name,
        stage=node.name,
        service=node.service,
        config=_dump(node.section(run.spec)),
        context=context,
        inputs=inputs,
        key=key,
        stage_version=STAGE_VERSIONS[node.name],
        store=store,
        scratch=scratch,
        device=run.spec.resources.device,
        threads=run.spec.resources.threads,
    )


def frozen_run(run: DatasetRun, external: External) -> tuple[str, dict[str, Any]]:
    """The resolved run as it is written down when it starts, and its digest."""
    document: dict[str, Any] = {
        "run": run.model_dump(mode="json", by_alias=True),
        "stageVersions": dict(STAGE_VERSIONS),
        "slides": {"key": external.slides_key, "digest": external.slides_digest},
        "slideFacts": {"key": external.facts_key, "digest": external.facts_digest},
        "folds": None if external.folds is None else external.folds.key,
        "initDigest": external.init_digest,
    }
    if external.release is not None:
        document["release"] = external.release
    return canonical_digest(document), document
