"""One stage as a subprocess: starts it, hands on what it prints, forwards a request to stop."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import IO, Any

from hdgan.core.atomic_file import explain_os_error, writing
from hdgan.core.events import MAX_LINE, parse_event
from hdgan.core.redaction import redact
from hdgan.core.request import PART_VARIABLE, REQUEST_VARIABLE, StageRequest
from hdgan.core.stage import GRACE_VARIABLE

TAIL = 20
"""Lines kept to be shown when a stage fails."""

KILL_AFTER = 10.0
"""Seconds beyond its grace after which a stage that does not end is killed."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class StopFlag:
    """Counts requests to stop (Ctrl-C, SIGTERM) while `listen` is entered."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def listen(self) -> Iterator[None]:
        def on_signal(number: int, frame: FrameType | None) -> None:
            self.count += 1

        before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def request(self) -> None:
        """Ask to stop, as a signal would."""
        self.count += 1

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass(frozen=True)
class Ended:
    """How a stage's process ended. A negative `code` is the signal that killed it."""

    code: int
    error: dict[str, Any] | None
    """Its last `error` event."""
    tail: list[str]
    """Its last log lines."""
    log: Path
    """All of them."""
    stopped: bool
    """Whether it had been told to stop."""


def run_stage_process(
    request: StageRequest,
    *,
    grace: float,
    stop: StopFlag,
    on_event: Callable[[dict[str, Any]], None],
    on_stopping: Callable[[], None],
    without: Collection[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Ended:
    """Run the request's service until it ends. A second request to stop kills it.

    without    variables of our environment that it does not get
    variables  that it gets beside them, or instead
    StoreError (NoSpace) if its request or its log cannot be written to scratch.
    """
    scratch = Path(request.scratch)
    request_file = scratch / "requests" / request.run / f"{request.stage}.json"
    log_file = scratch / "logs" / request.run / f"{request.stage}.log"
    # Whole or not at all: another runner of the same run may be starting the same stage.
    with writing(request_file) as file:
        file.write(request.model_dump_json(by_alias=True, indent=1).encode())
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        environ = _environment(request, request_file, grace)
        environ = {name: value for name, value in environ.items() if name not in without}
        environ |= variables or {}
        return _start(request, environ, log_file, grace, stop, on_event, on_stopping)
    except BrokenPipeError:
        raise  # whoever read our own output has enough
    except OSError as error:
        raise explain_os_error(error, "write", log_file) from error


def _start(
    request: StageRequest,
    environ: dict[str, str],
    log_file: Path,
    grace: float,
    stop: StopFlag,
    on_event: Callable[[dict[str, Any]], None],
    on_stopping: Callable[[], None],
) -> Ended:
    # By lines, so that a log that cannot be written is known at once, not when the stage has ended.
    with log_file.open("a", encoding="utf-8", buffering=1) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"hdgan.{request.service}"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            # A group of its own: Ctrl-C reaches us, and we tell the stage once.
            start_new_session=True,
        )
        try:
            return _follow(process, log, log_file, grace, stop, on_event, on_stopping)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def _environment(request: StageRequest, request_file: Path, grace: float) -> dict[str, str]:
    environ = {
        **os.environ,
        REQUEST_VARIABLE: str(request_file),
        GRACE_VARIABLE: f"{grace:g}",
        "PYTHONUNBUFFERED": "1",
    }
    environ.pop(PART_VARIABLE, None)
    if request.threads is not None:
        environ |= dict.fromkeys(THREAD_VARIABLES, str(request.threads))
    if "OMP_WAIT_POLICY" not in environ:
        # How long a thread of GNU OpenMP spins before it sleeps. By default so long that one busy
        # neighbour takes two thirds of the training's speed; with this, one third, and nothing
        # where there is none.
        environ.setdefault("GOMP_SPINCOUNT", "20000")
    return environ


def _follow(
    process: subprocess.Popen[str],
    log: IO[str],
    log_file: Path,
    grace: float,
    stop: StopFlag,
    on_event: Callable[[dict[str, Any]], None],
    on_stopping: Callable[[], None],
) -> Ended:
    lines: queue.Queue[str | None] = queue.Queue()
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    readers = [Thread(target=_read, args=(stream, lines), daemon=True) for stream in streams]
    for reader in readers:
        reader.start()
    open_streams = len(readers)
    tail: deque[str] = deque(maxlen=TAIL)
    error: dict[str, Any] | None = None
    told: float | None = None
    forwarded = 0
    while open_streams:
        # Also looked at while lines keep coming: a chatty stage must still be stoppable.
        if stop.count > forwarded:
            if forwarded == 0:
                told = time.monotonic()
                process.send_signal(signal.SIGTERM)
                on_stopping()
            else:
                process.kill()
            forwarded = stop.count
        if told is not None and time.monotonic() - told > grace + KILL_AFTER:
            process.kill()
        if process.poll() is not None and told is not None and lines.empty():
            break  # something it started may keep the pipes open; nobody waits for that
        try:
            line = lines.get(timeout=0.1)
        except queue.Empty:
            continue
        if line is None:
            open_streams -= 1
            continue
        line = redact(line)  # native libraries write to the pipe themselves
        log.write(line + "\n")
        event = parse_event(line)
        if event is None:
            tail.append(line)
            continue
        if event["event"] == "log":
            tail.append(str(event.get("message", "")))
        if event["event"] == "error":
            error = event
        on_event(event)
    return Ended(process.wait(), error, list(tail), log_file, told is not None)


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    try:
        while line := stream.readline(MAX_LINE):  # a longer one comes in pieces
            lines.put(line.rstrip("\n"))
    except ValueError:
        pass  # closed under us: nobody wants the rest
    finally:
        lines.put(None)
