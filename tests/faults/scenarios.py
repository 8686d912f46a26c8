"""What goes wrong in the scenario of a seed: a pure function, so that a seed can be repeated."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from support.fault_proxy import FAULTS, Fault, FaultPlan

StoreKind = Literal["file", "s3"]
Victim = Literal["maker", "runner", "everything"]
"""maker: the process that makes what is missing. everything: all processes of the command."""
By = Literal["time", "progress", "operation", "commit", "manifest", "write"]

TARGETS: Final = (
    "tiler",
    "gan-trainer",
    "candidates",
    "annotations",
    "extractor",
    "classifier",
    "dataset",
    "release",
)
"""What is missing when a scenario begins: a stage's output, imported annotations, a release."""
OWN_PROCESS: Final = frozenset(TARGETS) - {"annotations", "release"}
"""Made by a process of its own, which a runner starts; the others by the command itself."""

OPERATIONS: Final = {
    "tiler": 60,
    "gan-trainer": 90,
    "candidates": 120,
    "annotations": 60,
    "extractor": 40,
    "classifier": 60,
    "dataset": 90,
    "release": 24,
}
"""About how many changes to store and scratch a process makes. Where a drawn one never comes, an
earlier one is taken."""

KINDS: Final = (
    "kill -9 at a moment",
    "kill -9 at an operation",
    "kill -9 in commit",
    "kill -9 the runner",
    "kill -9 everything",
    "SIGTERM to the stage",
    "SIGTERM to the runner",
    "frozen writer",
    "two runners at once",
    "runner beside an orphan",
    "store: resets",
    "store: lost answers",
    "store: 503 in bursts",
    "store: 500",
    "store: slow",
    "store: truncated",
    "store: delivered twice",
    "store: no conditions",
    "store: late listings",
    "store: all of it, and kill -9",
    "full scratch",
    "full store",
    "kill -9 in a write",
)
FROM_NOTHING: Final = "from nothing, killed often"
"""Runs every stage, for minutes: of so many seeds only one."""
FROM_NOTHING_EVERY: Final = 67


@dataclass(frozen=True)
class Moment:
    """When: a share (0 to 1) of the undisturbed time or of the progress events, or before the n-th
    operation: of all, of a commit, or from the one on that makes its manifest (or, of a release,
    its pointer) visible; or in the midst of a write, when a file has so many bytes."""

    by: By
    at: float

    def __str__(self) -> str:
        words = {
            "time": f"after {self.at:.0%} of the time",
            "progress": f"after {self.at:.0%} of the progress",
            "operation": f"before operation {self.at:g}",
            "commit": f"before operation {self.at:g} of the commit",
            "manifest": f"before operation {self.at:g} from the manifest on",
            "write": f"when a file has {self.at:g} bytes",
        }
        return words[self.by]


@dataclass(frozen=True)
class Blow:
    """A signal to a process at a moment."""

    signal: Literal["SIGKILL", "SIGTERM", "SIGSTOP"]
    victim: Victim
    target: str
    """What is being made then."""
    moment: Moment

    def __str__(self) -> str:
        return f"{self.signal} to {self.victim} of {self.target} {self.moment}"


@dataclass(frozen=True)
class Second:
    """A second runner: when it starts, and whether on the same scratch."""

    when: Literal["at once", "while frozen", "beside the orphan"]
    same_scratch: bool


@dataclass(frozen=True)
class Space:
    """A small disk, with so many bytes free."""

    place: Literal["scratch", "store"]
    free: int


@dataclass(frozen=True)
class Scenario:
    """What goes wrong, and where."""

    seed: int
    kind: str
    target: str
    store: StoreKind
    blows: tuple[Blow, ...] = ()
    """One after the other, each to a command of its own."""
    proxy: FaultPlan | None = None
    second: Second | None = None
    space: Space | None = None
    without_caches: bool = False
    """Begin without what stages keep for themselves beside their output."""

    def __str__(self) -> str:
        parts = [f"{self.kind}: {self.target} on {self.store}", *map(str, self.blows)]
        if self.proxy is not None and (self.proxy.rate or self.proxy.burst):
            plan = self.proxy
            first = f", {plan.burst} in a row from request {plan.burst_first}"
            bursts = f"{first} and every {plan.burst_every}" if plan.burst else ""
            parts.append(f"{plan.rate:.0%} of requests{bursts}")
        if self.second is not None:
            scratch = "the same" if self.second.same_scratch else "another"
            parts.append(f"second runner {self.second.when} on {scratch} scratch")
        if self.space is not None:
            parts.append(f"{self.space.free} bytes free on {self.space.place}")
        return ", ".join(parts)


