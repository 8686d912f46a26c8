"""A cap on a process's memory, page cache included, by the kernel's control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


@contextmanager
def memory_cap(limit: int) -> Iterator[Path | None]:
    """A control group of at most `limit` bytes; None where this process may not make one."""
    root, file = (V1, "memory.limit_in_bytes") if V1.is_dir() else (V2, "memory.max")
    group = root / f"hdgan-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / file).write_text(str(limit))
    except OSError:
        group = Path()
    try:
        yield group if group.name else None
    finally:
        if group.name:
            group.rmdir()


def join(group: Path | None) -> None:
    """Put this process under the cap."""
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
