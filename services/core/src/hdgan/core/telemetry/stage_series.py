"""The series a stage's process shows at `/metrics`, and its progress as JSON at `/progress`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from hdgan.core.progress import Progress
from hdgan.core.telemetry import catalogue, store_requests
from hdgan.core.telemetry.catalogue import Metric
from hdgan.core.telemetry.http_pages import METRICS_TYPE, Page
from hdgan.core.telemetry.registry import Registry
from hdgan.core.telemetry.stage_tally import StageTally

GAUGES: Final[dict[str, tuple[Metric, *tuple[str, ...]]]] = {
    "lossG": (catalogue.TRAINING_LOSS, "generator"),
    "lossD": (catalogue.TRAINING_LOSS, "discriminator"),
    "pathPenalty": (catalogue.TRAINING_LOSS, "path_length"),
    "r1": (catalogue.TRAINING_LOSS, "r1"),
    "adaP": (catalogue.TRAINING_ADA,),
    "signReal": (catalogue.TRAINING_SIGN,),
    "kid": (catalogue.TRAINING_KID,),
    "bestKid": (catalogue.TRAINING_BEST_KID,),
    "loss": (catalogue.CLASSIFIER_LOSS,),
    "val_macro_dice": (catalogue.CLASSIFIER_DICE,),
}
"""Measures that have a series: the metric, and the value of its own label if it has one. Others are
in the stage's events alone: names that stages choose must not make series."""


def make(metric: Metric, registry: CollectorRegistry) -> Any:
    """An empty family of the catalogue: a Counter, Gauge or Histogram."""
    if metric.kind == "histogram":
        return Histogram(
            metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
        )
    kind = Counter if metric.kind == "counter" else Gauge
    return kind(metric.name, metric.help, metric.labels, registry=registry)


class StoreSeries:
    """Listens to the stores of this process (`store_requests.listen`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = make(catalogue.STORE_REQUESTS, registry)
        self._seconds = make(catalogue.STORE_SECONDS, registry)
        self._retries = make(catalogue.STORE_RETRIES, registry)
        self._bytes = make(catalogue.STORE_BYTES, registry)
        for direction in ("read", "written"):  # from the beginning, so that rates are right
            self._bytes.labels(direction)

    def request(self, operation: str, outcome: store_requests.Outcome, seconds: float) -> None:
        self._requests.labels(operation, outcome).inc()
        self._seconds.labels(operation).observe(seconds)

    def retry(self) -> None:
        self._retries.inc()

    def transferred(self, direction: Literal["read", "written"], size: int) -> None:
        self._bytes.labels(direction).inc(size)


class StageSeries(StageTally):
    """All series of one process that works at a stage."""

    def __init__(self, *, run: str, stage: str, key: str, device: str, scratch: Path) -> None:
        self._registry = Registry()
        self._names = (run, stage)
        self._families: dict[Metric, Any] = {}
        self._reached: dict[Metric, float] = {}
        self._before: Progress | None = None
        self._lock = Lock()
        self._document: dict[str, object] = {"run": run, "stage": stage, "key": key}
        self._latest: dict[str, float | None] = {}
        ProcessCollector(registry=self._registry)
        self._registry.register(_ScratchSeries(scratch, self._names))
        self.store = StoreSeries(self._registry)
        self._of(catalogue.STAGE_INFO, key, device).set(1)
        self._of(catalogue.STAGE_STARTED).set(time.time())
        self._of(catalogue.STAGE_LAST_PROGRESS).set(time.time())

    # What the stage tells

    def progress(self, progress: Progress) -> None:
        before, self._before = self._before, progress
        unit = progress.unit
        if before is not None and before.unit != unit:  # another piece of work is at hand
            self._family(catalogue.STAGE_DONE).clear()
            self._family(catalogue.STAGE_EXPECTED).clear()
        gained = progress.done - before.done if before is not None and before.unit == unit else 0.0
        self._of(catalogue.STAGE_WORK, unit).inc(max(0.0, gained))
        if before is None or before.unit != unit or gained:
            self._of(catalogue.STAGE_LAST_PROGRESS).set(time.time())
        self._of(catalogue.STAGE_DONE, unit).set(progress.done)
        if progress.total:
            self._of(catalogue.STAGE_EXPECTED, unit).set(progress.total)
            self._of(catalogue.STAGE_PROGRESS).set(min(1.0, progress.done / progress.total))
        with self._lock:
            self._document |= vars(progress)

    def measured(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name in GAUGES:
                metric, *own = GAUGES[name]
                self._of(metric, *own).set(value)
        with self._lock:
            # JSON knows no NaN and no infinity.
            self._latest |= {n: v if math.isfinite(v) else None for n, v in values.items()}

    def step(self, seconds: float, waited: float) -> None:
        self._of(catalogue.TRAINING_STEP).observe(seconds)
        self._of(catalogue.TRAINING_WAIT).inc(waited)

    def images(self, shown: int, skipped: int) -> None:
        for metric, count in (
            (catalogue.TRAINING_IMAGES, shown),
            (catalogue.TRAINING_SKIPPED, skipped),
        ):
            self._of(metric).inc(max(0.0, count - self._reached.get(metric, 0.0)))
            self._reached[metric] = count

    def rejected(self, counts: Mapping[str, int]) -> None:
        for reason, count in counts.items():
            self._of(catalogue.STAGE_REJECTS, reason).inc(count)

    def queued(self, queue: str, depth: int) -> None:
        self._of(catalogue.STAGE_QUEUE, queue).set(depth)

    # What is shown

    def page(self, path: str) -> Page:
        """The answer to a request for `path`."""
        if path == "/metrics":
            return Page(generate_latest(self._registry).decode(), METRICS_TYPE)
        if path == "/progress":
            with self._lock:
                document = self._document | {"metrics": dict(self._latest)}
            return Page(json.dumps(document), "application/json")
        return Page("there are /metrics and /progress\n", status=404)

    def _family(self, metric: Metric) -> Any:
        """Made when it is first needed: a stage shows what it has, not what others may have."""
        if metric not in self._families:
            self._families[metric] = make(metric, self._registry)
        return self._families[metric]

    def _of(self, metric: Metric, *own: str) -> Any:
        return self._family(metric).labels(*self._names, *own)


class _ScratchSeries(Collector):
    """Looks at the disk when it is asked."""

    def __init__(self, scratch: Path, names: tuple[str, str]) -> None:
        self._scratch = scratch
        self._names = names

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            disk = os.statvfs(self._scratch)
        except OSError:
            return  # its absence is seen, and the stage says why
        for metric, blocks in (
            (catalogue.SCRATCH_FREE, disk.f_bavail),
            (catalogue.SCRATCH_USED, disk.f_blocks - disk.f_bfree),
        ):
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            family.add_metric(self._names, blocks * disk.f_frsize)
            yield family
