"""Starts the other processes of this machine and ends with them: nobody waits for the dead.

The process that was started (by the local runner or by Kubernetes) is the first of its machine and
starts the others as `python -m hdgan.gan_trainer` with torchrun's variables set. Under torchrun
every process has them already, and nothing is started here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from hdgan.core.errors import InternalError, RequestError, Stopped
from hdgan.core.events import MAX_LINE, parse_event
from hdgan.core.machines import NODES, node_rank, whole_number
from hdgan.gan_trainer.distribution import LOOPBACK

PARENT = "HDGAN_RANK_PARENT"
# How long the first process may take to notice for itself that another has died.
NOTICE_SECONDS = 20.0


@dataclass(frozen=True)
class Placement:
    """Where this machine's processes stand among all: pure arithmetic on the environment."""

    node: int
    nodes: int
    local: int
    address: str
    port: int

    def variables(self, local_rank: int) -> dict[str, str]:
        """torchrun's variables for one process of this machine."""
        return {
            "RANK": str(self.node * self.local + local_rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(self.nodes * self.local),
            "LOCAL_WORLD_SIZE": str(self.local),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def place(local: int, environ: Mapping[str, str]) -> Placement | None:
    """Where this machine stands; None when nothing is to be started (one process, or torchrun's).

    Args:
        local: processes on this machine.
        environ: `HDGAN_NODES` machines (default 1), of which this is `HDGAN_NODE_RANK` (default:
            `JOB_COMPLETION_INDEX`); with several, `MASTER_ADDR` and `MASTER_PORT` of the first.
    """
    if "RANK" in environ:
        return None
    node, nodes = node_rank(environ)
    if nodes == 1:
        return None if local == 1 else Placement(0, 1, local, LOOPBACK, _free_port())
    if "MASTER_ADDR" not in environ or "MASTER_PORT" not in environ:
        raise RequestError(
            f"{NODES} is {nodes}: set MASTER_ADDR and MASTER_PORT to where machine 0 is reached"
        )
    port = whole_number(environ, "MASTER_PORT", "")
    return Placement(node, nodes, local, environ["MASTER_ADDR"], port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class LocalRanks:
    """The other processes of this machine, as long as it is entered.

    When one of them fails, the reason is kept in `failure`; if this process then does not end by
    itself soon (it may wait for the dead one), it is ended with the same exit code.
    """

    def __init__(self, placement: Placement, report: Callable[[str, int], None]) -> None:
        self._placement = placement
        self._report = report
        self._processes: list[subprocess.Popen[bytes]] = []
        self._watchers: list[threading.Thread] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self.failure: tuple[str, int] | None = None
        """Message and exit code of the first process that failed."""
        self._by_loss = False

    def __enter__(self) -> Self:
        os.environ.update(self._placement.variables(0))
        for local_rank in range(1, self._placement.local):
            process = subprocess.Popen(
                [sys.executable, "-m", "hdgan.gan_trainer"],
                env={
                    **os.environ,
                    **self._placement.variables(local_rank),
                    PARENT: str(os.getpid()),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            self._processes.append(process)
            watcher = threading.Thread(target=self._watch, args=(process, local_rank), daemon=True)
            watcher.start()
            self._watchers.append(watcher)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After a normal end, or a stop, which all agree on, the others end by themselves.
        agreed = kind is None or issubclass(kind, Stopped)
        patience = NOTICE_SECONDS if agreed else 0.0
        deadline = time.monotonic() + patience
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._closing.set()
                process.kill()
                process.wait()
        self._closing.set()
        for watcher in self._watchers:
            watcher.join()
        for name in self._placement.variables(0):
            os.environ.pop(name, None)

    def failed_within(self, seconds: float) -> bool:
        """Whether another process of this machine has failed, or does so within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.failure is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.failure is not None

    def _watch(self, process: subprocess.Popen[bytes], local_rank: int) -> None:
        """Read what a process prints (its last error) and take note of how it ends."""
        message, kind = "", ""
        assert process.stdout is not None
        while line := process.stdout.readline(MAX_LINE):
            event = parse_event(line.decode(errors="replace"))
            if event is not None and event["event"] == "error":
                message, kind = str(event.get("message", "")), str(event.get("error", ""))
        code = process.wait()
        if code in (0, 75) or self._closing.is_set():
            return
        code = code if code > 0 else InternalError.exit_code
        with self._lock:
            first = self.failure is None
            # One that only lost a peer is not the cause, even where it ends first.
            if first or self._by_loss:
                why = message or f"it ended with exit code {process.returncode}"
                self.failure = (f"training process {local_rank} of this machine: {why}", code)
                self._by_loss = kind == "PeerLost"
        if first and not self._closing.wait(NOTICE_SECONDS):
            assert self.failure is not None
            self._report(*self.failure)
            for other in self._processes:
                other.kill()
            os._exit(code)


def end_with_parent(environ: Mapping[str, str] = os.environ) -> None:
    """In a process that `LocalRanks` started: be killed when the one that started it is gone."""
    parent = environ.get(PARENT)
    if parent is None:
        return
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != int(parent):
        os._exit(InternalError.exit_code)