def scenario(seed: int) -> Scenario:
    """The scenario of a seed (0, 1, ...). Neighbouring seeds are of different kinds; any 200 in a
    row have every kind, with several targets each."""
    draw = random.Random(f"hdgan faults {seed}")
    if seed % FROM_NOTHING_EVERY == FROM_NOTHING_EVERY - 1:
        return _from_nothing(seed, draw)
    kind = KINDS[seed % len(KINDS)]
    targets = [name for name in TARGETS if _possible(kind, name)]
    target = targets[(seed // len(KINDS)) % len(targets)]
    store: StoreKind = draw.choice(("file", "s3"))
    caches = draw.random() < 0.25
    made = Scenario(seed, kind, target, store, without_caches=caches)
    return _SPECIAL.get(kind, _blown)(made, draw)


_Change = Callable[[Scenario, random.Random], Scenario]


def _possible(kind: str, target: str) -> bool:
    if kind in (
        "SIGTERM to the stage",
        "kill -9 the runner",
        "runner beside an orphan",
    ):
        return target in OWN_PROCESS
    if kind == "SIGTERM to the runner":
        return target != "annotations"
    if kind == "kill -9 in commit":
        # Features are a cache: nothing is committed. A release is, but by files of other names.
        return target != "extractor"
    if kind == "full scratch":
        return target not in ("annotations", "release")
    if kind in ("frozen writer", "two runners at once", "store: no conditions"):
        return target != "annotations"
    if kind == "full store":
        return target != "extractor"
    return True


def _moment(made: Scenario, draw: random.Random, *by: By) -> Moment:
    chosen = draw.choice(by)
    if chosen == "progress" and made.target not in OWN_PROCESS:
        chosen = "time"
    match chosen:
        case "operation":
            return Moment("operation", draw.randint(1, OPERATIONS[made.target]))
        case "commit" | "manifest":
            return Moment(chosen, draw.randint(1, 6))
        case "write":
            longest = 16 if made.target in OWN_PROCESS else 11
            return Moment(chosen, int(2 ** draw.uniform(8, longest)))
        case _:
            return Moment(chosen, round(draw.uniform(0.02, 0.98), 3))


def _times(draw: random.Random) -> int:
    """How often the command is struck before it is left alone."""
    return draw.choices((1, 2, 3), (7, 2, 1))[0]


def _blown(made: Scenario, draw: random.Random) -> Scenario:
    """The kinds that are one signal."""
    victim: Victim = "maker"
    number: Literal["SIGKILL", "SIGTERM"] = "SIGKILL"
    by: tuple[By, ...] = ("time", "progress")
    times = _times(draw)
    match made.kind:
        case "kill -9 at an operation":
            by = ("operation",)
        case "kill -9 in a write":
            by = ("write",)
            made = replace(made, store="file")
        case "kill -9 the runner":
            victim = "runner"
        case "kill -9 everything":
            victim = "everything"
        case "SIGTERM to the stage":
            number, by, times = "SIGTERM", ("time", "progress", "operation"), 1
        case "SIGTERM to the runner":
            number, victim = "SIGTERM", "runner"
    blows = tuple(Blow(number, victim, made.target, _moment(made, draw, *by)) for _ in range(times))
    return replace(made, blows=blows)


def _in_commit(made: Scenario, draw: random.Random) -> Scenario:
    """Struck before the manifest, at it, and after it; the work is resumed each time."""
    moments = (
        # What comes before it: on a server, whether that knows conditions is found out, too.
        Moment("commit", draw.randint(1, 4 if made.store == "file" else 9)),
        Moment("manifest", draw.randint(1, 2)),
        Moment("manifest", draw.randint(2, 8)),
    )
    blows = tuple(Blow("SIGKILL", "maker", made.target, moment) for moment in moments)
    return replace(made, blows=blows)


def _frozen(made: Scenario, draw: random.Random) -> Scenario:
    by: tuple[By, ...] = ("time", "operation", "commit", "manifest", "manifest")
    if made.target == "extractor":
        by = ("time", "operation")
    blow = Blow("SIGSTOP", "maker", made.target, _moment(made, draw, *by))
    return replace(made, blows=(blow,), second=Second("while frozen", draw.random() < 0.5))


def _two(made: Scenario, draw: random.Random) -> Scenario:
    return replace(made, second=Second("at once", draw.random() < 0.5))


def _orphan(made: Scenario, draw: random.Random) -> Scenario:
    blow = Blow("SIGKILL", "runner", made.target, _moment(made, draw, "time", "progress"))
    return replace(made, blows=(blow,), second=Second("beside the orphan", True))


def _faulty(faults: tuple[Fault, ...], rate: float, bursts: tuple[int, ...] = (0,)) -> _Change:
    """Faults of the store: a share of all requests, at most `rate`, and so many in a row."""

    def change(made: Scenario, draw: random.Random) -> Scenario:
        plan = FaultPlan(
            seed=made.seed,
            faults=faults,
            rate=round(draw.uniform(rate / 3, rate), 3),
            burst=draw.choice(bursts),
            burst_first=draw.randrange(100),
            burst_every=draw.randint(150, 400),
        )
        return replace(made, store="s3", proxy=plan)

    return change


def _mixed(made: Scenario, draw: random.Random) -> Scenario:
    plan = FaultPlan(
        seed=made.seed,
        faults=FAULTS,
        rate=round(draw.uniform(0.05, 0.2), 3),
        ignore_conditions=draw.random() < 0.5,
        late_seconds=draw.choice((0.0, 3.0)),
    )
    blow = Blow("SIGKILL", "maker", made.target, _moment(made, draw, "time", "operation"))
    return replace(made, store="s3", proxy=plan, blows=(blow,))


def _no_conditions(made: Scenario, draw: random.Random) -> Scenario:
    frozen = draw.random() < 0.5
    made = _frozen(made, draw) if frozen else _two(made, draw)
    return replace(made, store="s3", proxy=FaultPlan(seed=made.seed, ignore_conditions=True))


def _late(made: Scenario, draw: random.Random) -> Scenario:
    plan = FaultPlan(seed=made.seed, late_seconds=draw.choice((2.0, 10.0, 60.0)))
    blow = Blow("SIGKILL", "maker", made.target, _moment(made, draw, "time", "operation"))
    return replace(made, store="s3", proxy=plan, blows=(blow,))


def _full_scratch(made: Scenario, draw: random.Random) -> Scenario:
    free = int(4096 * 2 ** draw.uniform(0, 9))
    return replace(made, space=Space("scratch", free))


def _full_store(made: Scenario, draw: random.Random) -> Scenario:
    free = int(4096 * 2 ** draw.uniform(0, 7))
    plan = FaultPlan(seed=made.seed, room=free) if made.store == "s3" else None
    return replace(made, space=Space("store", free), proxy=plan)


def _from_nothing(seed: int, draw: random.Random) -> Scenario:
    store: StoreKind = draw.choice(("file", "s3"))
    made = Scenario(seed, FROM_NOTHING, "everything", store)
    blows = []
    for target in ("tiler", "gan-trainer", "candidates", "classifier", "dataset"):
        victim: Victim = draw.choice(("maker", "runner", "everything"))
        moment = Moment("time", round(draw.uniform(0.02, 0.98), 3))
        blows.append(Blow("SIGKILL", victim, target, moment))
    return replace(made, blows=tuple(blows))


_SPECIAL: Final[Mapping[str, _Change]] = {
    "kill -9 in commit": _in_commit,
    "frozen writer": _frozen,
    "two runners at once": _two,
    "runner beside an orphan": _orphan,
    "store: resets": _faulty(
        ("reset before", "reset within the request", "reset within the answer"), 0.2, (4, 8)
    ),
    "store: lost answers": _faulty(("answer lost", "500 when done"), 0.2, (3, 8)),
    "store: 503 in bursts": _faulty(("503",), 0.1, (5, 10)),
    "store: 500": _faulty(("500", "500 when done"), 0.2, (4, 8)),
    "store: slow": _faulty(("slow answer",), 0.3),
    "store: truncated": _faulty(("truncated answer", "reset within the answer"), 0.2, (4, 8)),
    "store: delivered twice": _faulty(("delivered twice",), 0.9),
    "store: no conditions": _no_conditions,
    "store: late listings": _late,
    "store: all of it, and kill -9": _mixed,
    "full scratch": _full_scratch,
    "full store": _full_store,
}
