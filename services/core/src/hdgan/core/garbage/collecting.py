"""One pass over a store: what is garbage is marked; what has been marked for long enough, and is
garbage still, is removed.

An artifact's manifest goes first and its files a grace later, so whoever has opened it can read it
to the end. A pin that comes at the last moment is seen after the manifest has gone, which is put
back then. Files are removed under a note, `gc/collecting/...`, that a commit looks for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from hdgan.core.artifact import (
    ABANDONED,
    MANIFEST,
    Artifact,
    artifact_folder,
    collecting_place,
    is_committed,
    open_artifact,
)
from hdgan.core.elapsed import Moment
from hdgan.core.errors import InputMissing, KeyMissing, NoSpace, StoreError, StoreUnavailable
from hdgan.core.garbage import judging, marks
from hdgan.core.garbage.judging import Folder, Garbage
from hdgan.core.garbage.roots import Keeping, RootFinder, Roots
from hdgan.core.overlapping import AT_ONCE, overlapping
from hdgan.core.pins import Place
from hdgan.core.report_place import PREFIX as REPORTS
from hdgan.core.store import Store
from hdgan.core.store_protocol import PROBE_PREFIX

State = Literal["found", "marked", "waiting", "due", "removed", "needed again"]
"""found         nothing was done: this was a dry run, or there was no space for a mark
marked        known since now
waiting       marked, not long enough ago
due           the next pass that deletes removes it: this was a dry run, or it is still written to
removed       gone
needed again  somebody came back for it at the last moment
"""

OTHERS: Final = ("annotations/", "datasets/", "gc/", "pins/", REPORTS, "runs/")
"""Where our objects are beside artifacts/ and work/."""
REMOVED: Final = "gc/removed/"
COLLECTING: Final = "gc/collecting/"
FORGOTTEN: Final = timedelta(days=15)
MOST_NAMES: Final = 1000
"""Of unknown objects that a report has; the others are counted."""
BELIEVED_SECONDS: Final = 1800.0
"""How long a look at what is needed is relied on."""
FEW: Final = 20
"""Artifacts that any pass may withdraw."""
BATCH: Final = 100
"""Pieces of garbage that are removed after one look."""
_RANK: Final = {
    "work": 0,
    "note": 1,
    "report": 2,
    "attempt": 3,
    "files": 4,
    "manifest": 5,
    "pin": 6,
}


@dataclass(frozen=True)
class Policy:
    """How long things stay, and how much may go."""

    keeping: Keeping
    grace: timedelta
    """From the mark to the removal, and again from the manifest's to the files'."""
    most: float = 1.0
    """Share of all artifacts that one pass may withdraw, 0 to 1; `FEW` always may go. More than
    usual goes where what keeps it was lost: pins, releases, or the right time."""


@dataclass
class Found:
    """A piece of garbage, what became of it, and how large it is."""

    garbage: Garbage
    state: State
    objects: int = 0
    size: int = 0
    """Bytes."""


@dataclass
class Report:
    """What a pass has found and done."""

    kept: int = 0
    """Artifacts that are needed and there."""
    garbage: list[Found] = field(default_factory=list)
    unfinished: list[tuple[str, State]] = field(default_factory=list)
    """Writes that never ended: names for people."""
    expired: int = 0
    """Pins that keep nothing any more."""
    held: str = ""
    """Why artifacts that are due were not withdrawn: they would be too many. Empty: they were."""
    restored: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What a release or annotations name and is not there: restore it from a backup."""
    problems: list[str] = field(default_factory=list)
    """What could not be looked at. All else was done."""
    unknown: list[str] = field(default_factory=list)
    """Objects that this program has not written, the first of them. They are never touched."""
    unknown_count: int = 0

    def note_unknown(self, name: str) -> None:
        self.unknown_count += 1
        if len(self.unknown) < MOST_NAMES:
            self.unknown.append(name)


def collect(store: Store, policy: Policy, *, delete: bool, at_once: int = AT_ONCE) -> Report:
    """One pass. Without `delete` nothing is written or removed.

    at_once  requests to the store that are under way at a time

    InputMissing, and nothing is removed, if what keeps artifacts cannot be read.
    """
    # Reading alone needs no right to write, and no clock that can be relied on.
    now = store.now() if delete else datetime.now(UTC)
    finder = RootFinder(store, policy.keeping, at_once)
    roots = finder.look(now)
    report = Report(expired=len(roots.expired))
    report.missing = roots.missing
    if delete:
        _forget_abandoned(store, now)
        report.restored = _restore(store, roots, at_once)
    garbage = list(_judge(store, policy, now, roots, report, at_once))
    garbage.sort(key=lambda one: (_RANK[one.kind], one.place))
    known = marks.find_marks(store, at_once)

    def find(one: Garbage) -> Found:
        found = Found(one, _state(known.get(marks.mark_name(one)), now, policy, delete))
        if found.state == "marked":
            if marks.mark_name(one) in known:  # too old to count
                marks.unmark(store, one)
            try:
                marks.mark(store, one)
            except NoSpace:  # what was marked before goes first, and makes some
                found.state = "found"
        return found

    report.garbage = overlapping(find, garbage, at_once)
    if delete and any(found.state == "found" for found in report.garbage):
        report.problems.append("there is no space for marks: run it again after what goes now")
    _measure(store, report.garbage, at_once)
    if delete:
        current = {marks.mark_name(one) for one in garbage}
        overlapping(store.delete, sorted(known.keys() - current), at_once)
        due = [found for found in report.garbage if found.state == "due"]
        Removal(store, policy, finder, report, at_once).remove(due)
    _clear_unfinished(store, now, policy.grace, report, delete)
    return report


