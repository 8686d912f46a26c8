"""Stores are looked at for series in threads of their own: none holds up another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hdgan.controller.run_looks import KnownRun, Place
from hdgan.controller.status import RunStatus
from hdgan.controller.store_looks import StoreLooks
from hdgan.core.errors import StoreUnavailable
from hdgan.core.request import InputRef
from hdgan.core.store import Store
from hdgan.core.telemetry.run_measures import Measures
from unit.core.telemetry.test_run_measures import COST, CountingStore, made
from unit.core.telemetry.test_run_releases import at, released

A, B = ("team", "a"), ("team", "b")


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Stores:
    """Two stores; `slow` ones answer when they are let, `dead` ones do not."""

    def __init__(self, folder: Path) -> None:
        self.stores = {place: CountingStore(folder / place[1]) for place in (A, B)}
        self.opened: list[Place] = []
        self.forgotten: list[Place] = []
        self.slow: dict[Place, threading.Event] = {}
        self.dead: set[Place] = set()

    def open(self, place: Place) -> Store:
        self.opened.append(place)
        if place in self.slow:
            assert self.slow[place].wait(20)
        if place in self.dead:
            raise StoreUnavailable("no answer")
        return self.stores[place]

    def looks(self) -> StoreLooks:
        return StoreLooks([A, B], self.open, self.forgotten.append)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


def run(place: Place, **artifacts: InputRef) -> KnownRun:
    return KnownRun(place[0], "r", "skin", place[1], RunStatus(), artifacts)


def test_what_stores_hold_is_known_after_a_look(stores: Stores) -> None:
    released(stores.stores[A], "skin", 1, 0.8)
    tiler = made(stores.stores[A], "tiler")
    looks = stores.looks()
    assert (looks.datasets(), looks.reachable(), looks.of(run(A, tiler=tiler))) == ([], {}, {})
    looks.refresh([run(A, tiler=tiler)])
    eventually(lambda: looks.reachable() == {A: True, B: True})
    (found,) = looks.datasets()
    assert (found.place, found.released, found.macro_dice) == ((*A, "skin"), at(1), 0.8)
    assert looks.of(run(A, tiler=tiler)) == {"tiler": Measures(COST)}
    assert looks.of(run(B, tiler=tiler)) == {}
    assert looks.of(run(("team", "undeclared"), tiler=tiler)) == {}


def test_one_that_does_not_answer_keeps_what_was_read_and_holds_up_nobody(stores: Stores) -> None:
    released(stores.stores[A], "skin", 1)
    tiler = made(stores.stores[A], "tiler")
    looks = stores.looks()
    looks.refresh([run(A, tiler=tiler)])
    eventually(lambda: looks.reachable() == {A: True, B: True})
    before = looks.datasets()

    stores.slow[A] = threading.Event()
    released(stores.stores[B], "lung", 2)
    for _ in range(3):  # the first hangs; no other is begun there
        looks.refresh([run(A, tiler=tiler)])
        eventually(lambda: any(one.dataset == "lung" for one in looks.datasets()))
    assert stores.opened.count(A) == 2
    assert looks.of(run(A, tiler=tiler)) == {"tiler": Measures(COST)}

    stores.dead.add(A)
    stores.slow[A].set()
    eventually(lambda: looks.reachable() == {A: False, B: True})
    assert [one for one in looks.datasets() if one.store == "a"] == before
    assert looks.of(run(A, tiler=tiler)) == {"tiler": Measures(COST)}
    assert A in stores.forgotten  # its credentials may have been renewed

    stores.dead.clear()
    looks.refresh([run(A, tiler=tiler)])
    eventually(lambda: looks.reachable() == {A: True, B: True})


def test_a_bug_met_at_one_store_is_told_and_it_is_looked_at_again(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(prefix: str) -> None:
        raise ZeroDivisionError("of the test")

    looks = stores.looks()
    with monkeypatch.context() as patch:
        patch.setattr(stores.stores[A], "list", broken)
        looks.refresh([])
        eventually(lambda: looks.reachable() == {A: False, B: True})
    assert [(vars(one)["namespace"], vars(one)["store"]) for one in caplog.records] == [A]
    looks.refresh([])
    eventually(lambda: looks.reachable() == {A: True, B: True})


def test_after_the_end_no_artifact_is_read(stores: Stores) -> None:
    tiler = made(stores.stores[A], "tiler")
    looks = stores.looks()
    looks.stop()
    looks.refresh([run(A, tiler=tiler)])
    eventually(lambda: looks.reachable() == {A: True, B: True})
    assert looks.of(run(A, tiler=tiler)) == {}
