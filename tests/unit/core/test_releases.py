"""Releases are immutable, the latest is the highest pointer, and a crash anywhere does no harm."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdgan.core import releases
from hdgan.core.artifact import Attempt
from hdgan.core.errors import InputMissing, InternalError, RequestError
from hdgan.core.gates import GateVerdict, Measured, Scores
from hdgan.core.pipeline import External, Observed
from hdgan.core.releases import Release, latest, pinned_to, promote, publish, release_of, roll_back
from hdgan.core.request import InputRef
from hdgan.core.run import DatasetRun, parse_run, resolve
from hdgan.core.store import Store, open_store
from support.runs import changed, small_run
from support.stepped_actors import Actor

START = datetime(2026, 1, 1, tzinfo=UTC)
SLIDES = External("work/slides/x.json", "a" * 64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def made(store: Store, number: int, run: str = "small", content: int | None = None) -> Release:
    """A release whose dataset is in the store."""
    content = number if content is None else content
    attempt = Attempt(store, "dataset", f"{content:064x}")
    attempt.add_bytes("shard.tar", str(content).encode())
    manifest = attempt.commit({}).manifest
    dataset = InputRef(stage="dataset", key=manifest.key, content_digest=manifest.content_digest)
    others = {}
    for name in ("gan-trainer", "candidates", "annotations", "classifier"):
        other = Attempt(store, name, f"{1:064x}")
        other.add_bytes("made", name.encode())
        found = other.commit({}).manifest
        others[name] = InputRef(stage=name, key=found.key, content_digest=found.content_digest)
    measured = Measured(Scores(others["classifier"].content_digest, macro_dice=0.9))
    document = small_run("metadata.name", run)
    spec = document.spec.model_copy(update={"dataset": "skin"})
    return release_of(
        document.model_copy(update={"spec": spec}),
        SLIDES,
        Observed({**others, "dataset": dataset}, measured=measured),
        START + timedelta(days=number),
    )


def test_the_last_one_published_is_the_latest_and_publishing_again_changes_nothing(
    store: Store,
) -> None:
    assert latest(store, "skin") is None
    first, second = made(store, 1), made(store, 2)
    assert publish(store, first) == releases.Published("Released", first.name)
    assert publish(store, second).verdict == "Released"
    assert publish(store, first).release == first.name
    assert latest(store, "skin") == second
    assert releases.releases(store, "skin") == [first, second]
    assert len(list(store.list("datasets/skin/pointer/"))) == 2


def test_the_same_dataset_by_another_run_is_unchanged(store: Store) -> None:
    first = made(store, 1, "monday")
    publish(store, first)
    again = publish(store, made(store, 2, "tuesday", content=1))
    assert (again.verdict, again.release) == ("Unchanged", first.name)
    assert releases.releases(store, "skin") == [first]


def test_a_run_of_the_same_name_with_another_dataset_is_another_release(store: Store) -> None:
    publish(store, made(store, 1))
    publish(store, made(store, 2))
    names = [one.name for one in releases.releases(store, "skin")]
    assert len(set(names)) == 2
    assert all(name.startswith("small-") for name in names)


def test_promote_and_roll_back(store: Store) -> None:
    one, two, three = (made(store, number) for number in (1, 2, 3))
    for release in (one, two, three):
        publish(store, release)
    assert roll_back(store, "skin") == two
    assert roll_back(store, "skin") == one
    with pytest.raises(InputMissing, match="no release of skin that is whole"):
        roll_back(store, "skin")
    # A run that is done again does not undo what a person decided.
    assert publish(store, three).release == three.name
    assert latest(store, "skin") == one
    assert promote(store, "skin", three.name) == latest(store, "skin") == three
    with pytest.raises(InputMissing, match="there is no release"):
        promote(store, "skin", "small-000000000000")
    with pytest.raises(RequestError):
        promote(store, "skin", "../../runs/x")


def test_a_release_whose_dataset_is_gone_is_not_promoted(store: Store) -> None:
    first, second = made(store, 1), made(store, 2)
    publish(store, first)
    publish(store, second)
    store.delete(f"artifacts/dataset/{first.artifacts['dataset'].key}/manifest.json")
    with pytest.raises(InputMissing, match="is not in"):
        promote(store, "skin", first.name)
    with pytest.raises(InputMissing, match="no release of skin that is whole"):
        roll_back(store, "skin")
    assert latest(store, "skin") == second


def test_latest_json_is_put_right(store: Store) -> None:
    first, second = made(store, 1), made(store, 2)
    publish(store, first)
    old = store.get("datasets/skin/latest.json")
    publish(store, second)
    for damaged in (old, None):
        if damaged is None:
            store.delete("datasets/skin/latest.json")
        else:
            store.put("datasets/skin/latest.json", damaged)
        assert latest(store, "skin") == second
        assert b'"seq":2' in store.get("datasets/skin/latest.json")


def test_a_listing_that_is_late_hides_no_release(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = made(store, 1), made(store, 2)
    listed = type(store).list

    def late(self: Store, prefix: str) -> Iterator[str]:
        return iter([]) if "pointer" in prefix else listed(self, prefix)

    monkeypatch.setattr(type(store), "list", late)
    publish(store, first)
    assert latest(store, "skin") == first
    assert publish(store, first).verdict == "Released"
    publish(store, second)
    assert latest(store, "skin") == second
    monkeypatch.undo()
    pointers = list(store.list("datasets/skin/pointer/"))
    assert [place.split("/")[-1][:8] for place in pointers] == ["00000001", "00000002"]


def test_damaged_documents_are_named(store: Store) -> None:
    release = made(store, 1)
    publish(store, release)
    place = f"datasets/skin/releases/{release.name}.json"
    store.put(place, b'{"dataset": "skin"}')
    with pytest.raises(InputMissing, match="cannot be read") as error:
        latest(store, "skin")
    assert release.name in str(error.value)
    store.put(place, b"x" * (releases.MAX_BYTES + 1))
    with pytest.raises(InputMissing, match="bytes"):
        latest(store, "skin")


class Crash(Exception):
    pass


class CrashingStore:
    """A store that dies before or after its n-th write."""

    def __init__(self, store: Store, at: int, after: bool) -> None:
        self._store = store
        self._left = at
        self._after = after

    def __getattr__(self, name: str) -> object:
        method = getattr(self._store, name)
        if name not in ("put", "put_if_absent"):
            return method

        def write(key: str, data: bytes) -> object:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Crash
            result = method(key, data)
            if self._left == 0:
                raise Crash
            return result

        return write


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_crash_at_any_write_is_made_good_by_the_next_attempt(
    store: Store, at: int, after: bool
) -> None:
    first, second = made(store, 1), made(store, 2)
    publish(store, first)
    crashing: Store = CrashingStore(store, at, after)  # type: ignore[assignment]
    with pytest.raises(Crash):
        publish(crashing, second)
    # What readers see meanwhile is whole.
    assert latest(store, "skin") in (first, second)
    assert publish(store, second).release == second.name
    assert latest(store, "skin") == second
    assert len(list(store.list("datasets/skin/pointer/"))) == 2


def test_writers_at_once_leave_one_latest_that_all_see(store: Store) -> None:
    all_of_them = [made(store, number, f"run-{number}") for number in range(6)]
    threads = [threading.Thread(target=publish, args=(store, one)) for one in all_of_them]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(releases.releases(store, "skin")) == 6
    pointers = sorted(store.list("datasets/skin/pointer/"))
    assert len(pointers) == 6
    newest = latest(store, "skin")
    assert newest is not None
    # What readers of the file see is what the highest pointer says.
    assert store.get("datasets/skin/latest.json") == store.get(pointers[-1])
    assert newest.name in store.get(pointers[-1]).decode()


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("pra"), st.integers(0, 4)), max_size=12))
def test_whatever_is_done_the_latest_is_what_was_done_last(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    store = open_store((tmp_path_factory.mktemp("releases") / "store").as_uri())
    known = [made(store, number) for number in range(5)]
    history: list[Release] = []
    """What was the latest, the last one being it, without what was rolled back."""
    published: set[int] = set()
    for step, number in steps:
        if step == "p":
            publish(store, known[number])
            if number not in published:
                history.append(known[number])
            published.add(number)
        elif step == "r":
            before = [one for one in history if one != history[-1]]
            if before:
                history = history[: len(history) - 1 - history[::-1].index(before[-1]) + 1]
                assert roll_back(store, "skin") == before[-1]
        elif number in published and history[-1] != known[number]:
            assert promote(store, "skin", known[number].name) == known[number]
            history.append(known[number])
        assert latest(store, "skin") == (history[-1] if history else None)


def test_what_was_rejected_is_not_rolled_back_to(store: Store) -> None:
    one, two, three = (made(store, number) for number in (1, 2, 3))
    publish(store, one)
    publish(store, two)
    assert roll_back(store, "skin") == one
    publish(store, three)
    assert roll_back(store, "skin") == one


def test_a_rollback_is_not_undone_by_the_next_run_with_the_same_dataset(store: Store) -> None:
    first = made(store, 1, "train")
    second = made(store, 2, "weekly-1")
    publish(store, first)
    publish(store, second)
    roll_back(store, "skin")
    again = publish(store, made(store, 3, "weekly-2", content=2))
    assert (again.verdict, again.release) == ("Unchanged", second.name)
    assert latest(store, "skin") == first


def test_who_was_unchanged_once_stays_so(store: Store) -> None:
    first = made(store, 1, "monday")
    publish(store, first)
    unchanged = made(store, 2, "tuesday", content=1)
    assert publish(store, unchanged).verdict == "Unchanged"
    third = made(store, 3, "wednesday")
    publish(store, third)
    assert publish(store, unchanged) == releases.Published("Unchanged", first.name)
    assert latest(store, "skin") == third


def test_a_dataset_is_compared_with_the_release_it_takes_over_from(store: Store) -> None:
    def before(release: Release | None) -> str | None:
        digest = None if release is None else release.content_digest
        return releases.before_it(store, "skin", digest)

    one, two, three, four = (made(store, number) for number in (1, 2, 3, 4))
    assert before(None) is None
    publish(store, one)
    publish(store, two)
    # Made already: as it was then. Not made yet, or not released: the latest.
    assert before(one) is None
    assert before(two) == one.name
    assert before(three) == before(None) == two.name
    roll_back(store, "skin")
    assert before(three) == one.name
    assert before(two) == one.name
    publish(store, three)
    promote(store, "skin", two.name)
    assert before(four) == two.name
    assert before(two) == one.name
    assert before(three) == one.name


def test_what_only_advises_what_to_label_is_in_no_release() -> None:
    dataset = InputRef(stage="dataset", key="1" * 64, content_digest="2" * 64)
    made_from = {"dataset": dataset, "tiler": dataset.model_copy(update={"stage": "tiler"})}
    advice = {one: dataset.model_copy(update={"stage": one}) for one in ("ranking", "reranking")}
    with_advice, without = (
        release_of(small_run(), SLIDES, Observed(found), START)
        for found in ({**advice, **made_from}, made_from)
    )
    assert with_advice == without
    assert list(without.artifacts) == ["dataset", "tiler"]


def test_what_has_not_passed_its_gates_cannot_be_released(store: Store) -> None:
    for passed in (False, None):
        shut = GateVerdict(name="minPairs", limit=4, passed=passed, sentence="3 pairs")
        with pytest.raises(InternalError, match="has not passed"):
            publish(store, made(store, 1).model_copy(update={"gates": [shut]}))
    assert list(store.list("datasets/")) == []


def test_releases_keep_what_gates_measured_and_older_ones_have_none(store: Store) -> None:
    verdict = GateVerdict(name="minPairs", measured=4, limit=3, passed=True, sentence="4 pairs")
    release = made(store, 1).model_copy(update={"gates": [verdict]})
    publish(store, release)
    assert latest(store, "skin") == release
    place = f"datasets/skin/releases/{release.name}.json"
    document = json.loads(store.get(place))
    assert document["gates"] == [
        {"name": "minPairs", "measured": 4, "limit": 3, "passed": True, "sentence": "4 pairs"}
    ]
    del document["gates"]
    store.put(place, json.dumps(document).encode())
    found = latest(store, "skin")
    assert found is not None
    assert found.gates == []


def test_damage_to_one_file_does_not_stop_the_others(store: Store) -> None:
    one, two, three = (made(store, number) for number in (1, 2, 3))
    publish(store, one)
    publish(store, two)
    store.put("datasets/skin/latest.json", b"")
    assert latest(store, "skin") == two
    store.put(f"datasets/skin/releases/{two.name}.json", b"{}")
    assert publish(store, three).verdict == "Released"
    assert releases.releases(store, "skin") == [one, three]
    assert roll_back(store, "skin") == one
    newest = sorted(store.list("datasets/skin/pointer/"))[-1]
    store.put(newest, b"not a pointer")
    assert latest(store, "skin") == one  # as latest.json says still


def test_pinning_needs_a_release_for_tiles_like_the_runs(store: Store) -> None:
    def run(mpp: float = 1.0) -> DatasetRun:
        document = changed("spec.dataset", "skin", changed("spec.generator", "pinned"))
        return resolve(parse_run(changed("spec.tiler.mpp", mpp, document)))

    with pytest.raises(RequestError, match="has no release"):
        pinned_to(store, run())
    release = made(store, 1)
    publish(store, release)
    assert pinned_to(store, run()) == release
    with pytest.raises(RequestError, match=r"spec\.tiler\.mpp is 2\.0, but the generator"):
        pinned_to(store, run(mpp=2.0))
    other = run()
    classes = list(reversed(other.spec.annotations.classes))
    annotations = other.spec.annotations.model_copy(update={"classes": classes})
    spec = other.spec.model_copy(update={"annotations": annotations})
    with pytest.raises(RequestError, match=r"classes are not those of release"):
        pinned_to(store, other.model_copy(update={"spec": spec}))
    store.delete(f"artifacts/gan-trainer/{1:064x}/manifest.json")
    with pytest.raises(InputMissing, match="the gan-trainer artifact of release"):
        pinned_to(store, run())


def void(_: object) -> None:
    pass


@pytest.mark.parametrize("steps", range(14))
def test_what_is_the_latest_is_never_removed_at_the_same_moment(store: Store, steps: int) -> None:
    first, second = made(store, 1), made(store, 2)
    publish(store, first)
    publish(store, second)
    promoter = Actor("promote", lambda one: void(promote(one, "skin", first.name)), store)
    for _ in range(steps):
        if not promoter.done:
            promoter.step()
    with contextlib.suppress(RequestError):
        releases.remove(store, "skin", first.name)
    promoter.finish()
    if promoter.failure is None:
        assert latest(store, "skin") == first
    else:
        assert isinstance(promoter.failure, InputMissing)
        assert latest(store, "skin") == second


@pytest.mark.parametrize("steps", range(10))
def test_and_the_other_way_round(store: Store, steps: int) -> None:
    first, second = made(store, 1), made(store, 2)
    publish(store, first)
    publish(store, second)
    remover = Actor("remove", lambda one: void(releases.remove(one, "skin", first.name)), store)
    for _ in range(steps):
        if not remover.done:
            remover.step()
    promoted = None
    with contextlib.suppress(InputMissing):
        promoted = promote(store, "skin", first.name)
    remover.finish()
    assert latest(store, "skin") == (first if promoted else second)


def test_a_pointer_of_the_highest_number_is_named(store: Store) -> None:
    release = made(store, 1)
    publish(store, release)
    (place,) = store.list("datasets/skin/pointer/")
    document = json.loads(store.get(place)) | {"seq": 99_999_999}
    store.put("datasets/skin/latest.json", json.dumps(document).encode())
    with pytest.raises(InputMissing, match="has the number 99999999, after which there is none"):
        publish(store, made(store, 2))


def test_a_damaged_release_is_named_and_not_repeated(store: Store) -> None:
    release = made(store, 1)
    publish(store, release)
    place = f"datasets/skin/releases/{release.name}.json"
    store.put(place, b"root:x:0:0")
    with pytest.raises(InputMissing, match=place) as error:
        releases.read_release(store, "skin", release.name)
    assert "root:x" not in str(error.value)
    other = f"datasets/skin/releases/{made(store, 3).name}.json"
    store.put(other, releases._dumped(release))
    with pytest.raises(InputMissing, match=f"{other} is release {release.name} of skin"):
        releases.read_release(store, "skin", made(store, 3).name)
