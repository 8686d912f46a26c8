"""What exists of a run: its store, its artifacts by stage, and where every stage stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.cli import store_for
from hdgan.core.errors import RequestError
from hdgan.core.observe import observe, pin_external
from hdgan.core.outcome import find_outcome
from hdgan.core.pipeline import NodeStatus, plan
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
        return Candidates(artifact)


def open_run(run_file: Path, store_option: str | None) -> RunArtifacts:
    """Load a run file and look up what its store (see `store_for`) holds of it; changes nothing."""
    run = resolve(load_run(run_file))
    store = open_store(store_for(run_file, store_option))
    begun = begun_with(store, run, ended=True)
    external = pin_external(store, run, save=False, release_name=begun)
    observed = observe(store, run, external)
    artifacts = {}
    for name, reference in observed.artifacts.items():
        artifact = open_artifact(store, reference.stage, reference.key)
        if artifact is not None:
            artifacts[name] = artifact
    statuses = plan(run, external, observed)
    last = read_status(store, run)
    outcome = find_outcome(store, run, external, observed, last)
    message = str(last.get("message", "")) if last.get("outcome") == outcome else ""
    return RunArtifacts(run, store, artifacts, tuple(statuses), outcome, message)