def _state(marked: datetime | None, now: datetime, policy: Policy, delete: bool) -> State:
    """A mark that is very old says nothing: it may have been needed again, unseen, since then."""
    if marked is None or now - marked > policy.keeping.used + FORGOTTEN:
        return "marked" if delete else "found"
    return "due" if now - marked >= policy.grace else "waiting"


def _judge(
    store: Store, policy: Policy, now: datetime, roots: Roots, report: Report, at_once: int
) -> Iterator[Garbage]:
    """All garbage. `report` is told what is kept and what is unknown."""
    unknown = report.note_unknown

    def judge(folder: Folder) -> tuple[bool, list[Garbage]]:
        place = (folder.stage, folder.key)
        kept = folder.has_manifest and (place in roots or _is_young(store, policy, now, place))
        if kept and place not in roots:
            return kept, []
        return kept, list(_judge_folder(store, folder, roots))

    folders = list(judging.artifact_folders(_names(store, "artifacts/", unknown), unknown))
    for kept, garbage in overlapping(judge, folders, at_once):
        report.kept += kept
        yield from garbage

    def judge_work(work: Place | str) -> Garbage | None:
        committed = not isinstance(work, str) and is_committed(store, *work)
        return judging.judge_work(work, roots, roots.notes, committed)

    works = list(judging.work_places(_names(store, "work/", unknown), unknown))
    yield from filter(None, overlapping(judge_work, works, at_once))
    for place in roots.expired:
        yield Garbage("pin", place, "its run is over")
    for prefix in OTHERS:
        for name in store.list(prefix):
            if not judging.is_ours(name):
                unknown(name)
            elif prefix == REPORTS:
                one = _judge_report(store, name, policy, now, roots)
                if one is not None:
                    yield one
    try:
        for name in store.list(""):
            if not name.startswith(("artifacts/", "work/", *OTHERS)):
                unknown(name)
    except StoreError as error:  # of somebody else's folders: `lost+found`, for example
        report.problems.append(f"what else is in the store could not be listed: {error}")


def _names(store: Store, prefix: str, unknown: Callable[[str], None]) -> Iterator[str]:
    """What is listed and can be an object of ours; folders that some tools make as objects whose
    names end in / cannot."""
    for name in store.list(prefix):
        if judging.is_key(name):
            yield name
        else:
            unknown(name)


def _is_young(store: Store, policy: Policy, now: datetime, place: Place) -> bool:
    """Whether an artifact was made so lately that it is kept without a pin: by an older version, or
    in a store that was restored without its pins."""
    return not _older(store, f"{artifact_folder(*place)}/{MANIFEST}", now - policy.keeping.used)


def _judge_folder(store: Store, folder: Folder, roots: Roots) -> Iterator[Garbage]:
    committed = folder.attempts
    # Of a single attempt the manifest need not be read: it has put its run-info there.
    if len(committed) > 1 and folder.has_manifest and (folder.stage, folder.key) in roots:
        artifact = open_artifact(store, folder.stage, folder.key)
        if artifact is None:
            return  # gone since it was listed: the next pass sees what is left
        committed = _attempts(artifact)
    yield from judging.judge_folder(folder, roots, committed)


def _judge_report(
    store: Store, place: str, policy: Policy, now: datetime, roots: Roots
) -> Garbage | None:
    young = not _older(store, place, now - policy.keeping.used)
    return judging.judge_report(place, roots.runs, roots.releases, young)


def _attempts(artifact: Artifact) -> set[str]:
    manifest = artifact.manifest
    return {manifest.attempt, *(entry.attempt for entry in manifest.files)}


