"""Files that appear whole or not at all: written under a temporary name in the same folder, synced,
then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hdgan.core.errors import NoSpace, StoreError

TEMPORARY = ".hdgan-tmp-"
"""Names that begin with this are unfinished: nobody lists, reads or adopts them."""

_RACES = 20

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def temporary_beside(path: Path) -> Path:
    """A fresh temporary name in the folder of `path`, so that a rename never crosses disks."""
    return path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk or an exhausted quota is what an exception, of whatever kind, is about:
    libraries put errors of their own around the OS's."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def explain_os_error(error: OSError, action: str, path: Path | str) -> StoreError:
    """The StoreError (or NoSpace) for an OS error: what failed, where, what to do."""
    if error.errno in FULL:
        return NoSpace(
            f"cannot {action} {path}: {error.strerror}. Free some space or use another disk, then"
            " run the same command again: finished work is kept"
        )
    reason = error.strerror or type(error).__name__
    advice = {
        errno.EACCES: "give this user the permission, or use another folder",
        errno.EPERM: "give this user the permission, or use another folder",
        errno.EROFS: "the file system is mounted read-only: use another folder",
        errno.ENOTDIR: "a part of this path is a file, not a folder: use another folder",
        errno.EEXIST: "a file of this name is in the way: use another name",
        errno.EISDIR: "this is a folder where a file should be: use another folder",
        errno.ENOENT: "a folder of this path does not exist: make it, or use another folder",
        errno.ENAMETOOLONG: "use a folder with a shorter path",
        errno.EIO: "the disk reports an error: check its health",
    }.get(error.errno or 0, "check the disk and the path")
    return StoreError(f"cannot {action} {path}: {reason}; {advice}")


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # removed with what was renamed: there is nothing to be durable
    try:
        # Some network file systems cannot sync a folder; the rename itself is atomic all the same.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path, *, durable: bool = True) -> None:
    """Make a folder and those above it as needed; durable: none of them is gone after a power
    failure. OSError."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        if durable:
            sync_folder(new.parent)


def _disk_status(folder: Path) -> os.statvfs_result:
    """Of the disk that a folder is on, or will be on. OSError."""
    while folder != folder.parent:
        # Asked first and looked at later, it may be gone: others remove empty folders.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.statvfs(folder)
        folder = folder.parent
    return os.statvfs(folder)


def need_space(path: Path, size: int) -> None:
    """NoSpace unless a file of `size` bytes fits where `path` is to be. What quotas and others who
    write at the same moment leave is only found out while writing."""
    try:
        status = _disk_status(path.parent)
    except OSError as error:
        raise explain_os_error(error, "write", path) from error
    free = status.f_bavail * status.f_frsize
    # Some file systems in user space do not tell: they have no blocks at all.
    if status.f_blocks and size > free:
        raise NoSpace(
            f"cannot write {path}: it needs {size} bytes, but {free} are free on its disk. Free"
            " some space or use another disk, then run the same command again: finished work is"
            " kept"
        )


def _opened(path: Path, *, durable: bool) -> IO[bytes]:
    """A new file for writing. OSError."""
    for _ in range(_RACES):
        # Another process may remove an empty folder just now, by deleting its last file.
        with contextlib.suppress(FileNotFoundError):
            make_folder(path.parent, durable=durable)
            return path.open("xb")
    return path.open("xb")


@contextlib.contextmanager
def writing(
    path: Path, meant: Path | None = None, *, durable: bool = True, size: int = 0
) -> Iterator[IO[bytes]]:
    """A binary file that becomes `path` when the block ends without an exception.

    Folders are made as needed. OS errors become StoreError, a full disk NoSpace, before anything is
    written where `size` (bytes) is known to be too large; they name `meant` where that, not `path`,
    is what a person would look for. Without `durable` the file is synced by whoever calls: until
    then a power failure may leave it empty.
    """
    temporary = temporary_beside(path)
    if size:
        need_space(meant or path, size)
    try:
        with _opened(temporary, durable=durable) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise explain_os_error(error, "write", meant or path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
