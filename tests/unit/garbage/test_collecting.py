"""What a pass removes, when, and what it leaves; and the races between a pass and a run, each in
the order that would do harm."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hdgan.core import elapsed
from hdgan.core.annotations import publish as publish_annotations
from hdgan.core.artifact import MANIFEST, Artifact, Attempt, artifact_key, open_artifact
from hdgan.core.canonical import canonical_json
from hdgan.core.errors import InputMissing, NoSpace, RequestError, StoreError, StoreUnavailable
from hdgan.core.garbage import marks
from hdgan.core.garbage.collecting import FEW, Policy, Report, collect
from hdgan.core.garbage.roots import Keeping, RootFinder
from hdgan.core.pieces import Pieces, adopt_file
from hdgan.core.pins import Pins
from hdgan.core.releases import latest_name, publish, remove, roll_back
from hdgan.core.report_place import release_report_place, report_place
from hdgan.core.request import InputRef
from hdgan.core.store_file import FileStore
from hdgan.core.work import WorkState
from support.stepped_actors import Actor
from unit.garbage.test_model import FakeTime, release_of

DAY = 24.0
POLICY = Policy(Keeping(used=timedelta(days=30), awaiting=timedelta(days=365)), timedelta(days=1))


class Aging:
    """A store in a folder, whose content can be made older."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FileStore(folder)
        self.clock = FakeTime()

    def sleep(self, hours: float) -> None:
        self.clock.seconds += hours * 3600
        for path in self.folder.rglob("*"):
            if path.is_file():
                earlier = path.stat().st_mtime - hours * 3600
                os.utime(path, (earlier, earlier))

    def collect(self) -> Report:
        return collect(self.store, POLICY, delete=True)

    def names(self, *prefixes: str) -> list[str]:
        return [name for name in self.store.list("") if name.startswith(prefixes)]

    def make(self, stage: str, number: int = 0, run: str | None = None, **needs: str) -> Artifact:
        """A committed artifact, pinned by a run if one is named."""
        key = artifact_key(stage, 1, {"n": number}, {})
        if run is not None:
            Pins(self.store, run).add([(stage, key)])
        attempt = Attempt(self.store, stage, key)
        for needed, needed_key in needs.items():
            attempt.need(needed, needed_key)
        attempt.add_bytes("a.bin", b"a" * (10 + number))
        return attempt.commit({})

    def visible(self, artifact: Artifact) -> bool:
        manifest = artifact.manifest
        return open_artifact(self.store, manifest.stage, manifest.key) is not None


@pytest.fixture
def aging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aging:
    aging = Aging(tmp_path)
    monkeypatch.setattr(elapsed, "time", aging.clock)
    return aging


def states(report: Report) -> dict[str, str]:
    """But those of pins, which go beside all else."""
    return {
        found.garbage.kind: found.state for found in report.garbage if found.garbage.kind != "pin"
    }


def test_what_nobody_needs_goes_in_three_passes_a_grace_apart(aging: Aging) -> None:
    artifact = aging.make("dataset", run="r")
    assert aging.collect().garbage == []
    aging.sleep(31 * DAY)
    assert states(aging.collect()) == {"manifest": "marked"}
    assert len(aging.names("pins/")) == 1
    aging.sleep(23)
    assert states(aging.collect()) == {"manifest": "waiting"}
    assert aging.visible(artifact)
    aging.sleep(2)
    assert states(aging.collect()) == {"manifest": "removed"}
    assert not aging.visible(artifact)
    assert aging.names("pins/") == []
    assert artifact.read("a.bin") == b"a" * 10  # whoever had opened it still can
    aging.sleep(23)
    assert states(aging.collect()) == {"files": "waiting"}
    aging.sleep(2)
    assert states(aging.collect()) == {"files": "removed"}
    assert aging.collect().garbage == []
    assert aging.names("") == []


def test_a_dry_run_changes_nothing_and_says_what_would_go(aging: Aging) -> None:
    aging.make("dataset", run="r")
    aging.sleep(31 * DAY)
    before = aging.names("")
    report = collect(aging.store, POLICY, delete=False)
    assert states(report) == {"manifest": "found"}
    assert (report.garbage[0].objects, report.garbage[0].size) == (3, 10)
    assert report.expired == 1
    assert aging.names("") == before
    aging.collect()
    aging.sleep(25)
    assert states(collect(aging.store, POLICY, delete=False)) == {"manifest": "due"}
    assert any(name.endswith(MANIFEST) for name in aging.names("artifacts/"))


