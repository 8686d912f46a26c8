"""Series of every metric in the catalogue as input of promtool's tests: two values of each label,
from two targets, so that a query which mixes them up is found out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from hdgan.core.telemetry.catalogue import ALL, Metric

VALUES: Final = {
    "direction": ("read", "written"),
    "outcome": ("ok", "failed"),
    "phase": ("Running", "AwaitingAnnotation"),
}
TARGETS: Final = (
    'job="one", namespace="team-a", pod="pod-0", instance="10.0.0.1:1"',
    'job="one", namespace="team-a", pod="pod-1", instance="10.0.0.2:1"',
)


def synthetic(minutes: int) -> Iterator[dict[str, str]]:
    """Gauges at 1, counters that grow, a sample each minute."""
    for metric in ALL:
        for labels, target in itertools.product(_labels(metric), TARGETS):
            own = ", ".join([*labels, target])
            if metric.kind == "histogram":
                for end in ("sum", "count"):
                    yield _series(f"{metric.name}_{end}", own, "0+1", minutes)
                for number, limit in enumerate([*metric.buckets, "+Inf"], start=1):
                    bucket = f'{own}, le="{limit}"'
                    yield _series(f"{metric.name}_bucket", bucket, f"0+{number}", minutes)
            else:
                grows = metric.kind == "counter"
                yield _series(metric.name, own, "0+1" if grows else "1", minutes)
    yield _series("ALERTS", 'alertname="HdganRunFailed", alertstate="firing"', "1", minutes)


def _labels(metric: Metric) -> Iterator[list[str]]:
    choices = [VALUES.get(name, (f"{name}-1", f"{name}-2")) for name in metric.labels]
    for values in itertools.product(*choices):
        yield [f'{name}="{value}"' for name, value in zip(metric.labels, values, strict=True)]


def _series(name: str, labels: str, values: str, minutes: int) -> dict[str, str]:
    return {"series": f"{name}{{{labels}}}", "values": f"{values}x{minutes}"}
