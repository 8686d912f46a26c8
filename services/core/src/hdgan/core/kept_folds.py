"""The folds of several tilings as one list, for the tiling that goes on from all of them.

Runs of one dataset that are tiled at the same time leave several tilings that nobody has gone on
from. A case, or a slide of bands, has the fold that the first of them gave it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

from hdgan.core.artifact import (
    Artifact,
    Attempt,
    FileEntry,
    artifact_key,
    content_digest,
    open_artifact,
)
from hdgan.core.errors import InputMissing
from hdgan.core.request import InputRef
from hdgan.core.store import Store

FOLDS = "folds.parquet"
STAGE = "folds"
VERSION = 1
MAX_ROWS = 1_000_000
MAX_BYTES = 256 << 20
COLUMNS = ("holdout", "case", "fold", "stain", "centre", "slide", "axis", "start", "stop")
"""As the tiler writes them. A row is of a case, or of a band of a slide."""


def kept_folds(store: Store, tilings: Sequence[InputRef], *, save: bool) -> tuple[InputRef, str]:
    """An artifact with the folds of several tilings, and the SHA-256 of its `folds.parquet`.

    save  False: only say what it would be
    InputMissing if a tiling is gone or its folds are damaged.
    """
    inputs = {one.key: one.content_digest for one in tilings}
    order = [one.key for one in tilings]
    key = artifact_key(STAGE, VERSION, {"order": order}, inputs)
    known = open_artifact(store, STAGE, key)
    if known is None:
        data = united([_opened(store, one) for one in tilings])
        attempt = Attempt(
            store, STAGE, key, stage_version=VERSION, config={"order": [*order]}, inputs=inputs
        )
        if not save:
            sha256 = hashlib.sha256(data).hexdigest()
            entry = FileEntry(name=FOLDS, size=len(data), sha256=sha256, attempt=attempt.attempt)
            digest = content_digest([entry])
            return InputRef(stage=STAGE, key=key, content_digest=digest), sha256
        attempt.add_bytes(FOLDS, data)
        known = attempt.commit({})
    reference = InputRef(stage=STAGE, key=key, content_digest=known.content_digest)
    return reference, known.entry(FOLDS).sha256


def tilings_of(store: Store, folds: InputRef) -> list[str]:
    """Keys of the tilings whose folds it has. InputMissing if it is gone."""
    return sorted(_opened(store, folds).manifest.inputs)


def united(tilings: Sequence[Artifact]) -> bytes:
    """One `folds.parquet` of several: rows of a case (or slide) are those of the first that has it.

    InputMissing if one is damaged.
    """
    import pyarrow as pa  # takes a while, and hardly ever is there more than one tiling
    import pyarrow.parquet as pq

    seen: set[tuple[str, str, str | None]] = set()
    parts = []
    for artifact in tilings:
        table = _table(artifact)
        columns = [table.column(name).to_pylist() for name in ("holdout", "case", "slide")]
        names = list(zip(*columns, strict=True))
        parts.append(table.filter(pa.array([name not in seen for name in names], pa.bool_())))
        seen.update(names)
    buffer = io.BytesIO()
    pq.write_table(pa.concat_tables(parts), buffer)
    return buffer.getvalue()


def _table(artifact: Artifact) -> Any:
    import pyarrow as pa

    from hdgan.core.parquet_tables import read_parquet

    try:
        table = read_parquet(artifact.read(FOLDS), COLUMNS, max_rows=MAX_ROWS, max_bytes=MAX_BYTES)
        return table.select(list(COLUMNS))
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise InputMissing(
            f"{artifact.uri(FOLDS)} is no folds.parquet ({str(error).splitlines()[0]}): delete its "
            "manifest, so that it is made again"
        ) from error


def _opened(store: Store, reference: InputRef) -> Artifact:
    artifact = open_artifact(store, reference.stage, reference.key)
    if artifact is None or FOLDS not in artifact:
        raise InputMissing(
            f"{store.url(f'artifacts/{reference.stage}/{reference.key}')}, whose folds this run "
            "keeps, is gone: name another spec.dataset to have folds made anew"
        )
    return artifact
