"""What the controller tells Prometheus, all of it and nothing else: as the catalogue says."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hdgan.controller.api import Api
from hdgan.controller.attempt_ends import REASONS
from hdgan.controller.controller import Controller, job_states
from hdgan.controller.controller_series import ControllerSeries, RunBook, by_phase, by_state
from hdgan.controller.facts import (
    ATTEMPT_LABEL,
    KEY_LABEL,
    KIND_LABEL,
    MANAGED_BY,
    MANAGED_LABEL,
    STAGE_LABEL,
)
from hdgan.controller.health import Health
from hdgan.controller.queueing import DelayQueue
from hdgan.controller.run_looks import KnownRun
from hdgan.controller.status import EndStatus, Phase, RunStatus, StageStatus
from hdgan.controller.store_looks import StoreLooks
from hdgan.core.gates import GateVerdict
from hdgan.core.request import InputRef
from hdgan.core.telemetry.catalogue import ALL, BY_SERIES
from hdgan.core.telemetry.stage_series import StoreSeries
from support.promtool import check_metrics, promtool_or_skip
from unit.controller.test_health import asked
from unit.controller.test_render import settings
from unit.controller.test_run_looks import failed
from unit.controller.test_store_looks import A, Stores, eventually
from unit.core.telemetry.test_run_measures import TEST, made, table
from unit.core.telemetry.test_run_releases import released

END = EndStatus(job="j", attempt=1, reason="Preempted", at="2026-01-01T00:00:00Z")


def known(name: str, status: RunStatus, **artifacts: InputRef) -> KnownRun:
    return KnownRun("team", name, "skin", "a", status, artifacts)


def phases(phase: Phase, count: int) -> list[KnownRun]:
    return [known(f"{phase}-{n}", RunStatus(phase=phase)) for n in range(count)]


class Leader:
    """A controller that leads, of which there are only the series."""

    def __init__(self, series: ControllerSeries) -> None:
        self.series = series

    def works(self) -> bool:
        return True

    def unseen(self) -> list[str]:
        return []


@pytest.fixture
def runs() -> RunBook:
    return RunBook()


@pytest.fixture
def looks(tmp_path: Path) -> StoreLooks:
    return Stores(tmp_path).looks()


@pytest.fixture
def series(runs: RunBook, looks: StoreLooks) -> ControllerSeries:
    return ControllerSeries(
        runs, looks, jobs=lambda: {"team": ["running", "pending", "pending"]}, due=lambda: 3
    )


def values(series: ControllerSeries, name: str) -> dict[tuple[str, ...], float]:
    """Values of a series by those of its labels, in the catalogue's order."""
    labels = BY_SERIES[name].labels
    return {
        tuple(sample.labels[one] for one in labels): sample.value
        for family in series.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_jobs_and_runs_are_counted_by_state(series: ControllerSeries, runs: RunBook) -> None:
    for one in (*phases("Running", 2), *phases("Failed", 1)):
        runs.note(one)
    assert values(series, "hdgan_controller_jobs") == {
        ("team", "pending"): 2.0, ("team", "running"): 1.0, ("team", "suspended"): 0.0,
    }  # fmt: skip
    found = values(series, "hdgan_controller_runs")
    assert {phase: count for (_, phase), count in found.items() if count} == {
        "Running": 2.0, "Failed": 1.0,
    }  # fmt: skip
    assert len(found) == 8
    assert values(series, "hdgan_controller_queue_depth") == {(): 3.0}


def test_of_a_namespace_that_is_not_seen_nothing_is_claimed() -> None:
    assert by_state({}) == {}
    assert by_phase(phases("Running", 2), []) == {}


def test_runs_that_are_gone_have_no_series_and_the_dataset_keeps_its_own(
    series: ControllerSeries, runs: RunBook
) -> None:
    ended = RunStatus(phase="Released", finished_at="2026-01-01T00:00:00Z")
    runs.note(known("one", ended))
    success = "hdgan_dataset_last_success_timestamp_seconds"
    assert values(series, success) == {("team", "a", "skin"): 1767225600.0}
    assert values(series, "hdgan_run_finish_time_seconds")
    runs.forget("team", "one")
    assert values(series, "hdgan_run_finish_time_seconds") == {}
    runs.forget("team", "one")


def test_only_what_is_shown_is_read_of_stores(runs: RunBook) -> None:
    for number in range(8):
        at = f"2026-01-0{number + 1}T00:00:00Z"
        runs.note(known(f"r-{number}", RunStatus(phase="Failed", finished_at=at)))
    runs.note(known("live", RunStatus()))
    assert {one.name for one in runs.shown()} == {"live", "r-3", "r-4", "r-5", "r-6", "r-7"}


def test_ends_of_attempts_rise_from_nothing(series: ControllerSeries, runs: RunBook) -> None:
    def written(before: StageStatus, after: StageStatus) -> None:
        series.status_written("team", RunStatus(stages=[before]), RunStatus(stages=[after]))

    name = "hdgan_controller_attempts_ended_total"
    at_work = StageStatus(name="tiler", attempt=1, over=False)
    runs.note(known("rests", RunStatus(stages=[StageStatus(name="dataset", attempt=1)])))
    assert values(series, name) == {}
    runs.note(known("works", RunStatus(stages=[at_work])))  # whoever has begun it
    assert values(series, name) == {("team", "tiler", reason): 0.0 for reason in REASONS}
    written(at_work, at_work.model_copy(update={"over": True, "last_end": END}))
    written(at_work, at_work.model_copy(update={"over": True, "succeeded": "whole"}))
    risen = {labels: count for labels, count in values(series, name).items() if count}
    assert risen == {("team", "tiler", "Preempted"): 1.0, ("team", "tiler", "Succeeded"): 1.0}


def test_looks_at_runs_are_counted_and_timed(series: ControllerSeries) -> None:
    name = "hdgan_controller_reconciles_total"
    assert values(series, name) == {("ok",): 0.0, ("conflict",): 0.0, ("error",): 0.0}
    series.reconciled("ok", 0.03)
    series.reconciled("ok", 0.7)
    series.reconciled("error", 0.001)
    assert values(series, name) == {("ok",): 2.0, ("conflict",): 0.0, ("error",): 1.0}
    assert values(series, "hdgan_controller_reconcile_seconds_count") == {(): 3.0}
    assert values(series, "hdgan_controller_reconcile_seconds_sum")[()] == pytest.approx(0.731)


def job(uid: str, *, suspend: bool = False, over: bool = False) -> dict[str, Any]:
    labels = {STAGE_LABEL: "tiler", KEY_LABEL: "k", KIND_LABEL: "whole", ATTEMPT_LABEL: "1"}
    conditions = [{"type": "Complete", "status": "True"}] if over else []
    return {
        "metadata": {"name": uid, "uid": uid, "labels": {MANAGED_LABEL: MANAGED_BY, **labels}},
        "spec": {"suspend": suspend},
        "status": {"conditions": conditions},
    }


def pod(owner: str, phase: str) -> dict[str, Any]:
    owners = [{"uid": owner, "kind": "Job", "name": owner}]
    return {"metadata": {"ownerReferences": owners}, "status": {"phase": phase}}


def test_a_job_runs_as_soon_as_one_of_its_pods_does() -> None:
    jobs = [job("a"), job("b"), job("c", suspend=True), job("d", over=True), job("e")]
    pods = [pod("a", "Pending"), pod("a", "Running"), pod("b", "Pending"), pod("d", "Running")]
    states = job_states(jobs, [*pods, {"metadata": {}}])
    assert states == ["running", "pending", "suspended", "pending"]


def test_only_what_is_due_waits_to_be_looked_at() -> None:
    queue: DelayQueue[str] = DelayQueue()
    queue.add("now")
    queue.add("later", 600)
    queue.add("taken")
    assert queue.due() == 3 - 1
    assert queue.take() is not None
    assert queue.due() == 1


# All of it, over HTTP


def full(tmp_path: Path) -> tuple[ControllerSeries, RunBook]:
    """A controller of which every series has a value."""
    stores = Stores(tmp_path)
    store, runs, looks = stores.stores[A], RunBook(), stores.looks()
    released(store, "skin", 1, 0.8)
    artifacts = {
        "gan-trainer": made(store, "gan-trainer", evaluation_json=b'{"kid":{"whole":{"mean":1}}}'),
        "drift": made(store, "drift", {"run": "done"}, drift_json=b'{"kid":{"whole":{"mean":1}}}'),
        "classifier": made(
            store, "classifier", {"run": "done"}, scores_json=json.dumps({"test": TEST}).encode()
        ),
        "dataset": made(
            store,
            "dataset",
            {"run": "done", "seconds": 3, "device": "cpu"},
            index_parquet=table(5),
        ),
    }
    verdict = GateVerdict(name="maxKid", limit=1, passed=True, sentence="")
    done = RunStatus(
        phase="Released",
        started_at="2026-01-01T00:00:00Z",
        finished_at="2026-01-01T05:00:00Z",
        gates=[verdict],
        stages=[StageStatus(name="tiler", state="done", attempt=1)],
    )
    waits = RunStatus(phase="AwaitingAnnotation", awaiting_since="2026-01-01T05:00:00Z")
    for one in (
        known("done", done, **artifacts),
        known("waits", waits),
        known("fails", failed("SpecInvalid")),
    ):
        runs.note(one)
    looks.refresh(runs.shown())
    eventually(lambda: len(looks.reachable()) == 2)
    series = ControllerSeries(runs, looks, jobs=lambda: {"team": ["running"]}, due=lambda: 0)
    series.status_written(
        "team",
        RunStatus(stages=[StageStatus(name="tiler", attempt=1, over=False)]),
        RunStatus(stages=[StageStatus(name="tiler", attempt=1)]),
    )
    series.reconciled("ok", 0.01)
    return series, runs


@pytest.fixture
def page(tmp_path: Path) -> str:
    series, _ = full(tmp_path)
    health = Health(0, ["team"])
    try:
        stores = StoreSeries(health.registry)  # as the program adds it
        stores.request("GetObject", "ok", 0.1)
        health.controller = Leader(series)
        return asked(health, "/metrics")[1]
    finally:
        health.stop()


def test_every_series_is_in_the_catalogue_with_these_labels_and_the_other_way_round(
    page: str,
) -> None:
    places = {"run", "dataset", "controller"}
    expected = {one.name: one for one in ALL if places & set(one.places)}
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if not sample.name.startswith("hdgan_"):
                assert sample.name.startswith("process_"), sample.name
                continue
            metric = BY_SERIES[sample.name]
            assert metric.name in expected, f"{metric.name} is not the controller's"
            found[metric.name] += 1
            assert (family.type, family.documentation) == (metric.kind, metric.help)
            assert set(sample.labels) - {"le"} == set(metric.labels), sample
            assert ("le" in sample.labels) == sample.name.endswith("_bucket")
    assert set(found) == set(expected), set(expected) ^ set(found)


def test_promtool_finds_nothing_to_say(page: str) -> None:
    promtool_or_skip()
    check_metrics(page)


def test_nothing_is_asked_of_stores_when_somebody_asks(tmp_path: Path) -> None:
    stores = Stores(tmp_path)
    runs, looks = RunBook(), stores.looks()
    looks.refresh([])
    eventually(lambda: len(looks.reachable()) == 2)
    series = ControllerSeries(runs, looks, jobs=dict, due=lambda: 0)
    stores.opened.clear()
    for store in stores.stores.values():
        store.asked.clear()
    runs.note(known("new", RunStatus(), tiler=made_elsewhere()))
    list(series.collect())
    assert (stores.opened, [dict(one.asked) for one in stores.stores.values()]) == ([], [{}, {}])


def made_elsewhere() -> InputRef:
    return InputRef(stage="tiler", key="a" * 64, content_digest="b" * 64)


def test_a_thousand_runs_are_shown_in_no_time(tmp_path: Path) -> None:
    """A scrape must end long before the next begins."""
    series, runs = full(tmp_path)
    stages = [StageStatus(name="tiler", state="done", attempt=1) for _ in range(10)]
    for number in range(1000):
        runs.note(known(f"r-{number}", RunStatus(phase="Failed", stages=stages)))
    began = time.process_time()
    assert list(series.collect())
    assert time.process_time() - began < 5


def test_a_run_whose_status_cannot_be_read_has_no_series() -> None:
    """Another version of the controller has written it: it is not Pending."""
    controller, namespace = Controller(cast(Api, None), settings()), "team"

    def shown(status: Any) -> dict[str, float]:
        controller._run_changed(namespace, {"metadata": {"name": "r"}, "status": status})
        return {
            sample.labels["phase"]: sample.value
            for family in controller.series.collect()
            for sample in family.samples
            if sample.name == "hdgan_run_phase" and sample.value
        }

    try:
        assert shown(None) == {"Pending": 1.0}
        assert shown({"phase": "Running"}) == {"Running": 1.0}
        assert shown({"phase": "Dreaming"}) == {}
        assert shown({"phase": "Failed"}) == {"Failed": 1.0}
        controller._forget((namespace, "r"))
        assert not any(f.samples for f in controller.series.collect() if "_run_" in f.name)
    finally:
        controller.stop()
