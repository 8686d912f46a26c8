"""Turns a dataset of tar shards into plain folders, verified on the way and resumable.

A marker in the folder names the dataset and the shards whose files are all there. It is the first
file written, so that an export that was stopped is known for what it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hdgan.core.atomic_file import TEMPORARY, explain_os_error, writing
from hdgan.core.dataset_index import Index, read_classes, read_index
from hdgan.core.dataset_pairs import read_pairs
from hdgan.core.dataset_source import CLASSES, INDEX, DatasetSource, identity, open_dataset
from hdgan.core.disk_space import require_space
from hdgan.core.errors import RequestError
from hdgan.core.export_plan import (
    FOLDERS,
    MARKER,
    Marker,
    ShardState,
    check_vouched,
    marker_of,
    needed_bytes,
    unfinished,
)

MAX_MARKER_BYTES = 64 << 20


@dataclass(frozen=True)
class Exported:
    """What an export has done: pairs of the dataset, files written, files that were there."""

    pairs: int
    written: int
    kept: int


def export_dataset(
    uri: str, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> Exported:
    """Write a dataset's files into `images/`, `masks/`, `uncertainty/` and `metadata/` of `folder`,
    and beside them what the dataset has beside its shards.

    uri       folder, `s3://` prefix, or `<store>/artifacts/dataset/<key>`
    progress  called with (pairs done, pairs)
    Every file is verified before it is written, appears whole or not at all, and has the bytes it
    has in its shard. In a folder without manifest or note, no digest covers a pair's JSON: it is
    only compared with its row of the index.
    The same call goes on with an export that was stopped; of a complete one it compares names and
    sizes. RequestError if the folder holds anything else, NoSpace if it will not hold the dataset,
    DataError or InputMissing for what does not verify.
    """
    source = open_dataset(uri)
    beside = {name: source.read(name) for name in {CLASSES, INDEX, *source.sizes()}}
    read_classes(beside[CLASSES], uri)
    index = read_index(beside[INDEX], uri)
    check_vouched(index.columns, source.digest is not None, uri)
    sizes = source.shard_sizes(set(index.shards()))
    with _claimed(folder):
        marker = _marker(folder, identity(source, beside))
        _refuse_links(folder)
        _remove_unfinished(folder)
        states = [_state(folder, name, size, index.ids(name)) for name, size in sizes.items()]
        todo = unfinished(marker, states)
        other = {name: data for name, data in beside.items() if not _is(folder / name, data)}
        bytes_beside = sum(len(data) for data in other.values())
        needed = needed_bytes(todo, bytes_beside, copies=source.copies)
        require_space(folder, needed, "the export")
        written = 0
        if todo or other or not marker.complete:
            marker = marker.without(one.name for one in todo)
            _write(folder / MARKER, marker.to_json())
            for name, data in sorted(other.items()):
                _write(folder / name, data)
            written = len(other) + _fill(source, folder, index, todo, marker, progress)
    files = len(index) * len(FOLDERS) + len(beside)
    return Exported(len(index), written, files - written)


def _fill(
    source: DatasetSource,
    folder: Path,
    index: Index,
    todo: list[ShardState],
    marker: Marker,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Export the shards that are not all there, and say so in the marker after each; returns the
    number of files written."""
    done = len(index) - sum(one.files for one in todo) // len(FOLDERS)
    written = 0
    for one in todo:
        total = 0
        for size, new in _pairs(source, folder, one.name, index):
            total, written, done = total + size, written + new, done + 1
            if progress is not None:
                progress(done, len(index))
        # Once for thousands of files, before the marker says that they are there. After a power
        # failure those of a shard it does not name are compared byte for byte.
        os.sync()
        marker = marker.with_shard(one.name, total)
        _write(folder / MARKER, marker.to_json())
    _write(folder / MARKER, marker.whole().to_json())
    return written


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other exports out of it for as long as the block runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise explain_os_error(error, "write", folder) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(
                f"{folder}: another export into this folder is running: wait for its end, or name "
                "another folder"
            ) from None
        except OSError:
            pass  # a network file system that locks no folders: one at a time is the user's care
        yield
    finally:
        os.close(handle)


def _marker(folder: Path, digest: str) -> Marker:
    path = folder / MARKER
    try:
        data = None
        if path.is_file():
            with path.open("rb") as file:
                data = file.read(MAX_MARKER_BYTES)
        names = [name for name in os.listdir(folder) if not name.startswith(TEMPORARY)]
    except OSError as error:
        raise explain_os_error(error, "read", path) from error
    return marker_of(data, names, digest, str(folder))


def _refuse_links(folder: Path) -> None:
    """RequestError if what is written or cleared up in a folder of it would be elsewhere."""
    for place in sorted({(folder / pattern).parent for pattern in FOLDERS.values()}):
        if place.is_symlink():
            raise RequestError(
                f"{place}: is a link, and exports write into no folder but their own: remove it, or"
                " name another folder"
            )


def _remove_unfinished(folder: Path) -> None:
    """Remove what an export that was killed was writing; nobody else writes here."""
    for place in {folder, *((folder / pattern).parent for pattern in FOLDERS.values())}:
        try:
            with os.scandir(place) as scan:
                left = [entry for entry in scan if entry.name.startswith(TEMPORARY)]
            for entry in left:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise explain_os_error(error, "clear up", place) from error


def _state(folder: Path, name: str, size: int, ids: list[str]) -> ShardState:
    """Which of a shard's files are there, judged by their names and sizes."""
    present = total = 0
    for one in ids:
        for pattern in FOLDERS.values():
            path = folder / pattern.format(id=one)
            if path.is_file() and not path.is_symlink():
                present += 1
                total += path.stat().st_size
    return ShardState(name, size, len(ids) * len(FOLDERS), present, total)


def _pairs(
    source: DatasetSource, folder: Path, shard: str, index: Index
) -> Iterator[tuple[int, int]]:
    """Put the pairs of a shard into their folders; bytes of each, and how many files were new."""
    with source.shard(shard, folder) as path:
        for pair in read_pairs(path, f"{source.uri}/{shard}", index.rows(shard)):
            new = 0
            for suffix, data in pair.members.items():
                place = folder / FOLDERS[suffix].format(id=pair.id)
                if not _is(place, data):
                    _write(place, data, durable=False)
                    new += 1
            yield sum(map(len, pair.members.values())), new


def _is(path: Path, data: bytes) -> bool:
    """Whether a file is there with exactly this content."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size != len(data):
            return False
        return path.read_bytes() == data
    except OSError as error:
        raise explain_os_error(error, "read", path) from error


def _write(path: Path, data: bytes, *, durable: bool = True) -> None:
    with writing(path, durable=durable) as file:
        file.write(data)
