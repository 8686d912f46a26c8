"""`python -m support.fake_stage`: a service whose stage does what its config says, for tests of
the harness."""

from __future__ import annotations

import os
import time
from typing import Any

from pydantic import BaseModel, ConfigDict

from hdgan.core.errors import DataError, InputMissing, Stopped
from hdgan.core.stage import Stage, StageContext, main


class FakeConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    do: str
    amount: float = 1.0


def behave(ctx: StageContext) -> None:
    """One behaviour per word in `do`."""
    config: FakeConfig = ctx.config
    match config.do:
        case "fill":
            ctx.progress(1, 1, "files")
            ctx.run_info["note"] = "filled"
            ctx.output.add_bytes("a.txt", b"content")
        case "commit":
            ctx.output.add_bytes("a.txt", b"content")
            ctx.output.commit(ctx.run_info)
        case "save-and-fill":
            ctx.work.save(7, {"state.bin": b"weights"}, {})
            ctx.output.add_bytes("a.txt", b"content")
        case "nothing":
            pass
        case "data-error":
            raise DataError("3 of 4 slides are broken")
        case "bug":
            raise ZeroDivisionError("a bug of the stage")
        case "memory":
            raise MemoryError
        case "gpu-memory":  # as torch names and bases it
            raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.\nTried to ...")
        case "read-input":
            ctx.output.add_bytes("copy.txt", ctx.input("source").read("a.txt"))
        case "missing":
            raise InputMissing("the features are not there")
        case "space":
            ctx.require_scratch(10**18, "the training tiles")
        case "count":
            for i in range(2000):
                ctx.progress(i + 1, 2000, "tiles")
                time.sleep(0.0005)
            ctx.output.add_bytes("a.txt", b"content")
        case "measure":
            ctx.metric(kid=0.25, loss=float("nan"))
            ctx.progress(3, 12, "kimg")
            _until_stopped(ctx)
        case "deaf":
            time.sleep(60)
        case "part":
            _work_as_part(ctx)
        case other:
            raise AssertionError(other)


def _until_stopped(ctx: StageContext) -> None:
    deadline = time.monotonic() + 30
    while not ctx.stop_requested and time.monotonic() < deadline:
        time.sleep(0.01)
    ctx.work.save(7, {"state.bin": b"weights"}, {"kimg": 7})
    raise Stopped("stopped at 7")


def _work_as_part(ctx: StageContext) -> None:
    if not ctx.committing:
        ctx.work.save(1, {"part.txt": f"part {ctx.part}".encode()}, {})
        return
    ctx.output.add_bytes("merged.txt", b"merged")


def fake(name: str, **options: Any) -> Stage:
    return Stage(name, 1, FakeConfig, behave, **options)


if __name__ == "__main__":
    # What an import of a heavy service costs is not what is tested here.
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main(fake("fake"), fake("shared", parts=True), fake("cache", artifact=False))
