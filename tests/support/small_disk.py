"""Disks of a few megabytes that can be filled up: tmpfs, which only root may mount."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MB = 1_000_000


@dataclass(frozen=True)
class SmallDisk:
    """A mounted disk. What is put on it goes below `folder`."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "data"

    @property
    def free(self) -> int:
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take what is free but for `leave` bytes (rounded down to pages)."""
        self.clear()
        size = self.free - leave
        if size > 0:
            with self._filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.root / "filler"


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[SmallDisk]:
    """A disk of `size` bytes mounted at `place`, while the block runs. Skips the test elsewhere."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small disks this needs")
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        disk = SmallDisk(place)
        disk.folder.mkdir()
        yield disk
    finally:
        # At once, even if a file on it is still open.
        subprocess.run(["umount", "-l", str(place)], check=True)
