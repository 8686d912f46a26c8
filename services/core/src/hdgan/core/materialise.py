"""Puts the files of an artifact into a plain folder, and keeps that folder up to date.

A note beside the files says which of them are ours, so that a second run has nothing to do and
nothing of anybody else's is ever overwritten or removed.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hdgan.core.artifact import Artifact, FileEntry
from hdgan.core.atomic_file import explain_os_error, sha256_file, temporary_beside, writing
from hdgan.core.bounded_reading import read_file
from hdgan.core.disk_space import require_space
from hdgan.core.errors import RequestError, StoreError
from hdgan.core.json_documents import parse_object
from hdgan.core.store import check_key

NOTE = ".hdgan-dataset.json"
MAX_NOTE_BYTES = 256 << 20


@dataclass(frozen=True)
class Materialised:
    """What was done: files written, left as they were, and removed."""

    written: int
    kept: int
    removed: int


def materialise(artifact: Artifact, folder: Path) -> Materialised:
    """Make `folder` hold exactly the artifact's files, besides what others keep there.

    Files are hard links into a local store where that is possible, else copies; all are verified.
    RequestError if a file of somebody else is in the way, NoSpace if the disk is too full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ours = _read_note(folder)
        wanted = {entry.name: entry for entry in map(artifact.entry, artifact.names())}
        stale = [name for name in ours if name not in wanted]
        removed = sum(_remove(folder, name, ours[name]) for name in stale)
        # Before anything is written, so that a conflict leaves the folder as it was.
        todo = [
            entry
            for name, entry in wanted.items()
            if not _is_right(folder / name, entry, ours.get(name))
        ]
        for entry in todo:
            _refuse_strangers(folder, entry.name, ours.get(entry.name))
        if not _same_disk(artifact, folder):
            require_space(folder, sum(entry.size for entry in todo), "the dataset")
        for entry in todo:
            _place(artifact, entry, folder / entry.name)
        notes = {name: _note_of(folder / name, entry) for name, entry in wanted.items()}
    except OSError as error:
        raise explain_os_error(error, "write", error.filename or folder) from error
    if notes != ours:
        with writing(folder / NOTE) as file:
            document = {"contentDigest": artifact.content_digest, "files": notes}
            file.write(json.dumps(document, indent=1, sort_keys=True).encode())
    return Materialised(len(todo), len(wanted) - len(todo), removed)


def _read_note(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        files = parse_object(read_file(folder / NOTE, MAX_NOTE_BYTES), max_bytes=MAX_NOTE_BYTES)[
            "files"
        ]
        return {name: dict(values) for name, values in files.items() if _is_name(name)}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_name(name: str) -> bool:
    """Whether a file of an artifact can be called that: below the folder, wherever that is."""
    try:
        return check_key(name) != NOTE
    except StoreError:
        return False


def _is_inside(folder: Path, name: str) -> bool:
    """Whether no link of the folders of a file leads out of the folder: a note may be anybody's."""
    return (folder / name).parent.resolve().is_relative_to(folder.resolve())


def _note_of(path: Path, entry: FileEntry) -> dict[str, Any]:
    return {"sha256": entry.sha256, "size": entry.size, "mtimeNs": path.stat().st_mtime_ns}


def _untouched(path: Path, note: dict[str, Any] | None) -> bool:
    """Whether the file is still as we wrote it, judged by size and time."""
    if note is None or not path.is_file():
        return False
    status = path.stat()
    return (status.st_size, status.st_mtime_ns) == (note.get("size"), note.get("mtimeNs"))


def _is_right(path: Path, entry: FileEntry, note: dict[str, Any] | None) -> bool:
    if note is not None and note.get("sha256") == entry.sha256 and _untouched(path, note):
        return True
    return (
        path.is_file() and path.stat().st_size == entry.size and sha256_file(path) == entry.sha256
    )


def _refuse_strangers(folder: Path, name: str, note: dict[str, Any] | None) -> None:
    path = folder / name
    if not _is_inside(folder, name):
        raise RequestError(
            f"{path}: a folder of this path is a link that leads out of {folder}: remove the link, "
            "or name another folder with --dataset"
        )
    if (path.exists() or path.is_symlink()) and note is None:
        raise RequestError(
            f"{path} was not written by this program: move it away, or name another folder with "
            "--dataset"
        )


def _remove(folder: Path, name: str, note: dict[str, Any]) -> bool:
    """Remove a file of an older dataset unless somebody has changed it; whether it was."""
    path = folder / name
    if not _is_inside(folder, name) or not _untouched(path, note):
        return False
    path.unlink()
    for parent in path.relative_to(folder).parents:
        # Only folders that are empty now go.
        with contextlib.suppress(OSError):
            if parent != Path():
                (folder / parent).rmdir()
    return True


def _same_disk(artifact: Artifact, folder: Path) -> bool:
    """Whether files can be links, which take no space."""
    store = urlsplit(artifact.store.uri)
    if store.scheme != "file":
        return False
    return os.stat(unquote(store.path)).st_dev == os.stat(folder).st_dev


def _place(artifact: Artifact, entry: FileEntry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _link(artifact.uri(entry.name), entry, path):
        if path.is_symlink():
            path.unlink()
        artifact.fetch(entry.name, path)


def _link(uri: str, entry: FileEntry, path: Path) -> bool:
    """Hard link a local file to `path` if it can be done and the file verifies."""
    if not uri.startswith("file://"):
        return False
    temporary = temporary_beside(path)
    try:
        os.link(unquote(urlsplit(uri).path), temporary)
        if temporary.stat().st_size != entry.size or sha256_file(temporary) != entry.sha256:
            return False  # `fetch` says what is wrong with it
        os.replace(temporary, path)
    except OSError:
        return False  # another disk, or one without hard links
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True
