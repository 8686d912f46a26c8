"""Runs that are not over keep what they need pinned, whether anything is looked up for them or
not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.controller.pinning import PinKeeper, needed_by
from hdgan.controller.status import FINAL, PinnedStatus, RunStatus, StageStatus
from hdgan.core import elapsed
from hdgan.core.errors import StoreUnavailable
from hdgan.core.pins import find_pins
from hdgan.core.pipeline import External
from hdgan.core.store import Store, open_store
from unit.garbage.test_model import FakeTime

KEYS = {
    name: f"{number:064x}" for number, name in enumerate(("tiler", "gan-trainer", "candidates"))
}


def status(phase: str, *stages: str) -> RunStatus:
    found = [StageStatus(name=name, key=KEYS[name]) for name in stages]
    external = External(slides_key="work/slides/x.json", slides_digest="0" * 64)
    return RunStatus(
        phase=phase,  # type: ignore[arg-type]
        pinned=PinnedStatus.of(external),
        stages=found,
    )


def pinned(store: Store) -> set[tuple[str, str, str]]:
    """Run, purpose and stage of all that is pinned."""
    return {
        (found.pin.run, found.purpose, one.stage)
        for found in find_pins(store, {})
        if found.pin is not None
        for one in found.pin.artifacts
    }


@pytest.mark.parametrize("phase", ["Pending", "Running", "Suspended", "AwaitingAnnotation"])
def test_a_run_that_is_not_over_is_pinned(tmp_path: Path, phase: str) -> None:
    store = open_store(tmp_path.as_uri())
    stages = ("tiler", "gan-trainer", "candidates")
    PinKeeper(lambda _: store).keep([(("n", "r"), ("n", "default"), status(phase, *stages))])
    waiting = {("r", "annotation", name) for name in stages[1:]}
    expected = {("r", "use", name) for name in stages}
    assert pinned(store) == expected | (waiting if phase == "AwaitingAnnotation" else set())


@pytest.mark.parametrize("phase", sorted(FINAL))
def test_a_run_that_is_over_is_not(phase: str) -> None:
    assert needed_by(status(phase, "tiler")) == []


def test_pins_are_written_anew_twice_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr(elapsed, "time", clock)
    store = open_store(tmp_path.as_uri())
    keeper = PinKeeper(lambda _: store)
    runs = [(("n", "r"), ("n", "default"), status("Suspended", "tiler"))]
    keeper.keep(runs)
    (place,) = store.list("pins/")
    store.delete(place)
    clock.seconds += 11 * 3600
    keeper.keep(runs)
    assert list(store.list("pins/")) == []
    clock.seconds += 2 * 3600
    keeper.keep(runs)
    assert list(store.list("pins/")) == [place]
    # What is over is forgotten, and pinned at once if it begins again.
    keeper.keep([])
    store.delete(place)
    keeper.keep(runs)
    assert list(store.list("pins/")) == [place]


def test_a_store_that_fails_keeps_no_other_from_being_pinned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path.as_uri())
    asked = []

    def get(place: tuple[str, str]) -> Store:
        asked.append(place)
        if place == ("n", "broken"):
            raise StoreUnavailable("no answer")
        return store

    runs = [
        (("n", "a"), ("n", "broken"), status("Running", "tiler")),
        (("n", "b"), ("n", "broken"), status("Running", "tiler")),
        (("n", "c"), ("n", "default"), status("Running", "tiler")),
    ]
    PinKeeper(get).keep(runs)
    assert pinned(store) == {("c", "use", "tiler")}
    assert asked == [("n", "broken"), ("n", "default")]
    (record,) = caplog.records
    assert record.getMessage() == "writing pins: no answer"
    assert (vars(record)["namespace"], vars(record)["store"]) == ("n", "broken")
