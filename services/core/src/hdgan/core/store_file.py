"""The store on a file system: a key is a path under the root."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from hdgan.core.atomic_file import (
    TEMPORARY,
    explain_os_error,
    make_folder,
    sync_folder,
    temporary_beside,
    writing,
)
from hdgan.core.errors import InternalError, KeyMissing, StoreError, WrongContent
from hdgan.core.steady_file import NotOrdinary, SteadyFile, open_ordinary
from hdgan.core.store_protocol import PROBE_PREFIX, Content, ObjectInfo, Unfinished, check_key
from hdgan.core.telemetry.store_requests import timed, transferred

_NO_HARD_LINKS = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)


class FileStore:
    """A `Store` in a folder; the folder is made at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    def url(self, key: str) -> str:
        return self._path(key).as_uri()

    @timed("get")
    def get(self, key: str) -> bytes:
        try:
            with open_ordinary(self._path(key)) as file:
                data = file.read()
        except OSError as error:
            raise self._reading(error, key) from error
        transferred("read", len(data))
        return data

    @timed("get_to")
    def get_to(self, key: str, path: Path, *, sha256: str | None = None) -> Content:
        place = self._path(key)
        try:
            source = SteadyFile(place)
        except OSError as error:
            raise self._reading(error, key) from error
        with source, writing(path, size=source.size) as target:
            content = _copy(source, target)
            transferred("read", content.size)
            if sha256 not in (None, content.sha256):
                raise WrongContent(f"{self.url(key)} has not the SHA-256 {sha256}")
        return content

    @timed("sha256")
    def sha256(self, key: str) -> str:
        try:
            with open_ordinary(self._path(key)) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._reading(error, key) from error

    @timed("put")
    def put(self, key: str, data: bytes) -> None:
        with writing(self._inside(key), size=len(data)) as file:
            file.write(data)
        transferred("written", len(data))

    @timed("put_from")
    def put_from(self, key: str, path: Path) -> Content:
        target = self._inside(key)
        try:
            source = SteadyFile(path)
        except OSError as error:
            raise explain_os_error(error, "read", path) from error
        with source, writing(target, size=source.size) as file:
            content = _copy(source, file)
        transferred("written", content.size)
        return content

    @timed("put_if_absent")
    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._inside(key)
        if path.exists():
            return False
        temporary = temporary_beside(path)
        try:
            with writing(temporary, path, size=len(data)) as file:
                file.write(data)
            try:
                # A link never replaces: exactly one of two writers gets it, with content complete.
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                if path.exists():
                    return False
                os.replace(temporary, path)
            sync_folder(path.parent)
            transferred("written", len(data))
            return True
        except OSError as error:
            raise explain_os_error(error, "write", path) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    @timed("head")
    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise explain_os_error(error, "read", path) from error
        if not path.is_file():
            return None
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return ObjectInfo(status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}", modified)

    def list(self, prefix: str) -> Iterator[str]:
        folder, _, start = prefix.rpartition("/")
        if folder:
            check_key(folder)
        yield from self._walk(folder, start)

    def _walk(self, folder: str, start: str) -> Iterator[str]:
        """Keys below `folder` whose first name begins with `start`, in order of the full key."""
        path = self.root / folder if folder else self.root
        try:
            entries = _entries(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise explain_os_error(error, "list", path) from error
        for name, is_folder in sorted(entries, key=lambda e: e[0] + "/" * e[1]):
            hidden = name.startswith(TEMPORARY) or (not folder and name == PROBE_PREFIX)
            if hidden or not name.startswith(start):
                continue
            key = f"{folder}/{name}" if folder else name
            if is_folder:
                yield from self._walk(key, "")
            else:
                yield key

    @timed("delete")
    def delete(self, key: str) -> None:
        path = self._inside(key)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise explain_os_error(error, "delete", path) from error
        for folder in path.parents:
            # Empty folders go, too: there would be as many of them as there ever were artifacts.
            if folder == self.root:
                break
            try:
                folder.rmdir()
            except OSError:
                break

    def probe(self) -> None:
        key = f"{PROBE_PREFIX}/{uuid.uuid4().hex}"
        data = uuid.uuid4().bytes
        try:
            self.put(key, data)
            if self.get(key) != data:
                raise StoreError(
                    f"store {self.uri}: what was written reads back as something else; check"
                    " the disk or use another folder"
                )
        except StoreError as error:
            raise type(error)(f"store {self.uri} cannot be used: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                self._path(key).unlink(missing_ok=True)
                self._path(PROBE_PREFIX).rmdir()

    def now(self) -> datetime:
        # Not this machine's clock: a network file system has its own.
        path = temporary_beside(self.root / "now")
        try:
            make_folder(self.root)
            path.touch(exist_ok=False)  # empty, so that a full disk has a time, too
            return datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except OSError as error:
            raise explain_os_error(error, "write", self.root) from error
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        top = self.root / prefix.rpartition("/")[0]
        if not self._is_inside(top):
            return
        for folder, folders, names in os.walk(top, onerror=self._raise_unless_gone):
            folders.sort()
            probes = Path(folder) == self.root / PROBE_PREFIX
            for name in sorted(names):
                if not probes and not name.startswith(TEMPORARY):
                    continue
                path = Path(folder, name)
                try:
                    status = path.lstat()
                except FileNotFoundError:
                    continue  # finished meanwhile
                except OSError as error:
                    raise explain_os_error(error, "read", path) from error
                written = datetime.fromtimestamp(status.st_mtime, UTC)
                place = path.relative_to(self.root).as_posix()
                yield Unfinished(str(path), written, status.st_size, (place,))

    def remove_unfinished(self, one: Unfinished) -> None:
        (place,) = one.handle
        parts = place.split("/")
        if ".." in parts or not (parts[-1].startswith(TEMPORARY) or parts[0] == PROBE_PREFIX):
            raise InternalError(f"{self.uri}: {place!r} is nothing unfinished")
        path = self.root / place
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise explain_os_error(error, "delete", path) from error
        if parts[0] == PROBE_PREFIX:
            with contextlib.suppress(OSError):  # there is another probe
                path.parent.rmdir()

    def _raise_unless_gone(self, error: OSError) -> None:
        """What `os.walk` does about a folder it cannot read."""
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise explain_os_error(error, "list", error.filename or self.root) from error

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _inside(self, key: str) -> Path:
        """Where an object is written or deleted: nowhere but in this store, though folders of it
        may be links."""
        path = self._path(key)
        if not self._is_inside(path.parent):
            raise StoreError(
                f"{path}: is reached by a link that leads out of the store {self.root}: nothing is"
                " written or deleted there. Where the disk is too small, let the store's own folder"
                " be the link"
            )
        return path

    def _is_inside(self, folder: Path) -> bool:
        root = os.path.realpath(self.root)
        return os.path.commonpath([root, os.path.realpath(folder)]) == root

    def _reading(self, error: OSError, key: str) -> StoreError:
        if isinstance(
            error, FileNotFoundError | NotADirectoryError | IsADirectoryError | NotOrdinary
        ):
            return KeyMissing(f"{self.url(key)}: there is no such object")
        return explain_os_error(error, "read", self._path(key))


@timed("list")
def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, and whether they are folders."""
    with os.scandir(folder) as scan:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan]


def _copy(source: SteadyFile, target: IO[bytes]) -> Content:
    for chunk in source.chunks():
        target.write(chunk)
    return Content(source.size, source.sha256)
