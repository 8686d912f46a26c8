"""Read by every Python process of a scenario before anything else, because PYTHONPATH names this
folder: says that the process is there, and ends or stops it at a moment that is counted in what it
has done to its store and its scratch.

An audit hook sees an operation just before it is done. Nothing of the product is changed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

JOURNAL = "FAULTS_JOURNAL"
"""A folder: a process leaves an empty file `<pid>.<who it is>` there when it starts, and the one
that has had its signal `fired`."""
PLAN = "FAULTS_PLAN"
"""JSON: `who`, `signal`, `operation` (which one it comes before, from 1), `after` (count only from
an operation that has this in its name), `roots` (folders whose files count). Or `who` and
`longest`: the process is killed in the midst of the write that makes a file longer than this."""

CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def who() -> str:
    """The stage this process runs, or the subcommand of `hdgan`."""
    words = sys.orig_argv[1:]
    if any("multiprocessing" in word for word in words):
        return "worker"
    request = os.environ.get("HDGAN_REQUEST")
    if request is not None:
        return Path(request).stem
    named = [word for word in words if not word.startswith("-")]
    return named[1] if len(named) > 1 else "python"


def changed(event: str, arguments: tuple[Any, ...], roots: list[str]) -> str | None:
    """What an operation changes, by name; None if it changes nothing that counts."""
    if event == "open":
        path, _, flags = arguments
        if not isinstance(flags, int) or not flags & WRITING:
            return None
        return _below(path, roots)
    if event in CHANGES:
        name = _below(arguments[0], roots)
        to = arguments[1] if event in ("os.rename", "os.link") else ""
        return None if name is None else f"{name} {to}"
    if event == "http.client.send":
        data = arguments[1]
        if not isinstance(data, bytes) or data.startswith((b"GET ", b"HEAD ")):
            return None
        return bytes(data[:400]).decode("latin-1")
    return None


def _below(path: object, roots: list[str]) -> str | None:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, str) and any(path.startswith(root) for root in roots):
        return path
    return None


def arm(plan: dict[str, Any], fired: str) -> None:
    """Have the signal sent to this process, unless another one has had it."""
    process = os.getpid()
    number = signal.Signals[plan["signal"]]
    left = int(plan["operation"])
    after = plan["after"]
    counting = after is None

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left, counting
        if left <= 0 or event not in counted or os.getpid() != process:
            return
        name = changed(event, arguments, plan["roots"])
        if name is None:
            return
        counting = counting or (after is not None and after in name)
        if not counting:
            return
        left -= 1
        if left == 0:
            try:
                os.close(os.open(fired, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(process, number)

    counted = {"open", "http.client.send", *CHANGES}
    sys.addaudithook(hook)


def limit(longest: int) -> None:
    """Have the system kill this process when it writes a file of more bytes."""
    # Python would rather have an error.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))


if JOURNAL in os.environ:
    me = who()
    journal = Path(os.environ[JOURNAL])
    # Another program's Python may be started when the folder has gone.
    if journal.is_dir():
        (journal / f"{os.getpid()}.{me}").touch()
        plan = json.loads(os.environ.get(PLAN) or "null")
        if plan is not None and plan["who"] == me:
            if "longest" in plan:
                limit(plan["longest"])
            else:
                arm(plan, str(journal / "fired"))
