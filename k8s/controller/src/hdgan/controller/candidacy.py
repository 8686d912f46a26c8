"""What a replica that leads or waits does next, one step after another: no sockets, no clocks.

`election` says why two never lead at once."""

from __future__ import annotations

import enum
import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from kubernetes.client import V1Lease

from hdgan.controller.settings import ElectionConfig

RELEASED_SECONDS: Final = 1
"""`leaseDurationSeconds` that a leader writes when it hands the Lease over. The API refuses 0."""
NEVER: Final = -math.inf


@dataclass(frozen=True)
class Record:
    """What a Lease says. Two are equal only if nobody wrote in between."""

    holder: str
    """Identity. Empty: nobody."""
    seconds: int | None
    """`leaseDurationSeconds`."""
    transitions: int = 0
    acquired: datetime | None = None
    """None: never held."""
    renewed: datetime | None = None
    uid: str = ""
    version: str = ""
    """resourceVersion."""
    source: V1Lease | None = field(default=None, compare=False, repr=False)
    """The object as read; what we do not write (labels, for example) is kept."""


@dataclass(frozen=True)
class Observed:
    """What this replica saw last, and when it saw that for the first time, by its own clock."""

    record: Record | None
    """None: there is no Lease."""
    since: float


class Do(enum.Enum):
    """What a replica may do next."""

    CREATE = "create"
    ACQUIRE = "acquire"
    RENEW = "renew"
    WAIT = "wait"
    GIVE_UP = "give up"


@dataclass(frozen=True)
class Decision:
    """What to do, and for WAIT the time before which the Lease cannot be taken."""

    do: Do
    until: float = NEVER


def decide(
    observed: Observed, now: float, identity: str, lease_seconds: float, leading: bool
) -> Decision:
    """What `identity` may do at `now` about what it observed. `lease_seconds` counts where the
    record has no duration.

    A Lease that is missing or lacks a holder says nothing of whether somebody still leads: a
    person may have deleted or emptied it. So a missing one is created without a holder, and one
    without a holder waited for like any other, unless its leader released it.
    """
    record = observed.record
    if record is None:
        return Decision(Do.CREATE)
    if leading:
        return Decision(Do.RENEW if record.holder == identity else Do.GIVE_UP)
    if record.holder == identity:  # The answer to our own acquisition was lost.
        return Decision(Do.ACQUIRE)
    if not record.holder and record.seconds == RELEASED_SECONDS:
        return Decision(Do.ACQUIRE)
    until = observed.since + (record.seconds or lease_seconds)
    return Decision(Do.ACQUIRE) if now >= until else Decision(Do.WAIT, until)


@dataclass(frozen=True)
class Ask:
    """Read the Lease."""


@dataclass(frozen=True)
class Write:
    """Create or replace the Lease."""

    record: Record
    create: bool


@dataclass(frozen=True)
class Rest:
    """Do nothing before this time."""

    until: float


@dataclass(frozen=True)
class GiveUp:
    """Stop leading."""

    reason: str


Step = Ask | Write | Rest | GiveUp


@dataclass(frozen=True)
class Found:
    """The API server's answer: the Lease as it is now, None if there is none."""

    record: Record | None


@dataclass(frozen=True)
class Changed:
    """Somebody else wrote first."""


@dataclass(frozen=True)
class Failed:
    """No answer, a useless one or one too late: the request may have been carried out."""

    reason: str


Outcome = Found | Changed | Failed


class Phase(enum.Enum):
    """A replica leads at most once; then a new process waits."""

    WAITING = "waiting"
    LEADING = "leading"
    ENDED = "ended"


