"""What a client and the server see of each fault."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from e2e.object_server import Buckets, running
from support.fault_proxy import FAULTS, Fault, FaultPlan, FaultProxy

BODY = b"0123456789" * 20_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    Buckets(tmp_path / "objects").make("bucket")
    with running(tmp_path / "objects") as endpoint:
        yield endpoint


def ask(
    endpoint: str, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    """Status and body of an answer; OSError or HTTPException if it does not arrive whole."""
    parts = urlsplit(endpoint)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, named)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def always(fault: Fault) -> FaultPlan:
    return FaultPlan(faults=(fault,), rate=1.0)


def test_without_faults_everything_goes_through(server: str) -> None:
    with FaultProxy(server, FaultPlan()) as proxy:
        assert ask(proxy.endpoint, "PUT", "/bucket/a", BODY, Expect="100-continue")[0] == 200
        assert ask(proxy.endpoint, "GET", "/bucket/a") == (200, BODY)
        assert ask(proxy.endpoint, "GET", "/bucket/a", Range="bytes=10-19") == (206, BODY[10:20])
        assert ask(proxy.endpoint, "HEAD", "/bucket/a") == (200, b"")
        assert ask(proxy.endpoint, "DELETE", "/bucket/a")[0] == 204
        assert ask(proxy.endpoint, "GET", "/bucket/a")[0] == 404
        assert proxy.happened == {}


@pytest.mark.parametrize(
    ("fault", "written"),
    [
        ("reset before", False),
        ("reset within the request", False),
        ("answer lost", True),
        ("reset within the answer", True),
    ],
)
def test_connections_break(fault: Fault, written: bool, server: str) -> None:
    with FaultProxy(server, always(fault)) as proxy:
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(proxy.endpoint, "PUT", "/bucket/a", BODY)
        assert proxy.happened == {fault: 1}
    assert ask(server, "HEAD", "/bucket/a")[0] == (200 if written else 404)


def test_a_body_that_is_cut_off_ends_early(server: str) -> None:
    ask(server, "PUT", "/bucket/a", BODY)
    with (
        FaultProxy(server, always("truncated answer")) as proxy,
        pytest.raises(http.client.IncompleteRead),
    ):
        ask(proxy.endpoint, "GET", "/bucket/a")


@pytest.mark.parametrize(
    ("fault", "status", "written"),
    [("503", 503, False), ("500", 500, False), ("500 when done", 500, True)],
)
def test_the_server_seems_to_refuse(fault: Fault, status: int, written: bool, server: str) -> None:
    with FaultProxy(server, always(fault)) as proxy:
        said, body = ask(proxy.endpoint, "PUT", "/bucket/a", BODY)
    assert said == status
    assert (b"SlowDown" if status == 503 else b"InternalError") in body
    assert ask(server, "HEAD", "/bucket/a")[0] == (200 if written else 404)


def test_a_request_that_is_delivered_twice_is_done_twice(server: str) -> None:
    seen = set()
    with FaultProxy(server, always("delivered twice")) as proxy:
        for number in range(2):
            path = f"/bucket/{number}"
            seen.add(ask(proxy.endpoint, "PUT", path, BODY, If_None_Match="*")[0])
            assert ask(server, "GET", path) == (200, BODY)
    assert seen == {200, 412}


def test_a_slow_answer_is_whole(server: str) -> None:
    ask(server, "PUT", "/bucket/a", BODY)
    with FaultProxy(server, always("slow answer")) as proxy:
        assert ask(proxy.endpoint, "GET", "/bucket/a") == (200, BODY)


def test_conditions_may_be_ignored(server: str) -> None:
    with FaultProxy(server, FaultPlan(ignore_conditions=True)) as proxy:
        for _ in range(2):
            assert ask(proxy.endpoint, "PUT", "/bucket/a", BODY, If_None_Match="*")[0] == 200
    assert ask(server, "PUT", "/bucket/a", BODY, If_None_Match="*")[0] == 412


def test_new_objects_are_missing_in_listings_for_a_while(server: str) -> None:
    listing = "/bucket?list-type=2"
    ask(server, "PUT", "/bucket/old", BODY)
    with FaultProxy(server, FaultPlan(late_seconds=0.3)) as proxy:
        ask(proxy.endpoint, "PUT", "/bucket/new", BODY)
        early = ask(proxy.endpoint, "GET", listing)[1]
        assert b"<Key>old</Key>" in early
        assert b"<Key>new</Key>" not in early
        assert ask(proxy.endpoint, "GET", "/bucket/new") == (200, BODY)
        time.sleep(0.3)
        assert b"<Key>new</Key>" in ask(proxy.endpoint, "GET", listing)[1]


def test_a_full_server_has_room_again_when_it_is_healed(server: str) -> None:
    with FaultProxy(server, FaultPlan(room=len(BODY))) as proxy:
        assert ask(proxy.endpoint, "PUT", "/bucket/a", BODY)[0] == 200
        assert ask(proxy.endpoint, "PUT", "/bucket/b", BODY)[0] == 507
        assert ask(proxy.endpoint, "GET", "/bucket/a") == (200, BODY)
        proxy.heal()
        assert ask(proxy.endpoint, "PUT", "/bucket/b", BODY)[0] == 200


def test_faults_follow_from_the_seed_and_come_in_bursts() -> None:
    plan = FaultPlan(seed=7, faults=FAULTS, rate=0.2, burst=5, burst_first=40, burst_every=100)
    drawn = [plan.fault(number) for number in range(1000)]
    assert drawn == [plan.fault(number) for number in range(1000)]
    for first in range(40, 1000, 100):
        assert len(set(drawn[first : first + 5])) == 1
        assert drawn[first] is not None
    share = sum(fault is not None for fault in drawn) / len(drawn)
    assert 0.15 < share < 0.35
    assert {fault for fault in drawn if fault is not None} == set(FAULTS)
