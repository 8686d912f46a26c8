"""What the runner writes down of a run: the frozen run, and a status that others may look at.

`runs/<name>/<digest>.json` never changes; `runs/<name>/status.json` is a note, not the truth: what
exists is seen from the artifacts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from hdgan.core.bounded_reading import read_object
from hdgan.core.canonical import canonical_json
from hdgan.core.errors import InputMissing, KeyMissing, RequestError
from hdgan.core.gates import GateVerdict
from hdgan.core.json_documents import parse_object
from hdgan.core.pipeline import External, NodeStatus, frozen_run
from hdgan.core.releases import read_release
from hdgan.core.run import DatasetRun
from hdgan.core.store import Store

MAX_STATUS_BYTES = 1 << 20

Outcome = Literal[
    "Running",
    "Released",
    "Unchanged",
    "AwaitingAnnotation",
    "GateFailed",
    "Failed",
    "Interrupted",
]
"""Unchanged: the latest release has this very dataset already."""


def freeze(store: Store, run: DatasetRun, external: External) -> str:
    """Write the resolved run down, once; returns its digest."""
    digest, document = frozen_run(run, external)
    key = f"runs/{run.metadata.name}/{digest}.json"
    if store.head(key) is None:
        store.put_if_absent(key, canonical_json(document))
    return digest


def write_status(
    store: Store,
    run: DatasetRun,
    digest: str,
    outcome: Outcome,
    statuses: Sequence[NodeStatus],
    *,
    active: str | None = None,
    message: str = "",
    gates: Sequence[GateVerdict] = (),
    since: float | None = None,
) -> None:
    """Say where the run stands.

    active  the node at work, or the one that failed
    since   when it began to wait for annotations, in seconds since 1970; None: it does not
    """
    document = {
        "run": run.metadata.name,
        "digest": digest,
        "outcome": outcome,
        "active": active,
        "message": message,
        "updated": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "awaitingSince": None
        if since is None
        else f"{datetime.fromtimestamp(since, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "nodes": [_camel(status) for status in statuses],
        "gates": [one.model_dump(mode="json", by_alias=True) for one in gates],
    }
    store.put(_key(run), json.dumps(document, indent=1).encode())


def read_status(store: Store, run: DatasetRun) -> dict[str, Any]:
    """The last status written; {} if there is none that can be read."""
    try:
        return parse_object(read_object(store, _key(run), MAX_STATUS_BYTES))
    except (KeyMissing, ValueError):
        return {}


def awaited_since(store: Store, run: DatasetRun) -> float | None:
    """When the run began to wait for annotations, in seconds since 1970, if the last status says
    that it does."""
    try:
        return datetime.fromisoformat(str(read_status(store, run)["awaitingSince"])).timestamp()
    except (KeyError, ValueError):
        return None


def begun_with(store: Store, run: DatasetRun, *, ended: bool = False) -> str | None:
    """Name of the release that a run with `generator: pinned` was begun with here, so that it goes
    on with it; None if it is to look for the latest.

    A run that has ended, with a release or `Unchanged`, begins anew: with the latest. One that is
    unfinished, or that only a gate keeps from being released, does not.

    ended  also of a run that has ended: for who looks at it
    """
    last = read_status(store, run)
    digest = str(last.get("digest"))
    over = last.get("outcome") in ("Released", "Unchanged") and not ended
    if run.spec.generator != "pinned" or over or not re.fullmatch("[0-9a-f]{64}", digest):
        return None
    try:
        place = f"runs/{run.metadata.name}/{digest}.json"
        frozen = parse_object(read_object(store, place, MAX_STATUS_BYTES))
        return read_release(store, run.dataset_name, str(frozen["release"])).name
    except (KeyMissing, InputMissing, RequestError, ValueError, KeyError):
        return None  # nothing that could be gone on with


def _key(run: DatasetRun) -> str:
    return f"runs/{run.metadata.name}/status.json"


def _camel(status: NodeStatus) -> dict[str, Any]:
    values = asdict(status)
    values["contentDigest"] = values.pop("content_digest")
    return values
