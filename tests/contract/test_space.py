"""Space is looked for before anything is written; files that change are not taken for whole."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from hdgan.core.errors import NoSpace, StoreError
from hdgan.core.store import Content, Store
from hdgan.core.store_file import FileStore


def leave_free(size: int, monkeypatch: pytest.MonkeyPatch, blocks: int = 1000) -> None:
    """Every disk has so many bytes free from now on."""
    status = SimpleNamespace(f_bavail=size, f_frsize=1, f_blocks=blocks)
    monkeypatch.setattr(os, "statvfs", lambda folder: status)


def test_a_download_that_does_not_fit_is_not_begun(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("x", b"x" * 5000)
    target = tmp_path / "new" / "folder" / "target"
    leave_free(4999, monkeypatch)
    with pytest.raises(NoSpace, match=r"target: it needs 5000 bytes, but 4999 are free"):
        store.get_to("x", target)
    assert not target.exists()
    assert list(tmp_path.rglob(".hdgan-tmp-*")) == []
    leave_free(5000, monkeypatch)
    assert store.get_to("x", target).size == 5000


def test_a_store_on_a_disk_that_has_no_room_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "store")
    source = tmp_path / "source"
    source.write_bytes(b"x" * 100)
    store.put("kept", b"old")
    leave_free(99, monkeypatch)
    writes: list[Callable[[], object]] = [
        lambda: store.put("kept", b"x" * 100),
        lambda: store.put_from("kept", source),
        lambda: store.put_if_absent("new", b"x" * 100),
    ]
    for write in writes:
        with pytest.raises(NoSpace, match="it needs 100 bytes, but 99 are free") as caught:
            write()
        assert ".hdgan-tmp-" not in str(caught.value)
        assert caught.value.exit_code == 69
    assert store.get("kept") == b"old"
    assert list(store.unfinished()) == []


def test_a_file_system_that_does_not_tell_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_free(0, monkeypatch, blocks=0)
    FileStore(tmp_path).put("x", b"1")
    assert FileStore(tmp_path).get("x") == b"1"


def test_what_was_copied_is_told_with_its_digest(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.put_from("x", source) == Content(3, abc)
    assert store.get_to("x", target, sha256=abc) == Content(3, abc)
    source.write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert store.put_from("x", source) == Content(0, empty)
    assert store.get_to("x", target) == Content(0, empty)
    assert target.read_bytes() == b""


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written to"])
def test_a_file_that_changes_while_it_is_copied_is_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    os.utime(source, ns=(0, 0))
    store = FileStore(tmp_path / "store")
    fstat, calls = os.fstat, 0

    def changing(handle: int) -> os.stat_result:
        # The second is of the source, when it has been seen to be a file.
        nonlocal calls
        status = fstat(handle)
        calls += 1
        if calls == 2:
            with source.open("r+b") as file:
                if change == "grows":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
                elif change == "shrinks":
                    file.truncate(500)
                else:
                    file.write(b"y")
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", changing)
        with pytest.raises(StoreError, match=re.escape("source was written to while")):
            store.put_from("x", source)
    assert store.head("x") is None
    assert list(store.unfinished()) == []
    store.put_from("x", source)
    assert store.get("x") == source.read_bytes()


def test_new_folders_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder that has a new entry is synced: the new file's, and those of the new folders."""
    synced: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    FileStore(tmp_path / "store").put("a/b/x", b"1")
    folders = [path for path in synced if ".hdgan-tmp-" not in path]
    root = tmp_path.resolve()
    assert folders == [str(root / place) for place in (".", "store", "store/a", "store/a/b")]
