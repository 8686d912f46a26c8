"""What has to be kept: artifacts that a pin, a release, annotations or kept folds name, and what
those are read together with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from hdgan.core.annotations import STAGE as ANNOTATIONS
from hdgan.core.annotations import read_pointer
from hdgan.core.artifact import Need, open_artifact
from hdgan.core.bounded_reading import read_object
from hdgan.core.errors import InputMissing, KeyMissing
from hdgan.core.fold_history import noted_folds
from hdgan.core.json_documents import parse_object
from hdgan.core.overlapping import overlapping
from hdgan.core.pins import Pin, Place, find_pins
from hdgan.core.releases import Release, all_releases, latest_datasets
from hdgan.core.store import Store

MAX_FROZEN_BYTES: Final = 64 << 20
OLD_NEEDS: Final = {
    "tiler": "slide-tiles",
    "gan-trainer": "tiler",
    "candidates": "gan-trainer",
    "annotations": "candidates",
}
"""What artifacts of a stage need. Those of older versions do not say which: then all are kept."""
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
    """What is kept, and why. `in` tells of a stage and key."""

    artifacts: dict[Place, str] = field(default_factory=dict)
    """Reason by stage and key; also of artifacts that do not exist yet."""
    stages: set[str] = field(default_factory=set)
    """Stages of which all is kept, because something that is kept does not say what it needs."""
    notes: set[str] = field(default_factory=set)
    """Objects under work/ that frozen runs name: lists of slides and what is known of them."""
    runs: set[str] = field(default_factory=set)
    """Names of runs that have pins, or a release."""
    releases: set[str] = field(default_factory=set)
    """Names of all releases."""
    missing: list[str] = field(default_factory=list)
    """What a release or annotations name and is not there."""
    expired: dict[str, timedelta] = field(default_factory=dict)
    """Pins that keep nothing any more, and after how long without being renewed."""

    def __contains__(self, place: object) -> bool:
        return place in self.artifacts or (isinstance(place, tuple) and place[0] in self.stages)

    def keep(self, place: Place, why: str) -> None:
        self.artifacts.setdefault(place, why)


class RootFinder:
    """Looks what has to be kept, as often as it is asked to. What never changes is read once."""

    def __init__(self, store: Store, keeping: Keeping, at_once: int) -> None:
        self._store = store
        self._keeping = keeping
        self._at_once = at_once
        self._pins: dict[str, Pin] = {}
        self._releases: dict[str, Release] = {}
        self._annotations: dict[str, str] = {}
        self._notes: dict[str, list[str]] = {}
        self._needs: dict[Place, list[Need]] = {}

    def look(self, now: datetime) -> Roots:
        """Everything that has to be kept at `now` (the store's clock). Pins are read first.

        InputMissing if something that may name more cannot be read: then nothing may be removed.
        """
        roots = Roots()
        self._add_pinned(now, roots)
        for release in all_releases(self._store, self._releases):
            roots.runs.add(release.run)
            roots.releases.add(release.name)
            for one in release.artifacts.values():
                roots.keep((one.stage, one.key), f"release {release.name} of {release.dataset}")
        for dataset, latest in latest_datasets(self._store):
            roots.keep((latest.stage, latest.key), f"release that is the latest of {dataset}")
        for dataset, folds in noted_folds(self._store):
            roots.keep((folds.stage, folds.key), f"folds of dataset {dataset}")
        self._add_annotations(roots)
        self._add_notes(roots)
        self._close(roots)
        return roots

    def _add_pinned(self, now: datetime, roots: Roots) -> None:
        for found in find_pins(self._store, self._pins, self._at_once):
            limit = self._keeping.used
            if found.purpose == "annotation":
                limit = self._keeping.awaiting
            if now - found.written > limit:
                roots.expired[found.place] = limit
                continue
            if found.pin is None:
                raise _unreadable(self._store, found.place, "a pin")
            self._pins[found.place] = found.pin
            roots.runs.add(found.pin.run)
            what = "waits for annotations" if found.purpose == "annotation" else "uses it"
            for one in found.pin.artifacts:
                roots.keep((one.stage, one.key), f"run {found.pin.run} {what}")

    def _add_annotations(self, roots: Roots) -> None:
        for place in self._store.list("annotations/"):
            match = _VERSION.match(place)
            if match is None:
                continue
            if place not in self._annotations:
                pointer = read_pointer(self._store, match[1], int(match[2]))
                self._annotations[place] = pointer.key
            why = f"annotations, version {int(match[2])}"
            roots.keep((ANNOTATIONS, self._annotations[place]), why)

    def _add_notes(self, roots: Roots) -> None:
        for place in self._store.list("runs/"):
            if not _FROZEN.match(place):
                continue
            if place not in self._notes:
                try:
                    document = parse_object(read_object(self._store, place, MAX_FROZEN_BYTES))
                    facts = document.get("slideFacts") or {"key": None}
                    keys = [document["slides"]["key"], facts["key"]]
                except KeyMissing:
                    continue
                except (ValueError, TypeError, KeyError) as error:
                    raise _unreadable(self._store, place, "a frozen run") from error
                self._notes[place] = [str(key) for key in keys if key is not None]
            roots.notes.update(self._notes[place])

    def _close(self, roots: Roots) -> None:
        """Add what the artifacts need that are there, and what those need."""
        waiting, followed = list(roots.artifacts), set(roots.artifacts)
        while waiting:
            places, waiting = waiting, []
            found = overlapping(self._needs_of, places, self._at_once)
            for place, needs in zip(places, found, strict=True):
                if needs is None:
                    if roots.artifacts[place].startswith(("release", "annotations")):
                        roots.missing.append(f"{place[0]}/{place[1]}: {roots.artifacts[place]}")
                    continue
                if not needs and place[0] in OLD_NEEDS:
                    roots.stages.add(OLD_NEEDS[place[0]])
                for need in needs:
                    needed = (need.stage, need.key)
                    roots.keep(needed, f"needed by {place[0]}/{place[1][:12]}")
                    if not need.alone and needed not in followed:
                        followed.add(needed)
                        waiting.append(needed)

    def _needs_of(self, place: Place) -> list[Need] | None:
        """What an artifact needs; None if it does not exist."""
        if place not in self._needs:
            artifact = open_artifact(self._store, *place)
            if artifact is None:
                return None
            self._needs[place] = artifact.manifest.needs
        return self._needs[place]


def _unreadable(store: Store, place: str, what: str) -> InputMissing:
    return InputMissing(
        f"{store.url(place)} cannot be read as {what}, so nobody knows what it keeps: restore it or"
        " delete it. Nothing was removed"
    )