class Removal:
    """Removes what is due, after looking again at what is needed; many things after one look."""

    def __init__(
        self, store: Store, policy: Policy, finder: RootFinder, report: Report, at_once: int
    ) -> None:
        self._store = store
        self._policy = policy
        self._finder = finder
        self._report = report
        self._at_once = at_once

    def remove(self, due: list[Found]) -> None:
        for kinds, step in (
            (("work", "note", "report"), self._remove_work),
            (("attempt", "files"), self._remove_files),
            (("manifest",), self._remove_manifests),
            (("pin",), self._remove_pins),
        ):
            mine = [found for found in due if found.garbage.kind in kinds]
            if "manifest" in kinds:
                self._report.held = self._too_many(len(mine))
                if self._report.held:
                    return
            for start in range(0, len(mine), BATCH):
                step(mine[start : start + BATCH])

    def _too_many(self, due: int) -> str:
        garbage = sum(found.garbage.kind == "manifest" for found in self._report.garbage)
        there = self._report.kept + garbage
        if due <= max(FEW, self._policy.most * there):
            return ""
        return (
            f"{due} of {there} artifacts are due, more than a pass may withdraw"
            f" ({self._policy.most:.0%}): none was. Is something missing from pins/ or datasets/,"
            " or does the server's clock tell another time?"
        )

    def _look(self) -> tuple[Roots, datetime]:
        now = self._store.now()
        return self._finder.look(now), now

    def _still(self, found: Found, roots: Roots) -> bool:
        """Whether it is garbage at this moment; if it is not, it is marked no more."""
        if self._judged_again(found.garbage, roots):
            return True
        found.state = "needed again"
        marks.unmark(self._store, found.garbage)
        return False

    def _judged_again(self, one: Garbage, roots: Roots) -> bool:
        if one.kind == "report":
            # How young it is is seen by `_free`.
            return judging.judge_report(one.place, roots.runs, roots.releases, False) is not None
        if one.kind == "pin":
            return one.place in roots.expired
        if one.artifact is None:
            return one.place not in roots.notes
        if one.kind == "work":
            return is_committed(self._store, *one.artifact) or one.artifact not in roots
        names = self._store.list(f"{artifact_folder(*one.artifact)}/")
        for folder in judging.artifact_folders(names, lambda _: None):
            if one in _judge_folder(self._store, folder, roots):
                return True
        return False

    def _remove_work(self, batch: list[Found]) -> None:
        """Descriptions before what they refer to, so that nobody finds half of it."""
        roots, now = self._look()
        free = self._free(batch, roots, now)
        names = [name for _, mine in free for name in mine]
        self._delete([name for name in names if name.endswith(".json")])
        self._delete([name for name in names if not name.endswith(".json")])
        self._removed([found for found, _ in free])

    def _remove_files(self, batch: list[Found]) -> None:
        """Files that no manifest names, unless somebody writes there or comes for them."""
        places = []
        for found in batch:
            assert found.garbage.artifact is not None
            places.append(found.garbage.artifact)
        notes = [collecting_place(*place) for place in places]
        try:
            overlapping(lambda note: self._store.put(note, b"{}"), notes, self._at_once)
            looked = Moment()
            roots, now = self._look()
            free = self._free(batch, roots, now)
            self._delete(
                [removed_place(one.garbage.artifact) for one, _ in free if one.garbage.artifact]
            )
            gone = self._delete([name for _, mine in free for name in mine], looked)
            # Too slow, or asleep meanwhile: who needs the others now? They are due again next time.
            self._removed([found for found, mine in free if gone.issuperset(mine)])
        finally:
            overlapping(self._store.delete, notes, self._at_once)

    def _remove_manifests(self, batch: list[Found]) -> None:
        roots, _ = self._look()
        still = overlapping(lambda found: self._still(found, roots), batch, self._at_once)
        gone = [found for found, garbage in zip(batch, still, strict=True) if garbage]
        overlapping(lambda found: _remove_manifest(self._store, found.garbage), gone, self._at_once)
        if gone:
            # Pinned between our look and the removal: that run has seen the manifest.
            roots, _ = self._look()
            self._report.restored += _restore(self._store, roots, self._at_once)
        for found in gone:
            back = found.garbage.artifact in roots
            found.state = "needed again" if back else "removed"

    def _remove_pins(self, batch: list[Found]) -> None:
        """Last, and only where nothing is held: whoever looks into that finds them."""
        roots, now = self._look()
        gone = [
            one
            for one in batch
            if self._still(one, roots)
            and _older(self._store, one.garbage.place, now - roots.expired[one.garbage.place])
        ]
        self._delete([one.garbage.place for one in gone])
        self._removed(gone)

    def _free(
        self, batch: list[Found], roots: Roots, now: datetime
    ) -> list[tuple[Found, list[str]]]:
        """Those that still are garbage and that nobody has written to for a grace, with the names
        of their objects. The others stay due, or are needed again."""
        objects = overlapping(lambda one: _objects(self._store, one.garbage), batch, self._at_once)
        still = overlapping(lambda one: self._still(one, roots), batch, self._at_once)
        than = now - self._policy.grace
        names = [name for mine in objects for name in mine]
        old = overlapping(lambda name: _older(self._store, name, than), names, self._at_once)
        touched = {name for name, is_old in zip(names, old, strict=True) if not is_old}
        return [
            (found, mine)
            for found, mine, garbage in zip(batch, objects, still, strict=True)
            if garbage and touched.isdisjoint(mine)
        ]

    def _delete(self, names: list[str], looked: Moment | None = None) -> set[str]:
        """Delete objects; returns those that are, none after the look before is too long ago."""

        def delete(name: str) -> bool:
            if looked is not None and looked.seconds_ago() > BELIEVED_SECONDS:
                return False
            self._store.delete(name)
            return True

        done = overlapping(delete, names, self._at_once)
        return {name for name, is_done in zip(names, done, strict=True) if is_done}

    def _removed(self, gone: list[Found]) -> None:
        overlapping(lambda one: marks.unmark(self._store, one.garbage), gone, self._at_once)
        for found in gone:
            found.state = "removed"


