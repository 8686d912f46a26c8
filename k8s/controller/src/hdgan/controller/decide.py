"""What is to be done for a run, and what its status becomes: a pure function of what is seen.

A round of the controller reads the run, its Jobs and its store, calls `decide`, writes the status
and then does the actions. Whatever is lost between the two is asked for again by the next round:
an outcome is in the status before anything is done because of it, and the name of a Job follows
from artifact, attempt and kind alone, so making it twice makes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hdgan.controller.actions import (
    Action,
    CreateJob,
    DeleteClaim,
    DeleteJob,
    DisownJob,
    ForceDeletePods,
    Observe,
    OwnJob,
    Pin,
    Publish,
    ReadSavedStep,
    SetTtl,
)
from hdgan.controller.endings import (
    IN_A_ROW,
    JOB_DELETED,
    LOST,
    NO_ARTIFACT,
    RETRIES,
    Ending,
    ending,
    starting,
)
from hdgan.controller.facts import JobFacts, Kind, parse_time
from hdgan.controller.names import key_label, place_key
from hdgan.controller.reporting import report_step
from hdgan.controller.situation import Limits, RunFacts, Seen
from hdgan.controller.status import (
    FINAL,
    EndStatus,
    Phase,
    PinnedStatus,
    ProgressStatus,
    RunStatus,
    StageStatus,
    shortened,
    stamp,
)
from hdgan.controller.stopping import LOST_MARK, MARKS, lost_pods, say_heard, why_stop
from hdgan.controller.unit import Unit
from hdgan.core.pipeline import BY_NAME, NodeStatus, gate_verdicts, plan

FIRST_WAIT = 10.0
LONGEST_WAIT = 300.0
"""Seconds before another attempt after an end that counts; doubled each time."""
SOON = 5.0
"""Seconds after which something that is under way is looked at again."""

SECOND = timedelta(seconds=1)
"""Times of the API server have no fractions: what was seen in the second of an end may be older."""

SUSPENDED = "Suspended"
"""Mark of a Job that is ended because its run is suspended."""
PODS_SECONDS = 60.0
"""How long the pods of a Job that has failed may be seen to run still."""


@dataclass(frozen=True)
class Decision:
    """The status to write, what to do then, and when to look again at the latest (seconds)."""

    status: RunStatus
    actions: tuple[Action, ...] = ()
    look_again: float | None = None


def decide(run: RunFacts, seen: Seen, limits: Limits, now: datetime) -> Decision:
    """Where the run stands and what is to be done for it, and then for its report."""
    decision = _decide(run, seen, limits, now)
    step = report_step(run, decision.status, seen, now)
    actions = decision.actions if step.create is None else (*decision.actions, step.create)
    waits = [one for one in (decision.look_again, step.look_again) if one is not None]
    status = _say_awaiting(run.status, step.status, now)
    return Decision(status, actions, min(waits, default=None))


def _decide(run: RunFacts, seen: Seen, limits: Limits, now: datetime) -> Decision:
    status = run.status.model_copy(
        update={"observed_generation": run.generation, "store": run.store or None}
    )
    if run.deleting:
        return Decision(run.status)
    if run.run is None:
        return _invalid(run, status, seen, now)
    status = status.without_condition("Accepted")
    if run.run.spec.retry != status.retry:
        return Decision(_with_new_budgets(status, run.run.spec.retry), (), 0.0)
    if run.run.spec.suspend and status.phase not in FINAL:
        return _suspend(run, status, seen, now)
    if status.phase in FINAL:
        return Decision(status, tuple(_tidy(run, status, seen)))
    status = _say_store(status, run, seen, now)
    current = status.current
    if current is not None:
        return _watch(run, status, current, seen, limits, now)
    return _advance(run, status, seen, limits, now)


def _invalid(run: RunFacts, status: RunStatus, seen: Seen, now: datetime) -> Decision:
    """Whose spec, or whose place in the installation, cannot be used (any more). What is at work
    goes on: the mistake may be mended before it ends."""
    if status.phase in FINAL:
        return Decision(status)
    current = status.current
    if current is not None and any(one.name == current.job and one.live for one in seen.jobs):
        status = status.with_condition(
            "Accepted", "False", "SpecInvalid", run.invalid, now, run.generation
        )
        return Decision(status.model_copy(update={"message": shortened(run.invalid)}))
    return Decision(_end(status, run, "Failed", "SpecInvalid", run.invalid, now))


# A Job is at work


def _watch(
    run: RunFacts,
    status: RunStatus,
    current: StageStatus,
    seen: Seen,
    limits: Limits,
    now: datetime,
) -> Decision:
    status = status.model_copy(
        update={"phase": "Running", "stage": current.name, "waiting_since": None, "message": ""}
    )
    job = next((one for one in seen.jobs if one.name == current.job), None)
    if job is None:
        if any(pod.job == current.job and not pod.finished for pod in seen.pods):
            return Decision(status, (), SOON)  # its pods are still being ended
        return _ended(
            run, status, current, seen, MARKS.get(current.stopping or "", JOB_DELETED), now
        )
    if job.state == "succeeded":
        return _succeeded(run, status, current, job, seen, now)
    if job.state == "failed":
        late = job.ended is not None and now - job.ended > timedelta(seconds=PODS_SECONDS)
        if not late and any(not pod.finished for pod in job.pods):
            return Decision(status, (), SOON)  # how they ended is seen later than that
        return _ended(
            run, status, current, seen, MARKS.get(current.stopping or "") or ending(job), now
        )
    if job.deleting:
        return _with_problem(run, status, job, seen, limits, now)
    if current.stopping is not None:
        actions: list[Action] = [DeleteJob(job.name)]
        if current.stopping == LOST_MARK:
            actions.insert(0, ForceDeletePods(tuple(pod.name for pod in lost_pods(job, now))))
        return Decision(status, tuple(actions), SOON)
    if run.uid not in job.owners:
        return Decision(status, (OwnJob(job.name),), SOON)
    assert run.run is not None
    mark = why_stop(run.run.spec.resources, job, seen, now)
    if mark is not None:
        # First noted, then done: the next round deletes it.
        return Decision(status.with_stage(current.model_copy(update={"stopping": mark})), (), 0.0)
    decision = _with_problem(run, say_heard(status, run, job, seen, now), job, seen, limits, now)
    shown = progress_text(seen.progress, job)
    return replace(decision, status=decision.status.model_copy(update={"progress": shown}))


def _with_problem(
    run: RunFacts, status: RunStatus, job: JobFacts, seen: Seen, limits: Limits, now: datetime
) -> Decision:
    """With why the Job's pods do not run, once that is worth telling."""
    if seen.refusal is not None:
        return _told_refusal(run, status, seen.refusal, now)
    problem = starting(job, now, run.namespace)
    if problem is None:
        status = status.with_condition(
            "Started", "True", "PodsRun", f"Job {job.name}", now, run.generation
        )
        return Decision(status, (), limits.progress_seconds)
    age = (now - problem.since).total_seconds() if problem.since else 0.0
    if problem.reason in ("NotStarted", "NoPods") and age < limits.start_seconds:
        return Decision(status, (), SOON)
    status = status.with_condition(
        "Started", "False", problem.reason, problem.message, now, run.generation
    )
    return Decision(status.model_copy(update={"message": shortened(problem.message)}), (), 2 * SOON)


