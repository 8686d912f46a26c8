"""The series of a stage at work: what it tells them is what they show."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hdgan.core.progress import Progress
from hdgan.core.telemetry import catalogue
from hdgan.core.telemetry.stage_series import GAUGES, StageSeries
from support.promtool import check_metrics

Labels = frozenset[tuple[str, str]]
OWN = {"run": "skin", "stage": "gan-trainer"}


@pytest.fixture
def series(tmp_path: Path) -> StageSeries:
    return StageSeries(run="skin", stage="gan-trainer", key="ab", device="cpu", scratch=tmp_path)


def shown(series: StageSeries) -> dict[str, dict[Labels, float]]:
    """Values of all series by name and labels."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(series.page("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def value(series: StageSeries, name: str, **labels: str) -> float | None:
    return shown(series).get(name, {}).get(frozenset((OWN | labels).items()))


def work(done: float, total: float | None, unit: str) -> Progress:
    return Progress(done, total, unit, None, None)


def test_throughput_counts_what_this_process_has_done(series: StageSeries) -> None:
    for done in (40.0, 41.0, 44.0):  # it went on at 40
        series.progress(work(done, 80.0, "images"))
    assert value(series, "hdgan_stage_work_total", unit="images") == 4
    assert value(series, "hdgan_stage_work_done", unit="images") == 44
    assert value(series, "hdgan_stage_progress_ratio") == 0.55


def test_only_the_work_at_hand_is_shown_and_what_was_done_is_counted(series: StageSeries) -> None:
    series.progress(work(0.0, 5.0, "calibration images"))
    series.progress(work(5.0, 5.0, "calibration images"))
    series.progress(work(1.0, None, "pairs"))
    found = shown(series)
    assert [dict(one)["unit"] for one in found["hdgan_stage_work_done"]] == ["pairs"]
    assert "hdgan_stage_work_expected" not in found
    assert value(series, "hdgan_stage_work_total", unit="calibration images") == 5


def test_work_that_stands_still_keeps_its_time(
    series: StageSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "hdgan_stage_last_progress_timestamp_seconds"
    for now, done, expected in (
        (1000.0, 1.0, 1000.0),
        (1060.0, 1.0, 1000.0),
        (1070.0, 2.0, 1070.0),
    ):
        monkeypatch.setattr("time.time", lambda now=now: now)
        series.progress(work(done, 9.0, "tiles"))
        assert value(series, name) == expected


def test_training_goes_on_counting_where_an_earlier_attempt_was(series: StageSeries) -> None:
    series.images(64_000, 2)
    series.images(64_032, 2)
    assert value(series, "hdgan_training_images_total") == 64_032
    assert value(series, "hdgan_training_skipped_updates_total") == 2
    for seconds in (0.04, 0.3, 0.3):
        series.step(seconds, waited=0.5)
    assert value(series, "hdgan_training_step_seconds_bucket", le="0.05") == 1
    assert value(series, "hdgan_training_step_seconds_bucket", le="0.5") == 3
    assert value(series, "hdgan_training_step_seconds_sum") == pytest.approx(0.64)
    assert value(series, "hdgan_training_tile_wait_seconds_total") == 1.5


def test_measures_have_series_only_where_the_catalogue_has_one(series: StageSeries) -> None:
    series.measured({"lossG": float("nan"), "adaP": 0.3, "somethingNew": 1.0})
    assert value(series, "hdgan_training_ada_probability") == 0.3
    loss = value(series, "hdgan_training_loss", term="generator")
    assert loss is not None
    assert math.isnan(loss)
    assert "somethingNew" not in series.page("/metrics").text
    told = json.loads(series.page("/progress").text)["metrics"]
    assert told == {"lossG": None, "adaP": 0.3, "somethingNew": 1.0}


def test_what_is_left_out_and_what_waits(series: StageSeries) -> None:
    series.rejected({"background": 3, "blurred": 1})
    series.rejected({"background": 2})
    series.queued("tiles", 7)
    assert value(series, "hdgan_stage_rejects_total", reason="background") == 5
    assert value(series, "hdgan_stage_queue_depth", queue="tiles") == 7


def test_scratch_is_looked_at_when_asked(series: StageSeries, tmp_path: Path) -> None:
    found = shown(series)
    for name in ("hdgan_scratch_free_bytes", "hdgan_scratch_used_bytes"):
        assert found[name][frozenset(OWN.items())] > 0
    tmp_path.rmdir()
    assert "hdgan_scratch_free_bytes" not in shown(series)


def test_requests_to_the_store(series: StageSeries) -> None:
    series.store.request("GetObject", "ok", 0.03)
    series.store.request("GetObject", "failed", 2.0)
    series.store.retry()
    series.store.transferred("read", 10)
    found = shown(series)
    requests = found["hdgan_store_requests_total"]
    assert requests[frozenset({("operation", "GetObject"), ("outcome", "failed")})] == 1
    buckets = found["hdgan_store_request_seconds_bucket"]
    assert buckets[frozenset({("operation", "GetObject"), ("le", "0.05")})] == 1
    assert found["hdgan_store_retries_total"][frozenset()] == 1
    moved = found["hdgan_store_transferred_bytes_total"]
    assert moved == {
        frozenset({("direction", "read")}): 10,
        frozenset({("direction", "written")}): 0,
    }


def test_all_it_shows_is_in_the_catalogue_and_the_other_way_round(series: StageSeries) -> None:
    series.progress(work(0.0, 9.0, "kimg"))
    series.measured(dict.fromkeys(GAUGES, 0.5))
    series.step(0.1, 0.1)
    series.images(1, 1)
    series.rejected({"uncertain": 1})
    series.queued("tiles", 1)
    series.store.request("PutObject", "ok", 0.1)
    page = series.page("/metrics").text
    check_metrics(page)
    found = {
        sample.name: set(sample.labels) - {"le"}
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("hdgan_")
    }
    assert found == {
        name: set(metric.labels)
        for metric in catalogue.ALL
        if "stage" in metric.places
        for name in metric.series
    }
