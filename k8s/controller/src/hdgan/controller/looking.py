"""What the controller does in stores: short looks and notes, in threads of their own, so that a
store that does not answer holds up nobody but its own runs."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from hdgan.controller.actions import Observe, Pin, Publish, ReadSavedStep
from hdgan.controller.log_context import about, about_store
from hdgan.controller.queueing import DelayQueue
from hdgan.controller.settings import DEFAULT_STORE, Settings, StoreConfig
from hdgan.controller.situation import RunFacts
from hdgan.controller.status import ProgressStatus
from hdgan.core.errors import HdganError, StoreError
from hdgan.core.fold_history import note_folds
from hdgan.core.observe import observe, pin_external
from hdgan.core.pins import Pins
from hdgan.core.pipeline import External, Observed, gate_status
from hdgan.core.releases import Published, publish, release_of
from hdgan.core.run import DatasetRun
from hdgan.core.status_file import freeze
from hdgan.core.store import Store, connected, open_store
from hdgan.core.store_s3 import S3Connection
from hdgan.core.work import saved_amount

logger = logging.getLogger(__name__)

Look = Pin | Observe | Publish | ReadSavedStep
Place = tuple[str, str]
"""Namespace and name of a store."""

AT_ONCE = 2
"""Looks at one store at the same time; further ones wait, without a thread."""
REPEATED = 3
"""Failures in a row after which a store is left alone for a while."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
"""Seconds; pauses double from one to the next."""


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
    progress_heard: datetime | None = None
    progress_of: str | None = None
    """The Job those are of."""
    published: Published | None = None
    pins: Pins | None = None
    """What keeps the run's artifacts from being collected."""
    refusal: str | None = None
    """Why the API server would not make a Job; until `refused_until` (monotonic) it is not asked
    again."""
    refused_until: float = 0.0
    under_way: set[Look] = field(default_factory=set)


class Stores:
    """The stores of an installation, each opened once. For several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: dict[tuple[str, str], Store] = {}
        self._lock = threading.Lock()

    def count(self) -> int:
        """How many are declared."""
        return sum(len(one.stores) for one in self._settings.namespaces)

    def config(self, namespace: str, name: str | None) -> StoreConfig:
        """Its declaration."""
        return self._settings.store(namespace, name)

    def get(self, namespace: str, name: str | None) -> Store:
        """The store a namespace's run means. RequestError if there is none."""
        config = self._settings.store(namespace, name)
        place = place_of(namespace, name)
        with self._lock:
            store = self._opened.get(place)
            if store is None:
                with connected(connection(config)):
                    store = self._opened[place] = open_store(config.uri)
            return store

    def forget(self, namespace: str, name: str | None) -> None:
        """Open it anew next time: its credentials may have been renewed."""
        with self._lock:
            self._opened.pop(place_of(namespace, name), None)


@dataclass(eq=False)
class _Task:
    """A look that is to be made, for what is known of the run by now."""

    run: RunFacts
    memory: Memory
    look: Look


@dataclass
class _Lane:
    """What goes on at one store."""

    waiting: deque[_Task] = field(default_factory=deque)
    active: int = 0
    failures: int = 0
    """In a row."""
    not_before: float = 0.0
    error: str = ""

    @property
    def broken(self) -> bool:
        return self.failures >= REPEATED


