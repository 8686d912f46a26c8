"""Which replica works: leader election by a Lease in which the leader certainly ends first.

Why two replicas never lead at once. A renewal that succeeded was sent before the server wrote it,
and the server wrote it before any other replica can have seen it. The leader stops `renewSeconds`
after it *sent* the renewal; another replica begins no sooner than `leaseSeconds` (which is longer)
after it *saw* that renewal, and only by replacing exactly the record it saw. Nobody's wall clock
takes part: each replica measures both spans with its own clock, which counts suspension too.

What no election can prevent is a process that stops between `require()` and what it does next, and
goes on later than `leaseSeconds`. Hence requests that change the cluster also carry a
resourceVersion or make objects with fixed names, and have timeouts below
`leaseSeconds - renewSeconds`.
"""

from __future__ import annotations

import ctypes
import enum
import logging
import math
import os
import queue
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

from kubernetes.client import CoordinationV1Api, V1Lease, V1LeaseSpec, V1ObjectMeta
from kubernetes.client.exceptions import ApiException

from hdgan.controller.settings import ElectionConfig
from hdgan.core.errors import HdganError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Clock = Callable[[], float]

RELEASED_SECONDS: Final = 1
"""`leaseDurationSeconds` that a leader writes when it hands the Lease over. The API refuses 0."""
WATCH_SECONDS: Final = 0.5
"""Longest sleep of the watchdog: waiting counts no suspension, so it looks at the clock often."""
MOST_HANGING: Final = 16
"""Calls given up on that may still hang before no more are made."""
LAST_WORDS_SECONDS: Final = 0.5
"""How long a lost leader tries to log why. The log may be a pipe that nobody reads."""
NEVER: Final = -math.inf

# Suspension has to count: the other replicas' clocks go on meanwhile. CLOCK_MONOTONIC, and hence
# time.monotonic() and every wait with a timeout, stand still on a suspended Linux machine.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class NotLeading(HdganError):
    """This replica does not lead (any more): it may change nothing."""

    exit_code = 75


class LeaseChanged(HdganError):
    """The Lease is not the one that was to be replaced, or exists already (409)."""

    exit_code = 75


class CallsHang(HdganError):
    """So many calls to the API server neither end nor fail that only a new process helps."""

    exit_code = 75


def boottime() -> float:
    """Seconds since the machine started, with the time it was suspended where the system knows."""
    return time.clock_gettime(_CLOCK)


def make_identity(pod: str) -> str:
    """What the Lease calls this process: a restarted container is somebody else."""
    return f"{pod}_{uuid.uuid4()}"


def end_process(code: int = NotLeading.exit_code) -> Callable[[str], None]:
    """What a replica does that lost the Lease: log why, end at once, with no handler run.

    `os._exit` because everything else (sys.exit, a signal) needs the main thread to take part.
    """

    def end(reason: str) -> None:
        try:
            words = threading.Thread(target=logger.critical, args=("%s: ending", reason))
            words.daemon = True
            words.start()
            words.join(LAST_WORDS_SECONDS)
        finally:
            os._exit(code)

    return end


def _exit_on_alarm() -> None:
    """Make C's `_exit` the handler of SIGALRM: a handler in Python needs the interpreter's lock,
    and the default action spares process 1, which a container's is. (`faulthandler`'s timer needs
    neither, but reads the stacks of running threads and crashes now and then.)"""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGALRM, ctypes.cast(libc._exit, ctypes.c_void_p))


# The record and what to do about it: values only.


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


# What a replica does, one step after another, without sockets, threads or clocks.


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


# The API server.


class LeaseApi(Protocol):
    """The Lease. Calls may take any time and raise anything; only LeaseChanged means something."""

    def get(self) -> Record | None:
        """The Lease, None if there is none. It must be read from the store, not from a cache."""

    def create(self, record: Record) -> Record:
        """Create it. LeaseChanged if it exists."""

    def replace(self, record: Record) -> Record:
        """Replace the one with the record's `uid` and `version`. LeaseChanged if it is another."""


