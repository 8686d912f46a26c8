"""Which objects of a store are needed, garbage, or nothing we know: decided from names alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal

from hdgan.core.artifact import MANIFEST
from hdgan.core.errors import StoreError
from hdgan.core.pins import Place, is_pin
from hdgan.core.report_place import report_of
from hdgan.core.store import check_key

Kind = Literal["manifest", "attempt", "files", "work", "note", "report", "pin"]
"""manifest  an artifact nobody needs: its manifest goes first
attempt   a folder that lost: another attempt was committed
files     what lies under a key without a manifest
work      saved work that nobody goes on with
note      a list of slides that no run names
report    of a run that is over and has no release, or of a release that was removed
pin       that keeps nothing any more
"""

_HEX64: Final = "[0-9a-f]{64}"
_ARTIFACT: Final = re.compile(rf"^artifacts/([a-z0-9-]+)/({_HEX64})/(.+)$")
_WORK: Final = re.compile(rf"^work/([a-z0-9-]+)/({_HEX64})(?:-part-\d{{5}}-of-\d{{5}})?/.+$")
_NOTE: Final = re.compile(rf"^work/(slides|slide-facts)/{_HEX64}\.json$")
_OURS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"^runs/[a-z0-9-]+/({_HEX64}|status)\.json$",
        r"^datasets/[a-z0-9-]+/(latest\.json|folds\.json|folds/.+\.json|releases/[a-z0-9-]+\.json"
        r"|pointer/\d{8}-[0-9a-f]{16}\.json)$",
        rf"^annotations/{_HEX64}/\d{{6}}\.json$",
        rf"^gc/marks/[a-z]+-{_HEX64}\.json$",
        rf"^gc/(collecting|removed)/[a-z0-9-]+/{_HEX64}\.json$",
    )
)


@dataclass(frozen=True)
class Garbage:
    """Something that may go: what `belongs` to it."""

    kind: Kind
    place: str
    why: str
    artifact: Place | None = None

    def belongs(self, name: str) -> bool:
        """Whether an object is part of it; what somebody else has put beside our own is not."""
        rest = name.removeprefix(self.place)
        if self.kind in ("note", "report", "pin"):
            return not rest
        if self.kind == "work":
            return _WORK.match(name) is not None and rest.startswith(("/", "-part-"))
        if self.kind == "manifest" and rest == MANIFEST:
            return True
        return _ARTIFACT.match(name) is not None and (self.kind == "attempt" or "/" in rest)


@dataclass
class Folder:
    """What lies under `artifacts/<stage>/<key>/`."""

    stage: str
    key: str
    has_manifest: bool = False
    attempts: set[str] = field(default_factory=set)

    @property
    def place(self) -> str:
        return f"artifacts/{self.stage}/{self.key}/"


def artifact_folders(names: Iterable[str], unknown: Callable[[str], None]) -> Iterator[Folder]:
    """The folders of artifacts, from the sorted names of objects under `artifacts/`."""

    def split(name: str) -> tuple[str, str] | None:
        match = _ARTIFACT.match(name)
        return None if match is None else (match[1], match[2])

    for place, group in groupby(names, key=split):
        if place is None:
            for name in group:
                unknown(name)
            continue
        folder = Folder(*place)
        for name in group:
            first, _, rest = name.removeprefix(folder.place).partition("/")
            if rest:
                folder.attempts.add(first)
            elif first == MANIFEST:
                folder.has_manifest = True
            else:
                unknown(name)
        yield folder


def judge_folder(
    folder: Folder, needed: Container[Place], committed: Collection[str]
) -> Iterator[Garbage]:
    """What of an artifact's folder may go. `committed`: attempts that its manifest names."""
    place = (folder.stage, folder.key)
    if folder.has_manifest and place not in needed:
        yield Garbage("manifest", folder.place, "no run, release or annotation needs it", place)
    elif folder.has_manifest:
        for attempt in sorted(folder.attempts - set(committed)):
            why = "another attempt was committed"
            yield Garbage("attempt", f"{folder.place}{attempt}/", why, place)
    elif place not in needed and folder.attempts:
        yield Garbage("files", folder.place, "not committed, and no run needs it", place)


def work_places(names: Iterable[str], unknown: Callable[[str], None]) -> Iterator[Place | str]:
    """Stage and key of all saved work, and the names of notes, from the sorted names of objects
    under `work/`."""

    def split(name: str) -> Place | str | None:
        if _NOTE.match(name):
            return name
        match = _WORK.match(name)
        return None if match is None else (match[1], match[2])

    for place, group in groupby(names, key=split):
        if place is None:
            for name in group:
                unknown(name)
        else:
            yield place


def judge_work(
    place: Place | str, needed: Container[Place], notes: Collection[str], committed: bool
) -> Garbage | None:
    """Whether saved work or a note may go. `committed`: whether the work's artifact exists."""
    if isinstance(place, str):
        gone = Garbage("note", place, "no run names it")
        return None if place in notes else gone
    prefix = f"work/{place[0]}/{place[1]}"
    if committed:
        return Garbage("work", prefix, "its artifact exists", place)
    if place not in needed:
        return Garbage("work", prefix, "no run goes on with it", place)
    return None


def judge_report(
    place: str, runs: Container[str], releases: Container[str], young: bool
) -> Garbage | None:
    """Whether a report may go. It is as large as a dataset's documents together, and a schedule
    makes a run a day: so it stays as long as what it is of.

    runs      names of those at work not long ago, or with a release
    releases  names of all there are
    young     whether it was written not long ago
    """
    known = report_of(place)
    if known is None or young:
        return None
    run, release = known
    if release is not None:
        gone = Garbage("report", place, "its release was removed")
        return None if release in releases else gone
    gone = Garbage("report", place, "its run is over and has no release")
    return None if run in runs else gone


def is_key(name: str) -> bool:
    """Whether an object's name is one that a store takes."""
    try:
        check_key(name)
    except StoreError:
        return False
    return True


def is_ours(name: str) -> bool:
    """Whether an object outside artifacts/ and work/ has a name that this program gives."""
    if is_pin(name) or report_of(name) is not None:
        return True
    return any(pattern.match(name) for pattern in _OURS)