def _succeeded(
    run: RunFacts,
    status: RunStatus,
    current: StageStatus,
    job: JobFacts,
    seen: Seen,
    now: datetime,
) -> Decision:
    if job.kind == "parts" or current.name == "extractor":
        done = current.model_copy(
            update={"over": True, "succeeded": job.kind, "stopping": None, "retry_at": None}
        )
        return Decision(_without_job(status.with_stage(done)), (), 0.0)
    if seen.problem is not None:
        return Decision(_end(status, run, "Failed", "InputUnusable", seen.problem, now))
    fresh = (
        seen.observed is not None
        and seen.observed_at is not None
        and (job.ended is None or seen.observed_at >= job.ended + SECOND)
    )
    if not fresh:
        return Decision(status, (Observe(),), SOON)
    assert seen.observed is not None
    artifact = seen.observed.artifacts.get(current.name)
    if artifact is None:
        return _ended(run, status, current, seen, NO_ARTIFACT, now)
    done = current.model_copy(
        update={
            "over": True,
            "succeeded": job.kind,
            "state": "done",
            "content_digest": artifact.content_digest,
            "stopping": None,
            "retry_at": None,
        }
    )
    update = {"macro_dice": seen.observed.macro_dice, "drift_kid": seen.observed.drift_kid}
    status = status.model_copy(update=update)
    actions: tuple[Action, ...] = ()
    features = status.stage_named("extractor").key
    if run.scratch_is_claim and current.name == "classifier" and features is not None:
        actions = (DeleteClaim(place_key(features, run.store_name)),)
    return Decision(_without_job(status.with_stage(done)), actions, 0.0)


