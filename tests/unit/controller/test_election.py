"""Leader election: two replicas never lead at once, whatever the API server and the clocks do."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hdgan.controller import election
from hdgan.controller.bounded_calls import CallsHang
from hdgan.controller.candidacy import (
    Ask,
    Candidacy,
    Changed,
    Decision,
    Do,
    Failed,
    Found,
    GiveUp,
    Observed,
    Outcome,
    Phase,
    Record,
    Rest,
    Write,
    decide,
)
from hdgan.controller.election import Elector, NotLeading, boottime, make_identity
from hdgan.controller.kubernetes_lease import LeaseApi, LeaseChanged
from hdgan.controller.settings import ElectionConfig
from support.hostile_leases import SHORT, LeaseStore, Mode, lease_api, serving
from support.stage_process import TESTS

WALL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PATIENCE = 20.0
"""Seconds for what takes one or two on an idle machine."""


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# The decision.

HELD = Record("other", 15, 3, WALL, WALL, "u", "7")
OURS = replace(HELD, holder="us")
EMPTIED = replace(HELD, holder="")
RELEASED = replace(EMPTIED, seconds=1)


@pytest.mark.parametrize(
    ("record", "seen_for", "leading", "expected"),
    [
        (HELD, 0.0, False, Do.WAIT),
        (HELD, 14.999, False, Do.WAIT),
        (HELD, 15.0, False, Do.ACQUIRE),
        (replace(HELD, seconds=40), 39.0, False, Do.WAIT),
        (replace(HELD, seconds=None), 29.9, False, Do.WAIT),
        (replace(HELD, seconds=None), 30.0, False, Do.ACQUIRE),
        # Long expired or in the future by its own words: only what was seen counts.
        (replace(HELD, renewed=WALL - timedelta(days=900)), 14.0, False, Do.WAIT),
        (replace(HELD, renewed=WALL + timedelta(days=900)), 15.0, False, Do.ACQUIRE),
        (OURS, 0.0, False, Do.ACQUIRE),
        (OURS, 0.0, True, Do.RENEW),
        (OURS, 99.0, True, Do.RENEW),
        (HELD, 0.0, True, Do.GIVE_UP),
        (HELD, 99.0, True, Do.GIVE_UP),
        (RELEASED, 0.0, False, Do.ACQUIRE),
        (RELEASED, 0.0, True, Do.GIVE_UP),
        # Emptied by a person: its leader may not know yet.
        (EMPTIED, 14.0, False, Do.WAIT),
        (EMPTIED, 15.0, False, Do.ACQUIRE),
        (None, 0.0, False, Do.CREATE),
        (None, 0.0, True, Do.CREATE),
    ],
)
def test_what_a_replica_may_do(
    record: Record | None, seen_for: float, leading: bool, expected: Do
) -> None:
    decision = decide(Observed(record, 100.0), 100.0 + seen_for, "us", 30.0, leading)
    assert decision.do is expected
    if expected is Do.WAIT:
        assert record is not None
        assert decision == Decision(Do.WAIT, 100.0 + (record.seconds or 30.0))


def lease_config(lease: float, renew: float, retry: float) -> ElectionConfig:
    return ElectionConfig.model_construct(
        name="hdgan-controller", lease_seconds=lease, renew_seconds=renew, retry_seconds=retry
    )


def test_the_deadline_counts_from_the_request_not_from_the_answer() -> None:
    candidacy = Candidacy(lease_config(30, 20, 4), "us")
    candidacy.answered(Ask(), 0.0, 1.0, Found(RELEASED))
    step = candidacy.step(1.0, WALL)
    assert isinstance(step, Write)
    candidacy.answered(step, 2.0, 5.5, Found(replace(step.record, version="8")))
    assert candidacy.until == 22.0
    # A renewal that comes late is as good as none; one after the deadline cannot take it up again.
    step = candidacy.step(6.0, WALL)
    assert isinstance(step, Write)
    candidacy.answered(step, 6.0, 10.1, Found(replace(step.record, version="9")))
    assert candidacy.until == 22.0
    assert isinstance(candidacy.step(10.1, WALL), Ask)
    candidacy.answered(step, 19.0, 22.5, Found(replace(step.record, version="9")))
    assert candidacy.until == 22.0
    assert isinstance(candidacy.step(22.5, WALL), GiveUp)
    assert candidacy.expire(22.5)
    assert not candidacy.expire(22.5)
    assert candidacy.phase is Phase.ENDED


def test_the_record_says_who_leads_since_when_and_after_how_many() -> None:
    candidacy = Candidacy(lease_config(29.5, 20, 4), "us")
    later = WALL + timedelta(seconds=4)
    candidacy.answered(Ask(), 0.0, 0.0, Found(RELEASED))
    first = candidacy.step(0.0, WALL)
    assert isinstance(first, Write)
    assert first.record == Record("us", 30, 4, WALL, WALL, "u", "7")
    candidacy.answered(first, 0.0, 0.0, Found(replace(first.record, version="8")))
    second = candidacy.step(4.0, later)
    assert isinstance(second, Write)
    assert second.record == Record("us", 30, 4, WALL, later, "u", "8")
    handed = candidacy.released(second.record, later)
    assert (handed.holder, handed.seconds, handed.transitions) == ("", 1, 4)


@pytest.mark.parametrize("seconds", [1.0, 1.5, 30.0])
def test_a_missing_lease_is_created_for_nobody_and_then_waited_for(seconds: float) -> None:
    candidacy = Candidacy(lease_config(seconds, 0.6, 0.2), "us", lambda: 0.0)
    candidacy.answered(Ask(), 0.0, 0.0, Found(None))
    step = candidacy.step(0.0, WALL)
    assert isinstance(step, Write)
    assert step.create
    assert step.record.holder == ""
    candidacy.answered(step, 0.0, 0.1, Found(replace(step.record, uid="u", version="1")))
    assert isinstance(candidacy.step(0.1, WALL), Rest)
    candidacy.answered(Ask(), 9.9, 10.0, Found(replace(step.record, uid="u", version="1")))
    assert isinstance(candidacy.step(0.1 + seconds - 0.01, WALL), Rest)
    step = candidacy.step(0.1 + max(2.0, seconds) + 60, WALL)
    assert isinstance(step, Ask | Write)


@pytest.mark.parametrize(
    ("lease", "renew", "retry"), [(30.0, 27.0, 3.0), (30.0, 20.0, 11.0), (2.0, 1.0, 0.2)]
)
def test_durations_without_a_margin_are_refused(lease: float, renew: float, retry: float) -> None:
    with pytest.raises(ValidationError):
        ElectionConfig(lease_seconds=lease, renew_seconds=renew, retry_seconds=retry)


# Simulated replicas: the very steps they take, in a world where everything may go wrong.


class MemoryLease:
    """A Lease that is there at once and never lies."""

    def __init__(self, record: Record | None = None) -> None:
        self.record = record
        self._versions = itertools.count(1)

    def get(self) -> Record | None:
        return self.record

    def create(self, record: Record) -> Record:
        if self.record is not None:
            raise LeaseChanged("exists")
        version = str(next(self._versions))
        self.record = replace(record, uid=f"uid-{version}", version=version)
        return self.record

    def replace(self, record: Record) -> Record:
        now = self.record
        if now is None or (now.uid, now.version) != (record.uid, record.version):
            raise LeaseChanged("changed")
        self.record = replace(record, version=str(next(self._versions)))
        return self.record


@dataclass(frozen=True)
class Faults:
    """Probabilities per call, and how often per lease the rest happens."""

    slow_request: float = 0.0
    slow_answer: float = 0.0
    lost_answer: float = 0.0
    refused: float = 0.0
    conflict: float = 0.0
    freezes: float = 0.0
    shutdowns: float = 0.0
    meddling: float = 0.0


class World:
    """Replicas, a Lease and the true time."""

    def __init__(
        self, config: ElectionConfig, replicas: int, faults: Faults, seed: int, skew: float
    ) -> None:
        self.config = config
        self.faults = faults
        self.random = random.Random(seed)
        self.now = 0.0
        self.lease = MemoryLease()
        self.replicas = [Replica(self, number, skew) for number in range(replicas)]
        self.terms: list[tuple[float, str]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        for one in self.replicas:
            self.at(self.random.uniform(0, config.lease_seconds), one.start)
        self.every(faults.freezes, lambda: self.random.choice(self.replicas).freeze())
        self.every(faults.shutdowns, lambda: self.random.choice(self.replicas).shut_down())
        self.every(faults.meddling, self.meddle)

    def at(self, moment: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(moment, self.now), next(self._numbers), do))

    def every(self, per_lease: float, do: Callable[[], None]) -> None:
        """About so often, while there are faults."""
        if not per_lease:
            return

        def again() -> None:
            if self.faults != Faults():
                do()
                self.every(per_lease, do)

        self.at(self.now + self.random.expovariate(per_lease / self.config.lease_seconds), again)

    def meddle(self) -> None:
        """What a person with kubectl may do."""
        record = self.lease.record
        if record is None:
            return
        match self.random.randrange(3):
            case 0:
                self.lease.record = None
            case 1:
                self.lease.replace(record)
            case _:
                self.lease.replace(replace(record, holder=""))

    def leaders(self) -> list[str]:
        return [one.identity for one in self.replicas if one.local(self.now) < one.candidacy.until]

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heapq.heappop(self._events)
            do()
            leaders = self.leaders()
            assert len(leaders) <= 1, f"{leaders} lead at {self.now}"
            if leaders and (not self.terms or self.terms[-1][1] != leaders[0]):
                self.terms.append((self.now, leaders[0]))
        self.now = until


class Replica:
    """A process that follows its candidacy, is frozen, ends, and starts anew."""

    def __init__(self, world: World, number: int, skew: float) -> None:
        self.world = world
        self.number = number
        self.offset = world.random.uniform(0, 1e6)
        self.rate = world.random.uniform(1 - skew, 1 + skew)
        self.wall = WALL + timedelta(days=world.random.uniform(-5000, 5000))
        self.thaw = -math.inf
        self.life = 0
        self.calls = False
        self.candidacy = self._new()

    @property
    def identity(self) -> str:
        return f"replica-{self.number}.{self.life}"

    def local(self, moment: float) -> float:
        return self.offset + self.rate * moment

    def _new(self) -> Candidacy:
        return Candidacy(self.world.config, self.identity, self.world.random.random)

    def start(self) -> None:
        self.life += 1
        self.calls = False
        self.candidacy = self._new()
        self._later(self.world.now, self._step)

    def freeze(self) -> None:
        self.thaw = self.world.now + self.world.random.uniform(0, 2.5 * self._lease)

    def shut_down(self) -> None:
        if self.world.now < self.thaw or self.candidacy.phase is Phase.ENDED:
            return
        known = self.candidacy.observed
        self.candidacy.end()
        if known and known.record and known.record.holder == self.identity:
            self._send(Write(self.candidacy.released(known.record, self.wall), create=False))
        self._restart()

    @property
    def _lease(self) -> float:
        return self.world.config.lease_seconds

    def _restart(self) -> None:
        self.world.at(self.world.now + self.world.random.uniform(0, self._lease), self.start)

    def _later(self, moment: float, do: Callable[[], None]) -> None:
        """Do it at a moment if this life lasts until then, or when the freeze ends."""
        life = self.life

        def guarded() -> None:
            if self.life != life or self.candidacy.phase is Phase.ENDED:
                return
            if self.world.now < self.thaw:
                self.world.at(self.thaw, guarded)
            else:
                do()

        self.world.at(moment, guarded)

    def _step(self) -> None:
        now = self.local(self.world.now)
        step = self.candidacy.step(now, self.wall)
        if isinstance(step, Rest):
            wait = (step.until - now) / self.rate
            self._later(self.world.now + wait + 1e-6 * self._lease, self._step)
        elif isinstance(step, GiveUp):
            self.candidacy.end()
            self._restart()
        else:
            self._call(step, now)

    def _call(self, step: Ask | Write, sent: float) -> None:
        open_call = [True]
        self.calls = True

        def answer(outcome: Outcome) -> None:
            if open_call:
                open_call.clear()
                self.calls = False
                self.candidacy.answered(step, sent, self.local(self.world.now), outcome)
                self._step()

        def arrives(outcome: Outcome) -> None:
            self._later(self.world.now, lambda: answer(outcome))

        self._send(step, arrives)
        if self.world.random.random() < self.world.faults.freezes / 10:
            self.freeze()  # The worst moment: the answer is the first thing it sees again.
        limit = self.world.now + self.world.config.retry_seconds / self.rate
        self._later(limit, lambda: answer(Failed("no answer")))

    def _send(
        self, step: Ask | Write, arrives: Callable[[Outcome], None] = lambda outcome: None
    ) -> None:
        """Over the network: a request goes on although whoever sent it gave it up or ended."""
        world, faults, dice = self.world, self.world.faults, self.world.random
        refused, conflict = dice.random() < faults.refused, dice.random() < faults.conflict
        lost = dice.random() < faults.lost_answer
        back = self._delay(faults.slow_answer)

        def reaches_server() -> None:
            outcome: Outcome
            if refused:
                outcome = Failed("500")
            elif conflict and isinstance(step, Write):
                outcome = Changed()
            else:
                outcome = self._carry_out(step)
            if not lost:
                world.at(world.now + back, lambda: arrives(outcome))

        world.at(world.now + self._delay(faults.slow_request), reaches_server)

    def _delay(self, slow: float) -> float:
        dice, retry = self.world.random, self.world.config.retry_seconds
        if dice.random() >= slow:
            return dice.uniform(0, retry / 20)
        return dice.choice([dice.uniform(0, 1.1 * retry), dice.uniform(0, 2 * self._lease)])

    def _carry_out(self, step: Ask | Write) -> Outcome:
        lease = self.world.lease
        try:
            if isinstance(step, Ask):
                return Found(lease.get())
            return Found(lease.create(step.record) if step.create else lease.replace(step.record))
        except LeaseChanged:
            return Changed()


CONFIGS = [lease_config(1.5, 0.9, 0.3), lease_config(30, 20, 4), lease_config(10, 9, 0.9)]
SKEW = 0.02
"""Of monotonic clocks' rates: far more than any real one."""
chance = st.sampled_from([0.0, 0.05, 0.3, 0.7])
often = st.sampled_from([0.0, 0.1, 1.0])


