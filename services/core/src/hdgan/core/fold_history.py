"""Folds of a dataset's earlier tilings: a case that has a fold keeps it when slides come or
settings change.

Every tiling for a dataset is noted at `datasets/<name>/folds/<seq>-<digest>.json`, with the folds
it was told to keep; notes are appended, never changed. A run that asks for exactly a tiling that is
noted finds it. Any other one is told to keep the folds of the tiling that nobody has gone on from
yet; of several, which runs at the same time leave, it keeps all that they have (`kept_folds`).
Folds made by another `tiler.holdout` are of another kind: there is nothing to keep then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from hdgan.core.artifact import open_artifact
from hdgan.core.bounded_reading import read_object
from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.errors import InputMissing, KeyMissing
from hdgan.core.json_documents import parse_model
from hdgan.core.kept_folds import FOLDS, STAGE, kept_folds, tilings_of
from hdgan.core.pipeline import BY_NAME, External, node_key
from hdgan.core.request import InputRef
from hdgan.core.run import DatasetRun
from hdgan.core.store import Store

MAX_BYTES = 1 << 20
_NOTE = re.compile(r"/folds/(\d{8})-[0-9a-f]{16}\.json$")
_FIRST = "folds.json"
"""Beside the folder: what the last tiling was, as older versions noted it."""


class Tiling(BaseModel):
    """A tiling, and the folds it was told to keep."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    holdout: str
    tiling: InputRef
    kept: InputRef | None = None
    kept_digest: str | None = None
    """SHA-256 of that `folds.parquet`."""
    covers: list[str] = []
    """Keys of the tilings whose folds those are, where there were several."""


def with_folds(store: Store, run: DatasetRun, external: External, *, save: bool = True) -> External:
    """`external` with the folds to keep. `run` is resolved; `save` may write them down, where they
    are of several tilings.

    InputMissing if the tiling that has them is gone, or a note cannot be read.
    """
    notes = [one for one in _notes(store, run) if one.holdout == run.spec.tiler.holdout]
    for note in reversed(notes):
        same = _as_told(store, external, note)
        if node_key(BY_NAME["tiler"], run, same, {}) == note.tiling.key and _usable(store, note):
            return same
    heads = heads_of(notes)
    if len(heads) > 1:
        folds, digest = kept_folds(store, heads, save=save)
        return replace(external, folds=folds, folds_digest=digest)
    return _keeping(store, external, heads[0]) if heads else external


def note_folds(store: Store, run: DatasetRun, external: External, tiling: InputRef) -> None:
    """Note the tiling that now has the folds of this run's dataset; once."""
    kept = external.folds
    note = Tiling(
        holdout=run.spec.tiler.holdout,
        tiling=tiling,
        kept=kept,
        kept_digest=external.folds_digest,
        covers=tilings_of(store, kept) if kept is not None and kept.stage == STAGE else [],
    )
    places = list(_places(store, run.dataset_name))
    known = _read_all(store, places)
    if any((one.tiling, one.kept) == (note.tiling, note.kept) for one in known):
        return
    document = note.model_dump(mode="json", exclude_none=True)
    seq = 1 + max((_seq(place) for place in places), default=0)
    name = f"{seq:08d}-{canonical_digest(document)[:16]}.json"
    store.put(f"datasets/{run.dataset_name}/folds/{name}", canonical_json(document))


def heads_of(notes: Sequence[Tiling]) -> list[InputRef]:
    """The tilings that nobody has gone on from, in the order they were noted."""
    covered = {note.kept.key for note in notes if note.kept is not None}
    covered.update(key for note in notes for key in note.covers)
    found = {note.tiling.key: note.tiling for note in notes if note.tiling.key not in covered}
    return list(found.values())


def noted_folds(store: Store) -> Iterator[tuple[str, InputRef]]:
    """Dataset and artifact of the tilings whose folds are kept next, and of what they have kept.

    InputMissing if a note cannot be read.
    """
    places: dict[str, list[str]] = {}
    for place in store.list("datasets/"):
        dataset, _, rest = place.removeprefix("datasets/").partition("/")
        if rest == _FIRST or _NOTE.search(place):
            places.setdefault(dataset, []).append(place)
    for dataset, mine in places.items():
        notes = _read_all(store, sorted(mine, key=_seq))
        kinds = {note.holdout for note in notes}
        heads = {
            one.key
            for kind in kinds
            for one in heads_of([note for note in notes if note.holdout == kind])
        }
        for note in notes:
            if note.tiling.key in heads:
                yield dataset, note.tiling
                if note.kept is not None:
                    yield dataset, note.kept


def _as_told(store: Store, external: External, note: Tiling) -> External:
    """`external` with the folds a noted tiling was told to keep."""
    digest = note.kept_digest
    if note.kept is not None and digest is None:  # an older version's note
        artifact = open_artifact(store, note.kept.stage, note.kept.key)
        if artifact is not None and FOLDS in artifact:
            digest = artifact.entry(FOLDS).sha256
    return replace(external, folds=note.kept, folds_digest=digest)


def _usable(store: Store, note: Tiling) -> bool:
    """Whether the tiling is there, or can be made again."""
    return note.kept is None or any(
        open_artifact(store, one.stage, one.key) is not None for one in (note.tiling, note.kept)
    )


def _keeping(store: Store, external: External, folds: InputRef) -> External:
    artifact = open_artifact(store, folds.stage, folds.key)
    if artifact is None or FOLDS not in artifact:
        raise InputMissing(
            f"{store.url(f'artifacts/{folds.stage}/{folds.key}')}, whose folds this run keeps, is "
            "gone: name another spec.dataset to have folds made anew"
        )
    return replace(external, folds=folds, folds_digest=artifact.entry(FOLDS).sha256)


def _notes(store: Store, run: DatasetRun) -> list[Tiling]:
    """In the order they were written."""
    return _read_all(store, _places(store, run.dataset_name))


def _places(store: Store, dataset: str) -> Iterator[str]:
    first = f"datasets/{dataset}/{_FIRST}"
    if store.head(first) is not None:
        yield first
    found = store.list(f"datasets/{dataset}/folds/")
    yield from sorted(place for place in found if _NOTE.search(place))


def _seq(place: str) -> int:
    found = _NOTE.search(place)
    return 0 if found is None else int(found[1])


def _read_all(store: Store, places: Iterator[str] | Sequence[str]) -> list[Tiling]:
    notes = []
    for place in places:
        try:
            notes.append(parse_model(Tiling, read_object(store, place, MAX_BYTES)))
        except KeyMissing:
            continue
        except ValueError as error:
            raise InputMissing(
                f"{store.url(place)} cannot be read, so nobody knows which folds it keeps: restore "
                "it, or delete it"
            ) from error
    return notes
