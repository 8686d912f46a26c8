"""One pass over a store: what is garbage is marked; what has been marked for long enough, and is
garbage still, is removed.

An artifact's manifest goes first and its files a grace later, so whoever has opened it can read it
to the end. A pin that comes at the last moment is seen after the manifest has gone, which is put
back then. Files are removed under a note, `gc/collecting/...`, that a commit looks for.
"""

from __future__ import annotations

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
from hdgan.core.errors import InputMissing, KeyMissing, StoreError, StoreUnavailable
from hdgan.core.garbage import judging, marks
from hdgan.core.garbage.judging import Folder, Garbage
from hdgan.core.garbage.roots import Keeping, RootFinder, Roots
from hdgan.core.pins import Place
from hdgan.core.report_place import PREFIX as REPORTS
from hdgan.core.store import Store
from hdgan.core.store_protocol import PROBE_PREFIX

State = Literal["found", "marked", "waiting", "due", "removed", "needed again"]
"""found         nothing was done: this was a dry run
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
BATCH: Final = 100
"""Pieces of garbage that are removed after one look."""
_RANK: Final = {"work": 0, "note": 1, "report": 2, "attempt": 3, "files": 4, "manifest": 5}


@dataclass(frozen=True)
class Policy:
    """How long things stay."""

    keeping: Keeping
    grace: timedelta
    """From the mark to the removal, and again from the manifest's to the files'."""


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


def collect(store: Store, policy: Policy, *, delete: bool) -> Report:
    """One pass. Without `delete` nothing is written or removed.

    InputMissing, and nothing is removed, if what keeps artifacts cannot be read.
    """
    # Reading alone needs no right to write, and no clock that can be relied on.
    now = store.now() if delete else datetime.now(UTC)
    finder = RootFinder(store, policy.keeping)
    roots = finder.look(now)
    report = Report(expired=len(roots.expired))
    report.missing = roots.missing
    if delete:
        _forget_abandoned(store, now)
        _restore(store, roots, report)
    garbage = list(_judge(store, policy, now, roots, report))
    known = marks.find_marks(store)
    due: list[Found] = []
    for one in sorted(garbage, key=lambda one: (_RANK[one.kind], one.place)):
        found = Found(one, _state(known.get(marks.mark_name(one)), now, policy, delete))
        found.objects, found.size = _measure(store, one)
        report.garbage.append(found)
        if found.state == "marked":
            if marks.mark_name(one) in known:  # too old to count
                marks.unmark(store, one)
            marks.mark(store, one)
        elif found.state == "due" and delete:
            due.append(found)
    if delete:
        current = {marks.mark_name(one) for one in garbage}
        for name in known.keys() - current:
            store.delete(name)
        Removal(store, policy, finder, report).remove(due)
        for place, limit in roots.expired:
            if _older(store, place, now - limit):  # not renewed meanwhile
                store.delete(place)
    _clear_unfinished(store, now, policy.grace, report, delete)
    return report


def _state(marked: datetime | None, now: datetime, policy: Policy, delete: bool) -> State:
    """A mark that is very old says nothing: it may have been needed again, unseen, since then."""
    if marked is None or now - marked > policy.keeping.used + FORGOTTEN:
        return "marked" if delete else "found"
    return "due" if now - marked >= policy.grace else "waiting"


def _judge(
    store: Store, policy: Policy, now: datetime, roots: Roots, report: Report
) -> Iterator[Garbage]:
    """All garbage. `report` is told what is kept and what is unknown."""
    unknown = report.note_unknown
    for folder in judging.artifact_folders(_names(store, "artifacts/", unknown), unknown):
        place = (folder.stage, folder.key)
        kept = folder.has_manifest and (place in roots or _is_young(store, policy, now, place))
        report.kept += kept
        if place in roots or not kept:
            yield from _judge_folder(store, folder, roots)
    for work in judging.work_places(_names(store, "work/", unknown), unknown):
        committed = not isinstance(work, str) and is_committed(store, *work)
        one = judging.judge_work(work, roots, roots.notes, committed)
        if one is not None:
            yield one
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

    def __init__(self, store: Store, policy: Policy, finder: RootFinder, report: Report) -> None:
        self._store = store
        self._policy = policy
        self._finder = finder
        self._report = report

    def remove(self, due: list[Found]) -> None:
        for kinds, step in (
            (("work", "note", "report"), self._remove_work),
            (("attempt", "files"), self._remove_files),
            (("manifest",), self._remove_manifests),
        ):
            mine = [found for found in due if found.garbage.kind in kinds]
            for start in range(0, len(mine), BATCH):
                step(mine[start : start + BATCH])

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
            # How young it is is seen by `_untouched`.
            return judging.judge_report(one.place, roots.runs, roots.releases, False) is not None
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
        for found in batch:
            names = _objects(self._store, found.garbage)
            if self._still(found, roots) and self._untouched(names, now):
                self._delete(sorted(names, key=lambda name: (not name.endswith(".json"), name)))
                self._removed(found)

    def _remove_files(self, batch: list[Found]) -> None:
        """Files that no manifest names, unless somebody writes there or comes for them."""
        notes = []
        try:
            for found in batch:
                assert found.garbage.artifact is not None
                note = collecting_place(*found.garbage.artifact)
                self._store.put(note, b"{}")
                notes.append(note)
            looked = Moment()
            roots, now = self._look()
            for found in batch:
                names = _objects(self._store, found.garbage)
                if not (self._still(found, roots) and self._untouched(names, now)):
                    continue
                assert found.garbage.artifact is not None
                self._store.delete(removed_place(found.garbage.artifact))
                if not self._delete(names, looked):
                    return  # too slow, or asleep meanwhile: who needs it now? Due again next time
                self._removed(found)
        finally:
            for note in notes:
                self._store.delete(note)

    def _remove_manifests(self, batch: list[Found]) -> None:
        roots, _ = self._look()
        gone = [found for found in batch if self._still(found, roots)]
        for found in gone:
            _remove_manifest(self._store, found.garbage)
        if gone:
            # Pinned between our look and the removal: that run has seen the manifest.
            roots, _ = self._look()
            _restore(self._store, roots, self._report)
        for found in gone:
            back = found.garbage.artifact in roots
            found.state = "needed again" if back else "removed"

    def _untouched(self, names: list[str], now: datetime) -> bool:
        """Whether nobody has written to any of it for a grace; else it stays due."""
        return all(_older(self._store, name, now - self._policy.grace) for name in names)

    def _delete(self, names: list[str], looked: Moment | None = None) -> bool:
        """Delete objects; False if the look before it is too long ago before all are."""
        for name in names:
            if looked is not None and looked.seconds_ago() > BELIEVED_SECONDS:
                return False
            self._store.delete(name)
        return True

    def _removed(self, found: Found) -> None:
        found.state = "removed"
        marks.unmark(self._store, found.garbage)


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


def _restore(store: Store, roots: Roots, report: Report) -> None:
    """Put back manifests that were removed and are needed after all; their files are there."""
    for name in store.list(REMOVED):
        if not judging.is_ours(name):
            continue
        stage, _, rest = name.removeprefix(REMOVED).partition("/")
        place = (stage, rest.removesuffix(".json"))
        manifest = f"{artifact_folder(*place)}/{MANIFEST}"
        if store.head(manifest) is None and place in roots:
            # In this order: another pass that removes the files now says so, then looks for pins,
            # then removes what we are about to read.
            if store.head(collecting_place(*place)) is not None:
                continue
            try:
                document = store.get(name)
            except KeyMissing:
                continue
            if store.put_if_absent(manifest, document):
                report.restored.append(f"{stage}/{place[1]}")
        if store.head(manifest) is not None:
            store.delete(name)


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


def _measure(store: Store, one: Garbage) -> tuple[int, int]:
    """Objects and bytes. An artifact's are in its manifest, what else there is is looked at."""
    if one.kind == "manifest" and one.artifact is not None:
        try:
            artifact = open_artifact(store, *one.artifact)
        except InputMissing:
            artifact = None
        if artifact is not None:
            files = artifact.manifest.files
            return len(files) + 2, sum(entry.size for entry in files)
    infos = (store.head(name) for name in _objects(store, one))
    sizes = [info.size for info in infos if info is not None]
    return len(sizes), sum(sizes)
