"""A watch that goes wrong again and again asks the API server less and less often."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from hdgan.controller.api import JOBS, Api, ApiError, Document, Gone, Listed
from hdgan.controller.watching import Watched

JOB: Document = {"metadata": {"name": "j", "uid": "1", "resourceVersion": "7"}}


class Pauses(threading.Event):
    """Lets no time pass, and ends the watching after so many pauses."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._most = most

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seconds.append(timeout)
        if len(self.seconds) == self._most:
            self.set()
        return self.is_set()


class Server:
    """Lists well; its watches do what the test says."""

    def __init__(self, *watches: Exception | None) -> None:
        """watches: one after another, the last for ever. None: it tells of a Job, and ends."""
        self._watches = list(watches)
        self.lists = 0

    def list(self, collection: str, namespace: str) -> Listed:
        self.lists += 1
        return Listed([], "5")

    def watch(
        self, collection: str, namespace: str, version: str, *, seconds: float
    ) -> Iterator[tuple[str, Document]]:
        now = self._watches.pop(0) if len(self._watches) > 1 else self._watches[0]
        if now is None:
            yield "ADDED", JOB
        elif isinstance(now, ApiError):
            raise now


def pauses(server: Any, most: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    watched = Watched(cast(Api, server), JOBS, "team", lambda document: None, resync_seconds=300)
    stop = watched._stop = Pauses(most)
    watched._work()
    return stop.seconds


REFUSED = ApiError("too many requests", 429)


@pytest.mark.parametrize("error", [REFUSED, ApiError("oh", 500), Gone("too old", 410)])
def test_lists_that_succeed_do_not_make_watches_that_fail_eager(
    error: ApiError, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(error)
    assert pauses(server, 8, monkeypatch) == [1, 2, 4, 8, 16, 30, 30, 30]
    assert server.lists == 8


def test_what_a_watch_delivers_makes_up_for_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(REFUSED, REFUSED, None, REFUSED)
    assert pauses(server, 4, monkeypatch) == [1, 2, 1, 2]


def test_a_server_that_wants_to_be_left_alone_is(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(ApiError("too many requests", 429, retry_after=20), REFUSED)
    assert pauses(server, 2, monkeypatch) == [pytest.approx(24), 2]
    server = Server(ApiError("too many requests", 429, retry_after=1e9))
    assert pauses(server, 1, monkeypatch) == [pytest.approx(144)]


def test_watches_that_end_at_once_without_a_word_are_not_made_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Polite(Server):
        def watch(self, *args: Any, **more: Any) -> Iterator[tuple[str, Document]]:
            yield from ()

    server = Polite(None)
    assert pauses(server, 4, monkeypatch) == [1, 2, 4, 8]
    assert server.lists == 1


def test_what_is_gone_is_remembered_for_a_while_and_who_wrote_what_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("hdgan.controller.watching.time.monotonic", lambda: now[0])
    watched = Watched(
        cast(Api, None),
        JOBS,
        "team",
        lambda document: None,
        resync_seconds=300,
        group=lambda document: "g",
        departed_seconds=900,
    )
    job: Document = {"metadata": {**JOB["metadata"], "managedFields": [{"manager": "kubectl"}]}}
    watched.remember(job)
    assert watched.get("j") == JOB
    watched._part_with(JOB)
    assert (watched.get("j"), watched.of_group("g")) == (None, [])
    assert watched.departed_of_group("g") == [JOB]
    assert watched.departed_of_group("other") == []
    now[0] += 901
    assert watched.departed_of_group("g") == []