class Looking:
    """Carries out looks at stores and tells when one is done.

    A store that fails again and again is asked by one look at a time, after a pause that grows.
    Its runs see the last error meanwhile, and all their looks are made as soon as one succeeds.
    """

    def __init__(self, stores: Stores, done: Callable[[str, str], None]) -> None:
        """done: called with namespace and name of the run when its memory has changed."""
        self._stores = stores
        self._done = done
        # So many that stores that do not answer cannot hold them all.
        self._pool = ThreadPoolExecutor(AT_ONCE * stores.count(), "store")
        self._lock = threading.Lock()
        self._lanes: dict[Place, _Lane] = {}
        self._waiting: dict[tuple[int, Look], tuple[Place, _Task]] = {}
        """By the run's memory and the look."""
        self._closed = False
        self._later: DelayQueue[Place] = DelayQueue()
        self._waker = threading.Thread(target=self._wake, name="store-pauses", daemon=True)
        self._waker.start()

    def begin(self, run: RunFacts, memory: Memory, look: Look) -> None:
        """Start a look unless it is under way."""
        place = _place(run)
        with self._lock:
            task = self._queued(run, memory, look)
            if task is None:
                return
            lane = self._lanes.setdefault(place, _Lane())
            lane.waiting.append(task)
            self._waiting[id(memory), look] = (place, task)
            self._start(place, lane)
            told = _tell_waiting(lane)
        for one in told:
            self._done(one.namespace, one.name)

    def close(self) -> None:
        """Wait for what is under way, and start nothing more."""
        with self._lock:
            self._closed = True
        self._later.close()
        self._waker.join()
        self._pool.shutdown(cancel_futures=True)

    def _queued(self, run: RunFacts, memory: Memory, look: Look) -> _Task | None:
        """The task to put into a lane; None if it is at work or in the right lane already."""
        if look not in memory.under_way:
            memory.under_way.add(look)
            return _Task(run, memory, look)
        known = self._waiting.get((id(memory), look))
        if known is None:
            return None
        place, task = known
        task.run = run
        if place == _place(run):
            return None
        # It was given another store while it waited for one that does not answer.
        self._lanes[place].waiting.remove(task)
        return task

    def _start(self, place: Place, lane: _Lane) -> None:
        """Start what may be started now. With the lock held."""
        while lane.waiting and lane.active < (1 if lane.broken else AT_ONCE):
            pause = lane.not_before - time.monotonic()
            if self._closed:
                return
            if pause > 0:
                self._later.add(place, pause)
                return
            task = lane.waiting.popleft()
            del self._waiting[id(task.memory), task.look]
            lane.active += 1
            self._pool.submit(self._carry_out, place, lane, task)
        if not (lane.waiting or lane.active or lane.failures):
            self._lanes.pop(place, None)

    def _wake(self) -> None:
        while (place := self._later.take()) is not None:
            with self._lock:
                if place in self._lanes:
                    self._start(place, self._lanes[place])
            self._later.done(place)

    def _carry_out(self, place: Place, lane: _Lane, task: _Task) -> None:
        run, memory = task.run, task.memory
        assert run.run is not None
        failed: str | None = None
        try:
            # Slides are read with the credentials of the store, too.
            with connected(connection(self._stores.config(*place))):
                _do(self._stores.get(*place), run, run.run, memory, task.look)
            memory.store_error = memory.problem = None
        except StoreError as error:
            memory.store_error = failed = str(error)
            self._stores.forget(*place)
        except HdganError as error:
            memory.problem = str(error)
        except Exception as error:
            where = about((run.namespace, run.name))
            logger.exception("a bug at %s", type(task.look).__name__, extra=where)
            memory.store_error = failed = f"{type(error).__name__}: {error}"
        finally:
            with self._lock:
                memory.under_way.discard(task.look)
                lane.active -= 1
                _note(lane, place, failed)
                self._start(place, lane)
                told = _tell_waiting(lane)
            for one in (run, *told):
                self._done(one.namespace, one.name)


def _note(lane: _Lane, place: Place, failed: str | None) -> None:
    """How a look at a store has ended."""
    if failed is None:
        lane.failures, lane.not_before = 0, 0.0
        return
    lane.failures += 1
    lane.error = failed
    if lane.broken:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(lane.failures - REPEATED, 10))
        pause *= random.uniform(0.5, 1.0)
        lane.not_before = time.monotonic() + pause
        logger.warning(
            "failed %d times, next look in %.0f s: %s",
            lane.failures,
            pause,
            failed,
            extra=about_store(place),
        )


def _tell_waiting(lane: _Lane) -> list[RunFacts]:
    """Why they wait, to those that wait for a broken store and do not know; returns their runs."""
    if not lane.broken:
        return []
    unknowing = [one for one in lane.waiting if one.memory.store_error is None]
    for one in unknowing:
        one.memory.store_error = lane.error
    return [one.run for one in unknowing]


def place_of(namespace: str, name: str | None) -> Place:
    """The store that runs in a namespace mean by a name, or by none."""
    return namespace, name or DEFAULT_STORE


def _place(run: RunFacts) -> Place:
    assert run.run is not None
    return place_of(run.namespace, run.run.spec.resources.store)


def connection(config: StoreConfig) -> S3Connection:
    """How the controller reaches a store."""
    return S3Connection(
        endpoint=config.endpoint,
        region=config.region,
        credentials=None if config.credentials is None else Path(config.credentials),
        ca_file=None if config.ca_file is None else Path(config.ca_file),
        checksums=config.checksums,
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
            found = _observe(store, facts, run, external, memory)
            tiling = found.artifacts.get("tiler")
            if tiling is not None and facts.status.stage_named("tiler").content_digest is None:
                # Before the status says that it is done: nothing would ask for it again.
                note_folds(store, run, external, tiling)
        case Publish() if external is not None:
            # Again: another release may have become the latest, which gates are about, too.
            found = _observe(store, facts, run, external, memory)
            if gate_status(run, found).state == "done":
                freeze(store, run, external)  # resources and gates may have changed since
                memory.published = publish(
                    store, release_of(run, external, found, datetime.now(UTC))
                )
        case ReadSavedStep(stage, key):
            job = facts.status.stage_named(stage).job
            if job is not None:
                memory.saved = {job: saved_amount(store, stage, key)}


def _observe(
    store: Store, facts: RunFacts, run: DatasetRun, external: External, memory: Memory
) -> Observed:
    """What exists now; remembered, unless it is of a time that is to be forgotten."""
    at = datetime.now(UTC)  # before: what comes while we look may not be seen
    before = facts.status.observed()
    if memory.observed is not None:
        before = replace(before, measured=memory.observed.measured)
    if memory.pins is None or memory.pins.store is not store:
        memory.pins = Pins(store, run.metadata.name)
    found = observe(store, run, external, before, pins=memory.pins)
    if memory.retry == run.spec.retry:
        memory.observed, memory.observed_at = found, at
    return found
