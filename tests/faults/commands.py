"""`hdgan` as a person types it, with what harming its processes takes to know of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.hook.sitecustomize import JOURNAL, PLAN
from faults.scenarios import Blow
from faults.world import TESTS, World
from support.small_pipeline import HDGAN

LONGEST = 420.0
"""Seconds after which a command counts as hanging."""
COUNTED = ("operation", "commit", "manifest")
"""Moments that a process sees come itself."""
TOO_LONG = signal.SIGXFSZ
"""What the system kills a process with that writes a longer file than it may."""
_LOOK = 0.005
_STAT_STATE, _STAT_GROUP = 0, 2


_started: list[Command] = []


class Problem(Exception):
    """What must not be, found in a scenario."""


@dataclass
class Command:
    """One that was started. The command and its stages have process groups of their own."""

    words: list[str]
    process: subprocess.Popen[bytes]
    journal: Path
    scratch: Path

    @property
    def text(self) -> str:
        """All that it has printed."""
        return self.journal.joinpath("printed.txt").read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def fired(self) -> bool:
        """Whether the signal that was planned for one of its processes has been sent."""
        return self.journal.joinpath("fired").exists()

    def wait(self) -> int:
        """Its exit code. Problem if it hangs."""
        try:
            return self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise Problem(f"{self} has not ended after {LONGEST:g} s: {self.text}") from None

    def pid_of(self, who: str) -> int | None:
        """The newest of its processes of that name, when it has started."""
        found = [path for path in self.journal.iterdir() if path.name.endswith(f".{who}")]
        newest = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
        return None if newest is None else int(newest.name.partition(".")[0])

    def groups(self) -> set[int]:
        """Groups of its processes."""
        return {self.process.pid} | {
            int(path.name.partition(".")[0])
            for path in self.journal.iterdir()
            if path.name.partition(".")[0].isdecimal()
        }

    def living(self) -> list[str]:
        """Names of its processes that have not ended."""
        groups = self.groups()
        return [name for group, name in _processes() if group in groups]

    def signal(self, number: signal.Signals) -> None:
        """To all its processes."""
        for group in self.groups():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)

    def until_gone(self, seconds: float) -> None:
        """Wait for all its processes. Problem if some do not end."""
        self.process.poll()
        if not _until(lambda: not self.living(), seconds):
            raise Problem(f"{seconds:g} s after {self} there are still {self.living()}")

    def __str__(self) -> str:
        return f"hdgan {' '.join(self.words[:2])}"


def start(
    world: World, words: list[str], *, blow: Blow | None = None, other_scratch: bool = False
) -> Command:
    """Start `hdgan run` or `hdgan annotations import` on the store of a scenario."""
    journal = world.folder / "journal" / f"{uuid.uuid4().hex[:8]}-{words[0]}"
    journal.mkdir(parents=True)
    scratch = world.other_scratch if other_scratch else world.scratch
    line = [*words, "--store", world.store_uri]
    if words[0] == "run":
        line += ["--scratch", str(scratch)]
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("HDGAN_", "AWS_"))}
    environ = inherited | world.environ | {JOURNAL: str(journal)}
    hook = str(TESTS / "faults" / "hook")
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, (hook, inherited.get("PYTHONPATH"))))
    if blow is not None and blow.moment.by in (*COUNTED, "write"):
        environ[PLAN] = json.dumps(_plan(world, blow, scratch))
        # It would be killed at the first thing it has compiled.
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with journal.joinpath("printed.txt").open("wb") as printed:
        process = subprocess.Popen(
            [HDGAN, *line],
            cwd=world.undisturbed.run.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            start_new_session=True,
        )
    command = Command(line, process, journal, scratch)
    _started.append(command)
    return command


def end_all() -> None:
    """Kill what is left of all commands: nothing outlives its scenario, however that ends."""
    while _started:
        command = _started.pop()
        if command.living():
            command.signal(signal.SIGKILL)
        command.process.wait()


def maker(target: str) -> str:
    """The process that makes it, as the hook names it."""
    return {"release": "run"}.get(target, target)


def strike(command: Command, blow: Blow, world: World) -> bool:
    """Wait for the moment and send the signal; False if the command ended before."""
    if blow.moment.by == "write":
        return TOO_LONG in (-command.wait(), _killed_by(command.text))
    if blow.moment.by in COUNTED:
        while not command.fired and not command.ended:
            time.sleep(_LOOK)
        return command.fired
    who = maker(blow.target)
    while (pid := command.pid_of(who)) is None:
        if command.ended:
            return False
        time.sleep(_LOOK)
    _await_moment(command, blow, world)
    if command.ended:
        return False
    number = signal.Signals[blow.signal]
    match blow.victim:
        case "everything":
            command.signal(number)
        case "runner":
            command.process.send_signal(number)
        case "maker":
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return False
    return True


def _killed_by(text: str) -> int | None:
    """The signal that a runner says its stage was killed by."""
    found = re.search(r"killed by (SIG[A-Z0-9]+)", text)
    return None if found is None else signal.Signals[found[1]]


def _await_moment(command: Command, blow: Blow, world: World) -> None:
    base, moment = world.undisturbed, blow.moment
    if moment.by == "progress":
        log = Path("logs") / "cut" / f"{blow.target}.log"
        wanted = max(1, round(moment.at * _progress_events(base.run.scratch / log)))
        before = _progress_events(command.scratch / log)
        while not command.ended:
            if _progress_events(command.scratch / log) - before >= wanted:
                return
            time.sleep(_LOOK)
        return
    end = time.monotonic() + moment.at * base.seconds.get(blow.target, 2.0)
    while not command.ended and time.monotonic() < end:
        time.sleep(min(_LOOK, max(0.0, end - time.monotonic())))


def _progress_events(log: Path) -> int:
    try:
        return log.read_bytes().count(b'"event": "progress"')
    except FileNotFoundError:
        return 0


def _plan(world: World, blow: Blow, scratch: Path) -> dict[str, object]:
    # What a commit writes first, and what makes it real; a release is the runner's.
    release = blow.target == "release"
    after = {
        "commit": "/releases/" if release else "run-info.json",
        "manifest": "/pointer/" if release else "manifest.json",
    }.get(blow.moment.by)
    if blow.moment.by == "write":
        return {"who": maker(blow.target), "longest": int(blow.moment.at)}
    return {
        "who": maker(blow.target),
        "signal": blow.signal,
        "operation": int(blow.moment.at),
        "after": after,
        "roots": [f"{world.folder / 'store'}/", f"{scratch}/"],
    }


def _until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _processes() -> list[tuple[int, str]]:
    """Process group and name of every process that has not ended."""
    if not Path("/proc/self/stat").exists():
        sys.exit("these tests look for processes in /proc: they need Linux")
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text(errors="replace").rpartition(") ")
            fields = rest.split()
            if fields[_STAT_STATE] not in "ZX":
                found.append((int(fields[_STAT_GROUP]), name.partition("(")[2]))
    return found
