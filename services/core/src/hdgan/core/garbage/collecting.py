"""One pass over a store: what is garbage is marked; what has been marked for long enough, and is
garbage still, is removed.

An artifact's manifest goes first and its files a grace later, so whoever has opened it can read it
to the end. A pin that comes at the last moment is seen after the manifest has gone, which is put
back then. Files are removed under a note, `gc/collecting/...`, that a commit looks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from hdgan.core.artifact import (
    MANIFEST,
    Artifact,
    artifact_folder,
    collecting_place,
    open_artifact,
)
from hdgan.core.elapsed import Moment
from hdgan.core.errors import InputMissing, KeyMissing
from hdgan.core.garbage import judging, marks
from hdgan.core.garbage.judging import Folder, Garbage
from hdgan.core.garbage.roots import Keeping, Roots, find_roots
from hdgan.core.pins import Place
from hdgan.core.store import Store

State = Literal["found", "marked", "waiting", "due", "removed", "needed again"]
"""found         nothing was done: this was a dry run
marked        known since now
waiting       marked, not long enough ago
due           the next pass that deletes removes it: this was a dry run, or it is still written to
removed       gone
needed again  somebody came back for it at the last moment
"""

REMOVED: Final = "gc/removed/"
COLLECTING: Final = "gc/collecting/"
ABANDONED: Final = timedelta(hours=1)
"""Age at which what another pass says it is collecting is no longer believed."""
BELIEVED_SECONDS: Final = 1800.0
"""How long a look at what is needed is relied on."""
_RANK: Final = {"work": 0, "note": 1, "attempt": 2, "files": 3, "manifest": 4}


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
    unknown: list[str] = field(default_factory=list)
    """Objects that this program has not written. They are never touched."""


def collect(store: Store, policy: Policy, *, delete: bool) -> Report:
    """One pass. Without `delete` nothing is written or removed.

    InputMissing, and nothing is removed, if what keeps artifacts cannot be read.
    """
    # Reading alone needs no right to write, and no clock that can be relied on.
    now = store.now() if delete else datetime.now(UTC)
    roots = find_roots(store, now, policy.keeping)
    report = Report(expired=len(roots.expired))
    if delete:
        _restore(store, roots, report)
        _forget_abandoned(store, now)
    garbage = list(_judge(store, roots, report))
    known = marks.find_marks(store)
    due: list[Found] = []
    for one in sorted(garbage, key=lambda one: (_RANK[one.kind], one.place)):
        found = Found(one, _state(known.get(marks.mark_name(one)), now, policy.grace, delete))
        found.objects, found.size = _measure(store, one)
        report.garbage.append(found)
        if found.state == "marked":
            marks.mark(store, one)
        elif found.state == "due" and delete:
            due.append(found)
    if delete:
        current = {marks.mark_name(one) for one in garbage}
        for name in known.keys() - current:
            store.delete(name)
        _remove_due(store, policy, due, report)
        for place in roots.expired:
            store.delete(place)
    _clear_unfinished(store, now, policy.grace, report, delete)
    return report


def _state(marked: datetime | None, now: datetime, grace: timedelta, delete: bool) -> State:
    if marked is None:
        return "marked" if delete else "found"
    return "due" if now - marked >= grace else "waiting"


def _judge(store: Store, roots: Roots, report: Report | None = None) -> Iterator[Garbage]:
    """All garbage. `report` is told what is kept and what is unknown."""
    unknown = [] if report is None else report.unknown
    needed = roots.artifacts
    for folder in judging.artifact_folders(store.list("artifacts/"), unknown.append):
        if report is not None and folder.has_manifest and (folder.stage, folder.key) in needed:
            report.kept += 1
        yield from _judge_folder(store, folder, roots)
    for place in judging.work_places(store.list("work/"), unknown.append):
        committed = not isinstance(place, str) and _committed(store, place)
        one = judging.judge_work(place, needed, roots.notes, committed)
        if one is not None:
            yield one
    for name in store.list(""):
        if not name.startswith(("artifacts/", "work/")) and not judging.is_ours(name):
            unknown.append(name)


def _judge_folder(store: Store, folder: Folder, roots: Roots) -> Iterator[Garbage]:
    committed = folder.attempts
    # Of a single attempt the manifest need not be read: it has put its run-info there.
    if len(committed) > 1 and folder.has_manifest and (folder.stage, folder.key) in roots.artifacts:
        artifact = open_artifact(store, folder.stage, folder.key)
        if artifact is None:
            return  # gone since it was listed: the next pass sees what is left
        committed = _attempts(artifact)
    yield from judging.judge_folder(folder, roots.artifacts, committed)


def _attempts(artifact: Artifact) -> set[str]:
    manifest = artifact.manifest
    return {manifest.attempt, *(entry.attempt for entry in manifest.files)}


def _committed(store: Store, place: Place) -> bool:
    return store.head(f"{artifact_folder(*place)}/{MANIFEST}") is not None


def _still(store: Store, one: Garbage, roots: Roots) -> bool:
    """Whether it is garbage at this moment."""
    if one.artifact is None:
        return one.place not in roots.notes
    if one.kind == "work":
        return _committed(store, one.artifact) or one.artifact not in roots.artifacts
    names = store.list(f"{artifact_folder(*one.artifact)}/")
    for folder in judging.artifact_folders(names, lambda _: None):
        if one in _judge_folder(store, folder, roots):
            return True
    return False


def _remove_due(store: Store, policy: Policy, due: list[Found], report: Report) -> None:
    """Remove what is garbage still, after reading again what is needed."""
    if not due:
        return
    now = store.now()
    roots = find_roots(store, now, policy.keeping)
    manifests = []
    for found in due:
        one = found.garbage
        if not _still(store, one, roots):
            found.state = "needed again"
            marks.unmark(store, one)
        elif one.kind == "manifest":
            _remove_manifest(store, one)
            manifests.append(found)
        elif one.kind in ("attempt", "files"):
            _remove_files(store, policy, found, now)
        else:
            _delete_all(store, one)
            found.state = "removed"
            marks.unmark(store, one)
    if manifests:
        # Pinned between our look and the removal: that run has seen the manifest.
        roots = find_roots(store, store.now(), policy.keeping)
        _restore(store, roots, report)
        for found in manifests:
            assert found.garbage.artifact is not None
            back = found.garbage.artifact in roots.artifacts
            found.state = "needed again" if back else "removed"


def _remove_manifest(store: Store, one: Garbage) -> None:
    assert one.artifact is not None
    stage, key = one.artifact
    place = f"{artifact_folder(stage, key)}/{MANIFEST}"
    try:
        document = store.get(place)
    except KeyMissing:
        return
    store.put(f"{REMOVED}{stage}/{key}.json", document)
    store.delete(place)
    marks.unmark(store, one)
    # The files' own grace begins now.
    for folder in judging.artifact_folders(store.list(one.place), lambda _: None):
        for rest in judging.judge_folder(folder, (), ()):
            marks.mark(store, rest)


def _remove_files(store: Store, policy: Policy, found: Found, now: datetime) -> None:
    """Remove files that no manifest names, unless somebody writes there or comes for them."""
    one = found.garbage
    assert one.artifact is not None
    names = [name for name in store.list(one.place) if not name.endswith(f"/{MANIFEST}")]
    if not all(_older(store, name, now - policy.grace) for name in names):
        return  # still written to: due again in the next pass
    note = collecting_place(*one.artifact)
    store.put(note, b"{}")
    looked = Moment()
    try:
        roots = find_roots(store, store.now(), policy.keeping)
        if not _still(store, one, roots):
            found.state = "needed again"
            marks.unmark(store, one)
            return
        store.delete(f"{REMOVED}{one.artifact[0]}/{one.artifact[1]}.json")
        for name in names:
            if looked.seconds_ago() > BELIEVED_SECONDS:
                return  # too slow, or asleep meanwhile: who needs it now? The next pass goes on
            store.delete(name)
    finally:
        store.delete(note)
    marks.unmark(store, one)
    found.state = "removed"


def _delete_all(store: Store, one: Garbage) -> None:
    """Saved work: descriptions before what they refer to, so nobody finds half of it."""
    names = [name for name in store.list(one.place) if _belongs(name, one)]
    for name in sorted(names, key=lambda name: (not name.endswith(".json"), name)):
        store.delete(name)


def _belongs(name: str, one: Garbage) -> bool:
    rest = name.removeprefix(one.place)
    return one.kind != "work" or rest.startswith(("/", "-part-"))


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
        if store.head(manifest) is None and place in roots.artifacts:
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
    for one in store.unfinished():
        old = now - one.started >= grace
        if old and delete:
            store.remove_unfinished(one)
        state: State = "waiting" if not old else "removed" if delete else "due"
        report.unfinished.append((one.name, state))


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
    infos = (store.head(name) for name in store.list(one.place) if _belongs(name, one))
    sizes = [info.size for info in infos if info is not None]
    return len(sizes), sum(sizes)
