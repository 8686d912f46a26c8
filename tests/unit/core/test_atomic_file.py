"""Space for a memory map is claimed before it is written through."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hdgan.core.atomic_file import reserve
from hdgan.core.errors import NoSpace

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")


def test_a_sparse_file_gets_its_blocks_and_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "map"
    with path.open("wb") as file:
        file.write(b"head")
        file.truncate(1 << 20)

    reserve(path)

    assert (path.stat().st_size, path.read_bytes()[:4]) == (1 << 20, b"head")
    assert path.stat().st_blocks * 512 >= 1 << 20


def test_a_full_disk_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "map").write_bytes(bytes(10))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoSpace, match=r"cannot write .*map: No space"):
        reserve(tmp_path / "map")
