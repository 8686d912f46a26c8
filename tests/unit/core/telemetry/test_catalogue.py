"""The catalogue keeps to Prometheus' rules for names, and the documentation to the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hdgan.core.telemetry.catalogue import ALL, Metric
from hdgan.core.telemetry.tables import COMMAND, filled, main

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_and_labels_are_what_prometheus_wants(metric: Metric) -> None:
    assert re.fullmatch(r"hdgan_[a-z0-9_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.help.endswith(".")
    # Prometheus gives these to targets: a metric's own would be renamed.
    assert not {"namespace", "pod", "instance", "job"} & set(metric.labels)
    assert list(metric.buckets) == sorted(metric.buckets)
    assert bool(metric.buckets) == (metric.kind == "histogram")


def test_names_are_told_apart() -> None:
    series = [name for metric in ALL for name in metric.series]
    assert len(series) == len(set(series))


def test_the_page_has_every_metric_of_the_catalogue_and_no_other() -> None:
    page = ROOT / "docs" / "metrics.md"
    assert main([str(page), "--check"]) == 0, COMMAND
    named = set(re.findall(r"\bhdgan_[a-z0-9_]+\b", page.read_text()))
    assert named == {metric.name for metric in ALL}


def test_marks_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match=r"tables: stage"):
        filled("# A page\n")


def test_code_names_no_metric_beside_the_catalogue() -> None:
    """Whoever fills one takes its name from there."""
    known = ROOT / "services/core/src/hdgan/core/telemetry/catalogue.py"
    sources = [*ROOT.glob("services/*/src/**/*.py"), *ROOT.glob("k8s/*/src/**/*.py")]
    assert known in sources
    for path in sources:
        if path != known:
            found = re.findall(
                r'"(hdgan_(?:stage|run|dataset|controller|store|scratch|training)_\w+)"',
                path.read_text(),
            )
            assert not found, path
