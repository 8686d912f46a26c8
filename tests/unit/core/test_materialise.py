"""A dataset's files in a folder: verified, quick the second time, never over anybody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.materialise import Materialised, materialise
from hdgan.core.store import open_store


def artifact(folder: Path, key: str, **files: bytes) -> Artifact:
    attempt = Attempt(open_store((folder / "store").as_uri()), "dataset", key * 64)
    for name, data in files.items():
        attempt.add_bytes(name, data)
    return attempt.commit({})


def test_files_appear_and_the_second_time_nothing_is_done(tmp_path: Path) -> None:
    made = artifact(tmp_path, "1", a=b"one", b=b"two")
    folder = tmp_path / "deep" / "data"

    assert materialise(made, folder) == Materialised(written=2, kept=0, removed=0)
    assert (folder / "a").read_bytes() == b"one"
    assert (folder / "a").stat().st_nlink == 2  # no second copy on the same disk
    assert materialise(made, folder) == Materialised(written=0, kept=2, removed=0)


def test_a_newer_dataset_replaces_ours_and_leaves_what_is_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    old = artifact(tmp_path, "1", a=b"one", b=b"two", c=b"three")
    materialise(old, folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "c").unlink()
    (folder / "c").write_text("changed by hand")

    new = artifact(tmp_path, "2", a=b"one", d=b"four")
    assert materialise(new, folder) == Materialised(written=1, kept=1, removed=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".hdgan-dataset.json", "a", "c", "d", "notes.txt",
    ]  # fmt: skip
    assert (folder / "c").read_text() == "changed by hand"
    assert old.read("a") == b"one"  # the store is as it was


def test_a_stranger_is_not_overwritten_and_damage_is_repaired(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("mine")
    made = artifact(tmp_path, "1", a=b"one", b=b"two")
    with pytest.raises(RequestError, match="not written by this program"):
        materialise(made, folder)
    assert not (folder / "b").exists()

    (folder / "a").unlink()
    materialise(made, folder)
    (folder / "a").unlink()
    (folder / "a").write_text("damaged")
    assert materialise(made, folder).written == 1
    assert (folder / "a").read_bytes() == b"one"


def test_a_damaged_store_is_noticed(tmp_path: Path) -> None:
    made = artifact(tmp_path, "1", a=b"one")
    path = Path(made.uri("a").removeprefix("file://"))
    path.write_bytes(b"eno")
    with pytest.raises(InputMissing, match="another SHA-256"):
        materialise(made, tmp_path / "data")
    assert not (tmp_path / "data" / "a").exists()
