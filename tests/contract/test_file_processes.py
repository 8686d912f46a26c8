"""A folder as a store for several processes at once, some of which are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from hdgan.core import atomic_file
from hdgan.core.errors import KeyMissing, NoSpace, StoreError
from hdgan.core.store_file import FileStore
from support.small_disk import small_disk

WRITER = """
import sys
from pathlib import Path
from hdgan.core.store_file import FileStore
store, name = FileStore(Path(sys.argv[1])), sys.argv[2]
sizes = (1, 3_000_000)
for turn in range(10**9):
    letter = bytes([ord(name)])
    store.put("shared/object", letter * sizes[turn % 2])
    source = Path(sys.argv[3]) / name
    source.write_bytes(letter * sizes[turn % 2])
    store.put_from("shared/copied", source)
    if store.put_if_absent(f"once/{turn}", letter * 1000):
        store.put(f"won/{name}/{turn}", b"")
    if turn % 10 == 0:
        store.probe()
    if turn == 1:
        print("going", flush=True)
"""


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Three processes that write the same objects as fast as they can, until they are killed."""
    folder = tmp_path / "sources"
    folder.mkdir()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "store"), name, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    yield started
    for one in started:
        one.kill()
        one.communicate()


def test_every_object_is_whole_whoever_writes_and_dies(
    writers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "store")
    for one in writers:
        assert one.stdout is not None
        assert one.stdout.readline() == "going\n", one.communicate()[1]
    seen: set[int] = set()
    for round_ in count():
        if round_ >= 60 and (len(seen) == 2 or round_ == 20_000):
            break
        for key in ("shared/object", "shared/copied"):
            data = store.get(key)
            assert len(set(data)) == 1
            assert len(data) in (1, 3_000_000)
            seen.add(len(data))
        for key in store.list("once/"):
            if round_ % 10 == 0:
                assert len(store.get(key)) == 1000
        if round_ == 30:
            writers[0].kill()  # in the middle of whatever it was doing
    assert all(one.poll() is None for one in writers[1:])
    for one in writers[1:]:
        one.kill()
    for one in writers:
        assert one.wait() == -9
    assert seen == {1, 3_000_000}
    for key in store.list("shared/"):
        assert len(set(store.get(key))) == 1
    # Exactly one of them made each object that is made once; who died may not have noted it.
    won = [key.split("/")[1:] for key in store.list("won/")]
    turns = [turn for _, turn in won]
    assert len(turns) == len(set(turns))
    for name, turn in won:
        assert store.get(f"once/{turn}") == name.encode() * 1000
    # What they left is found, none of it is listed, and it goes.
    left = list(store.unfinished())
    assert all(store.now() - one.started < timedelta(minutes=10) for one in left)
    listed = list(store.list(""))
    assert not any(".hdgan" in key for key in listed)
    for unfinished in left:
        store.remove_unfinished(unfinished)
    assert list(store.unfinished()) == []
    assert list(store.list("")) == listed


def test_a_writer_that_is_killed_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    command = (
        "import sys, os; from pathlib import Path; from hdgan.core import store_file\n"
        "from hdgan.core.atomic_file import writing\n"
        "with writing(Path(sys.argv[1]) / 'x') as file:\n"
        "    file.write(b'half'); file.flush(); print('going', flush=True); sys.stdin.read()\n"
    )
    store = FileStore(tmp_path)
    store.put("x", b"whole")
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    process.kill()
    process.communicate()
    assert store.get("x") == b"whole"
    assert list(store.list("")) == ["x"]
    (left,) = store.unfinished()
    assert left.size == 4
    store.remove_unfinished(left)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_another_process_removes_just_now_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, calls = atomic_file.make_folder, 0

    def removed(folder: Path, *, durable: bool = True) -> None:
        nonlocal calls
        calls += 1
        make(folder, durable=durable)
        if calls <= 3:
            folder.rmdir()

    monkeypatch.setattr(atomic_file, "make_folder", removed)
    store = FileStore(tmp_path / "store")
    store.put("a/x", b"1")
    assert store.get("a/x") == b"1"
    assert calls == 4


def test_nothing_outside_is_listed_written_or_deleted_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    for name in ("precious", "sub/precious", ".hdgan-tmp-precious"):
        (outside / name).write_bytes(b"1")
    store = FileStore(tmp_path / "store")
    store.put("work/a", b"1")
    (store.root / "work" / "link").symlink_to(outside)
    (store.root / "artifacts").symlink_to(outside)
    assert list(store.list("")) == ["artifacts", "work/a", "work/link"]
    uses: list[Callable[[str], object]] = [
        store.delete,
        lambda key: store.put(key, b"2"),
        lambda key: store.put_if_absent(key, b"2"),
        lambda key: store.put_from(key, store.root / "work" / "a"),
    ]
    for key in ("work/link/precious", "artifacts/sub/precious", "artifacts/new"):
        for use in uses:
            with pytest.raises(StoreError, match="a link that leads out of the store"):
                use(key)
    assert list(store.unfinished("artifacts/")) == []
    store.delete("work/link")  # the link itself
    names = sorted(path.name for path in outside.rglob("*"))
    assert names == [".hdgan-tmp-precious", "precious", "precious", "sub"]


def test_a_store_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "large disk")
    store = FileStore(tmp_path / "store")
    store.put("a/b", b"1")
    store.delete("a/b")
    assert list((tmp_path / "large disk").iterdir()) == []


def test_a_pipe_is_no_object(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    uses: list[Callable[[str], object]] = [
        store.get,
        store.sha256,
        lambda key: store.get_to(key, tmp_path / "target"),
    ]
    for use in uses:
        with pytest.raises(KeyMissing, match="no such object"):
            use("pipe")


def test_a_full_disk_has_a_time(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        store = FileStore(disk.folder)
        store.put("first", b"1")
        disk.fill()
        with pytest.raises(NoSpace):
            store.put("second", b"1")
        assert abs(store.now() - datetime.now(UTC)) < timedelta(minutes=5)
