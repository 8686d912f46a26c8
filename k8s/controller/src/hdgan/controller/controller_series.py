"""Everything the controller tells Prometheus of runs, datasets and itself: counted while it works,
or taken from what it knows when somebody asks. Nothing here waits for a store or the API server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as CounterSeries
from prometheus_client.core import GaugeMetricFamily, Metric

from hdgan.controller.attempt_ends import REASONS, ends_between
from hdgan.controller.run_looks import KnownRun, look_at
from hdgan.controller.status import Phase, RunStatus
from hdgan.controller.store_looks import StoreLooks
from hdgan.core.telemetry import catalogue
from hdgan.core.telemetry.run_series import LookCollector, RunLook, empty, shown

Outcome = Literal["ok", "conflict", "error"]
JobState = Literal["pending", "running", "suspended"]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
JOB_STATES: Final[tuple[JobState, ...]] = get_args(JobState)
Jobs = Mapping[str, Iterable[JobState]]
"""State of each Job that is not over, by namespace. Namespaces that are not seen are left out."""


class RunBook:
    """The runs of the namespaces, as the API server told of them last. For several threads."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], KnownRun] = {}
        self._lock = threading.Lock()

    def note(self, run: KnownRun) -> None:
        """It is new, or has changed."""
        with self._lock:
            self._runs[run.namespace, run.name] = run

    def forget(self, namespace: str, name: str) -> None:
        """It is gone."""
        with self._lock:
            self._runs.pop((namespace, name), None)

    def all(self) -> list[KnownRun]:
        """All there are."""
        with self._lock:
            return list(self._runs.values())

    def shown(self) -> list[KnownRun]:
        """Those that have series."""
        known = {(one.namespace, one.name): one for one in self.all()}
        looks = shown(look_at(one) for one in known.values())
        return [known[one.namespace, one.run] for one in looks]


class ControllerSeries:
    """The series of one controller, for as long as it leads."""

    def __init__(
        self,
        runs: RunBook,
        stores: StoreLooks,
        *,
        jobs: Callable[[], Jobs],
        due: Callable[[], int],
    ) -> None:
        """due: how many runs are due to be looked at."""
        self._runs, self._stores = runs, stores
        self._jobs, self._due = jobs, due
        self._counted = CollectorRegistry()
        self._looks = LookCollector(self._run_looks, stores.datasets)
        self._ends = _counter(catalogue.CONTROLLER_ENDS, self._counted)
        self._reconciles = _counter(catalogue.CONTROLLER_RECONCILES, self._counted)
        for outcome in get_args(Outcome):  # from the beginning, so that rates are right
            self._reconciles.labels(outcome)
        timed = catalogue.CONTROLLER_RECONCILE
        self._seconds = Histogram(
            timed.name, timed.help, buckets=timed.buckets, registry=self._counted
        )

    def reconciled(self, outcome: Outcome, seconds: float) -> None:
        """A look at a run is over, with what was done about it."""
        self._reconciles.labels(outcome).inc()
        self._seconds.observe(seconds)

    def status_written(self, namespace: str, before: RunStatus, after: RunStatus) -> None:
        """A run's status was written: count the attempts it tells the end of."""
        for stage, reason in ends_between(before, after):
            self._ends.labels(namespace, stage, reason).inc()

    def collect(self) -> Iterator[Metric]:
        """All series as they are now."""
        yield from self._looks.collect()
        jobs, runs = self._jobs(), self._runs.all()
        for run in runs:
            self._expect_end(run)
        yield from self._counted.collect()
        yield _gauge(catalogue.CONTROLLER_JOBS, by_state(jobs).items())
        yield _gauge(catalogue.CONTROLLER_RUNS, by_phase(runs, jobs).items())
        yield _gauge(catalogue.CONTROLLER_QUEUE, [((), self._due())])
        yield _gauge(catalogue.CONTROLLER_STORE, self._stores.reachable().items())

    def _expect_end(self, run: KnownRun) -> None:
        """Show 0 while an attempt goes on, so that its end is a rise, however it ends."""
        current = run.status.current
        if current is not None:
            for reason in REASONS:
                self._ends.labels(run.namespace, current.name, reason)

    def _run_looks(self) -> list[RunLook]:
        return [look_at(one, self._stores.of(one)) for one in self._runs.all()]


def by_state(jobs: Jobs) -> dict[tuple[str, str], int]:
    """How many Jobs there are, by namespace and state; all states of each namespace."""
    counts = {namespace: Counter(states) for namespace, states in jobs.items()}
    return {(name, state): one[state] for name, one in counts.items() for state in JOB_STATES}


def by_phase(runs: Iterable[KnownRun], namespaces: Iterable[str]) -> dict[tuple[str, str], int]:
    """How many runs there are, by namespace and phase; all phases of each of these namespaces."""
    counts = Counter((one.namespace, one.status.phase) for one in runs)
    return {(name, phase): counts[name, phase] for name in namespaces for phase in PHASES}


def _counter(metric: catalogue.Metric, registry: CollectorRegistry) -> CounterSeries:
    return CounterSeries(metric.name, metric.help, metric.labels, registry=registry)


def _gauge(
    metric: catalogue.Metric, values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    """values: those of its labels, and its own."""
    family = empty(metric)
    for labels, value in values:
        family.add_metric(labels, float(value))
    return family
