"""What Prometheus is told of runs in a cluster: over HTTP, across restarts, and after runs are
deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.fake_api.fates import Evicted, Runs
from cluster.test_controller import Cluster, cluster, crd, s3, world  # noqa: F401
from hdgan.controller import api as paths
from hdgan.controller.health import Health
from support.promtool import check_metrics
from unit.controller.test_health import asked

SECONDS = 60.0

Series = dict[str, float]
"""Value by name and labels, these sorted and without the ones all have."""


class Watched:
    """A cluster with a controller, and its page."""

    def __init__(self, cluster: Cluster) -> None:  # noqa: F811
        self.cluster = cluster
        self.health = Health(0, [cluster.namespace], "127.0.0.1")

    def lead(self) -> None:
        """A controller begins to lead, or another one does."""
        if self.cluster.controller is not None:
            self.health.controller = None
            self.cluster.controller_stops()
        self.health.controller = self.cluster.start()

    def page(self) -> str:
        return asked(self.health, "/metrics")[1]

    def series(self) -> Series:
        found = {}
        for family in text_string_to_metric_families(self.page()):
            for sample in family.samples:
                labels = {**sample.labels}
                assert labels.pop("run_namespace", self.cluster.namespace) == self.cluster.namespace
                text = ",".join(f"{name}={labels[name]}" for name in sorted(labels))
                found[f"{sample.name} {text}".rstrip()] = sample.value
        return found

    def until(self, condition: Callable[[Series], object]) -> Series:
        end = time.monotonic() + SECONDS
        while True:
            series = self.series()
            if condition(series):
                return series
            assert time.monotonic() < end, "\n".join(f"{n} {v}" for n, v in series.items())
            time.sleep(0.1)


@pytest.fixture
def watched(
    cluster: Cluster,  # noqa: F811
    world: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Watched]:
    monkeypatch.setattr("hdgan.controller.controller.FIRST_SERIES_SECONDS", 0.1)
    monkeypatch.setattr("hdgan.controller.controller.REFRESH_SECONDS", 0.5)
    made = Watched(cluster)
    made.lead()
    yield made
    made.health.controller = None
    made.health.stop()


def in_phase(run: str, dataset: str = "small") -> Callable[[Series], list[str]]:
    """The phases a run is in: one."""
    start, end = f"hdgan_run_phase dataset={dataset},phase=", f",run={run}"

    def phases(series: Series) -> list[str]:
        return [
            name.removeprefix(start).removesuffix(end)
            for name, value in series.items()
            if name.startswith(start) and name.endswith(end) and value == 1
        ]

    return phases


def is_in(run: str, phase: str, dataset: str = "small") -> Callable[[Series], bool]:
    return lambda series: in_phase(run, dataset)(series) == [phase]


def of_runs(series: Series) -> Series:
    return {name: value for name, value in series.items() if name.startswith("hdgan_run_")}


def test_a_run_from_its_wait_for_a_person_to_its_release(watched: Watched) -> None:
    cluster = watched.cluster  # noqa: F811
    cluster.fates["tiler"] = [Evicted(seconds=0.2, reason="EvictionByEvictionAPI")]
    before = time.time() - 1
    cluster.submit(gates={"minMacroDice": 0.9})
    cluster.until(lambda s: s.phase == "AwaitingAnnotation")
    series = watched.until(is_in("small", "AwaitingAnnotation"))
    run = "dataset=small,run=small"
    awaiting = series[f"hdgan_run_awaiting_annotation_since_timestamp_seconds {run}"]
    assert before <= awaiting <= time.time()
    assert series[f"hdgan_run_stage_state {run},stage=annotations,state=awaiting"] == 1
    assert series[f"hdgan_run_stage_attempts {run},stage=tiler"] == 2
    assert f"hdgan_run_finish_time_seconds {run}" not in series
    series = watched.until(lambda s: f"hdgan_run_kid {run}" in s)
    assert series[f"hdgan_run_kid {run}"] == 0.3

    cluster.annotate()
    status = cluster.until(lambda s: s.phase == "Released")
    dice = f"hdgan_run_macro_dice_ratio {run}"
    released = "hdgan_dataset_release_timestamp_seconds dataset=small,store=default"
    ended = is_in("small", "Released")  # known a moment later than to who asks the API server
    series = watched.until(lambda s: dice in s and released in s and ended(s))
    assert series[dice] == 0.91
    assert series["hdgan_run_gate_passed dataset=small,gate=minMacroDice,run=small"] == 1
    assert f"hdgan_run_awaiting_annotation_since_timestamp_seconds {run}" not in series
    assert before <= series[released] <= time.time()
    assert series["hdgan_dataset_macro_dice_ratio dataset=small,store=default"] == 0.91
    finished = series[f"hdgan_run_finish_time_seconds {run}"]
    assert finished >= series[f"hdgan_run_start_time_seconds {run}"]
    success = "hdgan_dataset_last_success_timestamp_seconds dataset=small,store=default"
    assert series[success] == max(finished, series[released])

    assert series["hdgan_controller_runs phase=Released"] == 1
    assert series["hdgan_controller_jobs state=running"] == 0
    assert series["hdgan_controller_store_reachable store=default"] == 1
    assert series["hdgan_controller_reconciles_total outcome=ok"] > 10
    ends = "hdgan_controller_attempts_ended_total reason"
    disrupted = [series.get(f"{ends}={one},stage=tiler", 0) for one in ("Drained", "Disrupted")]
    assert sum(disrupted) == 1
    assert series[f"{ends}=Succeeded,stage=tiler"] == 1
    assert series[f"{ends}=Succeeded,stage=dataset"] == 1
    check_metrics(watched.page())

    # Another controller tells the same of the run, and of the dataset when the run is gone.
    told = {n: v for n, v in series.items() if n.startswith(("hdgan_run_", "hdgan_dataset_"))}
    watched.lead()
    watched.until(lambda s: told.items() <= s.items())
    assert status.release is not None
    cluster.api.delete(paths.RUNS, cluster.namespace, "small")
    series = watched.until(lambda s: not of_runs(s))
    assert series[released] == told[released]
    watched.lead()
    series = watched.until(lambda s: released in s)
    assert (series[released], series[success]) == (told[released], told[released])
    assert of_runs(series) == {}


def test_a_run_that_fails_tells_where_and_why(watched: Watched) -> None:
    cluster = watched.cluster  # noqa: F811
    cluster.fates["gan-trainer"] = [Runs(exit_code=65, message="too few tiles")]
    cluster.submit()
    series = watched.until(is_in("small", "Failed"))
    run = "dataset=small,reason=DataBad,run=small,stage=gan-trainer"
    assert series[f"hdgan_run_failure_info {run}"] == 1
    assert series["hdgan_controller_attempts_ended_total reason=DataBad,stage=gan-trainer"] == 1
    state = "hdgan_run_stage_state dataset=small,run=small,stage="
    assert series[f"{state}gan-trainer,state=failed"] == 1
    assert series[f"{state}tiler,state=done"] == 1
    assert not any(name.startswith("hdgan_dataset_") for name in series)
    cluster.submit("invalid", resources={"store": "nowhere"}, dataset="other")
    series = watched.until(is_in("invalid", "Failed", "other"))
    why = "dataset=other,reason=SpecInvalid,run=invalid,stage="
    assert series[f"hdgan_run_failure_info {why}"] == 1


def test_no_more_than_the_last_of_a_datasets_runs_have_series(watched: Watched) -> None:
    cluster = watched.cluster  # noqa: F811
    for number in range(7):
        cluster.submit(f"r-{number}", resources={"store": "nowhere"}, dataset="skin")
        cluster.until(lambda s: s.phase == "Failed", f"r-{number}")
        if number < 6:
            time.sleep(1.1)  # times of a status have whole seconds
    cluster.submit("other", resources={"store": "nowhere"}, dataset="lung")
    series = watched.until(
        lambda s: is_in("other", "Failed", "lung")(s) and is_in("r-6", "Failed", "skin")(s)
    )
    shown = {name.split("run=")[1].split(",")[0] for name in of_runs(series)}
    assert shown == {"other", *(f"r-{number}" for number in range(2, 7))}
    assert series["hdgan_controller_runs phase=Failed"] == 8


def test_a_store_that_does_not_answer_keeps_its_last_values(
    watched: Watched,
) -> None:
    cluster = watched.cluster  # noqa: F811
    cluster.submit()
    cluster.until(lambda s: s.phase == "AwaitingAnnotation")
    cluster.annotate()
    cluster.until(lambda s: s.phase == "Released")
    kid = "hdgan_run_kid dataset=small,run=small"
    released = "hdgan_dataset_release_timestamp_seconds dataset=small,store=default"
    before = watched.until(lambda s: kid in s and released in s)
    _take_credentials_away(cluster)
    reachable = "hdgan_controller_store_reachable store=default"
    series = watched.until(lambda s: s[reachable] == 0)
    assert (series[kid], series[released]) == (before[kid], before[released])


def _take_credentials_away(cluster: Cluster) -> None:  # noqa: F811
    folder = cluster.settings.store(cluster.namespace, None).credentials
    assert folder is not None
    (Path(folder) / "AWS_SECRET_ACCESS_KEY").unlink()
    assert cluster.controller is not None
    cluster.controller._stores.forget(cluster.namespace, None)
