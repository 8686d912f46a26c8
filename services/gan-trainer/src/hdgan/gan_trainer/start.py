"""Brings the processes of a training together, and explains what ended one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from hdgan.core.errors import (
    DataError,
    HdganError,
    InputMissing,
    InternalError,
    RequestError,
    Stopped,
)
from hdgan.core.stage import StageContext
from hdgan.gan_trainer.distribution import PeerLost, Processes, join
from hdgan.gan_trainer.local_ranks import LocalRanks, end_with_parent, place

_BY_EXIT_CODE: dict[int, type[HdganError]] = {
    error.exit_code: error for error in (RequestError, DataError, InputMissing, InternalError)
}
# How long to wait for word of the process whose end broke a sum.
_WORD_SECONDS = 5.0


@contextmanager
def training_processes(ctx: StageContext) -> Iterator[Processes]:
    """All processes of this training, joined; those of this machine are started here.

    Raises, when another process of this machine failed, that process's error.
    """
    end_with_parent()
    timeout = float(str(ctx.request.context.get("peerTimeoutSeconds") or 600))
    local = _local_processes(ctx)
    placement = place(local, os.environ)
    with ExitStack() as stack:
        ranks: LocalRanks | None = None
        if placement is not None:
            ranks = stack.enter_context(LocalRanks(placement, _reporter(ctx)))
        if ctx.device == "cpu":
            on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            torch.set_num_threads(max(1, ctx.threads // on_this_machine))
        try:
            processes = join(ctx.device, timeout)
            try:
                yield processes
            except Stopped:  # all processes stop at the same step
                processes.close()
                raise
            processes.close()
        except PeerLost as error:
            if ranks is not None and ranks.failed_within(_WORD_SECONDS):
                assert ranks.failure is not None
                message, code = ranks.failure
                raise _BY_EXIT_CODE.get(code, InternalError)(message) from error
            raise


def _local_processes(ctx: StageContext) -> int:
    asked = ctx.request.context.get("processes")
    gpus = torch.cuda.device_count() if ctx.device == "cuda" else 0
    if asked is None:
        return max(gpus, 1)
    count = int(str(asked))
    if ctx.device == "cuda" and count > gpus:
        raise RequestError(
            f"resources.processes is {count}, but this machine has {gpus} GPUs: each process needs "
            "one of its own"
        )
    return count


def _reporter(ctx: StageContext):  # type: ignore[no-untyped-def]
    def report(message: str, code: int) -> None:
        ctx.log(f"{message} (exit code {code})", level="error")

    return report