class KubernetesLease:
    """The Lease `name` in `namespace`. The client is best one of its own with `retries = False`:
    a pool that the controller's other requests fill makes renewals late."""

    def __init__(
        self, api: CoordinationV1Api, namespace: str, name: str, retry_seconds: float
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        # Of connecting and of each read: frees most threads that were given up on.
        self._timeout = (float(retry_seconds), float(retry_seconds))

    def get(self) -> Record | None:
        """The Lease, None if there is none."""
        try:
            lease = self._api.read_namespaced_lease(
                self._name, self._namespace, _request_timeout=self._timeout
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return _read(lease)

    def create(self, record: Record) -> Record:
        """Create it. LeaseChanged if it exists."""
        try:
            lease = self._api.create_namespaced_lease(
                self._namespace, self._body(record), _request_timeout=self._timeout
            )
        except ApiException as error:
            if error.status == 409:
                raise LeaseChanged("the Lease exists already") from None
            raise
        return _read(lease)

    def replace(self, record: Record) -> Record:
        """Replace the one with the record's uid and version. LeaseChanged if it is another."""
        try:
            lease = self._api.replace_namespaced_lease(
                self._name,
                self._namespace,
                self._body(record),
                _request_timeout=self._timeout,
            )
        except ApiException as error:
            if error.status in (404, 409):
                raise LeaseChanged("somebody else changed the Lease") from None
            raise
        return _read(lease)

    def _body(self, record: Record) -> V1Lease:
        if record.source is None:
            lease = V1Lease(
                api_version="coordination.k8s.io/v1",
                kind="Lease",
                metadata=V1ObjectMeta(name=self._name, namespace=self._namespace),
            )
        else:
            # With uid and resourceVersion: the server refuses to replace any other.
            lease = record.source.model_copy(deep=True)
        spec = lease.spec or V1LeaseSpec()
        spec.holder_identity = record.holder
        spec.lease_duration_seconds = record.seconds
        spec.lease_transitions = record.transitions
        spec.acquire_time = _micro_time(record.acquired)
        spec.renew_time = _micro_time(record.renewed)
        lease.spec = spec
        return lease


def _read(lease: V1Lease) -> Record:
    metadata = lease.metadata or V1ObjectMeta()
    if not metadata.uid or not metadata.resource_version:
        raise ValueError("the API server's answer is a Lease without uid or resourceVersion")
    spec = lease.spec or V1LeaseSpec()
    return Record(
        holder=spec.holder_identity or "",
        seconds=spec.lease_duration_seconds,
        transitions=spec.lease_transitions or 0,
        acquired=spec.acquire_time,
        renewed=spec.renew_time,
        uid=metadata.uid,
        version=metadata.resource_version,
        source=lease,
    )


def _micro_time(moment: datetime | None) -> datetime | None:
    # The server wants six digits after the point; the client writes none if they are all zero.
    return moment.replace(microsecond=1) if moment and not moment.microsecond else moment


class _BoundedCalls:
    """Calls that return or raise within `seconds`, whatever the server does: each is made by a
    thread of its own, because a socket's timeout starts anew with every byte."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock
        self._left: list[threading.Thread] = []

    def hanging(self) -> int:
        """How many calls that were given up on still run."""
        self._left = [thread for thread in self._left if thread.is_alive()]
        return len(self._left)

    def make(self, call: Callable[[], T], sent: float) -> T:
        """The call's result. TimeoutError `seconds` after `sent`; CallsHang if too many hang."""
        if self.hanging() >= MOST_HANGING:
            raise CallsHang(f"{MOST_HANGING} calls to the API server hang")
        answers: queue.SimpleQueue[tuple[T] | Exception] = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((call(),))
            except Exception as error:
                answers.put(error)

        thread = threading.Thread(target=work, name="election-call", daemon=True)
        thread.start()
        try:
            answer = answers.get(timeout=max(0.0, sent + self._seconds - self._clock()))
        except queue.Empty:
            self._left.append(thread)
            raise TimeoutError(f"no answer within {self._seconds:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer[0]


class Elector:
    """Leads, or waits to lead.

    `wait_to_lead`, then `require` before everything that changes the cluster, then, once all work
    has ended, `release`. `close` ends without handing over. If leadership is lost, `on_lost` is
    called with the reason, once, in one of the elector's threads; the default ends the process. An
    elector leads once.

    `backstop`: also have the kernel end the process, with status 14, soon after the deadline if no
    Python thread can, as in a C call that keeps the interpreter's lock. It takes SIGALRM and
    ITIMER_REAL, of which a process has one.
    """

    def __init__(
        self,
        api: LeaseApi,
        config: ElectionConfig,
        identity: str,
        *,
        clock: Clock = boottime,
        on_lost: Callable[[str], None] | None = None,
        backstop: bool = False,
    ) -> None:
        self._api = api
        self._config = config
        self._identity = identity
        self._clock = clock
        self._on_lost = on_lost or end_process()
        self._backstop = backstop
        self._candidacy = Candidacy(config, identity)
        self._calls = _BoundedCalls(config.retry_seconds, clock)
        self._begun = threading.Event()  # Leading, or closed.
        self._closed = threading.Event()
        self._watchdog: threading.Thread | None = None
        self._renewer: threading.Thread | None = None
        self._said = ""

    def wait_to_lead(self, stop: threading.Event) -> bool:
        """Wait until this replica leads: True. False once `stop` is set or the elector has ended.
        CallsHang if the API server leaves too many calls hanging: start a new process.

        `release` is due after False as well: the Lease may name this replica.
        """
        if self._watchdog is None:
            self._watchdog = self._start(self._watch, "election-watchdog")
        while not stop.is_set() and not self._begun.is_set():
            self._turn(stop)
            if self._candidacy.phase is Phase.LEADING:
                self._begun.set()
                self._renewer = self._start(self._renew, "election-renewer")
            elif self._calls.hanging() >= MOST_HANGING:
                raise CallsHang(f"{MOST_HANGING} calls to the API server hang")
        return self.leads()

    def leads(self) -> bool:
        """Whether this replica leads now. Takes no lock and waits for nobody."""
        return self._left() > 0

    def require(self) -> float:
        """Seconds of leadership that are left for certain. NotLeading if there are none."""
        left = self._left()
        if left <= 0:
            raise NotLeading(f"{self._identity} does not lead: nothing may be changed")
        return left

    def release(self) -> bool:
        """Stop leading and hand the Lease over, so that the next replica begins at once. Call it
        only when all work has ended. True if that worked; if not, the next one waits.

        Takes up to 4 * `retrySeconds`. Does nothing after leadership was lost, or after `close`.
        """
        ended = self._candidacy.phase is Phase.ENDED
        self.close()
        if ended or not self._candidacy.may_hold:
            return False
        if self._renewer is not None:
            # It may be in the middle of a call. Whichever of us writes later gets a 409.
            self._renewer.join(self._config.retry_seconds)
        deadline = self._clock() + self._config.retry_seconds
        observed = self._candidacy.observed
        record = observed.record if observed else None
        while True:
            try:
                if record is None or record.holder != self._identity:
                    record = self._calls.make(self._api.get, self._clock())
                    if record is None or record.holder != self._identity:
                        return False
                self._hand_over(record)
            except LeaseChanged:
                pass
            except Exception as error:
                self._say(f"the Lease could not be released: {_plain(error)}", logging.WARNING)
                time.sleep(self._config.retry_seconds / 10)
            else:
                self._say(f"{self._identity} released the Lease", logging.INFO)
                return True
            record = None
            if self._clock() >= deadline:
                return False

    def close(self) -> None:
        """Stop leading or waiting now, without handing over. `on_lost` is not called."""
        self._candidacy.end()
        self._closed.set()
        self._begun.set()
        if self._backstop:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _left(self) -> float:
        # The clock is read last: what comes between would make the time too early.
        until = self._candidacy.until
        return until - self._clock()

    def _turn(self, pause: threading.Event) -> None:
        """One step of the candidacy; `pause` ends a rest early."""
        now = self._clock()
        step = self._candidacy.step(now, datetime.now(UTC))
        if isinstance(step, Rest):
            pause.wait(step.until - now)
        elif isinstance(step, GiveUp):
            if self._candidacy.end():
                self._lost(step.reason)
        else:
            sent = self._clock()
            outcome = self._carry_out(step, sent)
            self._candidacy.answered(step, sent, self._clock(), outcome)
            self._arm()
            self._tell(step, outcome)

    def _carry_out(self, step: Ask | Write, sent: float) -> Outcome:
        try:
            if isinstance(step, Ask):
                return Found(self._calls.make(self._api.get, sent))
            record = step.record
            write = self._api.create if step.create else self._api.replace
            return Found(self._calls.make(lambda: write(record), sent))
        except LeaseChanged:
            return Changed()
        except Exception as error:  # Whatever it is, the Lease is not known to be ours.
            return Failed(_plain(error))

    def _hand_over(self, record: Record) -> None:
        handed = self._candidacy.released(record, datetime.now(UTC))
        self._calls.make(lambda: self._api.replace(handed), self._clock())

    def _renew(self) -> None:
        while not self._closed.is_set() and self._candidacy.phase is Phase.LEADING:
            self._turn(self._closed)

    def _watch(self) -> None:
        self._begun.wait()
        while not self._closed.is_set():
            now = self._clock()
            if self._candidacy.expire(now):
                self._lost("the Lease was not renewed in time")
            if self._candidacy.phase is not Phase.LEADING:
                return
            self._closed.wait(min(max(self._candidacy.until - now, 0.0), WATCH_SECONDS))

    def _lost(self, reason: str) -> None:
        self._on_lost(f"{self._identity} leads no longer: {reason}")

    def _arm(self) -> None:
        left = self._candidacy.until - self._clock()
        if self._backstop and left > 0:
            # Later than the watchdog, sooner than another replica.
            grace = (self._config.lease_seconds - self._config.renew_seconds) / 2
            _exit_on_alarm()
            signal.setitimer(signal.ITIMER_REAL, left + grace)
            if self._closed.is_set():  # close() may have come between.
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _tell(self, step: Ask | Write, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            self._say(f"the Lease could not be read or written: {outcome.reason}", logging.WARNING)
        elif self._candidacy.phase is Phase.WAITING and isinstance(outcome, Found):
            holder = outcome.record.holder if outcome.record else ""
            self._say(f"waiting; the Lease is held by {holder or 'nobody'}", logging.INFO)
        elif self._candidacy.phase is Phase.LEADING and isinstance(step, Write):
            self._say(f"{self._identity} leads", logging.INFO)

    def _say(self, text: str, level: int) -> None:
        """Log it unless it is what was logged last: an outage lasts many attempts."""
        if text != self._said:
            self._said = text
            logger.log(level, "%s", text)

    @staticmethod
    def _start(work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread


def _plain(error: Exception) -> str:
    if isinstance(error, ApiException) and error.status:
        return f"the API server answered {error.status} {error.reason}"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