def test_releases_and_annotations_keep_what_they_need_for_ever(aging: Aging) -> None:
    released = aging.make("dataset", 1)
    publish(aging.store, release_of(released, 1))
    generator = aging.make("gan-trainer", 2)
    candidates = aging.make("candidates", 3, **{"gan-trainer": generator.manifest.key})
    annotated = aging.make("annotations", 4, candidates=candidates.manifest.key)
    publish_annotations(aging.store, candidates.content_digest, annotated)
    other = aging.make("gan-trainer", 5)
    aging.sleep(3000 * DAY)
    for _ in range(4):
        report = aging.collect()
        aging.sleep(2 * DAY)
    assert report.kept == 4
    assert report.garbage == []
    assert all(map(aging.visible, (released, generator, candidates, annotated)))
    assert not aging.visible(other)


def test_a_removed_release_is_collected_and_the_latest_is_not_removed(aging: Aging) -> None:
    first, second = aging.make("dataset", 1), aging.make("dataset", 2)
    publish(aging.store, release_of(first, 1))
    publish(aging.store, release_of(second, 2))
    with pytest.raises(RequestError, match="run-2 is the latest"):
        remove(aging.store, "d", "run-2")
    remove(aging.store, "d", "run-1")
    aging.sleep(31 * DAY)
    for _ in range(3):
        aging.collect()
        aging.sleep(2 * DAY)
    assert not aging.visible(first)
    assert aging.visible(second)
    with pytest.raises(InputMissing, match="before run-2 no release"):
        roll_back(aging.store, "d")


def test_candidates_wait_longer_for_their_annotations_than_others(aging: Aging) -> None:
    waiting, other = aging.make("candidates", 1), aging.make("candidates", 2)
    pins = Pins(aging.store, "r")
    pins.add([("candidates", waiting.manifest.key)], "annotation")
    pins.add([("candidates", other.manifest.key)])
    aging.sleep(200 * DAY)
    for _ in range(3):
        aging.collect()
        aging.sleep(2 * DAY)
    assert aging.visible(waiting)
    assert not aging.visible(other)


def test_a_run_that_goes_on_renews_its_pins(aging: Aging) -> None:
    artifact = aging.make("dataset")
    pins = Pins(aging.store, "r")
    pins.add([("dataset", artifact.manifest.key)])
    for _ in range(60):
        aging.sleep(DAY)
        pins.renew()
        aging.collect()
    assert aging.visible(artifact)


def test_a_mark_is_forgotten_when_its_garbage_is_needed_again(aging: Aging) -> None:
    artifact = aging.make("dataset", run="r")
    aging.sleep(31 * DAY)
    aging.collect()
    Pins(aging.store, "again").add([("dataset", artifact.manifest.key)])
    aging.sleep(2 * DAY)
    assert states(aging.collect()) == {}
    assert aging.names("gc/") == []
    aging.sleep(31 * DAY)
    assert states(aging.collect()) == {"manifest": "marked"}


def test_the_folder_of_an_attempt_that_lost_goes_and_the_artifact_stays(aging: Aging) -> None:
    artifact = aging.make("dataset", run="r")
    late = Attempt(aging.store, "dataset", artifact.manifest.key)
    late.add_bytes("a.bin", b"other bytes")
    late.commit({})
    assert states(aging.collect()) == {"attempt": "marked"}
    aging.sleep(25)
    assert states(aging.collect()) == {"attempt": "removed"}
    assert aging.collect().garbage == []
    assert artifact.read("a.bin") == b"a" * 10
    assert aging.names(f"artifacts/dataset/{artifact.manifest.key}/{late.attempt}") == []


def test_unfinished_work_stays_with_its_run_and_goes_after_it(aging: Aging) -> None:
    key = artifact_key("dataset", 1, {}, {})
    Pins(aging.store, "r").add([("dataset", key)])
    attempt = Attempt(aging.store, "dataset", key)
    entry = attempt.add_bytes("one.bin", b"1")
    Pieces(aging.store, "dataset", key).keep("one", entry.model_dump(mode="json"))
    WorkState(aging.store, "dataset", f"{key}-part-00001-of-00003", "a").save(1, {"x": b"1"}, {})
    assert aging.collect().garbage == []
    aging.sleep(31 * DAY)
    assert states(aging.collect()) == {"work": "marked", "files": "marked"}
    aging.sleep(25)
    assert states(aging.collect()) == {"work": "removed", "files": "removed"}
    assert aging.names("") == []