def _without_job(status: RunStatus) -> RunStatus:
    status = status.without_condition("Started").without_condition("ProgressHeard")
    return status.model_copy(update={"progress": None, "stage": None})


def _ended(
    run: RunFacts,
    status: RunStatus,
    current: StageStatus,
    seen: Seen,
    end: Ending,
    now: datetime,
) -> Decision:
    """Count an end, and fail the run where its budget is used up."""
    assert current.key is not None
    if current.stopping == SUSPENDED:
        over = current.model_copy(update={"over": True, "stopping": None})
        return Decision(_without_job(status.with_stage(over)), (), 0.0)
    if seen.saved_step is None:
        return Decision(status, (ReadSavedStep(current.name, current.key),), SOON)
    further = seen.saved_step > current.saved_step
    failures = dict(current.failures)
    for kind in IN_A_ROW if further else ():
        failures.pop(kind, None)
    budget: str = end.budget
    if budget == "free" and not further:
        budget = "stalled"
    if budget != "free":
        failures[budget] = failures.get(budget, 0) + 1
    count = failures.get(budget, 0)
    wait = min(FIRST_WAIT * 2 ** max(0, sum(failures.values()) - 1), LONGEST_WAIT)
    last = EndStatus(
        job=current.job or "?",
        attempt=current.attempt,
        reason=end.reason,
        message=shortened(end.message),
        at=stamp(now),
    )
    over = current.model_copy(
        update={
            "over": True,
            "stopping": None,
            "failures": failures,
            "saved_step": max(seen.saved_step, current.saved_step),
            "retry_at": stamp(now + timedelta(seconds=wait)),
            "last_end": last,
        }
    )
    status = _without_job(status.with_stage(over))
    if end.budget == "input":
        # What it lacked is made again, where the pipeline can: features, or a part's piece.
        status = status.with_stage(over.model_copy(update={"succeeded": None}))
        if current.name == "classifier":
            features = status.stage_named("extractor")
            status = status.with_stage(features.model_copy(update={"succeeded": None}))
    if budget != "free" and count > RETRIES[budget]:
        message = f"{current.name}: {end.message}"
        if budget in IN_A_ROW:
            message += f" It ended so {count} times in a row without getting further."
        return Decision(_end(status, run, "Failed", end.reason, message, now))
    claimed = status.stage_named("extractor").key
    if run.scratch_is_claim and end.reason == LOST.reason and claimed is not None:
        # A local volume would tie the next attempt to the node that is lost.
        return Decision(status, (DeleteClaim(place_key(claimed, run.store_name)),), 0.0)
    return Decision(status, (), 0.0)


# No Job is at work


