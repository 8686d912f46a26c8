"""The latest release of each dataset, read again only when there is another."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from hdgan.core.artifact import Attempt
from hdgan.core.gates import Measured, Scores
from hdgan.core.observe import reference
from hdgan.core.pipeline import External, Observed
from hdgan.core.releases import promote, publish, release_of
from hdgan.core.telemetry.run_releases import Latest, dataset_looks, read_latest
from hdgan.core.telemetry.run_series import DatasetLook
from support.runs import small_run
from unit.core.telemetry.test_run_measures import CountingStore

EXTERNAL = External(slides_key="work/slides/x.json", slides_digest="5" * 64)


def released(store: CountingStore, dataset: str, number: int, dice: float | None = None) -> str:
    """Make a release; its name."""
    attempt = Attempt(store, "dataset", f"{number:064x}")
    attempt.add_bytes("made", f"{dataset} {number}".encode())
    artifact = reference(attempt.commit({}))
    measured = Measured(scores=Scores("x", dice))
    observed = Observed({"dataset": artifact}, measured=measured)
    created = datetime(2026, 11, number, tzinfo=UTC)
    run = small_run("spec.dataset", dataset)
    return publish(store, release_of(run, EXTERNAL, observed, created)).release


def at(day: int) -> float:
    return datetime(2026, 11, day, tzinfo=UTC).timestamp()


def test_the_latest_of_each_is_found_and_kept_until_there_is_another(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    assert read_latest(store, {}) == {}
    first = released(store, "skin", 1, 0.8)
    released(store, "lung", 2)
    found = read_latest(store, {})
    assert {name: (one.released, one.macro_dice) for name, one in found.items()} == {
        "skin": (at(1), 0.8),
        "lung": (at(2), None),
    }
    store.asked.clear()
    assert read_latest(store, found) == found
    assert store.asked == {"list": 1}

    released(store, "skin", 3, 0.9)
    found = read_latest(store, found)
    assert (found["skin"].released, found["skin"].macro_dice) == (at(3), 0.9)
    promote(store, "skin", first)
    found = read_latest(store, found)
    assert (found["skin"].released, found["skin"].macro_dice) == (at(1), 0.8)


def test_a_damaged_release_has_no_values_until_it_is_restored(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    name = released(store, "skin", 1)
    released(store, "lung", 2)
    place = f"datasets/skin/releases/{name}.json"
    data = store.get(place)
    store.put(place, b"{")
    damaged = read_latest(store, {})
    assert set(damaged) == {"lung"}
    store.put(place, data)
    assert set(read_latest(store, damaged)) == {"lung", "skin"}


def test_what_else_lies_there_is_no_dataset(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    for key in ("datasets/x", "datasets/y/folds/1.json", "datasets/z/pointer"):
        store.put(key, b"{}")
    store.put("datasets/w/pointer/00000001-0000000000000000.json", b"{}")
    assert read_latest(store, {}) == {}


def test_they_are_shown_under_the_name_runs_have_for_the_store() -> None:
    assert dataset_looks("team", "cold", {"skin": Latest("pointer", 5.0, 0.8)}) == [
        DatasetLook("skin", "team", "cold", released=5.0, macro_dice=0.8)
    ]