def test_what_is_still_written_to_is_not_removed(aging: Aging) -> None:
    key = artifact_key("dataset", 1, {}, {})
    attempt = Attempt(aging.store, "dataset", key)
    attempt.add_bytes("one.bin", b"1")
    aging.collect()
    aging.sleep(25)
    attempt.add_bytes("two.bin", b"2")
    assert states(aging.collect()) == {"files": "due"}
    assert len(aging.names("artifacts/")) == 2


def test_lists_of_slides_stay_with_the_runs_that_name_them(aging: Aging) -> None:
    kept, other = (f"work/slides/{letter * 64}.json" for letter in "ab")
    facts = f"work/slide-facts/{'c' * 64}.json"
    for name in (kept, other, facts):
        aging.store.put(name, b"{}")
    frozen = {"slides": {"key": kept}, "slideFacts": {"key": None}}
    aging.store.put(f"runs/r/{'0' * 64}.json", canonical_json(frozen))
    for _ in range(2):
        aging.collect()
        aging.sleep(25)
    assert aging.names("work/") == [kept]


def test_what_others_have_put_there_is_named_and_never_touched(aging: Aging) -> None:
    strange = [
        f"artifacts/dataset/{'0' * 64}/stray.json",
        "artifacts/dataset/notes.txt",
        "export/1.png",
        "gc/marks/mine.json",
        "pins/r/note.txt",
        "runs/r/notes.md",
        "work/readme",
    ]
    for name in strange:
        aging.store.put(name, b"x")
    for _ in range(3):
        report = aging.collect()
        aging.sleep(100 * DAY)
    assert sorted(report.unknown) == strange
    assert aging.names("") == strange


@pytest.mark.parametrize(
    "place",
    [
        f"pins/r/use-{'0' * 64}.json",
        "datasets/d/releases/r.json",
        "datasets/d/folds.json",
        f"datasets/d/folds/00000001-{'0' * 16}.json",
        f"annotations/{'0' * 64}/000001.json",
        f"runs/r/{'0' * 64}.json",
    ],
)
def test_nothing_goes_while_something_that_may_keep_it_cannot_be_read(
    aging: Aging, place: str
) -> None:
    aging.make("dataset", run="r")
    aging.sleep(31 * DAY)
    aging.collect()
    aging.sleep(25)
    aging.store.put(place, b"{")
    before = aging.names("")
    with pytest.raises(InputMissing, match=place):
        aging.collect()
    assert aging.names("") == before


def test_cut_off_writes_go_when_they_are_old(aging: Aging) -> None:
    aging.make("dataset", run="r")
    left = aging.folder / "artifacts" / ".hdgan-tmp-1"
    left.write_bytes(b"half")
    assert aging.collect().unfinished == [(str(left), "waiting")]
    aging.sleep(25)
    assert aging.collect().unfinished == [(str(left), "removed")]
    assert not left.exists()


def test_what_was_made_lately_is_kept_though_its_pins_are_lost(aging: Aging) -> None:
    artifact = aging.make("dataset")
    aging.sleep(29 * DAY)
    assert aging.collect().garbage == []
    aging.sleep(2 * DAY)
    assert states(aging.collect()) == {"manifest": "marked"}
    assert aging.visible(artifact)


@pytest.mark.parametrize(
    ("stage", "needed"), [("tiler", "slide-tiles"), ("candidates", "gan-trainer")]
)
def test_artifacts_that_do_not_say_what_they_need_keep_all_of_it(
    aging: Aging, stage: str, needed: str
) -> None:
    old = aging.make(stage, 1)
    others = [aging.make(needed, number) for number in (2, 3)]
    aging.sleep(31 * DAY)
    Pins(aging.store, "r").add([(stage, old.manifest.key)])
    for _ in range(3):
        aging.collect()
        aging.sleep(2 * DAY)
    assert all(map(aging.visible, others))


