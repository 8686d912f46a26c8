"""Space is asked for before anything is written, and a full disk is known in any wrapping."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path

import pytest

from hdgan.core.atomic_file import is_full
from hdgan.core.disk_space import require_space
from hdgan.core.errors import NoSpace, StoreError
from hdgan.core.local import run_local
from hdgan.core.progress_view import open_view
from hdgan.core.stage import _make_scratch
from support.runs import small_run


def test_too_little_space_is_said_with_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1_000_000))
    require_space(tmp_path, 1_000_000, "the export")
    with pytest.raises(NoSpace, match=r"the export needs 1\.5 MB more, 1\.0 MB are free"):
        require_space(tmp_path, 1_500_000, "the export")


def test_a_folder_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot look at .*/absent"):
        require_space(tmp_path / "absent", 1, "the export")


def wrapped(error: OSError) -> None:
    try:
        raise error
    except OSError as cause:
        raise RuntimeError("a library's own") from cause


def another(error: OSError) -> None:
    try:
        raise error
    except OSError:
        raise RuntimeError("a problem of its own, and said so") from None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_known_in_any_wrapping(code: int) -> None:
    full = OSError(code, os.strerror(code))
    assert is_full(full)
    with pytest.raises(RuntimeError) as caught:
        wrapped(full)
    assert is_full(caught.value)
    with pytest.raises(RuntimeError) as caught:
        another(full)
    assert not is_full(caught.value)
    assert not is_full(OSError(errno.EACCES, "no"))


def test_a_full_scratch_is_no_wrong_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(NoSpace, match=r"scratch: No space left.*run the same command again"):
        _make_scratch(tmp_path / "scratch")
    with pytest.raises(NoSpace, match=r"scratch: No space left.*run the same command again"):
        run_local(
            small_run(),
            store_uri=(tmp_path / "store").as_uri(),
            scratch=tmp_path / "scratch",
            view=open_view(io.StringIO()),
        )
