"""Series of runs and datasets, from plain values: the controller's, and those of a local run.

A look says what is known now; nothing here reads a store, a cluster or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hdgan.core.telemetry import catalogue
from hdgan.core.telemetry.catalogue import Metric
from hdgan.core.telemetry.run_measures import NOTHING, Measures

PHASES: Final = (
    "Pending",
    "Running",
    "AwaitingAnnotation",
    "Suspended",
    "Released",
    "Unchanged",
    "GateFailed",
    "Failed",
    "Interrupted",
)
"""Interrupted: only of a local run, whose process was told to stop."""
GOOD: Final = frozenset({"Released", "Unchanged"})
OVER: Final = GOOD | {"GateFailed", "Failed", "Interrupted"}
FINISHED_SHOWN: Final = 5
"""Runs of a dataset that are over and have series."""
MAX_LABEL: Final = 200
"""Characters of a label's value."""

RUN_METRICS: Final = tuple(one for one in catalogue.ALL if "run" in one.places)
DATASET_METRICS: Final = tuple(one for one in catalogue.ALL if "dataset" in one.places)


@dataclass(frozen=True)
class StageLook:
    """Where a stage of a run stands."""

    name: str
    state: str
    attempts: int | None = None
    """None for what has no attempts: a person's annotations, the gates."""


@dataclass(frozen=True)
class RunLook:
    """What is known of a run. Times are seconds since 1970, None where they have not come."""

    run: str
    dataset: str
    phase: str
    namespace: str = ""
    """Empty for the local runner."""
    store: str = ""
    """Name of its store."""
    failure: tuple[str, str] | None = None
    """Stage (empty: none in particular) and reason of a run that has failed."""
    started: float | None = None
    finished: float | None = None
    awaiting_since: float | None = None
    stages: Sequence[StageLook] = ()
    gates: Mapping[str, bool] = field(default_factory=dict)
    """What gates that are decided say: whether they let the dataset through."""
    measures: Mapping[str, Measures] = field(default_factory=dict)
    """What is known of its artifacts, by stage."""

    @property
    def place(self) -> tuple[str, str, str]:
        """What its dataset's series are known by."""
        return self.namespace, self.store, self.dataset

    @property
    def over(self) -> bool:
        return self.phase in OVER


@dataclass(frozen=True)
class DatasetLook:
    """What is known of a dataset. Times as those of a run."""

    dataset: str
    namespace: str = ""
    store: str = ""
    released: float | None = None
    """When its latest release was made."""
    confirmed: float | None = None
    """When a run last ended well."""
    macro_dice: float | None = None
    """Of the latest release."""

    @property
    def place(self) -> tuple[str, str, str]:
        return self.namespace, self.store, self.dataset


def shown(runs: Iterable[RunLook], most: int = FINISHED_SHOWN) -> list[RunLook]:
    """Those that have series: all that are not over, and of each dataset the last that are."""
    runs = list(runs)
    chosen = [one for one in runs if not one.over]
    ended = sorted((one for one in runs if one.over), key=lambda one: (one.place, _end(one)))
    for _, group in groupby(ended, key=lambda one: one.place):
        chosen += list(group)[-most:]
    return sorted(chosen, key=lambda one: (one.namespace, one.run))


def _end(run: RunLook) -> tuple[float, float, str]:
    return run.finished or 0.0, run.started or 0.0, run.run


def with_successes(datasets: Iterable[DatasetLook], runs: Iterable[RunLook]) -> list[DatasetLook]:
    """Datasets with the time of their last success: that of the latest release, or of a run that
    ended well since. A dataset whose releases nobody could read yet is known by its runs."""
    found = {one.place: replace(one, confirmed=one.released) for one in datasets}
    for run in runs:
        if run.phase in GOOD and run.finished is not None:
            namespace, store, dataset = run.place
            known = found.get(run.place) or DatasetLook(dataset, namespace, store)
            confirmed = max(run.finished, known.confirmed or 0.0)
            found[run.place] = replace(known, confirmed=confirmed)
    return [found[place] for place in sorted(found)]


