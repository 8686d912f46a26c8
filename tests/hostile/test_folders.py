"""Folders with links, pipes and notes that mean harm: nothing outside of them is read, written or
removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.bounded_reading import TooLarge, read_file
from hdgan.core.dataset import check_dataset
from hdgan.core.dataset_export import export_dataset
from hdgan.core.errors import DataError, HdganError, RequestError
from hdgan.core.materialise import materialise
from hdgan.core.request import parse_request, read_part, read_request
from hdgan.core.sections import ClassConfig
from hdgan.core.slides import take_snapshot
from hdgan.desk.sources import find_sources, read_bounded
from support.fuzzing import MemoryStore
from support.tiny_dataset import write_dataset

CLASSES = [ClassConfig(name="a", color="#ff0000"), ClassConfig(name="b", color="#00ff00")]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_dataset(folder, CLASSES)
    return folder


@pytest.mark.parametrize("name", ["classes.json", "index.parquet", "README.md", "shard-00000.tar"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_dataset_whose_files_are_links_out_of_it_is_refused(
    name: str, relative: bool, dataset: Path, tmp_path: Path
) -> None:
    """Else an export of it would hand on what its maker had no right to read."""
    secret = tmp_path / "secret"
    (dataset / name).touch()
    os.replace(dataset / name, secret)
    (dataset / name).symlink_to(Path("..", "secret") if relative else secret)
    message = rf"{name}: is or is reached by a link that leads out of .*: put the file itself there"
    with pytest.raises(DataError, match=message):
        export_dataset(str(dataset), tmp_path / "out")
    assert not (tmp_path / "out" / name).exists()
    if name != "README.md":
        with pytest.raises(DataError, match=message):
            check_dataset(str(dataset))


def test_links_within_a_dataset_and_to_the_whole_of_it_are_followed(
    dataset: Path, tmp_path: Path
) -> None:
    (dataset / "classes.json").rename(dataset / "kept.json")
    (dataset / "classes.json").symlink_to("kept.json")
    (tmp_path / "link").symlink_to(dataset)
    assert check_dataset(str(tmp_path / "link")).pairs == 4


def test_a_link_in_a_circle_is_refused(dataset: Path) -> None:
    (dataset / "shard-00000.tar").unlink()
    (dataset / "shard-00000.tar").symlink_to("shard-00000.tar")
    with pytest.raises(HdganError, match=r"shard-00000\.tar"):
        check_dataset(str(dataset))


def artifact() -> Artifact:
    attempt = Attempt(MemoryStore(), "dataset", "a" * 64)  # type: ignore[arg-type]
    for name in ("a.txt", "deep/b.txt"):
        attempt.add_bytes(name, name.encode())
    return attempt.commit({})


def note(files: dict[str, Path], folder: Path) -> None:
    """A note that takes files for our own, as they are now."""
    listed = {
        name: {"sha256": "0" * 64, "size": path.stat().st_size, "mtimeNs": path.stat().st_mtime_ns}
        for name, path in files.items()
    }
    (folder / ".hdgan-dataset.json").write_text(json.dumps({"files": listed}))


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/{}", "./../secret", ""])
def test_a_note_removes_nothing_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "data", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("kept")
    note({name.format(str(secret)[1:]): secret}, folder)
    assert materialise(artifact(), folder).removed == 0
    assert secret.read_text() == "kept"


def test_a_note_removes_nothing_through_a_link(tmp_path: Path) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("kept")
    (folder / "old").symlink_to(outside)
    note({"old/secret": outside / "secret"}, folder)
    assert materialise(artifact(), folder).removed == 0
    assert (outside / "secret").read_text() == "kept"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "deep").symlink_to(outside)
    with pytest.raises(RequestError, match=r"deep/b\.txt: a folder of this path is a link that"):
        materialise(artifact(), folder)
    assert list(outside.iterdir()) == []
    assert [one.name for one in folder.iterdir()] == ["deep"]


def test_a_pipe_for_a_note_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".hdgan-dataset.json")
    with pytest.raises(HdganError, match="no ordinary file"):
        materialise(artifact(), tmp_path)


def test_a_pipe_for_a_slide_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.svs")
    with pytest.raises(RequestError, match=r"a\.svs is no ordinary file \(a pipe or a device\)"):
        take_snapshot(str(tmp_path))


def test_a_pipe_for_a_request_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "request.json")
    with pytest.raises(RequestError, match="cannot read it"):
        read_request({"HDGAN_REQUEST": str(tmp_path / "request.json")})


def test_a_pipe_among_masks_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    assert find_sources([tmp_path]) == [tmp_path / "b.png"]
    # One that is named itself is not waited for.
    with pytest.raises(RequestError, match="no ordinary file"):
        read_bounded(tmp_path / "a.png", 100)
    assert read_bounded(tmp_path / "b.png", 1) == b"x"
    (tmp_path / "b.png").write_bytes(b"xy")
    with pytest.raises(RequestError, match="is larger than 1 bytes"):
        read_bounded(tmp_path / "b.png", 1)


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(11))
    assert read_file(tmp_path / "a", 11) == bytes(11)
    with pytest.raises(TooLarge, match="more than 10 bytes"):
        read_file(tmp_path / "a", 10)
    with pytest.raises(OSError, match="no ordinary file"):
        read_file(Path("/dev/zero"), 10)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path, 10)


@pytest.mark.parametrize("part", ["-1", "1e3", "\u0661", "9" * 5000, " 1", "+1", "1_0", "0x1"])
def test_a_part_is_a_number_in_its_range(part: str) -> None:
    request = parse_request(
        json.dumps(
            {
                "run": "r",
                "stage": "s",
                "service": "s",
                "config": {},
                "key": "a" * 64,
                "stageVersion": 1,
                "parts": 20,
                "store": "file:///x",
                "scratch": "/x",
            }
        )
    )
    with pytest.raises(RequestError, match="must be a whole number from 0 to 19") as error:
        read_part(request, {"JOB_COMPLETION_INDEX": part})
    assert len(str(error.value)) < 300
