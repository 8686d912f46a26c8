"""What a schedule makes and deletes when its time has come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.controller.scheduling import ScheduleConfig, ScheduledRun, document, turn
from hdgan.controller.status import FINAL, Phase
from hdgan.core.run import parse_run
from support.runs import DOCUMENT

START = datetime(2026, 1, 4, tzinfo=UTC)
PHASES: list[Phase] = [
    "Pending", "Running", "AwaitingAnnotation", "Suspended", "Released", "Unchanged", "GateFailed",
    "Failed",
]  # fmt: skip


def config(**changes: Any) -> ScheduleConfig:
    given = {"schedule": "weekly", "spec": DOCUMENT["spec"], **changes}
    return ScheduleConfig.model_validate(given, by_alias=True, by_name=False)


def runs(*phases: Phase | tuple[Phase, bool]) -> list[ScheduledRun]:
    """One a week, the oldest first; with True annotations have been begun."""
    made = []
    for week, one in enumerate(phases):
        phase, annotating = one if isinstance(one, tuple) else (one, False)
        created = START + timedelta(weeks=week)
        made.append(ScheduledRun(f"weekly-{week}", f"uid-{week}", created, phase, annotating))
    return made


def deleted(known: list[ScheduledRun], **changes: Any) -> list[str]:
    return sorted(run.name for run in turn(config(**changes), known).delete)


def test_the_first_turn_makes_a_run() -> None:
    assert turn(config(), []).create


@pytest.mark.parametrize("phase", ["Pending", "Running", "Suspended"])
def test_what_happens_while_one_is_at_work(phase: Phase) -> None:
    known = runs("Released", phase)
    forbid = turn(config(), known)
    assert (forbid.create, forbid.delete) == (False, ())
    assert "weekly-1 is at work" in forbid.why
    assert turn(config(concurrencyPolicy="Allow"), known).create
    assert deleted(known, concurrencyPolicy="Allow") == []
    assert turn(config(concurrencyPolicy="Replace"), known).create
    assert deleted(known, concurrencyPolicy="Replace") == ["weekly-1"]


def test_a_run_that_waits_is_superseded_unless_somebody_has_begun_to_annotate() -> None:
    idle = runs("AwaitingAnnotation", "AwaitingAnnotation")
    assert turn(config(), idle).create
    assert deleted(idle) == ["weekly-0", "weekly-1"]
    begun = runs("AwaitingAnnotation", ("AwaitingAnnotation", True))
    assert not turn(config(), begun).create
    assert deleted(begun) == []
    assert deleted(begun, concurrencyPolicy="Allow") == ["weekly-0"]


def test_as_many_are_kept_as_the_history_says() -> None:
    known = runs("Failed", "Released", "Unchanged", "Released", "Released", "GateFailed", "Failed")
    assert deleted(known) == ["weekly-0", "weekly-1", "weekly-5"]
    none = {"succeeded": 0, "failed": 0}
    assert len(deleted(known, history=none)) == 7
    # Also where nothing is made this time.
    busy = [*known, *runs("Released")[:0], ScheduledRun("x", "u", START, "Running")]
    assert deleted(busy) == ["weekly-0", "weekly-1", "weekly-5"]


@given(st.lists(st.tuples(st.sampled_from(PHASES), st.booleans()), max_size=12))
def test_runs_never_pile_up(phases: list[tuple[Phase, bool]]) -> None:
    known = runs(*phases)
    now = turn(config(), known)
    left = [run for run in known if run not in now.delete]
    live = [run for run in left if run.phase not in FINAL]
    assert len(set(now.delete)) == len(now.delete)
    if now.create:
        assert live == []
    else:
        assert live
    assert sum(run.phase in ("Released", "Unchanged") for run in left) <= 3
    assert sum(run.phase in ("Failed", "GateFailed") for run in left) <= 1


def test_the_run_is_one_that_a_person_could_have_submitted() -> None:
    made = document(config(), "weekly-29412345")
    assert made["metadata"]["labels"] == {"hdgan.io/schedule": "weekly"}
    run = parse_run({**made, "metadata": {"name": made["metadata"]["name"]}})
    assert (run.spec.generator, run.dataset_name) == ("pinned", "weekly")
    assert (
        run.spec.synthesizer.seed
        != document(config(), "weekly-29412346")["spec"]["synthesizer"]["seed"]
    )
    assert run.spec.synthesizer.count == 4


def test_what_the_schedule_says_itself_is_left_as_it_is() -> None:
    spec = {**DOCUMENT["spec"], "generator": "train", "dataset": "skin"}
    made = document(config(spec=spec), "weekly-1")
    assert made["spec"] == spec
    fixed = {**DOCUMENT["spec"], "synthesizer": {"count": 4, "seed": 5}}
    assert document(config(spec=fixed), "weekly-1")["spec"]["synthesizer"]["seed"] == 5
    assert "seed" not in document(config(generator="train"), "weekly-1")["spec"]["synthesizer"]
    assert config(spec=fixed).spec == fixed
