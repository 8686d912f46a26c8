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
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from kubernetes.client.exceptions import ApiException

from hdgan.controller.bounded_calls import MOST_HANGING, BoundedCalls, CallsHang
from hdgan.controller.candidacy import (
    Ask,
    Candidacy,
    Changed,
    Failed,
    Found,
    GiveUp,
    Outcome,
    Phase,
    Record,
    Rest,
    Write,
)
from hdgan.controller.kubernetes_lease import LeaseApi, LeaseChanged
from hdgan.controller.settings import ElectionConfig
from hdgan.core.errors import HdganError

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

WATCH_SECONDS: Final = 0.5
"""Longest sleep of the watchdog: waiting counts no suspension, so it looks at the clock often."""
LAST_WORDS_SECONDS: Final = 0.5
"""How long a lost leader tries to log why. The log may be a pipe that nobody reads."""

# Suspension has to count: the other replicas' clocks go on meanwhile. CLOCK_MONOTONIC, and hence
# time.monotonic() and every wait with a timeout, stand still on a suspended Linux machine.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class NotLeading(HdganError):
    """This replica does not lead (any more): it may change nothing."""

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
        self._calls = BoundedCalls(config.retry_seconds, clock)
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
