"""Looks at stores: one that does not answer holds up its own runs only, and is not stormed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hdgan.controller import looking
from hdgan.controller.actions import Observe
from hdgan.controller.looking import Looking, Memory, Stores
from hdgan.controller.settings import Settings
from hdgan.controller.situation import RunFacts
from hdgan.controller.status import RunStatus
from hdgan.core.errors import RequestError, StoreError
from support.runs import small_run

SERVICES = ("tiler", "ganTrainer", "extractor", "classifier", "synthesizer")
SETTINGS = Settings.model_validate(
    {
        "namespaces": [
            {
                "name": "team",
                "stores": {name: {"uri": f"s3://{name}"} for name in ("default", "other")},
            }
        ],
        "images": {service: {"image": "registry.test/x:1"} for service in SERVICES},
    },
    by_alias=True,
    by_name=False,
)


class Played:
    """Looks at stores that do what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, Callable[[], None]] = {}
        """By bucket; others answer at once."""
        self.looked: list[tuple[str, str]] = []
        self.most: dict[str, int] = {}
        self.told: list[str] = []
        self.change = threading.Condition()
        self._at_work: dict[str, int] = {}
        monkeypatch.setattr(looking, "_do", self._do)
        self.looking = Looking(Stores(SETTINGS), self._done)

    def begin(self, name: str, memory: Memory, store: str | None = None) -> None:
        run = small_run("spec.resources", {"store": store})
        facts = RunFacts(name, "team", f"uid-{name}", 1, RunStatus(), run)
        self.looking.begin(facts, memory, Observe())

    def until(self, condition: Callable[[], bool]) -> None:
        with self.change:
            assert self.change.wait_for(condition, 10), (self.looked, self.told)

    def until_told(self, count: int) -> None:
        self.until(lambda: len(self.told) == count)

    def _do(self, store: Any, run: RunFacts, *rest: Any) -> None:
        with self.change:
            self.looked.append((run.name, store.bucket))
            now = self._at_work.get(store.bucket, 0) + 1
            self._at_work[store.bucket] = now
            self.most[store.bucket] = max(self.most.get(store.bucket, 0), now)
            self.change.notify_all()
        try:
            self.answers.get(store.bucket, lambda: None)()
        finally:
            with self.change:
                self._at_work[store.bucket] -= 1

    def _done(self, namespace: str, name: str) -> None:
        with self.change:
            self.told.append(name)
            self.change.notify_all()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    made = Played(monkeypatch)
    yield made
    made.looking.close()


def test_a_store_that_does_not_answer_takes_no_threads_from_others(played: Played) -> None:
    answer = threading.Event()
    played.answers["other"] = lambda: assert_set(answer)
    for number in range(30):
        played.begin(f"stuck-{number}", Memory(), "other")
    try:
        for number in range(30):
            played.begin(f"well-{number}", Memory())
        played.until_told(30)
        assert all(name.startswith("well") for name in played.told)
    finally:
        answer.set()
    played.until_told(60)
    assert played.most["other"] == 2


def assert_set(event: threading.Event) -> None:
    assert event.wait(10)


def broken() -> None:
    raise StoreError("no answer from it")


def test_a_store_that_fails_again_and_again_is_left_alone_for_a_while(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "FIRST_PAUSE", 0.8)
    played.answers["default"] = broken
    memory = Memory()
    for number in range(looking.REPEATED):
        # The controller asks again as soon as it is told.
        played.begin("first", memory)
        played.until_told(number + 1)
    assert memory.store_error == "no answer from it"
    looks = len(played.looked)
    others = {f"other-{number}": Memory() for number in range(5)}
    for name, one in others.items():
        played.begin(name, one)
        played.begin(name, one)
    # They know at once, without a look; and once.
    assert [one.store_error for one in others.values()] == ["no answer from it"] * 5
    assert played.told[looks:] == list(others)
    assert len(played.looked) == looks
    played.until(lambda: len(played.looked) == looks + 1)
    played.until_told(looks + 6)
    del played.answers["default"]
    # One finds out, then all are looked at.
    played.until_told(looks + 6 + 4)
    assert sum(one.store_error is None for one in others.values()) == 4


def test_pauses_grow_and_have_an_end(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    lane = looking._Lane()
    for _ in range(12):
        looking._note(lane, ("team", "default"), "no answer")
        pauses.append(max(0.0, lane.not_before - time.monotonic()))
    assert [round(one) for one in pauses[:8]] == [0, 0, 2, 4, 8, 16, 32, 60]
    assert max(pauses) <= 60
    looking._note(lane, ("team", "default"), None)
    assert not lane.broken


def test_a_run_that_cannot_be_run_says_nothing_about_its_store(played: Played) -> None:
    def no_slides() -> None:
        raise RequestError("no slide in it")

    played.answers["default"] = no_slides
    memory = Memory()
    for number in range(10):
        played.begin("small", memory)
        played.until_told(number + 1)
    assert (memory.problem, memory.store_error) == ("no slide in it", None)


def test_a_run_that_is_given_another_store_waits_no_longer(played: Played) -> None:
    played.answers["other"] = broken
    memory = Memory()
    for number in range(looking.REPEATED):
        played.begin("small", memory, "other")
        played.until_told(number + 1)
    played.begin("small", memory, "other")
    played.begin("small", memory)
    played.until(lambda: ("small", "default") in played.looked)
    played.until_told(looking.REPEATED + 1)
    assert memory.store_error is None
