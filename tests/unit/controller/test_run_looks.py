"""What a run's status says for its series."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from hdgan.controller import endings
from hdgan.controller.attempt_ends import REASONS, ends_between
from hdgan.controller.decide import SUSPENDED
from hdgan.controller.endings import END_ROWS, Ending
from hdgan.controller.facts import parse_time
from hdgan.controller.run_looks import FAILURES, OTHER, failure, known_run, look_at
from hdgan.controller.status import (
    FINAL,
    ConditionStatus,
    EndStatus,
    Phase,
    RunStatus,
    StageStatus,
)
from hdgan.core.gates import GateVerdict
from hdgan.core.telemetry.run_series import OVER, PHASES, RunLook, StageLook
from support.cluster_world import PlayedRun, World
from support.runs import small_run
from unit.controller.test_decide import current, settled, told_to, until


def shown(played: PlayedRun) -> RunLook:
    """As it is after the status has gone to the API server and come back."""
    status = RunStatus.model_validate(played.facts.status.dump())
    document = {"metadata": {"name": played.facts.name}, "spec": {}}
    return look_at(known_run("team", document, status))


def stages(look: RunLook) -> dict[str, str]:
    return {one.name: one.state for one in look.stages}


def test_every_field_of_a_status_that_is_shown() -> None:
    verdicts = [
        GateVerdict(name=name, limit=1, passed=passed, sentence="")
        for name, passed in (("minPairs", None), ("maxKid", True), ("minIou.hair", False))
    ]
    status = RunStatus(
        phase="AwaitingAnnotation",
        started_at="2026-01-01T00:00:00Z",
        awaiting_since="2026-01-01T01:00:00Z",
        stages=[
            StageStatus(name="tiler", state="done", attempt=2, key="a" * 64),
            StageStatus(name="gan-trainer", state="ready", attempt=3, over=False),
            StageStatus(name="annotations", state="awaiting"),
        ],
        gates=verdicts,
    )
    document = {"metadata": {"name": "r"}, "spec": {"dataset": "skin", "resources": {"store": "b"}}}
    assert look_at(known_run("team", document, status)) == RunLook(
        run="r",
        dataset="skin",
        phase="AwaitingAnnotation",
        namespace="team",
        store="b",
        started=1767225600.0,
        awaiting_since=1767229200.0,
        stages=(
            StageLook("tiler", "done", 2),
            StageLook("gan-trainer", "running", 3),
            StageLook("annotations", "awaiting", None),
        ),
        gates={"maxKid": True, "minIou.hair": False},
    )


@pytest.mark.parametrize("spec", [None, [], "x", {"dataset": 5, "resources": {"store": []}}, {}])
def test_a_run_that_is_not_what_the_schema_says_is_shown_as_far_as_it_goes(spec: object) -> None:
    broken = StageStatus(name="tiler", key="no key", content_digest="no digest")
    status = RunStatus(started_at="yesterday", finished_at="", stages=[broken])
    known = known_run("team", {"metadata": {"name": "r"}, "spec": spec}, status)
    look = look_at(known)
    assert (look.dataset, look.store, look.started, look.finished) == ("r", "default", None, None)
    assert known.artifacts == {}


def test_all_phases_are_known_to_the_series() -> None:
    assert {*get_args(Phase), "Interrupted"} == set(PHASES)
    assert FINAL | {"Interrupted"} == OVER


# Since when it waits


def test_a_wait_for_a_person_is_told_from_its_beginning_for_as_long_as_it_lasts() -> None:
    world = World(annotated=False)
    played = world.add(small_run())
    until(world, played, "ranking")
    assert shown(played).awaiting_since is None
    world.succeed(current(world))
    settled(world, played)
    assert played.facts.status.phase == "AwaitingAnnotation"
    since = shown(played).awaiting_since
    moment = parse_time(played.facts.status.awaiting_since)
    assert moment is not None
    assert moment.timestamp() == since == world.now.timestamp()
    for _ in range(3):  # another controller, some days later
        world.pass_time(timedelta(days=1).total_seconds())
        world.forget(played)
        settled(world, played)
    assert shown(played).awaiting_since == since
    world.annotated = True
    played.observed = None
    settled(world, played)
    assert (played.facts.status.phase, shown(played).awaiting_since) == ("Running", None)


# Why it failed


def failing(world: World, code: int) -> PlayedRun:
    played = world.add(small_run())
    until(world, played, "gan-trainer")
    world.fail(current(world), code)
    return settled(world, played)


def test_a_failed_run_names_the_stage_and_the_reason_of_its_last_attempt() -> None:
    played = failing(World(), 65)
    look = shown(played)
    assert (look.phase, look.failure) == ("Failed", ("gan-trainer", "DataBad"))
    assert (stages(look)["gan-trainer"], stages(look)["tiler"]) == ("failed", "done")
    assert look.finished is not None


def test_a_stage_that_failed_before_a_retry_is_not_blamed_for_what_comes_then() -> None:
    world = World()
    played = failing(world, 65)
    told_to(played, "again", {})
    settled(world, played)
    assert shown(played).failure is None
    world.succeed(current(world))
    until(world, played, "classifier")
    world.fail(current(world), 65)
    settled(world, played)
    assert shown(played).failure == ("classifier", "DataBad")


def failed(reason: str, *stages: StageStatus, stage: str | None = None) -> RunStatus:
    condition = ConditionStatus(
        type="Failed", status="True", reason=reason, last_transition_time="2026-01-01T00:00:00Z"
    )
    return RunStatus(phase="Failed", stage=stage, stages=list(stages), conditions=[condition])


def test_why_a_run_failed_is_one_of_a_known_set() -> None:
    end = EndStatus(job="j", attempt=1, reason="NodeLost", at="2026-01-01T00:00:00Z")
    stage = StageStatus(name="tiler", last_end=end)
    assert failure(failed("SpecInvalid", stage)) == ("", "SpecInvalid")
    assert failure(failed("InputUnusable", stage, stage="tiler")) == ("tiler", "InputUnusable")
    assert failure(failed("NodeLost", stage)) == ("tiler", "NodeLost")
    assert failure(failed("SaidBySomebody", stage, stage="tiler")) == ("tiler", OTHER)
    assert failure(RunStatus(phase="Failed")) == ("", OTHER)
    assert failure(RunStatus(phase="Running")) is None
    assert {row.reason for row in END_ROWS} < FAILURES


# How attempts end


def ends(world: World, played: PlayedRun, rounds: int = 60) -> list[tuple[str, str]]:
    """Ends that are told until nothing changes any more."""
    told = []
    for _ in range(rounds):
        before = played.facts.status
        world.round(played)
        told += ends_between(before, played.facts.status)
    return told


@pytest.mark.parametrize(
    ("code", "disruption", "reason"),
    [
        (65, None, "DataBad"),
        (75, None, "Stopped"),
        (70, None, "Failed"),
        (143, "PreemptionByScheduler", "Preempted"),
    ],
)
def test_the_end_of_an_attempt_is_told_once_with_its_reason(
    code: int, disruption: str | None, reason: str
) -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    world.fail(current(world), code, disruption=disruption)
    assert ends(world, played) == [("tiler", reason)]


def test_attempts_that_end_well_are_told_once_each() -> None:
    world = World()
    played = world.add(small_run(), claim=True, parts=3)
    told = []
    while played.facts.status.phase != "Released":
        before = played.facts.status
        world.round(played)
        told += ends_between(before, played.facts.status)
        for job in world.live():
            world.succeed(job.name)
    stages = ["tiler", "tiler", "gan-trainer", "candidates", "extractor", "classifier"]
    stages += ["reranking", "dataset", "dataset"]  # parts, then their commit
    assert told == [(stage, "Succeeded") for stage in stages]


def test_jobs_that_are_deleted_and_runs_that_are_suspended() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    world.remove(current(world))
    assert ends(world, played) == [("tiler", "JobDeleted")]
    run = played.facts.run
    assert run is not None
    paused = run.model_copy(update={"spec": run.spec.model_copy(update={"suspend": True})})
    world.pass_time(60)
    settled(world, played)
    played.facts = replace(played.facts, run=paused)
    told = ends(world, played, 10)
    world.collect()
    assert told + ends(world, played, 10) == [("tiler", SUSPENDED)]


def test_a_job_that_goes_on_for_another_run_has_not_ended() -> None:
    before = RunStatus(stages=[StageStatus(name="tiler", attempt=1, over=False)])
    after = RunStatus(phase="Suspended", stages=[StageStatus(name="tiler", attempt=0)])
    assert ends_between(before, after) == []


def test_every_end_that_can_be_decided_is_among_the_reasons() -> None:
    fixed = {one.reason for one in vars(endings).values() if isinstance(one, Ending)}
    assert fixed | {row.reason for row in END_ROWS} | {"Succeeded", SUSPENDED} == set(REASONS)
