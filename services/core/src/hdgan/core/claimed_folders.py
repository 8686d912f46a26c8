"""Folders on scratch that belong to the process that holds their lock: several may work on one
scratch, and what a killed one has left is known by its lock, which ended with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".making-"
_RACES = 20
_CLAIMS = 1000
# Network file systems without locks: then a stage has to be alone on its scratch.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


@contextlib.contextmanager
def making(root: Path, name: str) -> Iterator[Path]:
    """A new folder below `root`, locked, to make something in before it is put in its place; what
    is left of it afterwards is removed. OSError."""
    folder, handle = _claimed(root, name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextlib.contextmanager
def claimed(root: Path, name: str) -> Iterator[Path]:
    """The first of the folders `<name>-0`, `<name>-1` ... below `root` that no other process has,
    locked, with what a killed one has left in it. It stays, unless its holder removes it. OSError.
    """
    for number in range(_CLAIMS):
        folder = root / f"{name}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        handle = _lock(folder)
        if handle is None:
            continue
        try:
            if _is_at(handle, folder):  # and not one that its holder has just removed
                yield folder
                return
        finally:
            os.close(handle)
    raise OSError(errno.EAGAIN, "too many others work here", str(root / name))


def remove_unfinished(root: Path) -> None:
    """Delete what killed processes have left half-made; what others are at work on stays."""
    for path in root.glob(f"{TEMPORARY}*"):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        handle = _lock(path)
        if handle is None:
            continue
        try:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)


def put_in_place(folder: Path, target: Path) -> None:
    """Rename a folder to `target`, over what is there. OSError."""
    for _ in range(_RACES):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it just now
            remove(target)
        try:
            os.replace(folder, target)
        except OSError as error:
            # Another process has put its own there just now.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
    os.replace(folder, target)


def remove(path: Path) -> None:
    """Delete a file, link or folder. OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _claimed(root: Path, name: str) -> tuple[Path, int]:
    for _ in range(_RACES):
        folder = root / f"{TEMPORARY}{name}-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        handle = _lock(folder)
        if handle is None:
            continue  # somebody cleans up, and has found it before it was locked
        if folder.is_dir():
            return folder, handle
        os.close(handle)
    raise OSError(errno.EAGAIN, "others remove each folder as soon as it is made", str(root))


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


def _lock(folder: Path) -> int | None:
    """An open handle with the folder's lock; None if another process has it or it is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return handle
        os.close(handle)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return handle