def _advance(
    run: RunFacts, status: RunStatus, seen: Seen, limits: Limits, now: datetime
) -> Decision:
    assert run.run is not None
    if seen.problem is not None:
        return Decision(_end(status, run, "Failed", "InputUnusable", seen.problem, now))
    update = {"phase": "Pending"} if status.phase == "Suspended" else {}
    if status.started_at is None:
        update["started_at"] = stamp(now)
    status = status.model_copy(update=update)
    external = status.pinned.external() if status.pinned is not None else seen.external
    if external is None:
        return Decision(status, (Pin(),), limits.store_poll_seconds)
    if seen.observed is None:
        return Decision(status, (Observe(),), limits.store_poll_seconds)
    status = status.model_copy(update={"pinned": PinnedStatus.of(external)})
    nodes = plan(run.run, external, seen.observed)
    status = status.with_plan(nodes, seen.observed, gate_verdicts(run.run, seen.observed))
    tidy = tuple(_tidy(run, status, seen))
    closed = _closed(run, status, nodes, seen, now)
    if closed is not None:
        actions = (*tidy, *closed.actions)
        return replace(closed, actions=actions, look_again=limits.store_poll_seconds)
    unit = next_unit(run, status, nodes)
    if unit is None:
        # Only while an artifact is there that `plan` did not know of: look again.
        return Decision(status, (*tidy, Observe()), SOON)
    status = status.model_copy(update={"phase": "Running", "stage": unit.stage, "message": ""})
    decision = _start(run, status, unit, seen, now)
    return replace(decision, actions=(*tidy, *decision.actions))


def _closed(
    run: RunFacts, status: RunStatus, nodes: list[NodeStatus], seen: Seen, now: datetime
) -> Decision | None:
    """Where nothing is left to run: there is a dataset to release, or gates are shut."""
    waiting = next((n for n in nodes if n.state == "awaiting"), None)
    shut = next((n for n in nodes if n.state == "failed"), None)
    if waiting is not None:
        update = {
            "phase": "AwaitingAnnotation",
            "stage": None,
            "progress": None,
            "waiting_since": None,
            "message": shortened(waiting.reason),
        }
        return Decision(status.without_condition("Started").model_copy(update=update))
    if shut is not None and not any(n.state == "ready" for n in nodes):
        return Decision(_end(status, run, "GateFailed", "GateFailed", shut.reason, now))
    if all(n.state in ("done", "skipped") for n in nodes):
        if seen.published is None:
            return Decision(status, (Publish(),))
        status = status.model_copy(update={"release": seen.published.release})
        return Decision(_end(status, run, seen.published.verdict, seen.published.verdict, "", now))
    return None


def next_unit(run: RunFacts, status: RunStatus, nodes: list[NodeStatus]) -> Unit | None:
    """What the next Job does; None if nothing is ready."""
    ready = next((node for node in nodes if node.state == "ready"), None)
    if ready is None or ready.key is None:
        return None
    if BY_NAME[ready.name].cache:
        classifier = next(node for node in nodes if node.name == "classifier")
        assert classifier.key is not None
        features_there = status.stage_named(ready.name).succeeded is not None
        if features_there or not run.scratch_is_claim:
            return Unit(
                "classifier",
                classifier.key,
                "whole",
                features_key=ready.key,
                store=run.store_name,
            )
        return Unit(ready.name, ready.key, "whole", store=run.store_name)
    stage = status.stage_named(ready.name)
    if stage.succeeded == "parts":
        return Unit(ready.name, ready.key, "commit", stage.parts, store=run.store_name)
    parts = run.parts.get(ready.name, 1)
    kind: Kind = "parts" if parts > 1 else "whole"
    return Unit(ready.name, ready.key, kind, parts, store=run.store_name)