def run_families(runs: Iterable[RunLook]) -> list[GaugeMetricFamily]:
    """All series of these runs."""
    families = {metric: empty(metric) for metric in RUN_METRICS}
    for run in runs:
        labels = (run.namespace, run.run, run.dataset)
        for metric, own, value in _of_run(run):
            if value is not None:
                families[metric].add_metric(_texts(*labels, *own), value)
    return list(families.values())


def dataset_families(datasets: Iterable[DatasetLook]) -> list[GaugeMetricFamily]:
    """All series of these datasets."""
    families = {metric: empty(metric) for metric in DATASET_METRICS}
    for one in datasets:
        for metric, value in (
            (catalogue.DATASET_RELEASED, one.released),
            (catalogue.DATASET_CONFIRMED, one.confirmed),
            (catalogue.DATASET_DICE, one.macro_dice),
        ):
            if value is not None:
                families[metric].add_metric(_texts(*one.place), value)
    return list(families.values())


_Sample = tuple[Metric, tuple[str, ...], float | None]


def _of_run(run: RunLook) -> Iterator[_Sample]:
    for phase in PHASES:
        yield catalogue.RUN_PHASE, (phase,), float(run.phase == phase)
    if run.phase == "Failed" and run.failure is not None:
        yield catalogue.RUN_FAILURE, run.failure, 1.0
    yield catalogue.RUN_STARTED, (), run.started
    yield catalogue.RUN_FINISHED, (), run.finished
    yield catalogue.RUN_AWAITING, (), run.awaiting_since
    for gate, passed in run.gates.items():
        yield catalogue.RUN_GATE, (gate,), float(passed)
    for stage in run.stages:
        yield catalogue.RUN_STAGE_STATE, (stage.name, stage.state), 1.0
        yield catalogue.RUN_STAGE_ATTEMPTS, (stage.name,), stage.attempts
    for name, one in run.measures.items():
        spent = one.cost.spent
        if spent is not None:
            yield catalogue.RUN_STAGE_SECONDS, (name,), spent.seconds
            if one.cost.paid_by(run.run):
                device = (name, one.cost.device)
                yield catalogue.RUN_STAGE_DEVICE, device, spent.device_seconds
    yield from _quality(run.measures)


def _quality(measures: Mapping[str, Measures]) -> Iterator[_Sample]:
    scores = measures.get("classifier", NOTHING).scores
    for name, value in (scores.class_dice or {}).items():
        yield catalogue.RUN_DICE, (name,), value
    for name, value in (scores.class_iou or {}).items():
        yield catalogue.RUN_IOU, (name,), value
    yield catalogue.RUN_MACRO_DICE, (), scores.macro_dice
    yield catalogue.RUN_ECE, (), scores.ece
    yield catalogue.RUN_KID, (), measures.get("gan-trainer", NOTHING).kid
    yield catalogue.RUN_DRIFT, (), measures.get("drift", NOTHING).drift_kid
    yield catalogue.RUN_PAIRS, (), measures.get("dataset", NOTHING).pairs


class LookCollector(Collector):
    """Series of what is known of runs and datasets whenever somebody asks."""

    def __init__(
        self,
        runs: Callable[[], Iterable[RunLook]],
        datasets: Callable[[], Iterable[DatasetLook]],
    ) -> None:
        """runs: all that are known; those that have no series any more count for their dataset."""
        self._runs = runs
        self._datasets = datasets

    def collect(self) -> Iterator[GaugeMetricFamily]:
        runs = list(self._runs())
        yield from run_families(shown(runs))
        yield from dataset_families(with_successes(self._datasets(), runs))

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Their names alone: what is registered is not asked for values."""
        return (empty(metric) for metric in (*RUN_METRICS, *DATASET_METRICS))


def empty(metric: Metric) -> GaugeMetricFamily:
    """A gauge of the catalogue without values."""
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def seconds(moment: datetime | None) -> float | None:
    """A time in seconds since 1970."""
    return None if moment is None else moment.timestamp()


def _texts(*values: str) -> list[str]:
    """Values of labels. Some come out of documents others have written: one must not end it all."""
    return [one[:MAX_LABEL].encode("utf-8", "replace").decode() for one in values]
