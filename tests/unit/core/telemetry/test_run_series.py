"""Series of runs and datasets, from looks with every field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from hdgan.core.score_documents import ImageScores
from hdgan.core.stage_cost import StageCost
from hdgan.core.telemetry.catalogue import ALL, BY_NAME
from hdgan.core.telemetry.run_measures import Measures
from hdgan.core.telemetry.run_series import (
    PHASES,
    DatasetLook,
    LookCollector,
    RunLook,
    StageLook,
    shown,
    with_successes,
)
from support.promtool import check_metrics, promtool_or_skip

FULL = RunLook(
    run="weekly-1",
    dataset="skin",
    phase="GateFailed",
    namespace="team",
    store="default",
    started=1000.0,
    finished=5000.5,
    stages=(StageLook("tiler", "done", 0), StageLook("gate", "failed")),
    gates={"minMacroDice": False, "minIou.epidermis": True},
    measures={
        "tiler": Measures(StageCost(7.0, "cpu", 1, made_by="weekly-0")),
        "gan-trainer": Measures(StageCost(3600.0, "cuda", 8, made_by="weekly-1"), kid=0.012),
        "classifier": Measures(
            StageCost(60.5, "cuda"),
            ImageScores(0.81, 0.7, 0.034, {"dermis": 0.8, "hair": None}, {"dermis": 0.66}),
        ),
        "drift": Measures(StageCost(), drift_kid=0.002),
        "dataset": Measures(StageCost(None, "cpu"), pairs=10_000),
    },
)
WAITING = RunLook("waits", "skin", "AwaitingAnnotation", "team", "default", awaiting_since=2000.0)
FAILED = RunLook(
    "fails", "skin", "Failed", "team", "default", failure=("gan-trainer", "OutOfMemory")
)
SKIN = DatasetLook("skin", "team", "default", released=4000.0, macro_dice=0.79)


def served(*runs: RunLook, datasets: tuple[DatasetLook, ...] = ()) -> list[str]:
    """All series as they are read, without HELP and TYPE."""
    registry = CollectorRegistry()
    registry.register(LookCollector(lambda: runs, lambda: datasets))
    return [one for one in generate_latest(registry).decode().splitlines() if one[0] != "#"]


def of(run: str, lines: list[str]) -> dict[str, float]:
    """Series of one run without the labels all have."""
    mine = f'dataset="skin",run="{run}",run_namespace="team"'
    found = {}
    for line in lines:
        name, value = line.rsplit(" ", 1)
        if f'run="{run}"' in name:
            text = ",".join(one for one in name[:-1].split("{")[1].split(",") if one not in mine)
            found[f"{name.split('{')[0]} {text}".rstrip()] = float(value)
    return found


def test_all_that_is_known_of_a_run_is_shown() -> None:
    phases = {f'hdgan_run_phase phase="{one}"': float(one == "GateFailed") for one in PHASES}
    assert of("weekly-1", served(FULL)) == phases | {
        "hdgan_run_start_time_seconds": 1000.0,
        "hdgan_run_finish_time_seconds": 5000.5,
        'hdgan_run_stage_state stage="tiler",state="done"': 1.0,
        'hdgan_run_stage_state stage="gate",state="failed"': 1.0,
        'hdgan_run_stage_attempts stage="tiler"': 0.0,
        # Another run has paid for the tiles.
        'hdgan_run_stage_duration_seconds stage="tiler"': 7.0,
        'hdgan_run_stage_duration_seconds stage="gan-trainer"': 3600.0,
        'hdgan_run_stage_duration_seconds stage="classifier"': 60.5,
        'hdgan_run_stage_device_seconds device="cuda",stage="gan-trainer"': 28800.0,
        'hdgan_run_stage_device_seconds device="cuda",stage="classifier"': 60.5,
        'hdgan_run_dice_ratio class="dermis"': 0.8,
        'hdgan_run_iou_ratio class="dermis"': 0.66,
        "hdgan_run_macro_dice_ratio": 0.81,
        "hdgan_run_calibration_error_ratio": 0.034,
        "hdgan_run_kid": 0.012,
        "hdgan_run_drift_kid": 0.002,
        "hdgan_run_pairs": 10_000.0,
        'hdgan_run_gate_passed gate="minMacroDice"': 0.0,
        'hdgan_run_gate_passed gate="minIou.epidermis"': 1.0,
    }


def test_what_is_not_known_has_no_series() -> None:
    lines = served(WAITING, FAILED, RunLook("new", "skin", "Pending", "team"))
    assert {name for name in of("new", lines) if "phase" not in name} == set()
    since = "hdgan_run_awaiting_annotation_since_timestamp_seconds"
    assert {n: v for n, v in of("waits", lines).items() if "phase" not in n} == {since: 2000.0}
    why = 'hdgan_run_failure_info reason="OutOfMemory",stage="gan-trainer"'
    assert {n: v for n, v in of("fails", lines).items() if "phase" not in n} == {why: 1.0}


def ended(number: int, phase: str = "Failed", **more: Any) -> RunLook:
    look = RunLook(f"r-{number:02d}", "skin", phase, "team", "default", finished=float(number))
    return replace(look, **more)


def test_live_runs_and_the_last_of_each_dataset_have_series() -> None:
    many = [ended(n) for n in (3, 9, 1, 7, 2, 8)]
    assert [one.run for one in shown(many)] == ["r-02", "r-03", "r-07", "r-08", "r-09"]
    # Live ones count for nothing, and other places have a count of their own.
    live = [ended(20 + n, "Running") for n in range(10)]
    others = [
        ended(30, dataset="lung"),
        ended(31, store="other"),
        ended(32, namespace="z"),
    ]
    found = shown([*many, *live, *others])
    assert len(found) == 5 + 10 + 3
    assert "r-01" not in {one.run for one in found}
    assert shown(many, most=1) == [ended(9)]
    assert 'run="r-01"' not in "\n".join(served(*many))


def test_the_last_success_is_of_the_release_or_of_a_run_that_ended_well_since() -> None:
    assert with_successes([SKIN], []) == [replace(SKIN, confirmed=4000.0)]
    for phase, finished, expected in (
        ("Unchanged", 6000, 6000.0),
        ("Released", 3000, 4000.0),
        ("GateFailed", 6000, 4000.0),
        ("Failed", 6000, 4000.0),
        ("Running", 6000, 4000.0),
    ):
        (found,) = with_successes([SKIN], [ended(finished, phase)])
        assert found == replace(SKIN, confirmed=expected), phase
    # Of a store that cannot be read the runs are known; nothing else is.
    unread = DatasetLook("skin", "team", "default", confirmed=6000.0)
    assert with_successes([], [ended(5000, "Released"), ended(6000, "Unchanged")]) == [unread]


def test_a_run_without_series_still_counts_for_its_dataset() -> None:
    runs = [ended(9000, "Unchanged"), *(ended(9001 + n, "Failed") for n in range(5))]
    lines = served(*runs, datasets=(SKIN,))
    assert not any('run="r-9000"' in line for line in lines)
    labels = 'dataset="skin",run_namespace="team",store="default"'
    assert [one for one in lines if "hdgan_dataset" in one] == [
        f"hdgan_dataset_release_timestamp_seconds{{{labels}}} 4000.0",
        f"hdgan_dataset_last_success_timestamp_seconds{{{labels}}} 9000.0",
        f"hdgan_dataset_macro_dice_ratio{{{labels}}} 0.79",
    ]


def test_series_are_those_of_the_catalogue() -> None:
    """Name, kind, help and labels, and every one of them."""
    collector = LookCollector(lambda: [FULL, WAITING, FAILED], lambda: [SKIN])
    expected = {one.name for one in ALL if {"run", "dataset"} & set(one.places)}
    families = list(collector.collect())
    assert {one.name for one in families} == expected
    for family in families:
        metric = BY_NAME[family.name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert family.samples, f"{family.name} has no example here"
        for sample in family.samples:
            assert tuple(sample.labels) == metric.labels
    assert [one.name for one in collector.describe()] == [one.name for one in families]


def test_labels_others_have_written_end_no_scrape() -> None:
    gates = {"minIou.\ud800": True, "x" * 5000: False}
    lines = [one for one in served(replace(FULL, gates=gates)) if "gate_passed" in one]
    assert any('gate="minIou.?"' in one for one in lines)
    assert max(map(len, lines)) < 400


def test_promtool_finds_nothing_to_say() -> None:
    promtool_or_skip()
    registry = CollectorRegistry()
    registry.register(LookCollector(lambda: [FULL, WAITING, FAILED], lambda: [SKIN]))
    check_metrics(generate_latest(registry).decode())
