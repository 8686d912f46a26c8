"""The report of a run on a cluster: a Job for each rest, and never at the run's expense."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from hdgan.controller.actions import CreateJob
from hdgan.controller.controller import at_work
from hdgan.controller.decide import decide
from hdgan.controller.events import events_between
from hdgan.controller.facts import JobFacts
from hdgan.controller.reading import run_facts
from hdgan.controller.reporting import wanted_report
from hdgan.controller.status import RunStatus
from hdgan.core.report_request import STAGE, ReportConfig, report_request
from hdgan.core.request import StageRequest
from support.cluster_world import EXTERNAL, PlayedRun, World
from support.runs import changed, small_run
from unit.controller.test_decide import current, settled
from unit.controller.test_render import made_report, settings

PLACE = "s3://bucket/store/reports/small/report.html"


def reports(world: World) -> list[JobFacts]:
    return [job for job in world.jobs.values() if job.stage == STAGE]


def at_rest(world: World, played: PlayedRun) -> RunStatus:
    """Until no stage is left to run; reports are left alone."""
    while True:
        status = settled(world, played).facts.status
        live = [job for job in world.live() if job.stage != STAGE]
        if not live:
            return status
        world.succeed(live[0].name)


def written(played: PlayedRun) -> tuple[str, str] | None:
    found = (c for c in played.facts.status.conditions if c.type == "ReportWritten")
    return next(((c.status, c.reason) for c in found), None)


def test_a_released_run_has_its_report_written_once() -> None:
    world = World()
    played = world.add(small_run(), reports=True)
    status = at_rest(world, played)
    assert (status.phase, status.report, written(played)) == ("Released", None, None)
    (job,) = reports(world)
    assert job.live
    request = wanted_report(played.facts)
    assert request is not None
    assert (request.key, request.service) == (status.report_key, "desk")
    told = ReportConfig.model_validate_json(json.dumps(request.config))
    assert (told.outcome, told.release, told.external) == ("Released", "small-0", EXTERNAL)

    before = status
    world.succeed(job.name)
    status = settled(world, played).facts.status
    assert (status.report, written(played)) == (PLACE, ("True", "Written"))
    assert [(e.kind, e.reason) for e in events_between(before, status)] == [
        ("Normal", "ReportWritten")
    ]
    # Its Job goes by itself; nobody makes another.
    del world.jobs[job.name]
    world.forget(played)
    assert settled(world, played).facts.status == status
    assert reports(world) == []


def test_the_outcome_is_written_before_anything_is_made_for_the_report() -> None:
    world = World()
    played = world.add(small_run(), reports=True)
    while played.facts.status.phase != "Released":
        assert reports(world) == []
        for job in world.live():
            world.succeed(job.name)
        world.round(played)
    assert reports(world) == []
    decision = world.look(played)
    assert (decision.actions, decision.status.report_key is None) == ((), False)


def test_a_report_that_fails_is_told_and_changes_nothing_else() -> None:
    world = World()
    played = world.add(small_run(), reports=True)
    before = at_rest(world, played)
    (job,) = reports(world)
    world.fail(job.name, 70)
    status = settled(world, played).facts.status
    assert (status.phase, status.report) == ("Released", None)
    assert written(played) == ("False", "ReportFailed")
    others = [c for c in status.conditions if c.type != "ReportWritten"]
    assert others == before.conditions
    (event,) = events_between(before, status)
    assert (event.kind, event.reason) == ("Warning", "ReportFailed")
    world.pass_time(7 * 86400)
    settled(world, played)
    assert len(reports(world)) == 1


def test_each_rest_has_a_report_of_its_own() -> None:
    world = World(annotated=False)
    played = world.add(small_run(), reports=True)
    status = at_rest(world, played)
    assert status.phase == "AwaitingAnnotation"
    (first,) = reports(world)
    # Labels come while it is written: what it shows is past, and the run goes on at once.
    world.annotated = True
    world.observe(played)
    settled(world, played)
    assert world.jobs[current_stage(world)].stage == "classifier"
    assert played.facts.status.report is None
    status = at_rest(world, played)
    assert status.phase == "Released"
    second = next(job for job in reports(world) if job.name != first.name)
    world.succeed(second.name)
    assert settled(world, played).facts.status.report == PLACE


def current_stage(world: World) -> str:
    return next(job.name for job in world.live() if job.stage != STAGE)


def test_failed_and_gated_runs_have_reports_unless_nothing_is_known_of_them() -> None:
    world = World(macro_dice=0.2)
    played = world.add(small_run("spec.gates", {"minMacroDice": 0.5}), reports=True)
    assert at_rest(world, played).phase == "GateFailed"
    assert len(reports(world)) == 1

    world = World()
    played = world.add(small_run(), reports=True)
    settled(world, played)
    world.fail(current(world), 64)
    assert at_rest(world, played).phase == "Failed"
    assert len(reports(world)) == 1
    request = wanted_report(played.facts)
    assert request is not None
    assert request.config["message"] == played.facts.status.message != ""

    unpinned = played.facts.status.model_copy(update={"pinned": None})
    assert wanted_report(replace(played.facts, status=unpinned)) is None


@pytest.mark.parametrize("why", ["slot", "refusal", "store"])
def test_it_waits_where_no_job_can_be_made(why: str) -> None:
    world = World()
    played = world.add(small_run(), reports=True)
    played.facts = replace(played.facts, reports=False)
    at_rest(world, played)
    played.facts = replace(played.facts, reports=True)
    world.slots = 0 if why == "slot" else 100
    played.refusal = "quota" if why == "refusal" else None
    if why == "store":
        seen = replace(world.seen(played), store_error="no answer")
        status = replace(played.facts, reports=False).status
        decision = decide(played.facts, seen, world.limits, world.now)
        assert decision.status.report_key == status.report_key
        assert decision.actions == ()
        return
    settled(world, played)
    assert (reports(world), world.look(played).look_again) == ([], 15.0)
    world.slots, played.refusal = 100, None
    settled(world, played)
    assert len(reports(world)) == 1


def test_where_reports_are_turned_off_none_is_made() -> None:
    world = World()
    played = world.add(small_run())
    at_rest(world, played)
    assert reports(world) == []
    document = {
        **changed("spec.slides.uri", "s3://bucket/store/slides"),
        "metadata": {"name": "small", "namespace": "team", "uid": "u"},
    }
    assert not run_facts(document, settings()).reports
    images = {**settings().model_dump(by_alias=True)["images"], "desk": {"image": "desk:1"}}
    assert run_facts(document, settings(images=images)).reports


def test_what_belongs_to_its_job_is_made_by_a_controller_that_has_not_made_the_job() -> None:
    world = World()
    played = world.add(small_run(), reports=True)
    at_rest(world, played)
    unit, attempt = at_work(played.facts)
    assert unit is not None
    assert (unit.stage, unit.key, attempt) == (STAGE, played.facts.status.report_key, 1)


def test_one_key_for_what_is_shown() -> None:
    world = World()
    played = world.add(small_run(), reports=True)
    at_rest(world, played)
    status, run = played.facts.status, played.facts.run
    assert run is not None

    def request(message: str = "", store: str = "s3://elsewhere") -> StageRequest:
        return report_request(
            run,
            EXTERNAL,
            status.observed(),
            "Released",
            message,
            release="small-0",
            store=store,
            scratch="/elsewhere",
        )

    # The same, whoever has it written, and where.
    assert request().key == status.report_key
    assert request("Bearer abcdefgh12345678ijkl").key != status.report_key
    assert "abcdefgh12345678" not in request("Bearer abcdefgh12345678ijkl").model_dump_json()


def test_its_job_is_like_those_of_stages_but_clears_itself_away() -> None:
    world = World()
    played = world.add(small_run(), reports=True)
    at_rest(world, played)
    world.pass_time(timedelta(hours=1).total_seconds())
    job = made_report(played.facts)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (2, 3600)
    assert (spec["suspend"], spec["activeDeadlineSeconds"]) == (False, 1800)
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "hdgan.desk"]
    assert container["image"] == "desk:1"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    (scratch,) = [one for one in pod["volumes"] if one["name"] == "scratch"]
    assert scratch == {"name": "scratch", "emptyDir": {}}


def test_a_report_that_is_written_says_nothing_of_the_next_rest() -> None:
    world = World(annotated=False)
    played = world.add(small_run(), reports=True)
    at_rest(world, played)
    world.succeed(reports(world)[0].name)
    assert settled(world, played).facts.status.report == PLACE
    world.annotated = True
    world.observe(played)
    assert at_rest(world, played).phase == "Released"
    assert (written(played), played.facts.status.report) == (None, PLACE)
    second = reports(world)[1]
    world.succeed(second.name)
    settled(world, played)
    assert written(played) == ("True", "Written")


def test_no_report_is_begun_of_a_rest_that_is_over() -> None:
    world = World(annotated=False)
    played = world.add(small_run(), reports=True)
    world.slots = 1
    while played.facts.status.report_key is None:
        for job in world.live():
            world.succeed(job.name)
        world.round(played)
    assert reports(world) == []
    world.annotated = True
    world.observe(played)
    decision = world.look(played)
    assert decision.status.phase == "Running"
    assert [one.unit.stage for one in decision.actions if isinstance(one, CreateJob)] == []
    settled(world, played)
    assert [job.stage for job in world.live()] == ["classifier"]
    assert reports(world) == []
