"""What the controller decides: each situation by itself, and whole runs in a hostile cluster."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.controller.actions import (
    DeleteJob,
    ForceDeletePods,
    Observe,
    Publish,
)
from hdgan.controller.facts import Condition, ContainerWait
from hdgan.controller.status import FINAL, MAX_BYTES, RunStatus
from hdgan.core.gates import Measured, Standing
from hdgan.core.releases import Published
from support.cluster_world import EXTERNAL, PlayedRun, World, random_end
from support.runs import small_run

ROUNDS = 200


def settled(world: World, played: PlayedRun) -> PlayedRun:
    """Rounds until nothing changes any more."""
    for _ in range(ROUNDS):
        before = (copy(vars(played)), dict(world.jobs))
        world.round(played)
        if (vars(played), world.jobs) == before:
            return played
    raise AssertionError(f"still changing after {ROUNDS} rounds: {played.facts.status}")


def current(world: World) -> str:
    (job,) = world.live()
    return job.name


def until(world: World, played: PlayedRun, stage: str) -> str:
    """Let everything succeed until a Job of this stage runs; its name."""
    for _ in range(20):
        settled(world, played)
        name = current(world)
        if world.jobs[name].stage == stage:
            return name
        world.succeed(name)
    raise AssertionError(f"{stage} was never reached")


def test_a_run_goes_through_its_stages_and_is_done() -> None:
    world = World()
    played = world.add(small_run())
    stages = []
    while settled(world, played).facts.status.phase == "Running":
        name = current(world)
        stages.append(world.jobs[name].stage)
        world.pass_time(60)
        world.succeed(name)
    status = played.facts.status
    assert stages == [
        "tiler", "gan-trainer", "candidates", "classifier", "reranking", "dataset",
    ]  # fmt: skip
    assert status.phase == "Released"
    assert status.finished_at == "2026-01-01T00:06:12Z"
    assert status.macro_dice == 0.9
    assert [(c.type, c.status) for c in status.conditions] == [
        ("Complete", "True"),
        ("StoreReachable", "True"),
    ]
    assert all(job.has_ttl for job in world.jobs.values())
    assert set(world.most_live.values()) == {1}


def test_parts_are_merged_by_a_job_of_their_own() -> None:
    world = World()
    played = world.add(small_run(), parts=3)
    kinds = []
    while settled(world, played).facts.status.phase == "Running":
        job = world.jobs[current(world)]
        kinds.append((job.stage, job.kind, job.completions))
        if job.stage == "tiler" and job.kind == "parts":
            # Changed while they run: what merges them still counts three.
            played.facts = replace(played.facts, parts={"tiler": 5, "dataset": 2})
        world.succeed(job.name)
    assert kinds[:2] == [("tiler", "parts", 3), ("tiler", "commit", 1)]
    assert kinds[-2:] == [("dataset", "parts", 2), ("dataset", "commit", 1)]
    assert played.facts.status.phase == "Released"
    assert played.facts.status.stage_named("tiler").parts == 3


def test_where_scratch_is_a_claim_features_have_a_job_of_their_own_and_are_made_again() -> None:
    world = World()
    played = world.add(small_run(), claim=True)
    until(world, played, "extractor")
    world.succeed(current(world))
    name = until(world, played, "classifier")
    world.fail(name, 66)
    settled(world, played)
    world.pass_time(600)
    assert world.jobs[until(world, played, "extractor")].attempt == 2
    world.succeed(current(world))
    settled(world, played)
    assert world.jobs[current(world)].stage == "classifier"
    world.fail(current(world), 66)
    settled(world, played)
    assert played.facts.status.phase == "Failed"
    assert "InputMissing" in {c.reason for c in played.facts.status.conditions}


def test_without_annotations_it_waits_and_goes_on_when_they_come() -> None:
    world = World(annotated=False)
    played = world.add(small_run())
    until(world, played, "ranking")
    world.succeed(current(world))
    settled(world, played)
    status = played.facts.status
    assert status.phase == "AwaitingAnnotation"
    assert "3 candidates are to be labelled" in status.message
    assert not world.live()
    world.annotated = True
    world.observe(played)
    settled(world, played)
    assert world.jobs[current(world)].stage == "classifier"


def test_a_gate_that_says_no_ends_the_run_and_retry_asks_it_again() -> None:
    world = World(macro_dice=0.2)
    played = world.add(small_run("spec.gates", {"minMacroDice": 0.5}))
    until(world, played, "reranking")  # what to label next is told all the same
    world.succeed(current(world))
    settled(world, played)
    status = played.facts.status
    assert status.phase == "GateFailed"
    assert "0.2000 on the test images is below gates.minMacroDice 0.5" in status.message
    run = small_run("spec.gates", {"minMacroDice": 0.5})
    again = run.model_copy(update={"spec": run.spec.model_copy(update={"retry": "monday"})})
    played.facts = replace(played.facts, run=again, generation=2)
    world.round(played)
    world.forget(played)  # what it saw of the store was before
    world.macro_dice = 0.8
    settled(world, played)
    assert played.facts.status.phase == "Running"
    assert world.jobs[current(world)].stage == "dataset"


def test_a_new_controller_knows_of_drift_without_looking_again() -> None:
    """The drift artifact is known by then, and of one that is known nothing is read."""
    status = RunStatus(drift_kid=0.25, annotations_lack="1 of 2 for val")
    observed = RunStatus.model_validate(status.dump()).observed()
    assert (observed.drift_kid, observed.annotations_lack) == (0.25, "1 of 2 for val")


def told_to(played: PlayedRun, retry: str, gates: dict[str, Any]) -> None:
    """Somebody corrects the gates, and asks for another try."""
    run = small_run("spec.gates", gates)
    again = run.model_copy(update={"spec": run.spec.model_copy(update={"retry": retry})})
    played.facts = replace(played.facts, run=again, generation=played.facts.generation + 1)


def phase(played: PlayedRun) -> str:
    return played.facts.status.phase


def gates_of(played: PlayedRun) -> dict[str, bool | None]:
    return {one.name: one.passed for one in played.facts.status.gates}


def test_a_generator_that_fails_its_gate_ends_the_run_before_anybody_labels() -> None:
    world = World(kid=0.5, annotated=False)
    played = world.add(small_run("spec.gates", {"maxKid": 0.1, "minMacroDice": 0.5}))
    until(world, played, "gan-trainer")
    world.succeed(current(world))
    settled(world, played)
    status = played.facts.status
    assert status.phase == "GateFailed"
    assert "KID 0.5000 against held-out tiles is above gates.maxKid 0.1" in status.message
    assert gates_of(played) == {"minMacroDice": None, "maxKid": False}
    assert RunStatus.model_validate(status.dump()) == status
    told_to(played, "monday", {"maxKid": 0.5, "minMacroDice": 0.5})
    settled(world, played)
    assert played.facts.status.phase == "Running"
    assert world.jobs[current(world)].stage == "candidates"
    assert gates_of(played) == {"minMacroDice": None, "maxKid": True}


def test_corrected_gates_release_the_dataset_that_is_there() -> None:
    world = World(pairs=3, macro_dice=0.9)
    played = world.add(small_run("spec.gates", {"minPairs": 4}))
    until(world, played, "dataset")
    world.succeed(current(world))
    settled(world, played)
    status = played.facts.status
    assert (status.phase, status.stage_named("dataset").state) == ("GateFailed", "done")
    assert "3 pairs, fewer than gates.minPairs 4" in status.message
    jobs = len(world.events)
    # One that says no for another reason is found, too, though nobody had looked for it.
    told_to(played, "monday", {"minPairs": 3, "minMacroDice": 0.95})
    settled(world, played)
    assert phase(played) == "GateFailed"
    assert "gates.minMacroDice 0.95" in played.facts.status.message
    told_to(played, "tuesday", {"minPairs": 3})
    settled(world, played)
    assert phase(played) == "Released"
    assert gates_of(played) == {"minPairs": True}
    assert len(world.events) == jobs


def test_what_became_the_latest_meanwhile_counts() -> None:
    world = World()
    played = world.add(small_run("spec.gates", {"maxDropVsLatest": 0.01}))
    until(world, played, "dataset")
    assert gates_of(played) == {"maxDropVsLatest": True}
    world.succeed(current(world))
    while not any(isinstance(one, Publish) for one in world.look(played).actions):
        world.round(played)
    world.standing = Standing("other-1", 0.95)
    settled(world, played)
    assert played.facts.status.phase == "GateFailed"
    assert "0.0500 below that of release other-1" in played.facts.status.message
    assert played.published is None


def test_gates_that_nobody_has_looked_at_are_looked_at() -> None:
    world = World()
    played = world.add(small_run("spec.gates", {"minMacroDice": 0.5}))
    until(world, played, "reranking")
    world.succeed(current(world))
    while played.facts.status.stage_named("reranking").state != "done":
        world.round(played)
    assert played.observed is not None
    played.observed = replace(played.observed, measured=Measured())
    decision = world.look(played)
    assert any(isinstance(one, Observe) for one in decision.actions)
    settled(world, played)
    assert world.jobs[current(world)].stage == "dataset"


@pytest.mark.parametrize(
    ("code", "reason", "attempts"),
    [(64, "Error", 1), (65, "Error", 1), (70, "Error", 3), (1, "Error", 3), (137, "OOMKilled", 3)],
)
def test_budgets_by_exit_code(code: int, reason: str, attempts: int) -> None:
    world = World()
    played = world.add(small_run())
    for attempt in range(1, attempts + 1):
        settled(world, played)
        assert world.jobs[current(world)].attempt == attempt
        world.fail(current(world), code, reason=reason, message="the words it ended with")
        settled(world, played)
        world.pass_time(600)
    settled(world, played)
    status = played.facts.status
    assert status.phase == "Failed"
    assert "the words it ended with" in status.message
    assert len(world.events) == attempts
    assert not world.live()


def test_stops_are_free_while_the_work_gets_further_and_three_in_a_row_without_are_not() -> None:
    world = World()
    played = world.add(small_run())
    until(world, played, "gan-trainer")
    for _ in range(10):
        world.fail(current(world), 75, further=True)
        settled(world, played)
        world.pass_time(600)
        settled(world, played)
    assert played.facts.status.stage_named("gan-trainer").failures == {}
    for _ in range(3):
        assert played.facts.status.phase == "Running"
        world.fail(current(world), 75)
        settled(world, played)
        world.pass_time(600)
        settled(world, played)
    assert played.facts.status.phase == "Failed"
    assert "3 times in a row without getting further" in played.facts.status.message


def test_another_attempt_waits_longer_each_time_and_says_when_it_starts() -> None:
    world = World()
    played = world.add(small_run())
    waits = []
    for _ in range(2):
        settled(world, played)
        world.fail(current(world), 70)
        settled(world, played)
        stage = played.facts.status.stage_named("tiler")
        assert stage.retry_at is not None
        assert stage.retry_at in played.facts.status.message
        assert not world.live()
        look = world.look(played).look_again
        assert look is not None
        waits.append(look)
        world.pass_time(look - 1)
        settled(world, played)
        assert not world.live()
        world.pass_time(2)
    assert waits == [10.0, 20.0]


def test_a_new_retry_token_gives_new_attempts_under_new_numbers() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    world.fail(current(world), 65)
    settled(world, played)
    assert played.facts.status.phase == "Failed"
    played.facts = replace(played.facts, run=small_run("spec.retry", "now"), generation=2)
    settled(world, played)
    assert played.facts.status.phase == "Running"
    assert world.jobs[current(world)].attempt == 2
    assert played.facts.status.retry == "now"


def test_two_runs_that_need_the_same_share_one_job() -> None:
    world = World()
    one, two = world.add(small_run()), world.add(small_run("metadata.name", "other"))
    for _ in range(5):
        world.round(one)
        world.round(two)
    (job,) = world.live()
    assert job.owners == {one.facts.uid, two.facts.uid}
    world.succeed(job.name)
    for _ in range(6):
        world.round(one)
        world.round(two)
    (trainer,) = world.live()
    assert trainer.owners == {one.facts.uid, two.facts.uid}
    # Whoever is last to know lets it go.
    assert len(world.jobs[job.name].owners) == 1
    assert world.jobs[job.name].has_ttl


def test_a_shared_job_survives_one_runs_suspension() -> None:
    world = World()
    one, two = world.add(small_run()), world.add(small_run("metadata.name", "other"))
    for _ in range(5):
        world.round(one)
        world.round(two)
    one.facts = replace(one.facts, run=small_run("spec.suspend", True), generation=2)
    settled(world, one)
    (job,) = world.live()
    assert job.owners == {two.facts.uid}
    assert not job.deleting
    assert one.facts.status.phase == "Suspended"
    one.facts = replace(one.facts, run=small_run(), generation=3)
    settled(world, one)
    assert world.live()[0].owners == {one.facts.uid, two.facts.uid}


def test_suspending_ends_the_job_and_going_on_makes_the_next() -> None:
    world = World()
    played = world.add(small_run())
    until(world, played, "gan-trainer")
    name = current(world)
    played.facts = replace(played.facts, run=small_run("spec.suspend", True), generation=2)
    settled(world, played)
    assert world.jobs[name].deleting
    world.collect()
    settled(world, played)
    assert played.facts.status.phase == "Suspended"
    assert not world.jobs or not world.live()
    played.facts = replace(played.facts, run=small_run(), generation=3)
    settled(world, played)
    assert world.jobs[current(world)].attempt == 2
    assert played.facts.status.stage_named("gan-trainer").failures == {}


def test_a_job_deleted_by_hand_is_made_again_once_its_pods_are_gone() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    name = current(world)
    world.remove(name, pods=False)
    settled(world, played)
    assert not world.jobs
    del world.pods[f"{name}-pod"]
    settled(world, played)
    world.pass_time(60)
    settled(world, played)
    assert world.jobs[current(world)].attempt == 2
    end = played.facts.status.stage_named("tiler").last_end
    assert end is not None
    assert end.reason == "JobDeleted"


def test_a_job_that_ends_well_without_its_artifact_has_failed() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    name = current(world)
    world.succeed(name)
    world.artifacts.clear()
    world.pass_time(1)
    settled(world, played)
    end = played.facts.status.stage_named("tiler").last_end
    assert end is not None
    assert end.reason == "ArtifactMissing"


def test_without_progress_a_stage_is_ended_and_started_again() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    name = current(world)
    played.progress_changed = world.now
    world.pass_time(3599)
    settled(world, played)
    assert not world.jobs[name].deleting
    world.pass_time(2)
    played.progress_heard = world.now
    settled(world, played)
    assert world.jobs[name].deleting
    world.collect()
    settled(world, played)
    world.pass_time(60)
    played.progress_changed = None
    settled(world, played)
    end = played.facts.status.stage_named("tiler").last_end
    assert end is not None
    assert end.reason == "Stalled"
    assert world.jobs[current(world)].attempt == 2


def lose_node(world: World, name: str) -> None:
    pod = world.pods[f"{name}-pod"]
    ready = Condition("Unknown", "NodeStatusUnknown", "", world.now)
    world.pods[pod.name] = replace(pod, conditions={"Ready": ready})


def test_a_lost_node_is_told_with_the_command_to_type_and_left_alone() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    name = current(world)
    lose_node(world, name)
    world.pass_time(100_000)
    settled(world, played)
    status = played.facts.status
    (started,) = [c for c in status.conditions if c.type == "Started"]
    assert (started.status, started.reason) == ("False", "NodeLost")
    assert f"kubectl delete pod {name}-pod --namespace team --force" in status.message
    assert not world.jobs[name].deleting


def test_with_a_time_set_work_of_a_lost_node_starts_elsewhere() -> None:
    world = World()
    played = world.add(small_run("spec.resources", {"device": "cpu", "lostNodeSeconds": 300}))
    settled(world, played)
    name = current(world)
    lose_node(world, name)
    world.pass_time(299)
    settled(world, played)
    assert not world.jobs[name].deleting
    world.pass_time(2)
    world.round(played)
    decision = world.look(played)
    assert decision.actions == (ForceDeletePods((f"{name}-pod",)), DeleteJob(name))
    settled(world, played)
    world.collect()
    settled(world, played)
    world.pass_time(60)
    settled(world, played)
    assert world.jobs[current(world)].attempt == 2


def test_why_a_pod_does_not_start_is_shown_and_taken_back() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    name = current(world)
    pod = world.pods[f"{name}-pod"]
    waiting = (ContainerWait("stage", "ImagePullBackOff", "no such image"),)
    world.pods[pod.name] = replace(pod, phase="Pending", running=False, waits=waiting)
    settled(world, played)
    (started,) = [c for c in played.facts.status.conditions if c.type == "Started"]
    assert (started.status, started.reason) == ("False", "ImagePullFailed")
    assert "no such image" in started.message
    world.pods[pod.name] = pod
    settled(world, played)
    (started,) = [c for c in played.facts.status.conditions if c.type == "Started"]
    assert started.status == "True"
    assert played.facts.status.message == ""


def test_as_many_jobs_as_allowed_and_the_others_wait() -> None:
    world = World(slots=1)
    one = world.add(small_run())
    two = world.add(small_run("spec.tiler.mpp", 2.0).model_copy())
    two.facts = replace(two.facts, name="two", uid="uid-two")
    world.runs["uid-two"] = two
    settled(world, one)
    settled(world, two)
    assert len(world.live()) == 1
    assert two.facts.status.waiting_since == "2026-01-01T00:00:00Z"
    assert "waits for its turn" in two.facts.status.message
    world.remove(current(world))
    settled(world, two)
    assert two.facts.status.waiting_since is None


def test_a_spec_that_cannot_be_used_fails_at_once_and_makes_nothing() -> None:
    world = World()
    played = world.add(small_run())
    played.facts = replace(played.facts, run=None, invalid="spec.tiler.mpp: too small")
    settled(world, played)
    assert played.facts.status.phase == "Failed"
    assert played.facts.status.message == "spec.tiler.mpp: too small"
    assert not world.jobs


def test_a_run_that_becomes_invalid_fails_only_when_its_job_is_over() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    name = current(world)
    run = played.facts.run
    played.facts = replace(played.facts, run=None, invalid="there is no store 'nope'")
    settled(world, played)
    status = played.facts.status
    assert (status.phase, status.message) == ("Running", "there is no store 'nope'")
    assert world.jobs[name].live
    # Mended in time, nothing has happened.
    played.facts = replace(played.facts, run=run, invalid="")
    settled(world, played)
    assert not [one for one in played.facts.status.conditions if one.type == "Accepted"]
    played.facts = replace(played.facts, run=None, invalid="there is no store 'nope'")
    world.fail(name, 70)
    settled(world, played)
    assert played.facts.status.phase == "Failed"


def test_a_lost_node_is_told_for_as_long_as_it_is_lost() -> None:
    world = World()
    played = world.add(small_run())
    name = running(world, played)
    lose_node(world, name)
    world.pass_time(20 * 3600)  # longer than pods that were heard may be silent
    settled(world, played)
    assert not world.jobs[name].deleting
    assert "kubectl delete pod" in played.facts.status.message
    # Also where somebody has deleted the Job, which cannot go while its pod does not.
    world.jobs[name] = replace(world.jobs[name], deleting=True)
    settled(world, played)
    assert "kubectl delete pod" in played.facts.status.message


def test_drained_nodes_cost_nothing_while_the_work_gets_further() -> None:
    world = World()
    played = world.add(small_run())
    until(world, played, "gan-trainer")
    for _ in range(10):
        world.drain(current(world), further=True)
        settled(world, played)
        world.pass_time(600)
        settled(world, played)
    status = played.facts.status.stage_named("gan-trainer")
    assert (status.attempt, status.failures) == (11, {})
    assert status.last_end is not None
    assert status.last_end.reason == "Disrupted"


def test_a_store_that_is_down_for_half_an_hour_ends_no_run() -> None:
    world = World()
    played = world.add(small_run())
    begun = world.now
    for _ in range(10):
        settled(world, played)
        world.fail(current(world), 69)
        settled(world, played)
        assert played.facts.status.phase == "Running"
        world.pass_time(300)
    assert (world.now - begun).total_seconds() > 1800
    settled(world, played)
    world.fail(current(world), 69)
    settled(world, played)
    assert played.facts.status.phase == "Failed"
    assert "11 times in a row" in played.facts.status.message


def test_a_job_that_the_server_refuses_is_told_and_holds_nobody_up() -> None:
    world = World()
    played = world.add(small_run())
    played.external = EXTERNAL
    played.refusal = "the API server refuses to make the Job: exceeded quota"
    settled(world, played)
    status = played.facts.status
    (started,) = [one for one in status.conditions if one.type == "Started"]
    assert (started.reason, started.message) == ("JobRefused", played.refusal)
    assert status.message == played.refusal
    assert status.waiting_since is None
    # Between two attempts it is told still.
    played.refusal = None
    world.slots = 0
    decision = world.look(played)
    assert decision.status.conditions == status.conditions
    world.slots = 1
    settled(world, played)
    assert current(world)


def test_a_new_run_does_not_inherit_what_failed_before_its_time() -> None:
    world = World()
    first = world.add(small_run())
    settled(world, first)
    world.fail(current(world), 64, message="no such Secret")
    settled(world, first)
    assert first.facts.status.phase == "Failed"
    world.pass_time(60)
    second = world.add(small_run("metadata.name", "second"))
    second.facts = replace(second.facts, created=world.now)
    settled(world, second)
    assert second.facts.status.phase == "Running"
    # Under a number of its own: names of Jobs are not given twice.
    assert world.jobs[current(world)].attempt == 2


def running(world: World, played: PlayedRun) -> str:
    """A Job whose pod has just started and was heard."""
    settled(world, played)
    name = current(world)
    pod = world.pods[f"{name}-pod"]
    world.pods[pod.name] = replace(pod, started=world.now)
    played.progress_changed = played.progress_heard = world.now
    return name


def test_waiting_in_a_queue_is_not_stalling() -> None:
    world = World()
    played = world.add(small_run())
    name = running(world, played)
    world.pass_time(7200)  # suspended by its queue, and admitted again just now
    pod = world.pods[f"{name}-pod"]
    world.pods[pod.name] = replace(pod, started=world.now)
    settled(world, played)
    assert not world.jobs[name].deleting
    world.pass_time(3601)
    played.progress_heard = world.now
    settled(world, played)
    assert world.jobs[name].deleting


def test_pods_that_cannot_be_heard_are_told_of_and_not_ended_for_it() -> None:
    world = World()
    played = world.add(small_run())
    name = running(world, played)
    played.progress_changed = played.progress_heard = None
    world.pass_time(30 * 86_400)
    settled(world, played)
    assert not world.jobs[name].deleting
    (heard,) = [c for c in played.facts.status.conditions if c.type == "ProgressHeard"]
    assert (heard.status, heard.reason) == ("False", "NoAnswer")
    # Heard again, it goes on, and what was heard first counts as getting further.
    played.progress_heard = world.now
    settled(world, played)
    assert not world.jobs[name].deleting
    assert not [c for c in played.facts.status.conditions if c.type == "ProgressHeard"]


def test_pods_that_fall_silent_are_ended_after_much_longer_only() -> None:
    world = World()
    played = world.add(small_run())
    name = running(world, played)
    world.pass_time(3 * 3600)
    settled(world, played)
    assert not world.jobs[name].deleting
    world.pass_time(2 * 3600)
    settled(world, played)
    assert world.jobs[name].deleting


def test_parts_that_are_disrupted_without_end_come_to_one() -> None:
    world = World()
    played = world.add(small_run(), parts=3)
    settled(world, played)
    name = current(world)
    pod = world.pods[f"{name}-pod"]
    # One part's own, seen twice, and another's.
    for count, others in ((20, 30), (21, 30)):
        world.pods[pod.name] = replace(pod, index=0, ignored=count)
        world.pods["before"] = replace(pod, name="before", index=0, ignored=count - 1, gone=True)
        world.pods["other"] = replace(pod, name="other", index=1, ignored=others)
        if count == 20:
            settled(world, played)
            assert not world.jobs[name].deleting
    settled(world, played)
    assert world.jobs[name].deleting
    world.collect()
    settled(world, played)
    end = played.facts.status.stage_named("tiler").last_end
    assert end is not None
    assert end.reason == "DisruptedTooOften"


def test_the_same_dataset_as_the_latest_release_is_unchanged() -> None:
    world = World()
    played = world.add(small_run())
    name = until(world, played, "dataset")
    world.succeed(name)
    played.published = Published("Unchanged", "last-week-0")
    settled(world, played)
    status = played.facts.status
    assert (status.phase, status.release) == ("Unchanged", "last-week-0")
    (complete,) = [one for one in status.conditions if one.type == "Complete"]
    assert (complete.status, complete.reason) == ("True", "Unchanged")


def test_a_store_that_does_not_answer_is_shown_and_loses_nothing() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    name = current(world)
    from hdgan.controller.decide import decide

    seen = replace(world.seen(played), store_error="no usable answer from the store")
    decision = decide(played.facts, seen, world.limits, world.now)
    assert decision.status.phase == "Running"
    assert ("StoreReachable", "False") in {(c.type, c.status) for c in decision.status.conditions}
    assert not any(isinstance(a, DeleteJob) for a in decision.actions)
    world.succeed(name)
    settled(world, played)
    assert played.facts.status.stage_named("tiler").state == "done"


def test_nothing_is_done_for_a_run_that_is_being_deleted() -> None:
    world = World()
    played = world.add(small_run())
    settled(world, played)
    played.facts = replace(played.facts, deleting=True)
    decision = world.look(played)
    assert decision.actions == ()
    assert decision.status == played.facts.status


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), claim=st.booleans(), parts=st.integers(1, 3))
def test_whatever_happens_it_ends_with_never_two_jobs_for_one_key(
    seed: int, claim: bool, parts: int
) -> None:
    """Jobs end in any way, the controller dies between any two steps, its view of Jobs is late."""
    random = Random(seed)
    world = World(slots=random.randint(1, 3))
    names = ["one", "two", "three"][: random.randint(1, 3)]
    runs = [world.add(small_run("metadata.name", name), claim=claim, parts=parts) for name in names]
    view = dict(world.jobs)
    dead = False

    def dies() -> bool:
        nonlocal dead
        dead = dead or random.random() < 0.05
        return dead

    for _ in range(3000):
        for played in runs:
            if dead:  # a new controller lists everything
                for one in runs:
                    world.forget(one)
            if dead or random.random() < 0.5:
                view = dict(world.jobs)
            dead = False
            world.round(played, dies=dies, view=view)
            world._count()
        world.pass_time(random.choice([0, 1, 30, 400]))
        for job in world.live():
            if random.random() < 0.3 and not job.deleting:
                random_end(world, random, job.name)
        if random.random() < 0.5:
            world.collect()
        if all(played.facts.status.phase in FINAL for played in runs):
            break
    for played in runs:
        status = played.facts.status
        assert status.phase in FINAL, status
        assert len(json.dumps(status.dump())) < MAX_BYTES
        assert RunStatus.model_validate(status.dump()) == status
    assert max(world.most_live.values()) == 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_restart_at_any_point_changes_nothing(seed: int) -> None:
    """A run whose Jobs all succeed comes to the same artifacts with the same Jobs."""

    def play(random: Random | None) -> tuple[list[str], Any]:
        world = World()
        played = world.add(small_run(), parts=2)
        for _ in range(1000):
            dies = (lambda: random.random() < 0.3) if random else (lambda: False)
            world.round(played, dies=dies)
            world.pass_time(5)
            for job in world.live():
                if random is None or random.random() < 0.2:
                    world.succeed(job.name)
            if played.facts.status.phase in FINAL:
                break
        return world.events, (played.facts.status.phase, played.facts.status.observed())

    assert play(Random(seed)) == play(None)


def test_times_are_written_in_utc() -> None:
    world = World()
    played = world.add(small_run())
    world.now = world.now.astimezone(tz=None) + timedelta(0)
    settled(world, played)
    assert played.facts.status.started_at == "2026-01-01T00:00:00Z"