class Candidacy:
    """One replica's way to the Lease and through it: `step` says what to do next, `answered` hears
    what came of it. One thread drives; `until` may be read and `end` called by any.
    """

    def __init__(
        self, config: ElectionConfig, identity: str, jitter: Callable[[], float] = random.random
    ) -> None:
        self._config = config
        self._identity = identity
        self._jitter = jitter
        # Whole seconds, rounded up; one second means that the Lease was released.
        self._written_seconds = max(math.ceil(config.lease_seconds), RELEASED_SECONDS + 1)
        self._lock = threading.Lock()  # Of phase and until, never held while anything waits.
        self.phase = Phase.WAITING
        self.until = NEVER
        """Deadline of leadership: the last successful renewal was sent `renewSeconds` before."""
        self.observed: Observed | None = None
        self.may_hold = False
        """Whether the Lease may name this replica: it asked for that once."""
        self._current = False
        self._next = NEVER

    def step(self, now: float, wall: datetime) -> Step:
        """What to do at `now`; `wall` is only written down."""
        leading = self.phase is Phase.LEADING
        if leading and now >= self.until:
            return GiveUp("the Lease was not renewed in time")
        if now < self._next:
            return Rest(self._next)
        if self.observed is None or not self._current:
            return Ask()
        decision = decide(self.observed, now, self._identity, self._config.lease_seconds, leading)
        record = self.observed.record
        if decision.do is Do.CREATE or record is None:
            return Write(self._new(wall, held=leading), create=True)
        if decision.do is Do.WAIT:
            retry = self._config.retry_seconds
            self._current = False
            # Soon after it may be taken, but not all replicas at once.
            self._next = min(
                now + retry * (0.5 + self._jitter()), decision.until + retry * self._jitter() / 4
            )
            return Rest(self._next)
        if decision.do is Do.GIVE_UP:
            return GiveUp(f"the Lease is held by {record.holder or 'nobody'} now")
        self.may_hold = True
        return Write(self._held(record, wall), create=False)

    def answered(self, step: Ask | Write, sent: float, now: float, outcome: Outcome) -> None:
        """What came of a step: `sent` is a time before the request was sent, `now` one after the
        answer came."""
        retry = self._config.retry_seconds
        if now - sent >= retry:
            outcome = Failed("the answer came too late")
        self._current = isinstance(outcome, Found) and (
            isinstance(step, Ask) or outcome.record is not None
        )
        if isinstance(outcome, Found):
            if self.observed is None or self.observed.record != outcome.record:
                self.observed = Observed(outcome.record, now)
            record = outcome.record
            if isinstance(step, Write) and record is not None and record.holder == self._identity:
                self._renewed(sent, now)
                self._next = sent + retry
            else:
                self._next = now
        elif isinstance(outcome, Changed):
            self._next = now + retry * self._jitter() / 4
        elif self.phase is Phase.LEADING:
            self._next = sent + retry
        else:
            self._next = now + retry * (0.5 + self._jitter())

    def end(self) -> bool:
        """Stop leading or waiting, for good. True if this ended leadership, so once at most."""
        with self._lock:
            led = self.phase is Phase.LEADING
            self.phase = Phase.ENDED
            self.until = NEVER
            return led

    def expire(self, now: float) -> bool:
        """End leadership if its deadline has passed. True if this ended it."""
        with self._lock:
            if self.phase is not Phase.LEADING or now < self.until:
                return False
            self.phase = Phase.ENDED
            self.until = NEVER
            return True

    def released(self, record: Record, wall: datetime) -> Record:
        """The record that hands the Lease over."""
        return replace(record, holder="", seconds=RELEASED_SECONDS, acquired=wall, renewed=wall)

    def _renewed(self, sent: float, now: float) -> None:
        deadline = sent + self._config.renew_seconds
        with self._lock:
            if self.phase is Phase.WAITING:
                self.phase = Phase.LEADING
                self.until = deadline
            elif self.phase is Phase.LEADING and now < self.until:
                # Not after the old deadline: what ended is not taken up again.
                self.until = deadline

    def _new(self, wall: datetime, held: bool) -> Record:
        if held:
            return Record(self._identity, self._written_seconds, 0, wall, wall)
        return Record("", self._written_seconds)

    def _held(self, record: Record, wall: datetime) -> Record:
        if record.holder == self._identity:
            return replace(record, seconds=self._written_seconds, renewed=wall)
        return replace(
            record,
            holder=self._identity,
            seconds=self._written_seconds,
            transitions=record.transitions + (record.acquired is not None),
            acquired=wall,
            renewed=wall,
        )