def test_a_pass_in_which_most_would_go_withdraws_nothing_and_says_so(aging: Aging) -> None:
    for number in range(30):
        aging.make("dataset", number, run="over" if number == 0 else None)
    careful = replace(POLICY, most=0.5)
    aging.sleep(31 * DAY)
    assert collect(aging.store, careful, delete=True).held == ""  # marked, not due
    aging.sleep(25)
    report = collect(aging.store, careful, delete=True)
    assert report.held.startswith("30 of 30 artifacts are due, more than a pass may withdraw (50%)")
    assert {found.state for found in report.garbage} == {"due"}
    assert len(aging.names("artifacts/")) == 90
    assert len(aging.names("pins/")) == 1

    for number in range(30, 60):
        aging.make("dataset", number, run="r")
    assert collect(aging.store, careful, delete=True).held == ""  # half of sixty
    assert len(list(aging.store.list("gc/removed/"))) == 30


def test_one_look_with_a_wrong_clock_forgets_no_pin(
    aging: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = aging.make("candidates")
    Pins(aging.store, "waits").add([("candidates", artifact.manifest.key)], "annotation")
    with monkeypatch.context() as patch:
        now = aging.store.now() + timedelta(days=400)
        patch.setattr(FileStore, "now", lambda _: now)
        aging.collect()
    for _ in range(3):
        aging.sleep(25)
        aging.collect()
    assert len(aging.names("pins/")) == 1
    assert aging.visible(artifact)


def test_on_a_full_disk_what_was_marked_goes_all_the_same(
    aging: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(aging)
    aging.make("dataset", 1)
    aging.sleep(31 * DAY)

    def full(*_: Any) -> None:
        raise NoSpace("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(marks, "mark", full)
        report = aging.collect()
    assert states(report)["work"] == "removed"
    assert states(report)["manifest"] == "found"
    assert any("no space for marks" in one for one in report.problems)


def test_a_few_may_always_go(aging: Aging) -> None:
    for number in range(FEW):
        aging.make("dataset", number)
    aging.sleep(31 * DAY)
    aging.collect()
    aging.sleep(25)
    report = collect(aging.store, replace(POLICY, most=0.0), delete=True)
    assert report.held == ""
    assert {found.state for found in report.garbage} == {"removed"}


def test_many_requests_at_once_find_and_do_what_one_after_another_does(aging: Aging) -> None:
    """A store with everything in it, collected twice from copies of it."""
    for number in range(40):
        artifact = aging.make("dataset", number, run=f"r{number}")
        if number % 5 == 0:
            publish(aging.store, release_of(artifact, number + 1))
        if number % 7 == 0:
            late = Attempt(aging.store, "dataset", artifact.manifest.key)
            late.add_bytes("a.bin", b"other bytes")
            late.commit({})
        key = artifact_key("candidates", 1, {"n": number}, {})
        for name in ("one", "two"):
            entry = Attempt(aging.store, "candidates", key).add_bytes(f"{name}.bin", b"1")
            Pieces(aging.store, "candidates", key).keep(name, entry.model_dump(mode="json"))
    copies = []
    for at_once in (1, 16):
        copy = Aging(aging.folder.parent / f"copy-{at_once}")
        shutil.copytree(aging.folder, copy.folder)
        told = []
        for hours in (31 * DAY, 25, 25, 25):
            copy.sleep(hours)
            report = collect(copy.store, POLICY, delete=True, at_once=at_once)
            told.append([(f.garbage, f.state, f.objects, f.size) for f in report.garbage])
        copies.append((told, copy.names("")))
    assert copies[0] == copies[1]
    assert len([one for one in copies[0][1] if one.endswith(MANIFEST)]) == 8
    assert any(told for told in copies[0][0])


def test_a_need_alone_is_not_followed(aging: Aging) -> None:
    tiles = aging.make("slide-tiles", 1)
    tiler = aging.make("tiler", 2, **{"slide-tiles": tiles.manifest.key})
    key = artifact_key("gan-trainer", 1, {}, {})
    generator = Attempt(aging.store, "gan-trainer", key)
    generator.need("tiler", tiler.manifest.key, alone=True)
    generator.add_bytes("g.bin", b"g")
    generator.commit({})
    aging.sleep(31 * DAY)
    Pins(aging.store, "r").add([("gan-trainer", key)])
    for _ in range(3):
        aging.collect()
        aging.sleep(2 * DAY)
    assert aging.visible(tiler)
    assert not aging.visible(tiles)
    # Whoever needs the tiling whole keeps its tiles.
    Pins(aging.store, "other").add([("tiler", tiler.manifest.key)])
    again = aging.make("slide-tiles", 1)
    aging.sleep(29 * DAY)
    for _ in range(3):
        aging.collect()
        aging.sleep(1)
    assert aging.visible(again)


def test_a_mark_that_was_not_looked_at_for_long_counts_no_more(aging: Aging) -> None:
    artifact = aging.make("dataset", run="r")
    aging.sleep(31 * DAY)
    aging.collect()
    aging.sleep(15 * DAY)
    Pins(aging.store, "again").add([("dataset", artifact.manifest.key)])
    aging.sleep(40 * DAY)
    assert states(aging.collect()) == {"manifest": "marked"}
    aging.sleep(25)
    assert states(aging.collect()) == {"manifest": "removed"}


def test_the_latest_is_kept_though_its_document_is_lost(aging: Aging) -> None:
    artifact = aging.make("dataset")
    publish(aging.store, release_of(artifact, 1))
    aging.store.delete("datasets/d/releases/run-1.json")
    aging.sleep(100 * DAY)
    for _ in range(3):
        aging.collect()
        aging.sleep(2 * DAY)
    assert aging.visible(artifact)


def test_what_is_named_and_not_there_is_reported(aging: Aging) -> None:
    artifact = aging.make("dataset")
    publish(aging.store, release_of(artifact, 1))
    key = artifact.manifest.key
    aging.store.delete(f"artifacts/dataset/{key}/{MANIFEST}")
    assert aging.collect().missing == [f"dataset/{key}: release run-1 of d"]


def test_a_release_removed_and_made_again_keeps_its_dataset(aging: Aging) -> None:
    first, second = aging.make("dataset", 1), aging.make("dataset", 2)
    publish(aging.store, release_of(first, 1))
    publish(aging.store, release_of(second, 2))
    remove(aging.store, "d", "run-1")
    assert publish(aging.store, release_of(first, 1)).release == "run-1"
    # By another run it has another name, and it is not made the latest again.
    remove(aging.store, "d", "run-1")
    again = publish(aging.store, release_of(first, 3))
    assert (again.verdict, again.release) == ("Unchanged", "run-3")
    assert latest_name(aging.store, "d") == "run-2"
    aging.sleep(100 * DAY)
    for _ in range(3):
        aging.collect()
        aging.sleep(2 * DAY)
    assert aging.visible(first)


def test_a_release_of_which_something_is_gone_is_not_made(aging: Aging) -> None:
    dataset, tiler = aging.make("dataset", 1), aging.make("tiler", 2)
    release = release_of(dataset, 1)
    reference = InputRef(stage="tiler", key=tiler.manifest.key, content_digest=tiler.content_digest)
    release = release.model_copy(update={"artifacts": {**release.artifacts, "tiler": reference}})
    aging.store.delete(f"artifacts/tiler/{tiler.manifest.key}/{MANIFEST}")
    with pytest.raises(InputMissing, match="the tiler artifact"):
        publish(aging.store, release)
    assert aging.names("datasets/") == []


def test_strays_beside_what_is_removed_stay(aging: Aging) -> None:
    artifact = aging.make("dataset", run="r")
    stray = f"artifacts/dataset/{artifact.manifest.key}/notes.txt"
    work = f"work/dataset/{artifact.manifest.key}"
    aging.store.put(stray, b"mine")
    aging.store.put(work + "-notes.txt", b"mine")
    aging.store.put(f"{work}/a/state-000000000001.json", b"{}")
    aging.sleep(31 * DAY)
    for _ in range(4):
        report = aging.collect()
        aging.sleep(2 * DAY)
    assert sorted(report.unknown) == aging.names("") == [stray, work + "-notes.txt"]


def test_files_called_like_a_manifest_go_with_the_others(aging: Aging) -> None:
    key = artifact_key("dataset", 1, {}, {})
    attempt = Attempt(aging.store, "dataset", key)
    attempt.add_bytes(f"deep/{MANIFEST}", b"1")
    for _ in range(3):
        aging.collect()
        aging.sleep(2 * DAY)
    assert aging.names("") == []


def test_work_that_is_written_to_again_is_not_removed(aging: Aging) -> None:
    key = artifact_key("dataset", 1, {}, {})
    WorkState(aging.store, "dataset", key, "a").save(1, {"x": b"1"}, {})
    aging.collect()
    aging.sleep(25)
    WorkState(aging.store, "dataset", key, "b").save(2, {"x": b"2"}, {})
    assert states(aging.collect()) == {"work": "due"}
    assert len(aging.names("work/")) == 4


def test_folders_that_cannot_be_listed_stop_nothing(
    aging: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    aging.make("dataset", run="r")
    aging.sleep(31 * DAY)
    listed = type(aging.store).list

    def refusing(self: FileStore, prefix: str) -> Iterator[str]:
        if not prefix:
            raise StoreError("cannot list lost+found: Permission denied")
        return listed(self, prefix)

    monkeypatch.setattr(FileStore, "list", refusing)
    report = aging.collect()
    assert states(report) == {"manifest": "marked"}
    assert "lost+found" in report.problems[0]


def test_one_look_is_enough_for_many_pieces(aging: Aging, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [aging.make("slide-tiles", number) for number in range(20)]
    others = [aging.make("slide-tiles", number) for number in range(20, 60)]
    Pins(aging.store, "r").add([("slide-tiles", one.manifest.key) for one in kept])
    aging.sleep(20 * DAY)
    Pins(aging.store, "r").add([("slide-tiles", one.manifest.key) for one in kept])
    aging.sleep(11 * DAY)
    looks = 0
    look = RootFinder.look

    def counting(self: RootFinder, now: Any) -> Any:
        nonlocal looks
        looks += 1
        return look(self, now)

    monkeypatch.setattr(RootFinder, "look", counting)
    for _ in range(3):
        aging.collect()
        aging.sleep(25)
    assert not any(map(aging.visible, others))
    assert looks == 3 + 1 + 1 + 1  # one a pass, two for the manifests, one for the files


# Races: one of the two is stopped before the operation that matters.


def until(actor: Actor, operation: str) -> Actor:
    while not actor.done and not actor.before.startswith(operation):
        actor.step()
    assert not actor.done, f"{actor.name} never came to {operation}: {actor.failure}"
    return actor


def collector(aging: Aging) -> Actor:
    return Actor(
        "gc", lambda store: void(collect(store, POLICY, delete=True, at_once=1)), aging.store
    )


def void(_: object) -> None:
    pass


def expired(aging: Aging) -> Artifact:
    """An artifact whose manifest the next pass removes."""
    artifact = aging.make("dataset", run="r")
    aging.sleep(31 * DAY)
    aging.collect()
    aging.sleep(25)
    return artifact


def test_a_pin_that_comes_before_the_removal_is_seen_after_it(aging: Aging) -> None:
    artifact = expired(aging)
    gc = until(collector(aging), "delete artifacts/")
    Pins(aging.store, "late").add([("dataset", artifact.manifest.key)])
    assert aging.visible(artifact)  # so that run goes on with it
    gc.finish()
    assert aging.visible(artifact)
    assert aging.collect().garbage == []
    assert aging.names("gc/") == []


def test_a_pin_that_is_renewed_during_a_pass_stays(aging: Aging) -> None:
    artifact = aging.make("dataset", run="r")
    aging.sleep(31 * DAY)
    gc = until(collector(aging), "list gc/marks/")
    Pins(aging.store, "r").add([("dataset", artifact.manifest.key)])
    gc.finish()
    assert len(aging.names("pins/")) == 1


def test_the_note_of_a_pass_that_was_killed_is_not_believed_for_ever(aging: Aging) -> None:
    key = unfinished(aging)
    other = Attempt(aging.store, "dataset", key)
    record = Pieces(aging.store, "dataset", key).find("one")
    assert adopt_file(other, record) is not None
    gc = until(collector(aging), "delete gc/removed/")
    gc.kill()
    with pytest.raises(StoreUnavailable, match="being collected"):
        other.commit({})
    aging.sleep(2)
    assert other.commit({}).read("one.bin") == b"1"


def test_a_store_that_does_not_answer_ends_no_work_for_a_pin(
    aging: Aging, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = Pins(aging.store, "r")
    pins.add([("dataset", "0" * 64)])
    asked = []

    def fail(self: FileStore, key: str, data: bytes) -> None:
        asked.append(key)
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "put", fail)
        aging.sleep(13)
        pins.renew()
        pins.renew()
        assert len(asked) == 1  # not at every step of the work
        aging.sleep(2)
        pins.renew()
        assert len(asked) == 2
        aging.sleep(40)
        with pytest.raises(StoreUnavailable):
            pins.renew()
    (place,) = aging.names("pins/")
    aging.store.delete(place)
    aging.sleep(2)
    pins.renew()
    assert aging.names("pins/") == [place]


def test_a_pass_that_is_killed_after_the_removal_is_made_good_by_the_next(aging: Aging) -> None:
    artifact = expired(aging)
    gc = until(collector(aging), "delete artifacts/")
    Pins(aging.store, "late").add([("dataset", artifact.manifest.key)])
    gc.step()
    gc.kill()
    assert not aging.visible(artifact)
    report = aging.collect()
    assert report.restored == [f"dataset/{artifact.manifest.key}"]
    assert aging.visible(artifact)


def unfinished(aging: Aging) -> str:
    """Key of work that nobody needs and whose files the next pass removes."""
    key = artifact_key("dataset", 1, {"unfinished": True}, {})
    attempt = Attempt(aging.store, "dataset", key)
    entry = attempt.add_bytes("one.bin", b"1")
    Pieces(aging.store, "dataset", key).keep("one", entry.model_dump(mode="json"))
    aging.collect()
    aging.sleep(25)
    return key


def take_over(key: str) -> Callable[[Any], None]:
    """What a stage does that goes on with what another attempt has uploaded."""

    def work(store: Any) -> None:
        pins = Pins(store, "r")
        pins.add([("dataset", key)])
        attempt = Attempt(store, "dataset", key)
        record = Pieces(store, "dataset", key).find("one")
        pins.renew()
        if record is None or adopt_file(attempt, record) is None:
            attempt.add_bytes("one.bin", b"1")
        pins.renew()
        attempt.commit({})

    return work


@pytest.mark.parametrize(
    "operation",
    ["list pins/", "put gc/collecting/", "delete gc/removed/", "delete artifacts/", "delete work/"],
)
@pytest.mark.parametrize("stop", ["head work/", "head artifacts/", "put_if_absent artifacts/", ""])
def test_files_that_a_run_takes_over_are_never_removed_under_it(
    aging: Aging, operation: str, stop: str
) -> None:
    key = unfinished(aging)
    run = Actor("run", take_over(key), aging.store)
    gc = until(collector(aging), operation)
    if stop:
        until(run, stop)
    else:
        run.finish()
    gc.finish()
    run.finish()
    if run.failure is not None:
        assert isinstance(run.failure, StoreUnavailable | InputMissing)
    artifact = open_artifact(aging.store, "dataset", key)
    assert (artifact is None) == (run.failure is not None)
    if artifact is not None:
        assert artifact.read("one.bin") == b"1"


def test_a_run_that_has_just_taken_files_over_does_not_lose_them(aging: Aging) -> None:
    key = unfinished(aging)
    gc = until(collector(aging), "delete work/")
    run = until(Actor("run", take_over(key), aging.store), "put artifacts/")
    gc.finish()
    run.finish()
    assert run.failure is None
    artifact = open_artifact(aging.store, "dataset", key)
    assert artifact is not None
    assert artifact.read("one.bin") == b"1"


def test_a_sleeper_whose_files_were_collected_commits_nothing(aging: Aging) -> None:
    key = artifact_key("dataset", 1, {}, {})
    attempt = Attempt(aging.store, "dataset", key)
    attempt.add_bytes("one.bin", b"1")
    for _ in range(3):
        aging.collect()
        aging.sleep(25)
    assert aging.names("artifacts/") == []
    with pytest.raises(InputMissing, match=r"one\.bin.*run it again"):
        attempt.commit({})
    assert open_artifact(aging.store, "dataset", key) is None


def test_what_a_sleeper_makes_visible_too_late_disappears_again(aging: Aging) -> None:
    key = artifact_key("dataset", 1, {}, {})

    def work(store: Any) -> None:
        attempt = Attempt(store, "dataset", key)
        attempt.add_bytes("one.bin", b"1")
        attempt.commit({})

    sleeper = until(Actor("sleeper", work, aging.store), "put_if_absent artifacts/")
    for _ in range(3):
        aging.collect()
        aging.sleep(25)
    sleeper.finish()
    assert isinstance(sleeper.failure, InputMissing)
    assert open_artifact(aging.store, "dataset", key) is None


def test_a_commit_while_its_files_are_collected_has_to_be_repeated(aging: Aging) -> None:
    key = unfinished(aging)
    other = Attempt(aging.store, "dataset", key)
    record = Pieces(aging.store, "dataset", key).find("one")
    assert adopt_file(other, record) is not None
    gc = until(collector(aging), "delete gc/removed/")
    with pytest.raises(StoreUnavailable, match="being collected"):
        other.commit({})
    gc.finish()
    with pytest.raises(InputMissing, match="collected"):
        other.commit({})


def test_a_collector_that_slept_removes_nothing_more(aging: Aging) -> None:
    key = unfinished(aging)
    aging.store.put(f"artifacts/dataset/{key}/old/two.bin", b"2")
    aging.store.put(f"artifacts/dataset/{key}/old/three.bin", b"3")
    aging.sleep(30)
    gc = until(collector(aging), f"delete artifacts/dataset/{key}/")
    aging.sleep(2)
    gc.finish()
    assert len(aging.names(f"artifacts/dataset/{key}/")) == 2  # it was at one of them
    assert aging.names("gc/collecting/") == []


def test_files_are_not_made_visible_again_while_they_are_removed(aging: Aging) -> None:
    artifact = expired(aging)
    aging.collect()
    aging.sleep(25)
    first = until(collector(aging), "delete gc/removed/")
    Pins(aging.store, "late").add([("dataset", artifact.manifest.key)])
    aging.collect()
    assert not aging.visible(artifact)
    first.step()
    second = until(collector(aging), "list gc/removed/")
    first.finish()
    second.finish()
    assert not aging.visible(artifact)


def test_a_release_of_what_was_just_collected_is_taken_back(aging: Aging) -> None:
    artifact = expired(aging)
    sleeper = until(
        Actor("r", lambda store: void(publish(store, release_of(artifact, 1))), aging.store),
        "put_if_absent datasets/",
    )
    aging.collect()
    assert not aging.visible(artifact)
    sleeper.finish()
    assert isinstance(sleeper.failure, InputMissing)
    assert aging.names("datasets/") == []


def test_a_release_that_comes_before_the_removal_keeps_its_dataset(aging: Aging) -> None:
    artifact = expired(aging)
    gc = until(collector(aging), "put gc/removed/")
    publish(aging.store, release_of(artifact, 1))
    gc.finish()
    assert aging.visible(artifact)
    assert time.time() < aging.clock.time()


def put_reports(aging: Aging, run: str, *releases: str) -> list[str]:
    places = [report_place(run), *(release_report_place(run, one) for one in releases)]
    for place in places:
        aging.store.put(place, b"<html></html>")
    return places


def test_a_report_stays_as_long_as_its_release_or_its_run(aging: Aging) -> None:
    first, second = aging.make("dataset", 1), aging.make("dataset", 2)
    old, new = release_of(first, 1), release_of(second, 2)
    publish(aging.store, old)
    publish(aging.store, new)
    released = put_reports(aging, old.run, old.name)
    latest = put_reports(aging, new.run, new.name)
    Pins(aging.store, "waits").add([("gan-trainer", "a" * 64)], "annotation")
    waiting = put_reports(aging, "waits")
    over = put_reports(aging, "over")
    aging.sleep(29 * DAY)
    assert aging.collect().garbage == []  # whatever is that young

    aging.sleep(100 * DAY)
    assert states(aging.collect()) == {"report": "marked"}
    aging.sleep(25)
    report = aging.collect()
    assert states(report) == {"report": "removed"}
    assert [found.garbage.place for found in report.garbage] == over
    assert (report.garbage[0].objects, report.unknown) == (1, [])

    remove(aging.store, old.dataset, old.name)
    for _ in range(2):
        report = aging.collect()
        aging.sleep(25)
    gone = {found.garbage.place for found in report.garbage if found.state == "removed"}
    assert gone == {*released, f"artifacts/dataset/{first.manifest.key}/"}
    assert aging.names("reports/") == sorted({*latest, *waiting, *released} - gone)


def test_a_report_that_is_written_again_meanwhile_stays(aging: Aging) -> None:
    (place,) = put_reports(aging, "over")
    aging.sleep(31 * DAY)
    aging.collect()
    aging.sleep(25)
    put_reports(aging, "over")
    assert aging.collect().garbage == []
    assert aging.names("reports/", "gc/") == [place]


def test_only_reports_count_as_such(aging: Aging) -> None:
    strange = ["reports/a/b/report.html", "reports/a/notes.txt", "reports/report.html"]
    for name in strange:
        aging.store.put(name, b"mine")
    aging.sleep(400 * DAY)
    for _ in range(3):
        report = aging.collect()
        aging.sleep(25)
    assert sorted(report.unknown) == aging.names("reports/") == strange
