"""What the controller does in stores: short looks and notes, in threads of their own, so that a
store that does not answer holds up nobody but its own runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hdgan.controller.actions import Observe, Pin, ReadSavedStep
from hdgan.controller.decide import RunFacts
from hdgan.controller.settings import DEFAULT_STORE, Settings, StoreConfig
from hdgan.controller.status import ProgressStatus
from hdgan.core.errors import HdganError, StoreError
from hdgan.core.fold_history import note_folds
from hdgan.core.observe import observe, pin_external
from hdgan.core.pipeline import External, Observed
from hdgan.core.run import DatasetRun
from hdgan.core.status_file import freeze
from hdgan.core.store import Store, connected, open_store
from hdgan.core.store_s3 import S3Connection
from hdgan.core.work import WorkState

logger = logging.getLogger(__name__)

Look = Pin | Observe | ReadSavedStep
THREADS = 8


@dataclass
class Memory:
    """What this controller has seen for a run; all of it can be seen again."""

    external: External | None = None
    observed: Observed | None = None
    observed_at: datetime | None = None
    stale: bool = False
    """Whether to look again, whatever a look that is under way will find."""
    retry: str | None = None
    """Value of `spec.retry` all this is for."""
    annotations: str | None = None
    """Newest version of them when the store was last listed."""
    problem: str | None = None
    store_error: str | None = None
    saved: dict[str, int] = field(default_factory=dict)
    """Steps of saved work by the Job after whose end they were looked up."""
    progress: ProgressStatus | None = None
    progress_changed: datetime | None = None
    progress_of: str | None = None
    """The Job those are of."""
    under_way: set[Look] = field(default_factory=set)


class Stores:
    """The stores of an installation, each opened once. For several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: dict[tuple[str, str], Store] = {}
        self._lock = threading.Lock()

    def config(self, namespace: str, name: str | None) -> StoreConfig:
        """Its declaration."""
        return self._settings.store(namespace, name)

    def get(self, namespace: str, name: str | None) -> Store:
        """The store a namespace's run means. RequestError if there is none."""
        config = self._settings.store(namespace, name)
        place = namespace, name or DEFAULT_STORE
        with self._lock:
            store = self._opened.get(place)
            if store is None:
                with connected(connection(config)):
                    store = self._opened[place] = open_store(config.uri)
            return store

    def forget(self, namespace: str, name: str | None) -> None:
        """Open it anew next time: its credentials may have been renewed."""
        with self._lock:
            self._opened.pop((namespace, name or DEFAULT_STORE), None)


class Looking:
    """Carries out looks at stores and tells when one is done."""

    def __init__(self, stores: Stores, done: Callable[[str, str], None]) -> None:
        """done: called with namespace and name of the run when its memory has changed."""
        self._stores = stores
        self._done = done
        self._pool = ThreadPoolExecutor(THREADS, "store")
        self._lock = threading.Lock()

    def begin(self, run: RunFacts, memory: Memory, look: Look) -> None:
        """Start a look unless it is under way."""
        with self._lock:
            if look in memory.under_way:
                return
            memory.under_way.add(look)
        self._pool.submit(self._carry_out, run, memory, look)

    def close(self) -> None:
        """Wait for what is under way, and start nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def _carry_out(self, run: RunFacts, memory: Memory, look: Look) -> None:
        assert run.run is not None
        place = run.namespace, run.run.spec.resources.store
        try:
            # Slides are read with the credentials of the store, too.
            with connected(connection(self._stores.config(*place))):
                _do(self._stores.get(*place), run, run.run, memory, look)
            memory.store_error = None
        except StoreError as error:
            memory.store_error = str(error)
            self._stores.forget(*place)
        except HdganError as error:
            memory.problem = str(error)
        except Exception as error:
            logger.exception("%s for %s/%s", type(look).__name__, run.namespace, run.name)
            memory.store_error = f"{type(error).__name__}: {error}"
        finally:
            with self._lock:
                memory.under_way.discard(look)
            self._done(run.namespace, run.name)


def connection(config: StoreConfig) -> S3Connection:
    """How the controller reaches a store."""
    return S3Connection(
        endpoint=config.endpoint,
        region=config.region,
        credentials=None if config.credentials is None else Path(config.credentials),
        ca_file=None if config.ca_file is None else Path(config.ca_file),
    )


def _do(store: Store, facts: RunFacts, run: DatasetRun, memory: Memory, look: Look) -> None:
    external = facts.status.pinned.external() if facts.status.pinned else memory.external
    match look:
        case Pin():
            pinned = pin_external(store, run)
            freeze(store, run, pinned)
            memory.external = pinned
        case Observe() if external is not None:
            memory.stale = False
            at = datetime.now(UTC)  # before: what comes while we look may not be seen
            before = facts.status.observed()
            found = observe(store, run, external, before)
            tiling = found.artifacts.get("tiler")
            if tiling is not None and "tiler" not in before.artifacts:
                # Before the status says that it is done: nothing would ask for it again.
                note_folds(store, run, external, tiling)
            if memory.retry == run.spec.retry:  # else it is of a time that is to be forgotten
                memory.observed, memory.observed_at = found, at
        case ReadSavedStep(stage, key):
            job = facts.status.stage_named(stage).job
            if job is not None:
                memory.saved[job] = WorkState(store, stage, key, "controller").newest_step()
