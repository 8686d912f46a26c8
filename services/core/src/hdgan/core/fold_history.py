"""Folds of a dataset's earlier tilings: a case that has a fold keeps it when slides come or
settings change.

The last tiling for a dataset is noted at `datasets/<name>/folds.json`. A run that asks for exactly
that tiling finds it; any other one is told to keep its folds. Folds made by another `tiler.holdout`
are of another kind: there is nothing to keep then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from hdgan.core.artifact import open_artifact
from hdgan.core.bounded_reading import read_object
from hdgan.core.canonical import canonical_json
from hdgan.core.errors import InputMissing, KeyMissing
from hdgan.core.json_documents import parse_model
from hdgan.core.pipeline import BY_NAME, External, node_key
from hdgan.core.request import InputRef
from hdgan.core.run import DatasetRun
from hdgan.core.store import Store

FOLDS = "folds.parquet"
MAX_BYTES = 1 << 20


class LastTiling(BaseModel):
    """A tiling, and the folds it was told to keep."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    holdout: str
    tiling: InputRef
    kept: InputRef | None = None


def with_folds(store: Store, run: DatasetRun, external: External) -> External:
    """`external` with the folds to keep. `run` is resolved.

    InputMissing if the tiling that has them is gone.
    """
    last = _read(store, run)
    if last is None or last.holdout != run.spec.tiler.holdout:
        return external
    same = _keeping(store, external, last.kept)
    if node_key(BY_NAME["tiler"], run, same, {}) == last.tiling.key:
        return same
    return _keeping(store, external, last.tiling)


def note_folds(store: Store, run: DatasetRun, external: External, tiling: InputRef) -> None:
    """Note the tiling that now has the folds of this run's dataset."""
    last = LastTiling(holdout=run.spec.tiler.holdout, tiling=tiling, kept=external.folds)
    if _read(store, run) != last:
        store.put(_place(run), canonical_json(last.model_dump(mode="json")))


def noted_folds(store: Store) -> Iterator[tuple[str, InputRef]]:
    """Dataset and artifact of all tilings whose folds are kept, or were kept when they were made.

    InputMissing if a note cannot be read.
    """
    for place in store.list("datasets/"):
        dataset, _, rest = place.removeprefix("datasets/").partition("/")
        if rest != "folds.json":
            continue
        try:
            last = parse_model(LastTiling, read_object(store, place, MAX_BYTES))
        except KeyMissing:
            continue
        except ValueError as error:
            raise InputMissing(
                f"{store.url(place)} cannot be read, so nobody knows which folds it keeps: restore "
                "it, or delete it"
            ) from error
        for one in (last.tiling, last.kept):
            if one is not None:
                yield dataset, one


def _keeping(store: Store, external: External, folds: InputRef | None) -> External:
    if folds is None:
        return external
    artifact = open_artifact(store, folds.stage, folds.key)
    files = {} if artifact is None else {one.name: one for one in artifact.manifest.files}
    if FOLDS not in files:
        raise InputMissing(
            f"{store.url(f'artifacts/{folds.stage}/{folds.key}')}, whose folds this run keeps, is "
            "gone: name another spec.dataset to have folds made anew"
        )
    return replace(external, folds=folds, folds_digest=files[FOLDS].sha256)


def _read(store: Store, run: DatasetRun) -> LastTiling | None:
    """The note; None if there is none that can be read."""
    try:
        return parse_model(LastTiling, read_object(store, _place(run), MAX_BYTES))
    except (KeyMissing, ValueError):
        return None


def _place(run: DatasetRun) -> str:
    return f"datasets/{run.dataset_name}/folds.json"