def removed_place(artifact: Place) -> str:
    """Where the manifest of an artifact is kept from its removal until its files go."""
    return f"{REMOVED}{artifact[0]}/{artifact[1]}.json"


def _remove_manifest(store: Store, one: Garbage) -> None:
    assert one.artifact is not None
    place = f"{artifact_folder(*one.artifact)}/{MANIFEST}"
    try:
        document = store.get(place)
    except KeyMissing:
        return
    store.put(removed_place(one.artifact), document)
    store.delete(place)
    marks.unmark(store, one)
    # The files' own grace begins now.
    for folder in judging.artifact_folders(store.list(one.place), lambda _: None):
        for rest in judging.judge_folder(folder, (), ()):
            marks.mark(store, rest)


def _objects(store: Store, one: Garbage) -> list[str]:
    return [name for name in store.list(one.place) if one.belongs(name)]


def _older(store: Store, name: str, than: datetime) -> bool:
    info = store.head(name)
    return info is None or info.modified <= than


def _restore(store: Store, roots: Roots, at_once: int) -> list[str]:
    """Put back manifests that were removed and are needed after all; their files are there. Returns
    which: stage and key."""

    def restore(name: str) -> str | None:
        stage, _, rest = name.removeprefix(REMOVED).partition("/")
        place = (stage, rest.removesuffix(".json"))
        manifest = f"{artifact_folder(*place)}/{MANIFEST}"
        restored = None
        if store.head(manifest) is None:
            # In this order: another pass that removes the files now says so, then looks for pins,
            # then removes what we are about to read.
            if place not in roots or store.head(collecting_place(*place)) is not None:
                return None
            try:
                document = store.get(name)
            except KeyMissing:
                return None
            if store.put_if_absent(manifest, document):
                restored = f"{stage}/{place[1]}"
            if store.head(manifest) is None:
                return restored  # another pass has removed it once more
        store.delete(name)
        return restored

    names = [name for name in store.list(REMOVED) if judging.is_ours(name)]
    return [one for one in overlapping(restore, names, at_once) if one is not None]


def _forget_abandoned(store: Store, now: datetime) -> None:
    """Notes of passes that were killed while they removed files."""
    for name in store.list(COLLECTING):
        if _older(store, name, now - ABANDONED):
            store.delete(name)


def _clear_unfinished(
    store: Store, now: datetime, grace: timedelta, report: Report, delete: bool
) -> None:
    try:
        for prefix in ("artifacts/", "work/", *OTHERS, f"{PROBE_PREFIX}/"):
            for one in store.unfinished(prefix):
                old = now - one.started >= grace
                if old and delete:
                    store.remove_unfinished(one)
                state: State = "waiting" if not old else "removed" if delete else "due"
                report.unfinished.append((one.name, state))
    except StoreUnavailable:
        raise
    except StoreError as error:  # a right that uploads in parts ask for, and nothing else
        report.problems.append(f"cut-off uploads could not be listed: {error}")


def _measure(store: Store, garbage: list[Found], at_once: int) -> None:
    """Count objects and bytes."""

    def look(found: Found) -> list[str]:
        """What has to be looked at: of an artifact nothing, all is in its manifest."""
        one = found.garbage
        if one.kind == "manifest" and one.artifact is not None:
            with contextlib.suppress(InputMissing):
                artifact = open_artifact(store, *one.artifact)
                if artifact is not None:
                    files = artifact.manifest.files
                    found.objects = len(files) + 2
                    found.size = sum(entry.size for entry in files)
                    return []
        return _objects(store, one)

    names = overlapping(look, garbage, at_once)
    infos = iter(overlapping(store.head, (name for mine in names for name in mine), at_once))
    for found, mine in zip(garbage, names, strict=True):
        sizes = [info.size for _, info in zip(mine, infos, strict=False) if info is not None]
        found.objects += len(sizes)
        found.size += sum(sizes)
