"""What is read of artifacts for their series: each once, and nothing of what is damaged."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.errors import InputMissing, NoSpace, StoreUnavailable
from hdgan.core.observe import reference
from hdgan.core.request import InputRef
from hdgan.core.score_documents import ImageScores, scores_on_test_images
from hdgan.core.spent_time import Spent
from hdgan.core.stage_cost import StageCost, read_cost
from hdgan.core.store import open_store
from hdgan.core.store_file import FileStore
from hdgan.core.telemetry.run_measures import (
    AGAIN_SECONDS,
    KnownMeasures,
    Measures,
    read_measures,
)

TEST = {
    "dice": {"macro": 0.8, "perClass": {"dermis": 0.9, "hair": None}},
    "iou": {"macro": 0.7, "perClass": {"dermis": 0.75}},
    "ece": 0.03,
}
SCORES = ImageScores(0.8, 0.7, 0.03, {"dermis": 0.9, "hair": None}, {"dermis": 0.75})
INFO = {
    "run": "weekly-1",
    "seconds": 12.5,
    "device": "cuda",
    "processes": 4,
    "startedAt": "2026-11-01T02:00:00Z",
}
COST = StageCost(12.5, "cuda", 4, "2026-11-01T02:00:00Z", "weekly-1")


class CountingStore(FileStore):
    """Counts what is asked of it, and may stop to answer."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: Counter[str] = Counter()
        self.answers = True

    def _count(self, name: str) -> None:
        self.asked[name] += 1
        if not self.answers:
            raise StoreUnavailable("no answer")

    def head(self, key: str) -> Any:
        self._count("head")
        return super().head(key)

    def get(self, key: str) -> bytes:
        self._count("get")
        return super().get(key)

    def list(self, prefix: str) -> Iterator[str]:
        self._count("list")
        return super().list(prefix)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "store")


def made(store: FileStore, stage: str, info: Any = None, **files: bytes) -> InputRef:
    attempt = Attempt(store, stage, f"{len(stage):064x}")
    for name, data in (files or {"made": b"it"}).items():
        attempt.add_bytes(name.replace("_", "."), data)
    return reference(attempt.commit(INFO if info is None else info))


