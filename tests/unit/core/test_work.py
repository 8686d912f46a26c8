"""Saved work: the most advanced state that verifies wins, whoever saved it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.core.errors import InputMissing, InternalError, RequestError
from hdgan.core.store_file import FileStore
from hdgan.core.work import WorkState


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def work(store: FileStore, attempt: str) -> WorkState:
    return WorkState(store, "gan-trainer", "ab" * 32, attempt)


def test_nothing_saved_is_no_state(store: FileStore) -> None:
    assert work(store, "a").latest() is None


def test_the_most_advanced_state_of_any_attempt_is_found(store: FileStore, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 1000)
    work(store, "a").save(20, {"weights": source, "rng/state": b"r"}, {"p": 0.5})
    work(store, "b").save(3, {"weights": b"other"}, {})
    state = work(store, "c").latest()
    assert state is not None
    assert (state.step, state.attempt, state.meta) == (20, "a", {"p": 0.5})
    assert state.names() == ["rng/state", "weights"]
    assert state.read("rng/state") == b"r"
    assert state.fetch("weights", tmp_path / "out").read_bytes() == source.read_bytes()
    with pytest.raises(InternalError, match="has no file 'x'"):
        state.read("x")


@pytest.mark.parametrize("damage", ["changed", "deleted", "state"])
def test_a_damaged_state_gives_way_to_the_one_before(store: FileStore, damage: str) -> None:
    mine = work(store, "a")
    mine.save(1, {"f": b"one"}, {})
    mine.save(2, {"f": b"two"}, {})
    keys = [key for key in store.list("") if "-000000000002" in key]
    data, description = keys
    assert store.get(data) == b"two"
    if damage == "changed":
        store.put(data, b"owt")
    elif damage == "deleted":
        store.delete(data)
    else:
        store.put(description, b'{"step": 2')
    state = work(store, "b").latest()
    assert state is not None
    assert (state.step, state.read("f")) == (1, b"one")


def test_a_save_that_was_cut_off_is_invisible(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = work(store, "a")
    mine.save(1, {"f": b"one"}, {})
    put = store.put

    def cut_off(key: str, data: bytes) -> None:
        if key.endswith(".json"):
            raise KeyboardInterrupt
        put(key, data)

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", cut_off)
        with pytest.raises(KeyboardInterrupt):
            mine.save(1, {"f": b"new"}, {})
    state = mine.latest()
    assert state is not None
    assert state.read("f") == b"one"


def test_own_older_states_are_pruned_others_are_left_alone(store: FileStore) -> None:
    work(store, "other").save(9, {"f": b"theirs"}, {})
    mine = work(store, "mine")
    for step in range(1, 6):
        mine.save(step, {"f": b"%d" % step}, {})
    keys = list(store.list(""))
    states = [key.rpartition("/")[2] for key in keys if key.endswith(".json") and "/mine/" in key]
    assert states == ["state-000000000004.json", "state-000000000005.json"]
    assert len([key for key in keys if "/mine/" in key]) == 4
    assert len([key for key in keys if "/other/" in key]) == 2
    mine.discard()
    # Those of attempts that were killed, too.
    assert not list(store.list(""))


def test_saving_a_step_again_replaces_it(store: FileStore) -> None:
    mine = work(store, "a")
    mine.save(1, {"f": b"one"}, {})
    mine.save(1, {"f": b"again"}, {})
    state = mine.latest()
    assert state is not None
    assert state.read("f") == b"again"
    assert len(list(store.list(""))) == 2


def test_a_state_that_changes_after_it_was_found_is_refused(
    store: FileStore, tmp_path: Path
) -> None:
    mine = work(store, "a")
    mine.save(1, {"f": b"one"}, {})
    state = mine.latest()
    assert state is not None
    data = next(key for key in store.list("") if key.endswith("/f"))
    store.put(data, b"eno")
    with pytest.raises(InputMissing, match="run it again"):
        state.read("f")
    with pytest.raises(InputMissing, match="run it again"):
        state.fetch("f", tmp_path / "f")


def test_names_that_would_leave_the_folder_are_refused(store: FileStore) -> None:
    with pytest.raises(RequestError):
        WorkState(store, "a", "..", "b")
