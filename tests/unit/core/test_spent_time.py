"""What attempts and parts have spent is added up, whatever is in the notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hdgan.core import elapsed
from hdgan.core.errors import StoreUnavailable
from hdgan.core.spent_time import Spent, SpentTime, read_spent
from hdgan.core.stage_cost import read_cost
from hdgan.core.store_file import FileStore
from unit.garbage.test_model import FakeTime

KEY = "a" * 64
FOLDER = f"work/dataset/{KEY}/spent"


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def test_notes_of_other_attempts_are_added_and_the_own_is_not(store: FileStore) -> None:
    for name, seconds, processes in (("one", 100.0, 8), ("two", 20.5, 1), ("mine", 7.0, 1)):
        SpentTime(store, "dataset", KEY, name).note(seconds, processes)
    SpentTime(store, "dataset", KEY, "one").note(110.0, 8)  # later: over what it wrote before
    mine = SpentTime(store, "dataset", KEY, "mine")
    assert mine.others() == Spent(2, 130.5, 900.5)
    assert mine.noted


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{",
        b"[]",
        b'{"attempts":1,"seconds":1}',
        b'{"attempts":1,"seconds":-1,"deviceSeconds":1}',
        b'{"attempts":true,"seconds":1,"deviceSeconds":1}',
        b'{"attempts":1,"seconds":1e999,"deviceSeconds":1}',
        b'{"attempts":1,"seconds":1,"deviceSeconds":1,"more":"' + b"x" * 5000 + b'"}',
    ],
)
def test_notes_that_make_no_sense_are_passed_over(store: FileStore, note: bytes) -> None:
    store.put(f"{FOLDER}/bad.json", note)
    SpentTime(store, "dataset", KEY, "good").note(3.0, 2)
    assert SpentTime(store, "dataset", KEY, "mine").others() == Spent(1, 3.0, 6.0)


def test_a_store_that_takes_no_notes_is_left_alone_for_an_hour(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(elapsed, "time", clock)
    spent = SpentTime(store, "dataset", KEY, "mine")
    assert not spent.is_due()
    clock.seconds += 601
    assert spent.is_due()

    def refuse(*_: Any) -> None:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(FileStore, "put", refuse)
    spent.note(601.0, 1)
    clock.seconds += 3500
    assert not spent.is_due()
    clock.seconds += 101
    assert spent.is_due()


def test_a_cost_is_that_of_all(store: FileStore) -> None:
    info = {"seconds": 10, "processes": 2, "others": Spent(3, 100.0, 200.0).document()}
    assert read_cost(info).spent == Spent(4, 110.0, 220.0)
    assert read_cost({"seconds": 10}).spent == Spent(1, 10.0, 10.0)
    assert read_cost({"others": Spent(1, 1.0, 1.0).document()}).spent is None
    assert read_spent("3 h") == Spent()