def _start(run: RunFacts, status: RunStatus, unit: Unit, seen: Seen, now: datetime) -> Decision:
    """Take up a Job that is there for this work, or make the next one."""
    stage = status.stage_named(unit.stage)
    label = key_label(unit.place)
    if run.status.stage_named(unit.stage).key != unit.key:
        # What is of this key is seen once the status names it.
        return Decision(status.without_condition("Started"), (), 0.0)
    same = [job for job in seen.jobs if (job.stage, job.key) == (unit.stage, label)]
    known = sorted(
        (job for job in same if job.attempt > stage.attempt and not _before_its_time(run, job)),
        key=lambda job: job.attempt,
    )
    if known:
        job = known[0]
        taken = stage.model_copy(
            update={
                "key": unit.key,
                "job": job.name,
                "attempt": job.attempt,
                "kind": job.kind,
                "parts": job.completions if job.kind == "parts" else unit.parts,
                "over": False,
                "stopping": None,
            }
        )
        status = status.with_stage(taken).model_copy(update={"waiting_since": None})
        return Decision(status, (), 0.0)
    if any(pod.key == label and not pod.finished for pod in seen.pods):
        return Decision(status, (), SOON)  # of an attempt before: never two at once
    if any(job.key == label and job.stage == unit.stage and job.live for job in seen.jobs):
        return Decision(status, (), SOON)
    due = parse_time(stage.retry_at)
    if due is not None and now < due:
        wait = (due - now).total_seconds()
        end = stage.last_end
        message = f"{unit.stage}: attempt {stage.attempt + 1} starts at {stage.retry_at}"
        if end is not None:
            message += f"; the last one ended: {end.message}"
        return Decision(status.model_copy(update={"message": shortened(message)}), (), wait)
    if seen.refusal is not None:
        return _told_refusal(run, status, seen.refusal, now)
    if not seen.free_slot:
        since = status.waiting_since or stamp(now)
        update = {
            "waiting_since": since,
            "message": f"{unit.stage} waits for its turn: as many Jobs run as are allowed",
        }
        return Decision(status.model_copy(update=update), (), SOON)
    refused = next((one for one in status.conditions if one.reason == "JobRefused"), None)
    if refused is not None:  # told until it is not true any more
        status = status.model_copy(update={"message": refused.message})
    attempt = max([stage.attempt, *(job.attempt for job in same)]) + 1
    return Decision(status, (CreateJob(unit, attempt),), SOON)


def _told_refusal(run: RunFacts, status: RunStatus, refusal: str, now: datetime) -> Decision:
    """The API server does not take a Job, or what its pods need. Nobody waits behind this run."""
    status = status.with_condition("Started", "False", "JobRefused", refusal, now, run.generation)
    update = {"waiting_since": None, "message": shortened(refusal)}
    return Decision(status.model_copy(update=update), (), 2 * SOON)


def _before_its_time(run: RunFacts, job: JobFacts) -> bool:
    """Whether a Job failed before this run was made: what was wrong then may be mended."""
    return (
        job.state == "failed"
        and run.created is not None
        and job.ended is not None
        and job.ended < run.created
    )


# The ends of a run


def _end(
    status: RunStatus, run: RunFacts, phase: Phase, reason: str, message: str, now: datetime
) -> RunStatus:
    complete = phase in ("Released", "Unchanged")
    dataset = status.stage_named("dataset")
    if complete:
        place = f"{run.store}/artifacts/dataset/{dataset.key}"
        status = status.model_copy(update={"dataset": place})
    status = status.model_copy(
        update={
            "phase": phase,
            "stage": None if complete else status.stage,
            "progress": None,
            "waiting_since": None,
            "finished_at": stamp(now),
            "message": shortened(message),
            "retry": run.run.spec.retry if run.run is not None else status.retry,
        }
    )
    kind, other = ("Complete", "Failed") if complete else ("Failed", "Complete")
    gone = (other, "Started", "Accepted", "ProgressHeard")
    conditions = [one for one in status.conditions if one.type not in gone]
    status = status.model_copy(update={"conditions": conditions})
    return status.with_condition(
        "Complete" if kind == "Complete" else "Failed",
        "True",
        reason,
        message,
        now,
        run.generation,
    )