def table(pairs: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": [str(n) for n in range(pairs)]}), buffer)
    return buffer.getvalue()


def test_every_stage_says_what_it_has(store: CountingStore) -> None:
    scores = json.dumps({"test": TEST}).encode()
    kid = json.dumps({"kid": {"whole": {"mean": 0.01}}}).encode()
    drift = json.dumps({"kidOfNewTiles": {"whole": {"mean": 0.002}}, "kid": None}).encode()
    for one, expected in (
        (made(store, "tiler"), Measures(COST)),
        (made(store, "gan-trainer", evaluation_json=kid), Measures(COST, kid=0.01)),
        (made(store, "drift", drift_json=drift), Measures(COST, drift_kid=0.002)),
        (made(store, "classifier", scores_json=scores), Measures(COST, SCORES)),
        (made(store, "dataset", index_parquet=table(37)), Measures(COST, pairs=37)),
    ):
        assert read_measures(store, one) == expected


@pytest.mark.parametrize(
    ("stage", "files"),
    [
        ("classifier", {"scores_json": b"[1]"}),
        ("classifier", {"scores_json": b'{"test": NaN}'}),
        ("classifier", {"scores_json": b'{"test": {"dice": [1], "ece": "low"}}'}),
        ("classifier", {}),
        ("gan-trainer", {"evaluation_json": b"no JSON"}),
        ("drift", {"drift_json": b"{}"}),
        ("drift", {}),
        ("dataset", {"index_parquet": b"no parquet"}),
        ("dataset", {}),
    ],
)
def test_a_damaged_file_has_no_value_and_takes_no_other_along(
    store: CountingStore, stage: str, files: dict[str, bytes]
) -> None:
    assert read_measures(store, made(store, stage, **files)) == Measures(COST)


def test_a_file_that_was_changed_is_not_believed(store: CountingStore) -> None:
    one = made(store, "classifier", scores_json=json.dumps({"test": TEST}).encode())
    (place,) = [key for key in store.list("artifacts/classifier/") if "scores" in key]
    store.put(place, json.dumps({"test": {**TEST, "ece": 0.01}}).encode())
    assert read_measures(store, one) == Measures(COST)
    other = one.model_copy(update={"content_digest": "0" * 64})
    with pytest.raises(InputMissing):
        read_measures(store, other)


def test_each_is_read_once_and_forgotten_when_it_does_not_count_any_more(
    store: CountingStore,
) -> None:
    tiler, drift = made(store, "tiler"), made(store, "drift")
    known = KnownMeasures()
    assert known.of({"tiler": tiler}) == {}
    known.read(store, [tiler, drift])
    assert set(known.of({"tiler": tiler, "drift": drift, "dataset": tiler})) == {
        "tiler",
        "drift",
        "dataset",
    }
    store.asked.clear()
    known.read(store, [tiler, drift])
    assert not store.asked
    known.read(store, [tiler])
    assert set(known.of({"tiler": tiler, "drift": drift})) == {"tiler"}


def test_what_was_read_stays_while_the_store_does_not_answer(store: CountingStore) -> None:
    tiler, drift = made(store, "tiler"), made(store, "drift")
    known = KnownMeasures()
    known.read(store, [tiler])
    store.answers = False
    with pytest.raises(StoreUnavailable):
        known.read(store, [tiler, drift])
    assert known.of({"tiler": tiler, "drift": drift}) == {"tiler": Measures(COST)}
    store.answers = True
    known.read(store, [tiler, drift])  # at once: nobody had said that it is gone
    assert len(known.of({"tiler": tiler, "drift": drift})) == 2


def test_what_is_gone_is_looked_for_again_much_later(store: CountingStore) -> None:
    now = 0.0
    one = made(store, "tiler")
    place = f"artifacts/tiler/{one.key}/manifest.json"
    manifest = store.get(place)
    store.delete(place)
    known = KnownMeasures(lambda: now)
    known.read(store, [one])
    store.put(place, manifest)
    store.asked.clear()
    now = AGAIN_SECONDS - 1
    known.read(store, [one])
    assert (store.asked, known.of({"tiler": one})) == (Counter(), {})
    now = AGAIN_SECONDS
    known.read(store, [one])
    assert known.of({"tiler": one}) == {"tiler": Measures(COST)}


@pytest.mark.parametrize("error", [NoSpace("full"), PermissionError("read-only")])
def test_no_room_here_is_not_the_stores_fault(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(artifact: Artifact) -> None:
        raise error

    dataset, tiler = made(store, "dataset", index_parquet=table(3)), made(store, "tiler")
    known = KnownMeasures()
    monkeypatch.setattr("hdgan.core.telemetry.run_measures.size_of", full)
    known.read(store, [dataset, tiler])
    assert set(known.of({"dataset": dataset, "tiler": tiler})) == {"tiler"}


def test_whoever_ends_does_not_wait_for_the_rest(store: CountingStore) -> None:
    known, one = KnownMeasures(), made(store, "tiler")
    store.asked.clear()
    known.read(store, [one], lambda: True)
    assert not store.asked


def test_annotations_are_nobodys_cost(store: CountingStore) -> None:
    one, known = made(store, "annotations"), KnownMeasures()
    known.read(store, [one])
    assert known.of({"annotations": one}) == {}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, StageCost()),
        ({"seconds": -1, "device": 7, "processes": 0, "run": None}, StageCost()),
        ({"seconds": "12", "processes": True, "startedAt": []}, StageCost()),
        ({"seconds": float("nan"), "processes": 10**9, "device": "cpu"}, StageCost(device="cpu")),
        ({"seconds": 0, "processes": 2}, StageCost(0.0, processes=2)),
        (INFO, COST),
    ],
)
def test_run_info_of_any_form(info: dict[str, Any], expected: StageCost) -> None:
    assert read_cost(info) == expected


def test_the_cost_is_that_of_who_had_it_made() -> None:
    assert COST.spent == Spent(1, 12.5, 50.0)
    assert (COST.paid_by("weekly-1"), COST.paid_by("weekly-2")) == (True, False)
    assert StageCost(1.0).paid_by("weekly-2")
    assert StageCost().spent is None


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"test": None}, {"test": [1]}, {"test": {"dice": 1, "iou": {"perClass": []}}}],
)
def test_scores_of_any_form(document: Any) -> None:
    assert scores_on_test_images(document) == ImageScores()


def test_more_classes_than_masks_can_hold_are_not_believed() -> None:
    many = {f"class {n}": 0.5 for n in range(300)}
    found = scores_on_test_images({"test": {"dice": {"macro": 0.5, "perClass": many}}})
    assert (found.macro_dice, found.class_dice) == (0.5, None)


def test_a_store_that_is_not_there_yet_has_nothing(tmp_path: Path) -> None:
    known, one = KnownMeasures(), InputRef(stage="tiler", key="a" * 64, content_digest="b" * 64)
    known.read(open_store((tmp_path / "none").as_uri()), [one])
    assert known.of({"tiler": one}) == {}
