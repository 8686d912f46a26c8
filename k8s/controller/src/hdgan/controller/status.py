"""A DatasetRun's status: what the controller remembers of a run, and shows.

Everything a restart must not forget is here: what the run was pinned to, the attempts of its
stages, and how they ended. It stays far below the 32 kB that are allowed (`MAX_BYTES`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hdgan.core.gates import MAX_GATES, GateVerdict
from hdgan.core.pipeline import BY_NAME, External, NodeStatus, Observed
from hdgan.core.redaction import redact
from hdgan.core.request import InputRef

MAX_BYTES: Final = 32_000
MAX_MESSAGE: Final = 1000

Phase = Literal[
    "Pending",
    "Running",
    "AwaitingAnnotation",
    "Suspended",
    "Released",
    "Unchanged",
    "GateFailed",
    "Failed",
]
FINAL: Final[frozenset[Phase]] = frozenset({"Released", "Unchanged", "GateFailed", "Failed"})

ConditionType = Literal[
    "Accepted",
    "Started",
    "ProgressHeard",
    "StoreReachable",
    "ReportWritten",
    "Complete",
    "Failed",
]
"""Accepted: what the run asks for can be done here. Started: the pods of the current Job run.
ProgressHeard: they tell how far they are. StoreReachable: the store answers.
ReportWritten: the report of how it came to rest is in the store. Complete, Failed: how
the run ended."""


class _Document(BaseModel):
    # What a newer controller has written is not understood, and not refused either.
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class ConditionStatus(_Document):
    """A condition as Kubernetes has them."""

    type: Annotated[str, Field(max_length=64)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
    last_transition_time: Annotated[str, Field(max_length=32)]
    observed_generation: int = 0


class PinnedStatus(_Document):
    """What the run was pinned to when it started (`hdgan.core.pipeline.External`)."""

    slides_key: Annotated[str, Field(max_length=256)]
    slides_digest: Annotated[str, Field(max_length=64)]
    init_digest: Annotated[str, Field(max_length=64)] | None = None
    facts_key: Annotated[str, Field(max_length=256)] | None = None
    facts_digest: Annotated[str, Field(max_length=64)] | None = None
    folds: InputRef | None = None
    folds_digest: Annotated[str, Field(max_length=64)] | None = None
    release: Annotated[str, Field(max_length=80)] | None = None
    generator: InputRef | None = None
    candidates: InputRef | None = None
    before: InputRef | None = None

    @classmethod
    def of(cls, external: External) -> PinnedStatus:
        """The status of what was found."""
        return cls(**vars(external))

    def external(self) -> External:
        """What was found."""
        return External(**{name: getattr(self, name) for name in type(self).model_fields})


class EndStatus(_Document):
    """How an attempt ended."""

    job: Annotated[str, Field(max_length=63)]
    attempt: int
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
    at: Annotated[str, Field(max_length=32)]


class StageStatus(_Document):
    """Where a stage stands."""

    name: Annotated[str, Field(max_length=32)]
    state: Annotated[str, Field(max_length=16)] = "waiting"
    key: Annotated[str, Field(max_length=64)] | None = None
    content_digest: Annotated[str, Field(max_length=64)] | None = None
    """Of its artifact, once that exists."""
    kind: Literal["whole", "parts", "commit"] | None = None
    """What its Job does: all of the stage, its parts, or what merges them."""
    job: Annotated[str, Field(max_length=63)] | None = None
    """The Job at work, or the last one."""
    attempt: int = 0
    """Its number; numbers go on from kind to kind."""
    over: bool = True
    """Whether that attempt's outcome is known and counted."""
    succeeded: Literal["whole", "parts", "commit"] | None = None
    """What of it is done, as far as no artifact shows that."""
    parts: int = 1
    """How many parts share its work."""
    failures: Annotated[dict[str, int], Field(max_length=8)] = {}
    """Ends that count against a budget: stalled, bug, memory, input."""
    saved_step: int = -1
    """How far the saved work was when an attempt ended; -1: nothing."""
    stopping: Annotated[str, Field(max_length=64)] | None = None
    """Why the controller ends the Job: Stalled, NodeLost or Suspended."""
    retry_at: Annotated[str, Field(max_length=32)] | None = None
    """When the next attempt may start."""
    last_end: EndStatus | None = None
    """How the last attempt ended that did not succeed."""


class ProgressStatus(_Document):
    """How far the current stage is, in `unit`."""

    done: float
    total: float | None = None
    unit: Annotated[str, Field(max_length=32)] = ""
    eta: float | None = None
    """Seconds left."""


