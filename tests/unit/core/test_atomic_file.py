"""Folders come and go with their files, whoever else is writing there at that moment."""

from __future__ import annotations

import threading
from pathlib import Path

from hdgan.core.store_file import FileStore


def test_folders_go_with_their_last_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    for key in ("a/b/c/1", "a/b/2"):
        store.put(key, b"x")
    store.delete("a/b/c/1")
    assert not (tmp_path / "store/a/b/c").exists()
    assert store.get("a/b/2") == b"x"
    store.delete("a/b/2")
    assert [path.name for path in tmp_path.rglob("*")] == ["store"]
    store.delete("a/b/2")


def test_who_writes_is_not_disturbed_by_who_removes(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    problems: list[BaseException] = []

    def churn(number: int) -> None:
        try:
            for turn in range(150):
                key = f"deep/er/still/{number}"
                if turn % 2:
                    store.put_if_absent(key, b"x")
                else:
                    store.put(key, b"x")
                assert store.get(key) == b"x"
                store.delete(key)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert list((tmp_path / "store").rglob("*")) == []
