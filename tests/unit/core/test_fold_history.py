"""A case keeps its fold from tiling to tiling, and the same tiling is found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hdgan.core.artifact import Attempt, open_artifact
from hdgan.core.errors import InputMissing
from hdgan.core.fold_history import note_folds, noted_folds, with_folds
from hdgan.core.pipeline import BY_NAME, External, node_key
from hdgan.core.request import InputRef
from hdgan.core.run import DatasetRun, parse_run, resolve
from hdgan.core.store import Store, open_store
from hdgan.tiler.folds import FoldRow, read_folds, write_folds

SLIDES = External("work/slides/x.json", "a" * 64)


def run_of(name: str = "r", **tiler: Any) -> DatasetRun:
    classes = [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#ffffff"}]
    spec = {"slides": {"uri": "/x"}, "tiler": tiler, "annotations": {"classes": classes}}
    document = {
        "apiVersion": "hdgan.io/v1alpha1",
        "kind": "DatasetRun",
        "metadata": {"name": name},
        "spec": spec,
    }
    return resolve(parse_run(document, "test"))


def tiled(
    store: Store, run: DatasetRun, external: External, folds: bytes | None = None
) -> InputRef:
    """Commit what the tiler would, and note it."""
    key = node_key(BY_NAME["tiler"], run, external, {})
    attempt = Attempt(store, "tiler", key)
    attempt.add_bytes("folds.parquet", key.encode() if folds is None else folds)
    manifest = attempt.commit({}).manifest
    found = InputRef(stage="tiler", key=key, content_digest=manifest.content_digest)
    note_folds(store, run, external, found)
    return found


def cases(**folds: int) -> bytes:
    """`folds.parquet` as the tiler writes it."""
    return write_folds([FoldRow("case", name, fold, "HE") for name, fold in folds.items()])


def with_slides(digit: str) -> External:
    return replace(SLIDES, slides_digest=digit * 64)


def notes(store: Store) -> list[str]:
    return sorted(store.list("datasets/r/folds/"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path.as_uri())


def test_the_first_run_of_a_name_keeps_nothing(store: Store) -> None:
    assert with_folds(store, run_of(), SLIDES) == SLIDES


def test_the_same_tiling_is_found_again_and_another_keeps_its_folds(store: Store) -> None:
    first = tiled(store, run_of(), SLIDES)
    assert with_folds(store, run_of(), SLIDES) == SLIDES
    more = replace(SLIDES, slides_digest="b" * 64)
    kept = with_folds(store, run_of(), more)
    assert kept.folds == first
    assert kept.folds_digest is not None
    second = tiled(store, run_of(), kept)
    assert with_folds(store, run_of(), more) == kept  # again: the second tiling's own folds
    assert with_folds(store, run_of(tileSize=256), more).folds == second
    assert with_folds(store, run_of("another"), more) == more


def test_another_way_of_holding_out_has_nothing_to_keep(store: Store) -> None:
    tiled(store, run_of(), SLIDES)
    other = replace(SLIDES, slides_digest="b" * 64)
    assert with_folds(store, run_of(holdout="spatial"), other) == other


def test_folds_that_are_gone_are_an_error_not_made_anew(store: Store) -> None:
    first = tiled(store, run_of(), SLIDES)
    store.delete(f"artifacts/tiler/{first.key}/manifest.json")
    with pytest.raises(InputMissing, match="whose folds this run keeps, is gone"):
        with_folds(store, run_of(), replace(SLIDES, slides_digest="b" * 64))


def test_runs_that_take_turns_find_their_own_tilings(store: Store) -> None:
    """Else each would tile, and train, again whenever the other has run."""
    small, large = run_of(), run_of(tileSize=256)
    first = tiled(store, small, SLIDES)
    kept = with_folds(store, large, SLIDES)
    assert kept.folds == first
    tiled(store, large, kept)
    assert with_folds(store, small, SLIDES) == SLIDES
    note_folds(store, small, SLIDES, first)  # as a runner does that finds it
    assert len(notes(store)) == 2
    assert with_folds(store, large, SLIDES) == kept


def test_runs_at_once_lose_no_fold(store: Store) -> None:
    start = tiled(store, run_of(), SLIDES, cases(a=0, b=1))
    # Both begin before either is tiled; both meet case c, and think differently of it.
    one, other = (with_folds(store, run_of(), with_slides(digit)) for digit in "bc")
    assert one.folds == other.folds == start
    tiled(store, run_of(), one, cases(a=0, b=1, c=2, d=3))
    tiled(store, run_of(), other, cases(a=0, b=1, c=4, e=0))
    assert len(notes(store)) == 3

    before = set(store.list(""))
    looked = with_folds(store, run_of(), with_slides("d"), save=False)
    assert set(store.list("")) == before
    united = with_folds(store, run_of(), with_slides("d"))
    assert united == looked
    assert united.folds is not None
    artifact = open_artifact(store, united.folds.stage, united.folds.key)
    assert artifact is not None
    folds = {row.case: row.fold for row in read_folds(artifact.read("folds.parquet"), "test")}
    assert folds == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 0}

    # Each of the two still finds its own, and whoever comes next goes on from the one after them.
    assert with_folds(store, run_of(), with_slides("b")) == one
    assert with_folds(store, run_of(), with_slides("c")) == other
    last = tiled(store, run_of(), united, cases(a=0, b=1, c=2, d=3, e=0))
    assert with_folds(store, run_of(), with_slides("e")).folds == last
    assert with_folds(store, run_of(), with_slides("d")) == united
    # What is collected: not the folds that are kept, nor what they were made from at last.
    roots = {reference for _, reference in noted_folds(store)}
    assert roots == {last, united.folds}


def test_a_run_that_was_late_leaves_another_end_to_go_on_from(store: Store) -> None:
    start = tiled(store, run_of(), SLIDES, cases(a=0))
    late = with_folds(store, run_of(), with_slides("b"))
    tiled(store, run_of(), with_folds(store, run_of(), with_slides("c")), cases(a=0, c=1))
    last = tiled(store, run_of(), with_folds(store, run_of(), with_slides("d")), cases(a=0, d=2))
    lost = tiled(store, run_of(), late, cases(a=0, b=3))
    united = with_folds(store, run_of(), with_slides("e"))
    assert united.folds is not None
    assert united.folds.stage == "folds"
    assert {one for _, one in noted_folds(store)} >= {last, lost}
    assert start not in {last, lost}


def test_bands_of_a_slide_are_those_of_the_first(store: Store) -> None:
    def bands(**cuts: int) -> bytes:
        return write_folds(
            [
                FoldRow("spatial", "p", fold, slide=name, axis="x", start=start, stop=stop)
                for name, cut in cuts.items()
                for fold, (start, stop) in enumerate(((0, cut), (cut, 100)))
            ]
        )

    run = run_of(holdout="spatial")
    tiled(store, run, with_slides("b"), bands(one=10, two=20))
    tiled(store, run, with_slides("c"), bands(two=30, three=40))
    united = with_folds(store, run, with_slides("d")).folds
    assert united is not None
    artifact = open_artifact(store, united.stage, united.key)
    assert artifact is not None
    found = [
        (row.slide, row.fold, row.start, row.stop)
        for row in read_folds(artifact.read("folds.parquet"), "test")
    ]
    assert found == [
        ("one", 0, 0, 10), ("one", 1, 10, 100), ("two", 0, 0, 20), ("two", 1, 20, 100),
        ("three", 0, 0, 40), ("three", 1, 40, 100),
    ]  # fmt: skip


def test_folds_of_one_of_several_that_are_damaged_are_named(store: Store) -> None:
    tiled(store, run_of(), with_slides("b"), cases(a=0))
    damaged = tiled(store, run_of(), with_slides("c"), b"PAR1 not really PAR1")
    with pytest.raises(InputMissing, match=rf"{damaged.key}.*is no folds\.parquet"):
        with_folds(store, run_of(), with_slides("d"))


def test_a_tiling_of_an_older_note_is_found_and_gone_on_from(store: Store) -> None:
    """`folds.json` alone, as it was before notes were appended."""
    first = tiled(store, run_of(), SLIDES)
    kept = with_folds(store, run_of(), with_slides("b"))
    second = tiled(store, run_of(), kept)
    for place in notes(store):
        store.delete(place)
    old = {"holdout": "case", "tiling": second.model_dump(), "kept": first.model_dump()}
    store.put("datasets/r/folds.json", json.dumps(old).encode())
    assert with_folds(store, run_of(), with_slides("b")) == kept
    note_folds(store, run_of(), kept, second)
    assert notes(store) == []
    assert with_folds(store, run_of(), with_slides("c")).folds == second
    assert {one for _, one in noted_folds(store)} == {first, second}


def test_a_note_that_cannot_be_read_is_named_instead_of_making_folds_anew(store: Store) -> None:
    tiled(store, run_of(), SLIDES)
    (place,) = notes(store)
    store.put(place, b"{")
    for attempt in (
        lambda: with_folds(store, run_of(), SLIDES),
        lambda: list(noted_folds(store)),
    ):
        with pytest.raises(InputMissing, match="nobody knows which folds it keeps"):
            attempt()


def test_a_tiling_that_is_gone_with_what_it_kept_is_made_anew_from_what_there_is(
    store: Store,
) -> None:
    first = tiled(store, run_of(), SLIDES)
    kept = with_folds(store, run_of(), with_slides("b"))
    second = tiled(store, run_of(), kept)
    third = tiled(store, run_of(), with_folds(store, run_of(), with_slides("c")))
    store.delete(f"artifacts/tiler/{second.key}/manifest.json")
    assert with_folds(store, run_of(), with_slides("b")) == kept
    store.delete(f"artifacts/tiler/{first.key}/manifest.json")
    assert with_folds(store, run_of(), with_slides("b")).folds == third
