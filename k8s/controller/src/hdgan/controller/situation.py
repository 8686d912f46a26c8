"""What `decide` looks at: a run as the API server has it, and what exists besides."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from hdgan.controller.facts import JobFacts, PodFacts
from hdgan.controller.status import ProgressStatus, RunStatus
from hdgan.core.pipeline import External, Observed
from hdgan.core.releases import Published
from hdgan.core.run import DatasetRun


@dataclass(frozen=True)
class Limits:
    """What of the installation's settings counts here."""

    start_seconds: float = 45.0
    progress_seconds: float = 30.0
    store_poll_seconds: float = 60.0


@dataclass(frozen=True)
class RunFacts:
    """A DatasetRun as the API server has it."""

    name: str
    namespace: str
    uid: str
    generation: int
    status: RunStatus
    run: DatasetRun | None
    """Resolved; None where the spec cannot be used."""
    invalid: str = ""
    """Why it cannot."""
    unreadable: str = ""
    """Why the status cannot be read: a newer controller may have written it, and to go on as if
    there were none would pin the run anew."""
    deleting: bool = False
    created: datetime | None = None
    store: str = ""
    """URI of its store."""
    store_name: str | None = None
    """Its name; None: the default one."""
    scratch_is_claim: bool = False
    """Whether extractor and classifier run as Jobs of their own."""
    reports: bool = False
    """Whether reports are written here."""
    parts: dict[str, int] = field(default_factory=dict)
    """Parts by stage, for Jobs that are still to be made."""


@dataclass(frozen=True)
class Seen:
    """What exists besides the run."""

    external: External | None = None
    """Just pinned, and not in the status yet."""
    observed: Observed | None = None
    """What the store holds, looked at `observed_at`."""
    observed_at: datetime | None = None
    problem: str | None = None
    """Why the store, or what the run names, cannot be used: the run fails."""
    store_error: str | None = None
    """Why the store does not answer: it is tried again."""
    jobs: tuple[JobFacts, ...] = ()
    """All Jobs with keys of this run."""
    pods: tuple[PodFacts, ...] = ()
    """Pods with keys of this run, also those whose Job is gone."""
    free_slot: bool = True
    """Whether another Job may be made now."""
    progress: ProgressStatus | None = None
    """What the pods of the current Job say."""
    progress_changed: datetime | None = None
    """When that last became more."""
    progress_heard: datetime | None = None
    """When they said so last; None: never."""
    saved_step: int | None = None
    """How far the saved work of the current stage is; None where nobody has looked."""
    refusal: str | None = None
    """Why the API server would not make the next Job, just now."""
    published: Published | None = None
    """What has become of the dataset, once that has been seen to."""
