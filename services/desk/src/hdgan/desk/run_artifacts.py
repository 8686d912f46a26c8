"""What exists of a run: its store, its artifacts by stage, and where every stage stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hdgan.core.annotations import current
from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.cli import store_for
from hdgan.core.errors import RequestError
from hdgan.core.observe import observe, pin_external, reference
from hdgan.core.outcome import find_outcome
from hdgan.core.pipeline import (
    ANNOTATIONS,
    BY_NAME,
    RANKING,
    RERANKING,
    External,
    NodeStatus,
    Observed,
    known_key,
    plan,
)
from hdgan.core.run import DatasetRun, load_run, resolve
from hdgan.core.status_file import begun_with, read_status
from hdgan.core.store import Store, open_store
from hdgan.desk.candidates import Candidates


@dataclass(frozen=True)
class RunArtifacts:
    """A resolved run and the artifacts that exist of it."""

    run: DatasetRun
    store: Store
    artifacts: Mapping[str, Artifact]
    """By stage: tiler, gan-trainer, candidates, annotations, classifier, dataset."""
    statuses: tuple[NodeStatus, ...]
    outcome: str
    """As `hdgan status` names it: Released, AwaitingAnnotation, GateFailed, Running, ..."""
    message: str
    """What the last runner said of that outcome; may be empty."""
    external: External
    """What the run depends on that no stage makes."""

    def status(self, name: str) -> NodeStatus | None:
        """Where a stage or gate stands."""
        return next((status for status in self.statuses if status.name == name), None)

    def candidates(self) -> Candidates:
        """The run's candidates. RequestError while there are none."""
        artifact = self.artifacts.get("candidates")
        if artifact is None:
            raise RequestError(
                f"run {self.run.metadata.name} has no candidates in {self.store.uri} yet: "
                "`hdgan run RUNFILE` makes them first (or name the right store with --store)"
            )
        return Candidates(artifact, self._ranking(artifact))

    def _ranking(self, candidates: Artifact) -> Artifact | None:
        """What ranks the candidates: by the newest ensemble there is, else without any."""
        if self.run.spec.candidates.select == "random":
            return None
        found = self.artifacts.get(RERANKING) or self._of_earlier_ensemble(candidates)
        return found or self.artifacts.get(RANKING)

    def _of_earlier_ensemble(self, candidates: Artifact) -> Artifact | None:
        """Of the ensemble that learned from the labels there are, when the run now asks for more of
        them than that."""
        labels = current(self.store, candidates.content_digest)
        if labels is None:
            return None
        artifacts = {name: reference(one) for name, one in self.artifacts.items()}
        artifacts[ANNOTATIONS] = reference(labels)
        for name in ("classifier", RERANKING):
            key = known_key(BY_NAME[name], self.run, self.external, Observed(artifacts))
            found = None if key is None else open_artifact(self.store, name, key)
            if found is None:
                return None
            artifacts[name] = reference(found)
        return found


def open_run(run_file: Path, store_option: str | None) -> RunArtifacts:
    """Load a run file and look up what its store (see `store_for`) holds of it; changes nothing."""
    run = resolve(load_run(run_file))
    store = open_store(store_for(run_file, store_option))
    begun = begun_with(store, run, ended=True)
    external = pin_external(store, run, save=False, release_name=begun)
    observed = observe(store, run, external)
    last = read_status(store, run)
    outcome = find_outcome(store, run, external, observed, last)
    message = str(last.get("message", "")) if last.get("outcome") == outcome else ""
    return _view(run, store, external, observed, outcome, message)


def view_of(
    run: DatasetRun, store: Store, external: External, outcome: str, message: str
) -> RunArtifacts:
    """What a store holds of a resolved run that has come to rest; changes nothing.

    external  what the run was pinned to when it began, not what there is now
    """
    return _view(run, store, external, observe(store, run, external), outcome, message)


def _view(
    run: DatasetRun,
    store: Store,
    external: External,
    observed: Observed,
    outcome: str,
    message: str,
) -> RunArtifacts:
    artifacts = {}
    for name, one in observed.artifacts.items():
        artifact = open_artifact(store, one.stage, one.key)
        if artifact is not None:
            artifacts[name] = artifact
    statuses = tuple(plan(run, external, observed))
    return RunArtifacts(run, store, artifacts, statuses, outcome, message, external)