class RunStatus(_Document):
    """Status of a run."""

    observed_generation: int = 0
    phase: Phase = "Pending"
    stage: Annotated[str, Field(max_length=32)] | None = None
    """The stage at work."""
    progress: Annotated[str, Field(max_length=64)] | None = None
    """How far that is, for people."""
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
    started_at: Annotated[str, Field(max_length=32)] | None = None
    finished_at: Annotated[str, Field(max_length=32)] | None = None
    waiting_since: Annotated[str, Field(max_length=32)] | None = None
    """Since when it waits for its turn to start a Job."""
    awaiting_since: Annotated[str, Field(max_length=32)] | None = None
    """Since when it waits for annotations."""
    retry: Annotated[str, Field(max_length=64)] | None = None
    """The value of `spec.retry` that was acted on."""
    store: Annotated[str, Field(max_length=1100)] | None = None
    """URI of its store."""
    dataset: Annotated[str, Field(max_length=1200)] | None = None
    """URI of the dataset, once it exists."""
    release: Annotated[str, Field(max_length=80)] | None = None
    """The release that has it."""
    report: Annotated[str, Field(max_length=1200)] | None = None
    """URI of its report, once one has been written: of how it came to rest last, as soon as the
    condition ReportWritten is True."""
    report_key: Annotated[str, Field(max_length=64)] | None = None
    """Digest of what the report shows that is being written, or was."""
    macro_dice: float | None = None
    """Macro Dice on the test images."""
    drift_kid: float | None = None
    """KID of the tiles against the samples of a pinned generator."""
    annotations_lack: Annotated[str, Field(max_length=MAX_MESSAGE)] | None = None
    """What annotations that exist still lack."""
    pinned: PinnedStatus | None = None
    stages: Annotated[list[StageStatus], Field(max_length=16)] = []
    gates: Annotated[list[GateVerdict], Field(max_length=MAX_GATES)] = []
    """What each gate that is set has decided."""
    conditions: Annotated[list[ConditionStatus], Field(max_length=8)] = []

    @property
    def current(self) -> StageStatus | None:
        """The stage whose Job's outcome is not known yet."""
        return next((one for one in self.stages if not one.over), None)

    def stage_named(self, name: str) -> StageStatus:
        """A stage's status; a fresh one if there is none."""
        return next((one for one in self.stages if one.name == name), StageStatus(name=name))

    def with_stage(self, stage: StageStatus) -> RunStatus:
        """With this stage's status instead of the one it had."""
        others = [one for one in self.stages if one.name != stage.name]
        order = [*BY_NAME, "annotations", "gate"]
        stages = sorted([*others, stage], key=lambda one: order.index(one.name))
        return self.model_copy(update={"stages": stages})

    def with_condition(
        self,
        kind: ConditionType,
        status: Literal["True", "False", "Unknown"],
        reason: str,
        message: str,
        now: datetime,
        generation: int,
    ) -> RunStatus:
        """With a condition as given; its transition time is kept while the status is the same."""
        before = next((one for one in self.conditions if one.type == kind), None)
        since = before.last_transition_time if before and before.status == status else stamp(now)
        condition = ConditionStatus(
            type=kind,
            status=status,
            reason=reason,
            message=shortened(message),
            last_transition_time=since,
            observed_generation=generation,
        )
        others = [one for one in self.conditions if one.type != kind]
        return self.model_copy(
            update={"conditions": sorted([*others, condition], key=lambda one: one.type)}
        )

    def without_condition(self, kind: ConditionType) -> RunStatus:
        """Without this condition."""
        if all(one.type != kind for one in self.conditions):
            return self
        return self.model_copy(
            update={"conditions": [one for one in self.conditions if one.type != kind]}
        )

    def observed(self) -> Observed:
        """What was known of the store."""
        artifacts = {
            one.name: InputRef(stage=one.name, key=one.key, content_digest=one.content_digest)
            for one in self.stages
            if one.key is not None and one.content_digest is not None
        }
        return Observed(artifacts, self.annotations_lack, drift_kid=self.drift_kid)

    def with_plan(
        self, plan: Sequence[NodeStatus], observed: Observed, gates: Sequence[GateVerdict]
    ) -> RunStatus:
        """With what the graph says of each stage, and the gates."""
        status = self
        for node in plan:
            stage = status.stage_named(node.name)
            status = status.with_stage(
                stage.model_copy(
                    update={
                        "state": node.state,
                        "key": node.key,
                        "content_digest": node.content_digest,
                    }
                )
            )
        return status.model_copy(
            update={
                "macro_dice": observed.macro_dice,
                "drift_kid": observed.drift_kid,
                "annotations_lack": shortened(observed.annotations_lack),
                "gates": list(gates),
            }
        )

    def dump(self) -> dict[str, Any]:
        """As it is written to the API server: what is absent is left out."""
        document: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return document


def stamp(moment: datetime) -> str:
    """A time as Kubernetes writes it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def shortened(text: str | None) -> Any:
    """At most `MAX_MESSAGE` characters, the beginning and the end of longer text, and no secrets:
    servers, pods and libraries have a part in it."""
    if not text:
        return text
    text = redact(text)
    if len(text) <= MAX_MESSAGE:
        return text
    half = MAX_MESSAGE // 2 - 3
    return f"{text[:half]} ... {text[-half:]}"
