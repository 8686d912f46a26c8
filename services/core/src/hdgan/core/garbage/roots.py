"""What has to be kept: artifacts that a pin, a release, annotations or kept folds name, and what
those are read together with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from hdgan.core.annotations import STAGE as ANNOTATIONS
from hdgan.core.annotations import read_pointer
from hdgan.core.artifact import open_artifact
from hdgan.core.bounded_reading import read_object
from hdgan.core.errors import InputMissing, KeyMissing
from hdgan.core.fold_history import noted_folds
from hdgan.core.json_documents import parse_object
from hdgan.core.pins import Place, find_pins
from hdgan.core.releases import all_releases
from hdgan.core.store import Store

MAX_FROZEN_BYTES: Final = 64 << 20
_FROZEN: Final = re.compile(r"^runs/[a-z0-9-]{1,63}/[0-9a-f]{64}\.json$")
_VERSION: Final = re.compile(r"^annotations/([0-9a-f]{64})/(\d{6})\.json$")


@dataclass(frozen=True)
class Keeping:
    """How long pins keep what they name."""

    used: timedelta
    """After a run has last worked with it."""
    awaiting: timedelta
    """After a run has last been seen to wait for annotations of it."""


@dataclass
class Roots:
    """What is kept, and why."""

    artifacts: dict[Place, str] = field(default_factory=dict)
    """Reason by stage and key; also of artifacts that do not exist yet."""
    notes: set[str] = field(default_factory=set)
    """Objects under work/ that frozen runs name: lists of slides and what is known of them."""
    expired: list[str] = field(default_factory=list)
    """Pins that keep nothing any more."""

    def keep(self, place: Place, why: str) -> None:
        self.artifacts.setdefault(place, why)


def find_roots(store: Store, now: datetime, keeping: Keeping) -> Roots:
    """Everything that has to be kept at `now` (the store's clock).

    InputMissing if something that may name more cannot be read: then nothing may be removed.
    """
    roots = Roots()
    _pinned(store, now, keeping, roots)
    for release in all_releases(store):
        for one in release.artifacts.values():
            roots.keep((one.stage, one.key), f"release {release.name} of {release.dataset}")
    for dataset, folds in noted_folds(store):
        roots.keep((folds.stage, folds.key), f"folds of dataset {dataset}")
    for place in store.list("annotations/"):
        match = _VERSION.match(place)
        if match:
            key = read_pointer(store, match[1], int(match[2])).key
            roots.keep((ANNOTATIONS, key), f"annotations, version {int(match[2])}")
    roots.notes.update(_named_notes(store))
    _close(store, roots)
    return roots


def _pinned(store: Store, now: datetime, keeping: Keeping, roots: Roots) -> None:
    for found in find_pins(store):
        limit = keeping.awaiting if found.purpose == "annotation" else keeping.used
        if now - found.written > limit:
            roots.expired.append(found.place)
            continue
        if found.pin is None:
            raise _unreadable(store, found.place, "a pin")
        what = "waits for annotations" if found.purpose == "annotation" else "uses it"
        for one in found.pin.artifacts:
            roots.keep((one.stage, one.key), f"run {found.pin.run} {what}")


def _named_notes(store: Store) -> Iterator[str]:
    for place in store.list("runs/"):
        if not _FROZEN.match(place):
            continue
        try:
            document = parse_object(read_object(store, place, MAX_FROZEN_BYTES))
            keys = [document[name]["key"] for name in ("slides", "slideFacts")]
        except KeyMissing:
            continue
        except (ValueError, TypeError, KeyError) as error:
            raise _unreadable(store, place, "a frozen run") from error
        yield from (str(key) for key in keys if key is not None)


def _close(store: Store, roots: Roots) -> None:
    """Add what the artifacts need that are there, and what those need."""
    waiting = list(roots.artifacts)
    while waiting:
        stage, key = waiting.pop()
        artifact = open_artifact(store, stage, key)
        needs = [] if artifact is None else artifact.manifest.needs
        for need in needs:
            place = (need.stage, need.key)
            if place not in roots.artifacts:
                roots.keep(place, f"needed by {stage}/{key[:12]}")
                waiting.append(place)


def _unreadable(store: Store, place: str, what: str) -> InputMissing:
    return InputMissing(
        f"{store.url(place)} cannot be read as {what}, so nobody knows what it keeps: restore it or"
        " delete it. Nothing was removed"
    )