@settings(max_examples=250, deadline=None)
@given(
    config=st.sampled_from(CONFIGS),
    replicas=st.integers(2, 3),
    faults=st.builds(Faults, chance, chance, chance, chance, chance, often, often, often),
    seed=st.integers(0, 2**32),
)
def test_two_never_lead_at_once_and_one_does_when_the_api_is_well(
    config: ElectionConfig, replicas: int, faults: Faults, seed: int
) -> None:
    world = World(config, replicas, faults, seed, SKEW)
    lease = config.lease_seconds
    world.run(15 * lease)
    world.faults = Faults()
    # The last freeze and the last delayed write take up to 2.5 leases to be over.
    world.run(world.now + 2.5 * lease)
    world.run(world.now + 2 * math.ceil(lease) + lease + 4 * config.retry_seconds)
    assert len(world.leaders()) == 1
    leader = world.leaders()
    recent = len(world.terms)
    world.run(world.now + 10 * lease)
    assert world.leaders() == leader
    assert len(world.terms) == recent


@given(config=st.sampled_from(CONFIGS), seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_released_lease_is_taken_within_two_retries(config: ElectionConfig, seed: int) -> None:
    world = World(config, 3, Faults(), seed, SKEW)
    lease, retry = config.lease_seconds, config.retry_seconds
    # Nobody knows that nobody led before: one lease, and time to start.
    world.run(math.ceil(lease) * (1 + 2 * SKEW) + lease + retry)
    (leader,) = world.leaders()
    replica = next(one for one in world.replicas if one.identity == leader)
    while replica.calls:
        # A renewal under way may win; release() tries again then, which is not simulated.
        world.run(world.now + retry / 50)
    replica.shut_down()
    assert world.leaders() == []
    world.run(world.now + 2 * retry)
    (successor,) = world.leaders()
    assert successor != leader


# The threads of an elector.


@dataclass
class Lost:
    """A callback that remembers."""

    reason: str | None = None
    at: float | None = None
    times: int = 0

    def __call__(self, reason: str) -> None:
        self.at = boottime()
        self.reason = reason
        self.times += 1


@contextlib.contextmanager
def electing(
    api: LeaseApi,
    identity: str = "us",
    clock: Callable[[], float] = boottime,
    config: ElectionConfig = SHORT,
) -> Iterator[tuple[Elector, Lost]]:
    lost = Lost()
    elector = Elector(api, config, identity, clock=clock, on_lost=lost)
    try:
        yield elector, lost
    finally:
        elector.close()


def stop_after(seconds: float = PATIENCE) -> threading.Event:
    """An event that is set in time for a test to fail rather than hang."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
    return stop


def test_another_holder_ends_leadership_at_once() -> None:
    lease = MemoryLease(RELEASED)
    with electing(lease) as (elector, lost):
        assert elector.wait_to_lead(stop_after())
        assert elector.require() > 0
        taken = boottime()
        while True:
            with contextlib.suppress(LeaseChanged):
                assert lease.record is not None
                lease.replace(replace(lease.record, holder="other"))
                break
        assert wait_until(lambda: lost.times == 1)
        assert not elector.leads()
        assert lost.at is not None
        assert lost.reason is not None
        # By the next renewal, unless a busy machine made it the deadline.
        if lost.at - taken < SHORT.renew_seconds - SHORT.retry_seconds:
            assert "held by other" in lost.reason
        with pytest.raises(NotLeading):
            elector.require()
        assert not elector.wait_to_lead(threading.Event()), "an elector leads once"
        assert not elector.release()
        assert lease.record.holder == "other"


def test_a_suspended_machine_finds_its_leadership_over() -> None:
    jump = 0.0
    with electing(MemoryLease(RELEASED), clock=lambda: boottime() + jump) as (elector, lost):
        assert elector.wait_to_lead(stop_after())
        jump = 100.0
        # At once, although the watchdog still sleeps.
        with pytest.raises(NotLeading):
            elector.require()
        assert not elector.leads()
        assert wait_until(lambda: lost.times == 1)
        assert not elector.leads()
    assert lost.times == 1


def test_the_watchdog_needs_nothing_of_the_renewing_thread() -> None:
    freed = threading.Event()

    class Blocked(logging.Handler):
        """A log nobody reads: what writes to it waits, here the renewing thread."""

        def emit(self, record: logging.LogRecord) -> None:
            if threading.current_thread().name == "election-renewer":
                freed.wait()

    class Refusing(MemoryLease):
        healthy = True

        def replace(self, record: Record) -> Record:
            if not self.healthy:
                raise ConnectionError("refused")
            return super().replace(record)

    lease = Refusing(RELEASED)
    handler = Blocked()
    election.logger.addHandler(handler)
    try:
        with electing(lease) as (elector, lost):
            assert elector.wait_to_lead(stop_after())
            lease.healthy = False
            assert wait_until(lambda: lost.times == 1)
            assert not elector.leads()
            assert "not renewed in time" in (lost.reason or "")
            freed.set()
    finally:
        freed.set()
        election.logger.removeHandler(handler)


def test_calls_that_hang_for_ever_do_not_gather_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "MOST_HANGING", 3)
    freed = threading.Event()
    calls: list[int] = []

    class Hanging(MemoryLease):
        def get(self) -> Record | None:
            calls.append(1)
            freed.wait()
            return None

    with electing(Hanging()) as (elector, lost):
        with pytest.raises(CallsHang):
            elector.wait_to_lead(stop_after())
        assert len(calls) == 3
        assert not elector.leads()
        assert lost.times == 0
        freed.set()


def test_waiting_ends_when_told_to() -> None:
    stop = threading.Event()
    with electing(MemoryLease(HELD)) as (elector, lost):
        threading.Timer(0.2, stop.set).start()
        assert not elector.wait_to_lead(stop)
        assert not elector.release()
    assert lost.times == 0


def test_release_hands_over_although_its_first_attempts_fail() -> None:
    class Quarrelsome(MemoryLease):
        refusals = 0

        def replace(self, record: Record) -> Record:
            if record.holder == "" and self.refusals < 2:
                self.refusals += 1
                if self.refusals == 1:
                    raise ConnectionError("refused")
                # Someone put a label on it.
                assert self.record is not None
                super().replace(self.record)
            return super().replace(record)

    lease = Quarrelsome(RELEASED)
    with electing(lease) as (elector, lost):
        assert elector.wait_to_lead(stop_after())
        assert elector.release()
        assert not elector.leads()
    assert lease.record is not None
    assert (lease.record.holder, lease.record.seconds) == ("", 1)
    time.sleep(SHORT.renew_seconds)
    assert lost.times == 0, "a clean end is no loss"


def test_two_processes_of_one_pod_are_two() -> None:
    assert make_identity("pod-0") != make_identity("pod-0")
    assert make_identity("pod-0").startswith("pod-0_")


# Over HTTP.


def test_the_lease_on_the_wire_keeps_what_is_not_ours() -> None:
    store = LeaseStore()
    with serving(store) as server, lease_api(server.url) as api:
        assert api.get() is None
        created = api.create(Record("us", 30, 0, WALL, WALL))
        assert store.lease is not None
        assert store.lease["spec"]["acquireTime"] == "2026-01-02T03:04:05.000001+00:00"
        with pytest.raises(LeaseChanged):
            api.create(Record("us", 30, 0, WALL, WALL))
        store.lease["metadata"]["labels"] = {"a": "b"}
        seen = api.get()
        assert seen is not None
        assert seen == created
        written = api.replace(replace(seen, holder="them", transitions=1))
        assert store.lease["metadata"]["labels"] == {"a": "b"}
        assert store.lease["spec"]["holderIdentity"] == "them"
        assert written.version != seen.version
        with pytest.raises(LeaseChanged):
            api.replace(seen)
        store.lease = None
        with pytest.raises(LeaseChanged):
            api.replace(written)


def test_over_http_one_leads_hands_over_and_the_next_begins() -> None:
    store = LeaseStore()
    store.seed("", 1)
    config = lease_config(6.0, 4.0, 0.3)  # A busy machine may forget about us for a second.
    with (
        serving(store) as server,
        lease_api(server.url) as one,
        lease_api(server.url) as two,
        electing(one, "one", config=config) as (first, _),
        electing(two, "two", config=config) as (second, _),
    ):
        assert first.wait_to_lead(stop_after())
        began = threading.Thread(target=second.wait_to_lead, args=(stop_after(),))
        began.start()
        left = first.require()
        assert wait_until(lambda: first.require() > left), "renewed"
        time.sleep(0.5)
        assert first.leads()
        assert not second.leads()
        released = boottime()
        assert first.release()
        began.join()
        assert second.leads()
        assert boottime() - released < config.lease_seconds
        assert store.lease is not None
        assert store.lease["spec"]["holderIdentity"] == "two"
        assert store.lease["spec"]["leaseDurationSeconds"] == 6
        assert store.lease["spec"]["leaseTransitions"] == 6


@dataclass(frozen=True)
class Takeover:
    """How the second elector found the first when it began."""

    second_led: bool
    first_led: bool
    lost: Lost
    began: float


MODES: tuple[Mode, ...] = tuple(mode for mode in get_args(Mode) if mode != "healthy")


def take_over(mode: Mode) -> Takeover:
    """The first leads by a server that turns hostile; the second's serves the same store well."""
    store = LeaseStore()
    store.seed("", 1)
    with (
        serving(store) as hostile,
        serving(store) as healed,
        lease_api(hostile.url) as one,
        lease_api(healed.url) as two,
        electing(one, "one") as (first, lost),
        electing(two, "two") as (second, _),
    ):
        assert first.wait_to_lead(stop_after())
        hostile.mode = mode
        second_led = second.wait_to_lead(stop_after())
        found = Takeover(second_led, first.leads(), replace(lost), boottime())
        if mode == "hangs":  # Healed: the first does not come back.
            hostile.mode = "healthy"
            time.sleep(SHORT.renew_seconds)
            assert not first.leads()
        return found


@pytest.fixture(scope="module")
def takeovers() -> Iterator[dict[Mode, Future[Takeover]]]:
    # All at once: each waits for seconds and works for milliseconds.
    with ThreadPoolExecutor(len(MODES)) as pool:
        yield {mode: pool.submit(take_over, mode) for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
def test_the_first_has_ended_before_a_second_begins(
    mode: Mode, takeovers: dict[Mode, Future[Takeover]]
) -> None:
    found = takeovers[mode].result()
    assert found.second_led
    assert not found.first_led
    assert found.lost.times == 1
    assert found.lost.at is not None
    assert found.lost.at < found.began


# As processes.


@contextlib.contextmanager
def leading_process(url: str, how: str) -> Iterator[subprocess.Popen[str]]:
    """A process that leads by the server at `url` when the block begins."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.hostile_leases", url, "one", how],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(3 * PATIENCE, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "leads\n"
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str], command: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{command}\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def store() -> LeaseStore:
    store = LeaseStore()
    store.seed("", 1)
    return store


@pytest.mark.parametrize(("command", "code"), [("block", 43), ("seize", signal.SIGALRM)])
def test_a_process_whose_api_hangs_is_ended_although_its_main_thread_is_stuck(
    command: str, code: int, store: LeaseStore
) -> None:
    with (
        serving(store) as server,
        leading_process(server.url, "ends") as process,
        lease_api(server.url) as api,
    ):
        tell(process, command)
        if command == "seize":
            assert heard(process) == "seizes"
        server.mode = "hangs"
        assert process.wait(PATIENCE) == code
        server.mode = "healthy"
        record = api.get()
        assert record is not None
        assert record.holder == "one", "nothing was handed over"
        assert process.stderr is not None
        assert ("one leads no longer" in process.stderr.read()) == (command == "block")


def stop_beyond_the_deadline(process: subprocess.Popen[str]) -> None:
    """Stop a process, ask it to act meanwhile, and let it go on."""
    tell(process, "act")
    assert heard(process) == "acted"
    process.send_signal(signal.SIGSTOP)
    time.sleep(SHORT.renew_seconds + 0.3)
    tell(process, "act")
    process.send_signal(signal.SIGCONT)


def test_a_process_that_was_stopped_does_nothing_more_and_ends(store: LeaseStore) -> None:
    with serving(store) as server, leading_process(server.url, "ends") as process:
        stop_beyond_the_deadline(process)
        # The watchdog's or the kernel's timer: both are due.
        assert process.wait(PATIENCE) in (43, signal.SIGALRM)
        assert process.stdout is not None
        assert "acted" not in process.stdout.read()


def test_it_is_the_check_before_acting_that_refuses(store: LeaseStore) -> None:
    with serving(store) as server, leading_process(server.url, "stays") as process:
        stop_beyond_the_deadline(process)
        said = {heard(process).split()[0], heard(process).split()[0]}
        assert said == {"refused", "lost"}


def test_a_process_that_ends_cleanly_hands_over(store: LeaseStore) -> None:
    with serving(store) as server, leading_process(server.url, "ends") as process:
        tell(process, "release")
        assert heard(process) == "released True"
        assert process.wait(PATIENCE) == 0
        assert store.lease is not None
        assert store.lease["spec"]["holderIdentity"] == ""
