"""Finds out what a run's store holds: the I/O that `pipeline.plan` decides on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hdgan.core.annotations import current as current_annotations
from hdgan.core.artifact import Artifact, is_committed, open_artifact
from hdgan.core.errors import InputMissing
from hdgan.core.fold_history import with_folds
from hdgan.core.gate_measures import measure
from hdgan.core.gates import Measured
from hdgan.core.initial_networks import networks_digest
from hdgan.core.json_documents import parse_json
from hdgan.core.pins import Pins
from hdgan.core.pipeline import (
    ANNOTATIONS,
    CHOSEN_FROM,
    External,
    Observed,
    annotations_lack,
    known_key,
    nodes_of,
)
from hdgan.core.releases import pinned_to
from hdgan.core.request import InputRef
from hdgan.core.run import DatasetRun
from hdgan.core.slide_facts import find_facts, save_facts
from hdgan.core.slides import save_snapshot, take_snapshot
from hdgan.core.store import Store


def pin_external(
    store: Store, run: DatasetRun, *, save: bool = True, release_name: str | None = None
) -> External:
    """Look at slides, initial networks and the latest release now, and at the folds to keep.

    run           resolved
    save          keep the list of slides, what is known about them, and the folds in the store
    release_name  the release whose generator is used, if it has one; None: the latest
    """
    snapshot = take_snapshot(run.spec.slides.uri)
    init_from = run.spec.gan_trainer.init_from
    init_digest = None if init_from is None else networks_digest(init_from)
    slides, tiler = run.spec.slides, run.spec.tiler
    facts = find_facts(snapshot, slides.metadata, slides.outlines if tiler.compartments else None)
    external = External(
        slides_key=save_snapshot(store, snapshot) if save else snapshot.key,
        slides_digest=snapshot.digest,
        init_digest=init_digest,
        facts_key=save_facts(store, facts) if save else facts.key,
        facts_digest=facts.digest,
    )
    if run.spec.generator == "pinned":
        release = pinned_to(store, run, release_name)
        external = replace(
            external,
            release=release.name,
            generator=release.artifacts["gan-trainer"],
            candidates=release.artifacts["candidates"],
            before=release.artifacts.get("tiler"),
        )
    return with_folds(store, run, external, save=save)


def observe(
    store: Store,
    run: DatasetRun,
    external: External,
    before: Observed | None = None,
    *,
    pins: Pins | None = None,
) -> Observed:
    """What exists of a resolved run. Artifacts never change, so what `before` knows is kept.

    pins  pins what the run relies on, before it is looked for: for who goes on with what is found.
          Then what `before` knows is looked for, too, as it may have been collected since
    """
    found = {**(before.artifacts if before else {}), **external.taken_over()}
    lack = before.annotations_lack if before else None
    known = before.measured if before else Measured()
    drift = before.drift_kid if before else None
    if pins is not None:
        pins.add((one.stage, one.key) for one in external.references())
        for name, one in list(found.items()):
            pins.add([(one.stage, one.key)])
            if not is_committed(store, one.stage, one.key):
                del found[name]
    for node in nodes_of(external):
        if node.name == "extractor" and ANNOTATIONS not in found and "candidates" in found:
            lack = _observe_annotations(store, run, found)
        if node.cache or node.name in found:
            continue
        key = known_key(node, run, external, Observed(found))
        if pins is not None and key is not None:
            pins.add([(node.name, key)])
        artifact = None if key is None else open_artifact(store, node.name, key)
        if artifact is None:
            continue
        found[node.name] = reference(artifact)
        if node.name == "drift":
            drift = drift_kid(artifact)
    if pins is not None and "candidates" in found and ANNOTATIONS not in found:
        waited_for = (one for name, one in found.items() if name in CHOSEN_FROM)
        pins.add(((one.stage, one.key) for one in waited_for), "annotation")
    return Observed(found, lack, measure(store, run, found, known), drift)


def reference(artifact: Artifact) -> InputRef:
    """How a request names this artifact."""
    manifest = artifact.manifest
    return InputRef(stage=manifest.stage, key=manifest.key, content_digest=manifest.content_digest)


def _observe_annotations(store: Store, run: DatasetRun, found: dict[str, InputRef]) -> str | None:
    """Adds complete annotations to `found`; returns what incomplete ones lack."""
    artifact = current_annotations(store, found["candidates"].content_digest)
    if artifact is None:
        return None
    try:
        lack = annotations_lack(run, _document(artifact, "annotations.json"))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputMissing(
            f"{artifact.uri('annotations.json')} does not have the form of annotations "
            f"({error!r}): import them again"
        ) from error
    if lack is None:
        found[ANNOTATIONS] = reference(artifact)
    return lack


def drift_kid(drift: Artifact) -> float | None:
    """KID of the new slides' tiles, else of all; None if neither could be measured."""
    measured = _document(drift, "drift.json")
    for name in ("kidOfNewTiles", "kid"):
        value = measured
        for key in (name, "whole", "mean"):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            return float(value)
    return None


def _document(artifact: Artifact, name: str) -> Any:
    try:
        return parse_json(artifact.read(name))
    except ValueError as error:
        raise InputMissing(f"{artifact.uri(name)} is not JSON: {error}") from error
