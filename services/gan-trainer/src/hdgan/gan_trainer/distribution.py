"""The processes that train together: sums over all of them, and one process for all of them.

With one process nothing of torch.distributed is touched. Gradients are summed by hand instead of
by DistributedDataParallel, because a step runs several backward passes, some of them through
gradients.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hdgan.core.errors import InternalError, RequestError

BEAT_SECONDS = 5.0
LOOPBACK = "127.0.0.1"
"""Where the processes of one machine meet."""


class PeerLost(InternalError):
    """Another training process ended or did not answer in time; its own error says why."""


class _BrokenOffError(Exception):
    """The work of the leading process is broken off: a process was asked to stop."""


class Processes:
    """The group of processes this one belongs to. `Processes()` is one process alone."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        device: torch.device | str = "cpu",
        local_rank: int = 0,
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.device = torch.device(device)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes, in place; returns it."""
        if self.size > 1:
            with _bounded("adding up over all processes"):
                dist.all_reduce(tensor)
        return tensor

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in some process; the same answer in all."""
        if self.size == 1:
            return flags
        # On the CPU, also beside GPUs: flags never make a GPU wait.
        total = self.sum_(torch.tensor(flags, dtype=torch.float32))
        return tuple(value > 0 for value in total.tolist())

    def led(
        self, work: Callable[[Callable[[], None]], None], stop_requested: Callable[[], bool]
    ) -> bool:
        """Let the leading process do `work` while the others wait for it.

        Args:
            work: calls the function it is given often: that tells the others that this one is
                alive, and breaks the work off when a process was asked to stop.
            stop_requested: whether this process was asked to stop.

        Returns:
            Whether the work was broken off; the same in all processes.
        """
        if not self.leads:
            while True:
                working, stop = self.any(False, stop_requested())
                if stop or not working:
                    return stop
        last = time.monotonic()

        def beat() -> None:
            nonlocal last
            if stop_requested() or time.monotonic() - last > BEAT_SECONDS:
                _, stop = self.any(True, stop_requested())
                last = time.monotonic()
                if stop:
                    raise _BrokenOffError

        try:
            work(beat)
        except _BrokenOffError:
            return True
        _, stop = self.any(False, stop_requested())
        return stop

    def share_bytes(self, data: bytes | None) -> bytes:
        """The bytes that the leading process gives (the others give None), in all of them."""
        if self.size == 1:
            if data is None:
                raise InternalError("the leading process has nothing to share")
            return data
        with _bounded("sharing state with all processes"):
            length = torch.tensor([len(data or b"")])
            dist.broadcast(length, 0)
            if self.leads:
                content = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)
            else:
                content = torch.empty(max(int(length), 1), dtype=torch.uint8)
            dist.broadcast(content, 0)
        return content.numpy().tobytes()[: int(length)]

    def share_files(self, files: Mapping[str, bytes] | None) -> dict[str, bytes] | None:
        """The files that the leading process gives, in all of them; None if it gives None."""
        names = None if files is None else sorted(files)
        shared: list[str] | None = self.share_json(names)
        if shared is None:
            return None
        return {name: self.share_bytes(None if files is None else files[name]) for name in shared}

    def share_json(self, value: Any) -> Any:
        """The JSON value that the leading process gives, in all of them."""
        data = json.dumps(value).encode() if self.leads else None
        return json.loads(self.share_bytes(data))

    def close(self) -> None:
        """Leave the group. Only when all do: it may wait for the others."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


class _bounded:  # noqa: N801 - reads as a statement
    """Turns torch's errors of lost or silent peers into one that says what happened."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        # Lack of memory is a RuntimeError, too, and no peer's fault.
        if (
            kind is not None
            and issubclass(kind, RuntimeError)
            and not issubclass(kind, torch.OutOfMemoryError)
        ):
            raise PeerLost(
                f"{self.what}: another training process ended or did not answer in time "
                f"({str(error).strip().splitlines()[0][:300]}). Its own log says why; the last "
                "saved state is intact. resources.peerTimeoutSeconds allows for slower peers"
            ) from (error if isinstance(error, BaseException) else None)


def join(device: str, timeout_seconds: float, environ: Mapping[str, str] = os.environ) -> Processes:
    """Join the processes named by torchrun's variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR
    and MASTER_PORT; without RANK, one process alone.

    Args:
        device: `cpu` (gloo) or `cuda` (NCCL; this process takes GPU number LOCAL_RANK).
        timeout_seconds: longest wait for a peer, here and in every sum.
    """
    if "RANK" not in environ:
        return Processes(device=device)
    try:
        rank, size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        local_rank = int(environ.get("LOCAL_RANK", "0"))
        if size > 1:
            environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    except (KeyError, ValueError) as error:
        raise RequestError(
            "RANK is set, so WORLD_SIZE and LOCAL_RANK must be whole numbers, and MASTER_ADDR and "
            f"MASTER_PORT say where process 0 is: {error}"
        ) from None
    place = torch.device(device, local_rank) if device == "cuda" else torch.device(device)
    if size == 1:
        return Processes(device=place)
    if place.type == "cuda":
        # Without this, a peer that is gone or silent ends this process by a signal and not by an
        # error that can be reported. It makes every sum wait for its end, which a step does anyway.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        torch.cuda.set_device(place)
    timeout = datetime.timedelta(seconds=timeout_seconds)
    with _bounded(f"process {rank} of {size} finding the others"):
        store = _store_on_this_machine(rank, timeout, environ)
        dist.init_process_group(
            # Flags and files go between CPUs, gradients between GPUs.
            "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo",
            init_method=None if store else "env://",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
    return Processes(rank, size, place, local_rank)


def _store_on_this_machine(
    rank: int, timeout: datetime.timedelta, environ: Mapping[str, str]
) -> Any:
    """Where the processes of one machine meet: nobody else gets to it. None: they are on several,
    or torchrun has a store for them.

    Torch's own listens on all addresses of the machine, and asks nobody who he is.
    """
    address, port = environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    if address != LOOPBACK or environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return None
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store: Any = dist.TCPStore  # type: ignore[attr-defined] # torch's stubs leave it out
    if rank != 0:
        return store(address, port, is_master=False, timeout=timeout)
    listener = socket.create_server((address, port))
    return store(
        address,
        port,
        is_master=True,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
