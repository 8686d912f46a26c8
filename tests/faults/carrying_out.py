"""Carries a scenario out: the harm, the resuming as a person would, and the look at what came."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from faults import checks, collecting
from faults.commands import TOO_LONG, Command, Problem, end_all, start, strike
from faults.scenarios import FROM_NOTHING, OWN_PROCESS, Moment, Scenario, Space
from faults.undisturbed import Undisturbed
from faults.world import World, world

AGAIN = frozenset({69, 75})
"""Exit codes that mean: the same command again, later."""
AWAITING = 3
KILLED_STAGE = 70
INTERRUPTED = 130
MOST_AGAIN = 8
"""Commands in a row that may end so while the store is at fault; then it is mended."""
MOST_TRIES = 4
"""Worlds a scenario may use up until its harm has found something to hit."""
GONE_SECONDS = 90.0
"""For what is left of a killed command to notice and end: a stage saves its work first."""

RUN = ["run", "run.yaml"]
IMPORT = ["annotations", "import", "run.yaml", "masks"]


@dataclass(frozen=True)
class Outcome:
    """How a scenario ended."""

    scenario: Scenario
    problem: str | None
    notes: tuple[str, ...]
    """What was seen on the way: exit codes, faults."""
    seconds: float


def carry_out(scenario: Scenario, undisturbed: Undisturbed, folder: Path) -> Outcome:
    """One scenario, in a folder of its own that is left there. With harm that comes too late to
    harm anything, it begins anew and the harm comes earlier."""
    started = time.monotonic()
    notes: list[str] = []
    problem = None
    try:
        for number in range(MOST_TRIES):
            place = folder / f"try-{number + 1}"
            place.mkdir(parents=True)
            with world(place, scenario, undisturbed) as made:
                try:
                    if _take_place(made, notes):
                        break
                finally:
                    end_all()
            shutil.rmtree(place)
            scenario = earlier(scenario)
            notes.append("too late")
        else:
            raise Problem(f"in {MOST_TRIES} tries the harm always came too late")
    except Problem as found:
        problem = str(found)
    return Outcome(scenario, problem, tuple(notes), time.monotonic() - started)


def earlier(scenario: Scenario) -> Scenario:
    """The same with its first harm at half the time, and half the space."""
    blows = list(scenario.blows)
    if blows:
        first = blows[0].moment
        at = first.at / 2 if first.by in ("time", "progress") else max(1, int(first.at) // 2)
        blows[0] = replace(blows[0], moment=Moment(first.by, at))
    space = scenario.space
    if space is not None:
        space = Space(space.place, max(4096, space.free // 4))
    proxy = scenario.proxy
    if proxy is not None and proxy.room is not None and space is not None:
        proxy = replace(proxy, room=space.free)
    return replace(scenario, blows=tuple(blows), space=space, proxy=proxy)


def _take_place(made: World, notes: list[str]) -> bool:
    """Harm, resume, look; False if there was no harm."""
    scenario = made.scenario
    if scenario.second is not None:
        commands = _SECONDS[scenario.second.when](made, notes)
        if commands is None:
            return False
    elif scenario.space is not None:
        commands = _fill(made, notes)
        if commands is None:
            return False
    else:
        commands = _strike_all(made, notes)
        if commands is None:
            return False
    _finish(made, notes)
    for command in commands:
        command.until_gone(GONE_SECONDS)
    _look(made)
    proxy = made.proxy
    if proxy is not None:
        proxy.heal()
        notes += [f"{count} x {name}" for name, count in sorted(proxy.happened.items())]
        if not scenario.blows and scenario.second is None and not proxy.happened:
            raise Problem(f"no fault in {proxy.requests} requests: nothing was tested")
    collecting.collect(made)
    _look(made)
    _nothing_left_to_do(made)
    return True


def _look(made: World) -> None:
    """Problem unless store and scratch are those of a finished run."""
    scratches = [made.scratch, made.other_scratch]
    _no(
        [
            *checks.wrong(made.objects(), made.undisturbed),
            *(one for s in scratches for one in checks.wrong_features(s, made.undisturbed)),
        ]
    )


def _no(problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise Problem("; ".join(found[:6]) + (f" and {len(found) - 6} more" if found[6:] else ""))


def _strike_all(made: World, notes: list[str]) -> list[Command] | None:
    """One command after the other, each struck; None if the first was not hit."""
    commands = []
    for blow in made.scenario.blows:
        command = start(made, _words(made), blow=blow)
        commands.append(command)
        hit = strike(command, blow, made)
        code = command.wait()
        notes.append(f"{blow.signal[3:].lower()}ed: {code}" if hit else f"missed: {code}")
        if hit and code == AWAITING and made.scenario.kind == FROM_NOTHING:
            hit = False
        if not hit and code not in (0, AWAITING) and not (made.proxy and code in AGAIN):
            raise Problem(f"{command}, not hit, ended with {code}: {command.text[-3000:]}")
        if not hit and blow is made.scenario.blows[0] and made.scenario.kind != FROM_NOTHING:
            return None
        if hit and code not in _codes_when_struck(made, blow.victim, blow.signal):
            raise Problem(f"{command}, {blow}, ended with {code}: {command.text[-3000:]}")
        if not hit and code == AWAITING:
            _annotate(made, notes)
        command.until_gone(GONE_SECONDS)
        _no(checks.damaged(made.objects()))
    return commands


def _codes_when_struck(made: World, victim: str, number: str) -> set[int]:
    """Exit codes of the command that are right after a signal."""
    own = made.scenario.target in OWN_PROCESS or made.scenario.kind == FROM_NOTHING
    # Where a signal comes last thing, all may be done; a store at fault may have been quicker.
    codes = {0} | (set(AGAIN) if made.proxy is not None else set())
    if number == "SIGTERM":
        # A stage that stops early is started again by its runner. A runner that has not come to
        # listen for signals yet, or not any more, ends by them as any program does.
        stopped = {INTERRUPTED, -signal.SIGTERM}
        return codes | (stopped if victim == "runner" or not own else set())
    if victim == "maker" and own:
        return codes | {KILLED_STAGE}
    return codes | {-signal.SIGKILL, -TOO_LONG}


def _freeze(made: World, notes: list[str]) -> list[Command] | None:
    """A command stands still, another one does everything, then the first goes on."""
    (blow,) = made.scenario.blows
    first = start(made, RUN, blow=blow)
    try:
        if not strike(first, blow, made):
            _end_well(first)
            return None
        second = made.scenario.second
        assert second is not None
        _finish(made, notes, other_scratch=not second.same_scratch)
        _look(made)
    finally:
        first.signal(signal.SIGCONT)
    code = first.wait()
    notes.append(f"thawed: {code}")
    if code != 0:
        raise Problem(f"the thawed {first} ended with {code}: {first.text[-3000:]}")
    _look(made)
    return [first]


def _end_well(command: Command) -> None:
    """The harm came too late: that is all right if the command had done its work."""
    code = command.wait()
    if code != 0:
        raise Problem(f"{command}, not hit, ended with {code}: {command.text[-3000:]}")


def _two(made: World, notes: list[str]) -> list[Command]:
    """Two commands at the same time."""
    second = made.scenario.second
    assert second is not None
    commands = [
        start(made, RUN),
        start(made, RUN, other_scratch=not second.same_scratch),
    ]
    for command in commands:
        code = command.wait()
        notes.append(f"one of two: {code}")
        if code != 0:
            raise Problem(f"one of two, {command}, ended with {code}: {command.text[-3000:]}")
    return commands


def _orphan(made: World, notes: list[str]) -> list[Command] | None:
    """The runner is killed; its stage still works when the next runner begins."""
    (blow,) = made.scenario.blows
    command = start(made, RUN, blow=blow)
    if not strike(command, blow, made):
        _end_well(command)
        return None
    code = command.wait()
    notes.append(f"killed: {code}; still at work: {len(command.living())}")
    return [command]


def _fill(made: World, notes: list[str]) -> list[Command] | None:
    """A command comes to a full disk; somebody makes room. None if there was room enough."""
    command = start(made, _words(made))
    code = command.wait()
    notes.append(f"full: {code}")
    if code == 0:
        return None
    if code != 69 or not re.search(r"(?i)\bspace\b", command.text):
        raise Problem(f"{command} on a full disk ended with {code}: {command.text[-3000:]}")
    command.until_gone(GONE_SECONDS)
    _no(checks.damaged(made.objects()))
    made.make_room()
    return [command]


_SECONDS = {"while frozen": _freeze, "at once": _two, "beside the orphan": _orphan}


def _words(made: World) -> list[str]:
    """The command that makes what is missing."""
    return IMPORT if made.scenario.target == "annotations" else RUN


def _annotate(made: World, notes: list[str]) -> None:
    _again_and_again(made, IMPORT, notes)


def _finish(made: World, notes: list[str], *, other_scratch: bool = False) -> None:
    """The same commands again, until the run has come to its end."""
    if made.scenario.target == "annotations":
        _annotate(made, notes)
    if _again_and_again(made, RUN, notes, other_scratch=other_scratch) == AWAITING:
        _annotate(made, notes)
        _again_and_again(made, RUN, notes, other_scratch=other_scratch)


def _again_and_again(
    made: World, words: list[str], notes: list[str], *, other_scratch: bool = False
) -> int:
    """Its last exit code: 0, or 3 where nothing is annotated yet. Problem with any other."""
    allowed = {0} | ({AWAITING} if made.scenario.kind == FROM_NOTHING else set())
    for number in range(MOST_AGAIN + 1):
        if number == MOST_AGAIN and made.proxy is not None:
            made.proxy.heal()
            notes.append("mended")
        command = start(made, words, other_scratch=other_scratch)
        code = command.wait()
        if code in allowed:
            if number:
                notes.append(f"then {code}")
            return code
        notes.append(str(code))
        if code not in AGAIN or made.proxy is None:
            raise Problem(f"{command} again ended with {code}: {command.text[-3000:]}")
        command.until_gone(GONE_SECONDS)
        _no(checks.damaged(made.objects()))
    raise Problem(f"{command} never ends well: {command.text[-3000:]}")


def _nothing_left_to_do(made: World) -> None:
    """Problem unless another run finds all there and makes nothing."""
    command = start(made, RUN)
    code = command.wait()
    made_again = re.findall(r"^([a-z-]+): started", command.text, re.MULTILINE)
    if code != 0 or made_again:
        raise Problem(
            f"when all was done, {command} ended with {code} and made {made_again}:"
            f" {command.text[-2000:]}"
        )
