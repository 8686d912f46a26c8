"""A cluster and a store in memory, in which `decide` is played through: Jobs run, pods fail, caches
are stale, the controller dies between any two things it does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from hdgan.controller.actions import (
    Action,
    CreateJob,
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
from hdgan.controller.controller import keys_of
from hdgan.controller.decide import Decision, decide
from hdgan.controller.facts import Condition, ContainerEnd, JobFacts, PodFacts
from hdgan.controller.names import job_name, key_label
from hdgan.controller.situation import Limits, RunFacts, Seen
from hdgan.controller.status import RunStatus
from hdgan.controller.unit import Unit
from hdgan.core.gates import Evaluation, Measured, Scores, Size, Standing
from hdgan.core.pipeline import (
    ANNOTATIONS,
    NODES,
    External,
    Observed,
    gate_status,
    known_key,
)
from hdgan.core.releases import Published
from hdgan.core.request import InputRef
from hdgan.core.run import DatasetRun, resolve

EXTERNAL = External(slides_key="work/slides/x.json", slides_digest="5" * 64)


def digest(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()


@dataclass
class PlayedRun:
    """One DatasetRun and what this controller has in memory about it."""

    facts: RunFacts
    observed: Observed | None = None
    observed_at: datetime | None = None
    external: External | None = None
    saved_step: int | None = None
    progress_changed: datetime | None = None
    progress_heard: datetime | None = None
    refusal: str | None = None
    published: Published | None = None


@dataclass
class World:
    """Everything outside `decide`. Times are the world's own."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    limits: Limits = field(default_factory=Limits)
    runs: dict[str, PlayedRun] = field(default_factory=dict)
    jobs: dict[str, JobFacts] = field(default_factory=dict)
    pods: dict[str, PodFacts] = field(default_factory=dict)
    """By name; of Jobs that are there, and of those that are gone."""
    artifacts: dict[tuple[str, str], InputRef] = field(default_factory=dict)
    annotated: bool = True
    macro_dice: float | None = 0.9
    kid: float | None = 0.1
    pairs: int = 1000
    standing: Standing = field(default_factory=Standing)
    """The latest release."""
    steps: dict[str, int] = field(default_factory=dict)
    """Saved work by key's label."""
    slots: int = 100
    most_live: dict[str, int] = field(default_factory=dict)
    """By key's label: the most live Jobs, or Jobs with pods, at one time."""
    events: list[str] = field(default_factory=list)

    def add(
        self, run: DatasetRun, *, claim: bool = False, parts: int = 1, reports: bool = False
    ) -> PlayedRun:
        resolved = resolve(run)
        facts = RunFacts(
            name=run.metadata.name,
            namespace="team",
            uid=f"uid-{run.metadata.name}",
            generation=1,
            status=RunStatus(),
            run=resolved,
            store="s3://bucket/store",
            scratch_is_claim=claim,
            reports=reports,
            parts={"tiler": parts, "dataset": parts},
        )
        played = PlayedRun(facts)
        self.runs[facts.uid] = played
        return played

    # One round of the controller

    def seen(self, played: PlayedRun, *, view: dict[str, JobFacts] | None = None) -> Seen:
        status = played.facts.status
        keys = {key_label(one) for one in keys_of(status)}
        jobs = self.jobs if view is None else view
        pods = tuple(pod for pod in self.pods.values() if pod.key in keys)
        mine = tuple(
            replace(job, pods=tuple(pod for pod in pods if pod.job == job.name))
            for job in jobs.values()
            if job.key in keys
        )
        live = sum(job.live for job in self.jobs.values())
        return Seen(
            external=played.external,
            observed=played.observed,
            observed_at=played.observed_at,
            jobs=mine,
            pods=pods,
            free_slot=live < self.slots,
            progress_changed=played.progress_changed,
            progress_heard=played.progress_heard or played.progress_changed,
            refusal=played.refusal,
            published=played.published,
            saved_step=played.saved_step,
        )

    def look(self, played: PlayedRun) -> Decision:
        return decide(played.facts, self.seen(played), self.limits, self.now)

    def round(
        self,
        played: PlayedRun,
        *,
        dies: Callable[[], bool] = lambda: False,
        view: dict[str, JobFacts] | None = None,
    ) -> Decision:
        """Decide, write the status, do the actions; the controller may die before each of them."""
        decision = decide(played.facts, self.seen(played, view=view), self.limits, self.now)
        if dies():
            self.forget(played)
            return decision
        played.facts = replace(played.facts, status=decision.status)
        for action in decision.actions:
            if dies():
                self.forget(played)
                break
            self.do(played, action)
        return decision

    def forget(self, played: PlayedRun) -> None:
        """A new controller knows nothing but the API server's objects and the store's."""
        played.observed = played.observed_at = played.external = played.saved_step = None
        played.progress_changed = played.progress_heard = None
        played.refusal = played.published = None

    def do(self, played: PlayedRun, action: Action) -> None:
        uid = played.facts.uid
        match action:
            case Pin():
                played.external = EXTERNAL
            case Observe():
                self.observe(played)
            case Publish():
                self.observe(played)
                assert played.observed is not None
                assert played.facts.run is not None
                if gate_status(played.facts.run, played.observed).state == "done":
                    played.published = Published("Released", f"{played.facts.name}-0")
            case ReadSavedStep(_, key):
                played.saved_step = self.steps.get(key_label(key), -1)
            case CreateJob(unit, attempt):
                played.saved_step = None
                self.create(uid, unit, attempt)
            case OwnJob(name) if name in self.jobs:
                self.jobs[name] = replace(self.jobs[name], owners=self.jobs[name].owners | {uid})
            case DisownJob(name) if name in self.jobs:
                self.jobs[name] = replace(self.jobs[name], owners=self.jobs[name].owners - {uid})
            case DeleteJob(name) if name in self.jobs:
                self.jobs[name] = replace(self.jobs[name], deleting=True)
            case SetTtl(name) if name in self.jobs:
                self.jobs[name] = replace(self.jobs[name], has_ttl=True)
            case ForceDeletePods(names):
                for name in names:
                    self.pods.pop(name, None)
            case _:
                pass  # the Job has gone meanwhile

    def create(self, uid: str, unit: Unit, attempt: int) -> None:
        name = job_name(unit.stage, unit.key, unit.kind, attempt)
        if name in self.jobs:
            return  # 409
        self.jobs[name] = JobFacts(
            name=name,
            stage=unit.stage,
            key=key_label(unit.key),
            kind=unit.kind,
            attempt=attempt,
            uid=f"job-{len(self.events)}-{name}",
            created=self.now,
            owners=frozenset({uid}),
            completions=unit.parts if unit.kind == "parts" else 1,
        )
        pod = PodFacts(
            name=f"{name}-pod",
            job=name,
            key=key_label(unit.key),
            phase="Running",
            node="node-1",
            running=True,
            created=self.now,
        )
        self.pods[pod.name] = pod
        self.events.append(f"created {name}")
        self._count()

    def _count(self) -> None:
        for key in {job.key for job in self.jobs.values()}:
            at_work = {job.name for job in self.jobs.values() if job.key == key and job.live}
            at_work |= {
                str(pod.job) for pod in self.pods.values() if pod.key == key and not pod.finished
            }
            # Features and their classifier have keys of their own.
            self.most_live[key] = max(self.most_live.get(key, 0), len(at_work))

    def observe(self, played: PlayedRun) -> None:
        run = played.facts.run
        assert run is not None
        before = played.facts.status.observed()
        found = dict(before.artifacts)
        external = played.facts.status.pinned
        known = external.external() if external is not None else EXTERNAL
        for node in NODES:
            if node.name == "extractor" and "candidates" in found and self.annotated:
                found.setdefault(
                    ANNOTATIONS,
                    InputRef(
                        stage="annotations", key=digest("a"), content_digest=digest("annotated")
                    ),
                )
            if node.cache or node.pinned or node.name in found:
                continue
            key = known_key(node, run, known, Observed(found))
            artifact = None if key is None else self.artifacts.get((node.name, key))
            if artifact is not None:
                found[node.name] = artifact
        digests = {name: one.content_digest for name, one in found.items()}
        measured = Measured(
            Scores(digests.get("classifier", ""), self.macro_dice, {}),
            Evaluation(
                digests.get("gan-trainer", ""), kid=self.kid, extractor="efficientnet-lite0 (fake)"
            ),
            Size(digests.get("dataset", ""), self.pairs),
            self.standing,
        )
        played.observed = Observed(found, measured=measured)
        played.observed_at = self.now

    # What the cluster does

    def succeed(self, name: str) -> None:
        """The Job's pods end well; its artifact is in the store."""
        job = self.jobs[name]
        self._end_pods(name, "Succeeded", None)
        if job.kind != "parts" and job.stage not in ("extractor", "report"):
            full = next(
                one.key
                for played in self.runs.values()
                for one in played.facts.status.stages
                if one.key and key_label(one.key) == job.key and one.name == job.stage
            )
            self.artifacts[job.stage, full] = InputRef(
                stage=job.stage, key=full, content_digest=digest(job.stage, full)
            )
        self.jobs[name] = replace(job, state="succeeded", ended=self.now, succeeded=job.completions)
        self._step()

    def fail(
        self,
        name: str,
        code: int,
        *,
        reason: str = "Error",
        message: str = "",
        disruption: str | None = None,
        further: bool = False,
    ) -> None:
        """A pod of the Job ends with this code, and so does the Job."""
        job = self.jobs[name]
        if further:
            self.steps[job.key] = self.steps.get(job.key, 0) + 1
        self._end_pods(name, "Failed", ContainerEnd("stage", code, reason, message), disruption)
        self.jobs[name] = replace(
            job, state="failed", ended=self.now, reason="BackoffLimitExceeded"
        )
        self._step()

    def drain(self, name: str, *, further: bool = False) -> None:
        """A node is drained: the pod is gone before its Job has failed, as in a real cluster."""
        job = self.jobs[name]
        if further:
            self.steps[job.key] = self.steps.get(job.key, 0) + 1
        for pod in [pod for pod in self.pods.values() if pod.job == name]:
            del self.pods[pod.name]
        self.jobs[name] = replace(
            job,
            state="failed",
            ended=self.now,
            reason="PodFailurePolicy",
            message=f"Pod team/{name}-x has condition DisruptionTarget matching FailJob rule at "
            "index 0",
        )
        self._step()

    def _end_pods(
        self, name: str, phase: str, end: ContainerEnd | None, disruption: str | None = None
    ) -> None:
        for pod in [pod for pod in self.pods.values() if pod.job == name]:
            conditions = {"DisruptionTarget": Condition("True", disruption)} if disruption else {}
            self.pods[pod.name] = replace(
                pod, phase=phase, running=False, ends=(end,) if end else (), conditions=conditions
            )

    def remove(self, name: str, *, pods: bool = True) -> None:
        """The Job is gone; its pods too, unless they still run."""
        self.jobs.pop(name, None)
        if pods:
            for pod in [pod for pod in self.pods.values() if pod.job == name]:
                del self.pods[pod.name]
        self._step()

    def _step(self) -> None:
        self.pass_time(2)
        for played in self.runs.values():
            played.saved_step = None
        self._count()

    def collect(self) -> None:
        """What the cluster does by itself: deleted Jobs go, and those past their time."""
        for job in list(self.jobs.values()):
            if job.deleting or (job.has_ttl and not job.live) or not job.owners:
                self.remove(job.name)
        for pod in [pod for pod in self.pods.values() if pod.job not in self.jobs]:
            del self.pods[pod.name]

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def live(self) -> list[JobFacts]:
        return [job for job in self.jobs.values() if job.live]


def random_end(world: World, random: Random, name: str) -> None:
    """Anything a Job may come to."""
    way = random.random()
    if way < 0.6:
        world.succeed(name)
    elif way < 0.7:
        world.fail(name, 75, further=random.random() < 0.8)
    elif way < 0.75:
        world.fail(name, 70)
    elif way < 0.8:
        world.fail(name, 137, reason="OOMKilled")
    elif way < 0.85:
        world.fail(name, 143, disruption="PreemptionByScheduler", further=random.random() < 0.5)
    elif way < 0.87:
        world.drain(name, further=random.random() < 0.8)
    elif way < 0.9:
        world.fail(name, 66)
    elif way < 0.95:
        world.remove(name, pods=random.random() < 0.5)
    else:
        world.fail(name, 65)
