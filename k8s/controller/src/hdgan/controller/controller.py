"""The loop: whenever something about a run may have changed, look at it, decide, write its status,
and do what was decided."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hdgan.controller import api as paths
from hdgan.controller.actions import CreateJob, Observe, Pin, Publish, ReadSavedStep
from hdgan.controller.api import Api, ApiError, Conflict, Document, NotFound
from hdgan.controller.carrying_out import CarryingOut
from hdgan.controller.controller_series import ControllerSeries, JobState, Outcome, RunBook
from hdgan.controller.decide import decide
from hdgan.controller.events import events_between
from hdgan.controller.facts import (
    KEY_LABEL,
    MANAGED_BY,
    MANAGED_LABEL,
    JobFacts,
    PodFacts,
    job_facts,
    pod_facts,
)
from hdgan.controller.log_context import about, about_store
from hdgan.controller.looking import Looking, Memory, Stores
from hdgan.controller.names import job_name, key_label, place_key
from hdgan.controller.pinning import INTERVAL_SECONDS, PinKeeper
from hdgan.controller.progress_poll import ask
from hdgan.controller.queueing import DelayQueue
from hdgan.controller.reading import read_status, run_facts, store_name
from hdgan.controller.reporting import report_unit, wanted_report
from hdgan.controller.run_looks import known_run
from hdgan.controller.settings import DEFAULT_STORE, Settings
from hdgan.controller.situation import Limits, RunFacts, Seen
from hdgan.controller.status import ProgressStatus, RunStatus
from hdgan.controller.store_looks import REFRESH_SECONDS, StoreLooks
from hdgan.controller.unit import Unit
from hdgan.controller.watching import Watched
from hdgan.core.errors import HdganError

logger = logging.getLogger(__name__)

WORKERS = 4
LISTING_SECONDS = 60.0
AFTER_ERROR_SECONDS = 5.0
SOON_AGAIN_SECONDS = 15.0
REFUSALS_AFTER = 10.0
"""Seconds a Job may be without pods before events are asked why."""
REFUSALS_SECONDS = 20.0

DEPARTED_SECONDS = 900.0
"""How long pods that are gone are remembered: their Jobs fail after that."""
MOST_COMPLETED = 20_000
REFUSED_SECONDS = 30.0
"""How long the API server is not asked again for a Job it has refused."""
NOT_REFUSED = frozenset({0, 409, 429})
"""No answer, a conflict, too many requests: it is tried again without a word."""
STALE_SECONDS = 300.0
"""How old a view of a namespace may be before nothing is decided on it."""
OVERTAKEN_SECONDS = 0.5
"""When a run is looked at again that has changed while it was looked at."""
FIRST_SERIES_SECONDS = 1.0
"""When stores are looked at first for series: what was listed is known by then."""

Key = tuple[str, str]
"""Namespace and name of a run."""


class _Overtaken(HdganError):
    """A run has changed while it was looked at; the watch will tell how."""


@dataclass
class _Namespace:
    runs: Watched
    jobs: Watched
    pods: Watched
    creating: threading.Lock

    @property
    def watches(self) -> tuple[Watched, ...]:
        return self.jobs, self.pods, self.runs

    @property
    def seen(self) -> bool:
        """Whether all of it is known, and not only of long ago."""
        return all(one.wait(0) and one.silent_seconds < STALE_SECONDS for one in self.watches)


class Controller:
    """Sees to the runs of the settings' namespaces, from `start` until `stop`."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        *,
        lead: Callable[[], object] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """lead: raises where this replica does not lead (any more)."""
        self._api = api
        self._settings = settings
        self._now = now
        self._limits = Limits(
            start_seconds=settings.start_seconds,
            progress_seconds=settings.progress_seconds,
            store_poll_seconds=settings.store_poll_seconds,
        )
        self._out = CarryingOut(api, settings, lead)
        self._lead = lead
        self._queue: DelayQueue[Key] = DelayQueue()
        self._stores = Stores(settings)
        self._looking = Looking(self._stores, lambda space, name: self._queue.add((space, name)))
        self._memory: dict[Key, Memory] = {}
        self._by_key: dict[tuple[str, str], set[str]] = {}
        self._waiting: dict[Key, str] = {}
        self._written: dict[Key, float] = {}
        self._completed: set[str] = set()
        self._listing: set[tuple[str, str]] = set()
        """Stores that are being listed for annotations."""
        self._refusals: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._spaces = {one.name: self._watch(one.name) for one in settings.namespaces}
        self._runs = RunBook()
        self._store_looks = StoreLooks(
            [(one.name, store) for one in settings.namespaces for store in one.stores],
            lambda place: self._stores.get(*place),
            lambda place: self._stores.forget(*place),
        )
        self.series = ControllerSeries(
            self._runs, self._store_looks, jobs=self._job_states, due=self._queue.due
        )
        """What it tells Prometheus."""

    def start(self) -> None:
        """List everything, then begin. A namespace that cannot be listed is seen to once it can;
        ApiError if that is every one."""
        for space in self._spaces.values():
            for watched in space.watches:
                watched.start()
        end = time.monotonic() + LISTING_SECONDS
        unseen = [
            name
            for name, space in self._spaces.items()
            if not all(watched.wait(end - time.monotonic()) for watched in space.watches)
        ]
        if len(unseen) == len(self._spaces):
            raise ApiError(f"{', '.join(unseen)} could not be listed: see the log")
        if unseen:
            logger.error("not listed yet, see above why: %s", ", ".join(unseen))
        work = [self._work] * WORKERS
        work += [self._poll_progress, self._poll_annotations, self._keep_pins]
        work += [self._refresh_series]
        for number, target in enumerate(work):
            thread = threading.Thread(target=target, name=f"controller-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End all work that is under way, and wait for it."""
        self._stop.set()
        self._store_looks.stop()
        self._queue.close()
        for space in self._spaces.values():
            for watched in space.watches:
                watched.stop()
        for thread in self._threads:
            thread.join()
        self._looking.close()

    def unseen(self) -> list[str]:
        """Namespaces that nothing is decided for, as they cannot be listed or watched."""
        return [name for name, space in self._spaces.items() if not space.seen]

    def works(self) -> bool:
        """Whether all threads live."""
        return all(thread.is_alive() for thread in self._threads)

    # What has changed

    def _watch(self, namespace: str) -> _Namespace:
        managed = f"{MANAGED_LABEL}={MANAGED_BY}"
        resync = self._settings.resync_seconds

        def run_changed(document: Document) -> None:
            self._run_changed(namespace, document)

        def piece_changed(document: Document) -> None:
            for name in self._by_key.get((namespace, key_of(document)), ()):
                self._queue.add((namespace, name))

        return _Namespace(
            runs=Watched(self._api, paths.RUNS, namespace, run_changed, resync_seconds=resync),
            jobs=Watched(
                self._api,
                paths.JOBS,
                namespace,
                piece_changed,
                resync_seconds=resync,
                selector=managed,
                group=key_of,
                counts=is_live,
            ),
            pods=Watched(
                self._api,
                paths.PODS,
                namespace,
                piece_changed,
                resync_seconds=resync,
                selector=managed,
                group=key_of,
                departed_seconds=DEPARTED_SECONDS,
            ),
            creating=threading.Lock(),
        )

    def _run_changed(self, namespace: str, document: Document) -> None:
        name = document["metadata"]["name"]
        status = read_status(document)
        if status == RunStatus() and document.get("status"):
            self._runs.forget(namespace, name)  # nothing is known of one that cannot be read
        else:
            self._runs.note(known_run(namespace, document, status))
        self._index(namespace, name, store_name(document), status)
        self._queue.add((namespace, name))

    def _index(self, namespace: str, name: str, store: str | None, status: RunStatus) -> None:
        """Know whom a Job or a pod concerns, and who waits for a turn."""
        for key in keys_of(status):
            place = (namespace, key_label(place_key(key, store)))
            known = self._by_key.get(place, set())
            if name not in known:
                # A new set: others may be iterating over the old one.
                self._by_key[place] = {*known, name}
        if status.waiting_since is not None:
            self._waiting[namespace, name] = status.waiting_since
        else:
            self._waiting.pop((namespace, name), None)

    def _forget(self, key: Key) -> None:
        self._memory.pop(key, None)
        self._written.pop(key, None)
        self._waiting.pop(key, None)
        self._runs.forget(*key)
        for place, names in list(self._by_key.items()):
            if place[0] == key[0] and key[1] in names:
                self._by_key[place] = names - {key[1]}
                if not self._by_key[place]:
                    del self._by_key[place]

    # One run

    def _work(self) -> None:
        while (key := self._queue.take()) is not None:
            again: float | None = AFTER_ERROR_SECONDS
            outcome: Outcome = "error"
            began = time.perf_counter()
            try:
                again = self.reconcile(*key)
                outcome = "ok"
            except _Overtaken:
                again, outcome = OVERTAKEN_SECONDS, "conflict"
            except HdganError as error:
                logger.warning("%s", error, extra=about(key))
            except Exception:  # a bug met at one run must not end the work on the others
                logger.exception("a bug", extra=about(key))
            finally:
                self.series.reconciled(outcome, time.perf_counter() - began)
                if again is not None:
                    self._queue.add(key, again)
                self._queue.done(key)

    def reconcile(self, namespace: str, name: str) -> float | None:
        """Look, decide, write, do; returns when to look again (seconds; None: when something
        changes). HdganError if it did not come to an end."""
        key = (namespace, name)
        space = self._spaces[namespace]
        if not space.seen:
            return SOON_AGAIN_SECONDS
        document = space.runs.get(name)
        if document is None:
            self._forget(key)
            return None
        run = run_facts(document, self._settings)
        if run.unreadable:
            logger.error(
                "left alone, its status cannot be read: %s", run.unreadable, extra=about(key)
            )
            return None
        memory = self._memory.setdefault(key, Memory())
        if run.run is not None and memory.retry != run.run.spec.retry:
            memory = self._memory[key] = Memory(retry=run.run.spec.retry)
        now = self._now()
        seen = self._seen(run, space, memory, now)
        decision = decide(run, seen, self._limits, now)
        again = decision.look_again
        if self._too_soon(key, run.status, decision.status):
            again = min(again or 0.0, self._settings.progress_seconds)
        elif decision.status != run.status:
            self._lead()
            try:
                document = self._write(space, namespace, document, decision.status)
            except (Conflict, NotFound) as error:
                raise _Overtaken(str(error)) from error
            self._written[key] = time.monotonic()
            self.series.status_written(namespace, run.status, decision.status)
            self._index(namespace, name, run.store_name, decision.status)
            for event in events_between(run.status, decision.status):
                self._out.tell(run, event, now)
        run = replace(run, status=decision.status)
        jobs = {job.name: job for job in seen.jobs}
        for action in decision.actions:
            if isinstance(action, Pin | Observe | Publish | ReadSavedStep):
                self._looking.begin(run, memory, action)
            elif isinstance(action, CreateJob):
                self._create(space, run, memory, document, action)
            else:
                self._out.change(run, action, jobs)
        self._complete(run, memory, jobs)
        return again

    def _write(
        self, space: _Namespace, namespace: str, document: Document, status: RunStatus
    ) -> Document:
        written = self._api.replace_status(
            paths.RUNS, namespace, {**document, "status": status.dump()}
        )
        space.runs.remember(written)
        return written

    def _too_soon(self, key: Key, before: RunStatus, after: RunStatus) -> bool:
        """Whether only the progress has changed, and was written just now."""
        if before == after or before.model_copy(update={"progress": after.progress}) != after:
            return False
        since = time.monotonic() - self._written.get(key, float("-inf"))
        return since < self._settings.progress_seconds

    def _seen(self, run: RunFacts, space: _Namespace, memory: Memory, now: datetime) -> Seen:
        keys = {key_label(place_key(key, run.store_name)) for key in keys_of(run.status)}
        pods = [pod_facts(one) for key in keys for one in space.pods.of_group(key)]
        gone = [
            pod_facts(one, gone=True) for key in keys for one in space.pods.departed_of_group(key)
        ]
        jobs = []
        for one in (one for key in keys for one in space.jobs.of_group(key)):
            own = [pod for pod in (*pods, *gone) if pod.job_uid == one["metadata"]["uid"]]
            job = job_facts(one, own)
            if job is not None:
                jobs.append(replace(job, refusals=self._why_no_pods(run.namespace, job, now)))
        current = run.status.current
        mine = current is not None and memory.progress_of == current.job
        return Seen(
            external=memory.external,
            observed=None if memory.stale else memory.observed,
            observed_at=memory.observed_at,
            problem=memory.problem,
            store_error=memory.store_error,
            jobs=tuple(jobs),
            pods=tuple(pods),
            free_slot=self._free_slot(run, space),
            progress=memory.progress if mine else None,
            progress_changed=memory.progress_changed if mine else None,
            progress_heard=memory.progress_heard if mine else None,
            refusal=memory.refusal if time.monotonic() < memory.refused_until else None,
            published=memory.published,
            saved_step=None if current is None else memory.saved.get(current.job or ""),
        )

    def _free_slot(self, run: RunFacts, space: _Namespace) -> bool:
        """Whether a Job may be made for this run: not before those who wait for longer."""
        live = space.jobs.count()
        if live >= self._settings.max_active_jobs:
            return False
        mine = (run.status.waiting_since or "~", run.name)  # "~" is behind all times
        ahead = sum(
            1
            for (namespace, name), since in list(self._waiting.items())
            if namespace == run.namespace and (since, name) < mine
        )
        return live + ahead < self._settings.max_active_jobs

    def _why_no_pods(self, namespace: str, job: JobFacts, now: datetime) -> tuple[str, ...]:
        """What events say of a Job that has lacked pods for a while."""
        old = job.created is not None and now - job.created > timedelta(seconds=REFUSALS_AFTER)
        enough = job.active + job.succeeded + job.failed >= job.completions
        if not job.live or enough or job.suspended or job.deleting or not old:
            self._refusals.pop(job.uid, None)
            return ()
        asked, known = self._refusals.get(job.uid, (float("-inf"), ()))
        if time.monotonic() - asked < REFUSALS_SECONDS:
            return known
        listed = self._api.list(
            paths.EVENTS,
            namespace,
            fieldSelector=f"involvedObject.kind=Job,involvedObject.name={job.name}",
        )
        found = tuple(
            str(one.get("message") or "")
            for one in listed.items
            if one.get("reason") == "FailedCreate"
            and (one.get("involvedObject") or {}).get("uid") in (None, job.uid)
        )
        self._refusals[job.uid] = (time.monotonic(), found[-3:])
        return found[-3:]

    def _create(
        self,
        space: _Namespace,
        run: RunFacts,
        memory: Memory,
        document: Document,
        action: CreateJob,
    ) -> None:
        external = run.status.pinned.external() if run.status.pinned else memory.external
        observed = memory.observed or run.status.observed()
        if external is None:
            return
        with space.creating:
            if not self._free_slot(run, space):
                return
            try:
                made = self._out.create_job(
                    run,
                    document["metadata"]["resourceVersion"],
                    action.unit,
                    action.attempt,
                    external,
                    observed,
                )
            except ApiError as error:
                self._note_refusal(memory, error)
                self._queue.add((run.namespace, run.name))
                return
            memory.refusal = None
            if made is not None:
                space.jobs.remember(made.job)
                if made.complete:
                    self._note_complete(made.job["metadata"]["uid"])
        self._queue.add((run.namespace, run.name))

    def _note_complete(self, uid: str) -> None:
        self._completed.add(uid)
        if len(self._completed) > MOST_COMPLETED:  # of Jobs that are gone nobody asks any more
            known = {one["metadata"]["uid"] for s in self._spaces.values() for one in s.jobs.all()}
            self._completed &= known | {uid}

    def _complete(self, run: RunFacts, memory: Memory, jobs: dict[str, JobFacts]) -> None:
        """Once for each Job this process has not made: what belongs to it may be missing."""
        unit, attempt = at_work(run)
        if unit is None or run.run is None or run.status.pinned is None:
            return
        job = jobs.get(job_name(unit.stage, unit.place, unit.kind, attempt))
        if job is None or not job.live or job.uid in self._completed:
            return
        external = run.status.pinned.external()
        observed = memory.observed or run.status.observed()
        try:
            complete = self._out.complete_job(run, unit, attempt, job.uid, external, observed)
        except ApiError as error:
            self._note_refusal(memory, error)
            self._queue.add((run.namespace, run.name), AFTER_ERROR_SECONDS)
            return
        if complete:
            memory.refusal = None
            self._note_complete(job.uid)
        else:
            self._queue.add((run.namespace, run.name), 1.0)

    def _note_refusal(self, memory: Memory, error: ApiError) -> None:
        """Tell it, unless it is of the kind that passes by itself."""
        if error.status in NOT_REFUSED:
            raise error
        memory.refusal = f"the API server does not take the Job, or what its pods need: {error}"
        memory.refused_until = time.monotonic() + REFUSED_SECONDS

    # What nobody tells of

    def _poll_progress(self) -> None:
        while not self._stop.wait(self._settings.progress_seconds):
            try:
                self._read_progress()
            except Exception:  # nobody would start this thread again
                logger.exception("reading progress")

    def _read_progress(self) -> None:
        pods: dict[str, list[PodFacts]] = {}
        for namespace, space in self._spaces.items():
            for one in space.pods.all():
                pod = pod_facts(one)
                if pod.running and pod.job is not None:
                    pods.setdefault(f"{namespace}/{pod.job}", []).append(pod)
        found = ask(pods, self._settings.metrics_port)
        for namespace, space in self._spaces.items():
            self._note_progress(namespace, space, found)

    def _note_progress(
        self, namespace: str, space: _Namespace, found: Mapping[str, ProgressStatus]
    ) -> None:
        for document in space.runs.all():
            name = document["metadata"]["name"]
            status = read_status(document)
            current = status.current
            memory = self._memory.get((namespace, name))
            if current is None or memory is None:
                continue
            progress, now = found.get(f"{namespace}/{current.job}"), self._now()
            if progress is None:
                continue
            before = memory.progress if memory.progress_of == current.job else None
            if before is None or (progress.done, progress.unit) != (before.done, before.unit):
                memory.progress_changed = now
            memory.progress_heard = now
            memory.progress, memory.progress_of = progress, current.job
            self._queue.add((namespace, name))

    def _poll_annotations(self) -> None:
        """One listing for each store that runs wait in, whatever their number."""
        while not self._stop.wait(self._settings.store_poll_seconds):
            waiting: dict[tuple[str, str], list[tuple[str, str]]] = {}
            for namespace, space in self._spaces.items():
                for document in space.runs.all():
                    status = read_status(document)
                    digest = status.stage_named("candidates").content_digest
                    if status.phase == "AwaitingAnnotation" and digest is not None:
                        place = (namespace, store_name(document) or DEFAULT_STORE)
                        name = document["metadata"]["name"]
                        waiting.setdefault(place, []).append((name, digest))
            for place, runs in waiting.items():
                # One that does not answer keeps its own thread from coming back, and no other.
                if place not in self._listing:
                    self._listing.add(place)
                    threading.Thread(
                        target=self._list_annotations,
                        args=(place, runs),
                        name=f"annotations-{place[0]}-{place[1]}",
                        daemon=True,
                    ).start()

    def _keep_pins(self) -> None:
        """Also of runs that nothing else is looked up for."""
        keeper = PinKeeper(lambda place: self._stores.get(*place))
        while not self._stop.wait(INTERVAL_SECONDS):
            runs = []
            for namespace, space in self._spaces.items():
                for document in space.runs.all():
                    place = (namespace, store_name(document) or DEFAULT_STORE)
                    run = (namespace, document["metadata"]["name"])
                    runs.append((run, place, read_status(document)))
            try:
                keeper.keep(runs)
            except Exception:
                logger.exception("pins")

    def _refresh_series(self) -> None:
        """Nobody who asks for series waits for a store."""
        pause = FIRST_SERIES_SECONDS
        while not self._stop.wait(pause):
            try:
                self._store_looks.refresh(self._runs.shown())
            except Exception:
                logger.exception("series")
            pause = REFRESH_SECONDS

    def _job_states(self) -> dict[str, list[JobState]]:
        return {
            name: job_states(space.jobs.all(), space.pods.all())
            for name, space in self._spaces.items()
            if space.seen
        }

    def _list_annotations(self, place: tuple[str, str], runs: list[tuple[str, str]]) -> None:
        try:
            self._look_for_annotations(place, runs)
        except HdganError as error:
            self._stores.forget(*place)
            logger.warning("looking for annotations: %s", error, extra=about_store(place))
        except Exception:
            logger.exception("looking for annotations", extra=about_store(place))
        finally:
            self._listing.discard(place)

    def _look_for_annotations(self, place: tuple[str, str], runs: list[tuple[str, str]]) -> None:
        latest: dict[str, str] = {}
        for key in self._stores.get(*place).list("annotations/"):
            _, digest, version = (*key.split("/"), "", "")[:3]
            latest[digest] = max(latest.get(digest, ""), version)
        for name, digest in runs:
            memory = self._memory.get((place[0], name))
            if memory is not None and latest.get(digest) != memory.annotations:
                # Remembered for each run: annotations may come before it is seen to wait for them.
                memory.annotations = latest.get(digest)
                memory.stale = True
                self._queue.add((place[0], name))


def keys_of(status: RunStatus) -> list[str]:
    """Keys of all that Jobs make for a run."""
    keys = [stage.key for stage in status.stages] + [status.report_key]
    return [key for key in keys if key is not None]


def at_work(run: RunFacts) -> tuple[Unit | None, int]:
    """What the run's Job does, if it may have one, and the number of its attempt."""
    current = run.status.current
    if current is None:
        return (None if wanted_report(run) is None else report_unit(run)), 1
    if current.key is None or current.kind is None:
        return None, 0
    unit = Unit(current.name, current.key, current.kind, current.parts, store=run.store_name)
    return unit, current.attempt


def key_of(document: Document) -> str:
    """The label that says for which artifact something is."""
    return str((document["metadata"].get("labels") or {}).get(KEY_LABEL, ""))


def job_states(jobs: Iterable[Document], pods: Iterable[Document]) -> list[JobState]:
    """The state of each Job that is not over: running as soon as one of its pods is."""
    running = {
        owner["uid"]
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running"
        for owner in pod["metadata"].get("ownerReferences") or []
    }
    states: list[JobState] = []
    for document in jobs:
        job = job_facts(document)
        if job is not None and job.live:
            runs: JobState = "running" if job.uid in running else "pending"
            states.append("suspended" if job.suspended else runs)
    return states


def is_live(document: Document) -> bool:
    """Whether a Job is not over."""
    job = job_facts(document)
    return job is not None and job.live
