"""A case keeps its fold from tiling to tiling, and the same tiling is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hdgan.core.artifact import Attempt
from hdgan.core.errors import InputMissing
from hdgan.core.fold_history import note_folds, with_folds
from hdgan.core.pipeline import BY_NAME, External, node_key
from hdgan.core.request import InputRef
from hdgan.core.run import DatasetRun, parse_run, resolve
from hdgan.core.store import Store, open_store

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


def tiled(store: Store, run: DatasetRun, external: External) -> InputRef:
    """Commit what the tiler would, and note it."""
    key = node_key(BY_NAME["tiler"], run, external, {})
    attempt = Attempt(store, "tiler", key)
    attempt.add_bytes("folds.parquet", key.encode())
    manifest = attempt.commit({}).manifest
    found = InputRef(stage="tiler", key=key, content_digest=manifest.content_digest)
    note_folds(store, run, external, found)
    return found


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