def _with_new_budgets(status: RunStatus, retry: str | None) -> RunStatus:
    """As if nothing had failed; attempts go on counting. Annotations are looked for anew."""
    later = ("annotations", "extractor", "classifier", "gate", "dataset")
    forgotten = {"state": "waiting", "key": None, "content_digest": None, "succeeded": None}
    stages = [
        one.model_copy(
            update={
                "failures": {},
                "retry_at": None,
                **(forgotten if one.over and one.name in later else {}),
            }
        )
        for one in status.stages
    ]
    update: dict[str, object] = {"retry": retry, "stages": stages}
    if status.phase in ("Failed", "GateFailed"):
        update |= {
            "phase": "Pending",
            "message": "",
            "finished_at": None,
            "conditions": [one for one in status.conditions if one.type != "Failed"],
        }
    return status.model_copy(update=update)


def _suspend(run: RunFacts, status: RunStatus, seen: Seen, now: datetime) -> Decision:
    """End what is at work; its state is in the store."""
    update = {"phase": "Suspended", "progress": None, "waiting_since": None}
    status = status.model_copy(
        update={**update, "message": "suspended; set spec.suspend to false to go on"}
    )
    current = status.current
    if current is None:
        return Decision(_without_job(status), tuple(_tidy(run, status, seen)))
    job = next((one for one in seen.jobs if one.name == current.job), None)
    if job is None or not job.live or run.uid not in job.owners:
        if job is None and any(p.job == current.job and not p.finished for p in seen.pods):
            return Decision(status, (), SOON)
        if job is not None and not job.live:
            # Its outcome counts when the run goes on.
            return Decision(status)
        # Forgotten, so that it is taken up again, or made anew under the same number.
        number = current.attempt - 1 if job is not None else current.attempt
        over = current.model_copy(
            update={"over": True, "stopping": None, "attempt": number, "retry_at": None}
        )
        return Decision(_without_job(status.with_stage(over)))
    if len(job.owners) > 1:
        return Decision(status, (DisownJob(job.name),), SOON)
    if current.stopping != SUSPENDED:
        marked = current.model_copy(update={"stopping": SUSPENDED})
        return Decision(status.with_stage(marked), (), 0.0)
    if not job.deleting:
        return Decision(status, (DeleteJob(job.name),), SOON)
    problem = starting(job, now, run.namespace)
    if problem is not None:  # a node that is lost keeps its pods
        status = status.model_copy(update={"message": shortened(problem.message)})
    return Decision(status, (), SOON)


def _tidy(run: RunFacts, status: RunStatus, seen: Seen) -> Iterator[Action]:
    """Let go of Jobs whose outcome is in the status as it was read."""
    for job in seen.jobs:
        stage = run.status.stage_named(job.stage)
        known = job.attempt < stage.attempt or (job.attempt == stage.attempt and stage.over)
        if job.live or not known or run.uid not in job.owners or job.deleting:
            continue
        if len(job.owners) > 1:
            yield DisownJob(job.name)
        elif not job.has_ttl:
            yield SetTtl(job.name)


def _say_awaiting(before: RunStatus, status: RunStatus, now: datetime) -> RunStatus:
    """Say since when it waits for a person, for as long as it does."""
    awaits = status.phase == "AwaitingAnnotation"
    since = (before.awaiting_since or stamp(now)) if awaits else None
    return status.model_copy(update={"awaiting_since": since})


def _say_store(status: RunStatus, run: RunFacts, seen: Seen, now: datetime) -> RunStatus:
    if seen.store_error is None:
        return status.with_condition("StoreReachable", "True", "Answers", "", now, run.generation)
    status = status.with_condition(
        "StoreReachable", "False", "NoAnswer", seen.store_error, now, run.generation
    )
    return status.model_copy(update={"message": shortened(seen.store_error)})


def progress_text(progress: ProgressStatus | None, job: JobFacts) -> str | None:
    """How far a Job is, in a few characters."""
    if job.kind == "parts":
        return f"{job.succeeded}/{job.completions} parts"
    if progress is None or not progress.unit:  # heard, and nothing told yet
        return None
    if progress.total:
        percent = min(100.0, 100.0 * progress.done / progress.total)
        return f"{percent:.0f} % of {progress.total:g} {progress.unit}"[:64]
    return f"{progress.done:g} {progress.unit}"[:64]
