"""A file that is read once from beginning to end and must stay what it is meanwhile, with the
digest of what was read."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from hdgan.core.atomic_file import explain_os_error
from hdgan.core.errors import StoreError

_CHUNK = 1 << 20


class NotOrdinary(OSError):
    """A pipe, a device, a socket: what may be waited for, or never ends."""


def open_ordinary(path: Path) -> io.FileIO:
    """An ordinary file, or one that a link leads to, open for reading. NotOrdinary, OSError."""
    # Without waiting for somebody who writes into a pipe.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return io.FileIO(handle)
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotOrdinary(None, "it is no ordinary file", str(path))


class SteadyFile:
    """Reads raise StoreError, also where the file turns out to be shorter, longer or written to."""

    def __init__(self, path: Path) -> None:
        """Opens it. OSError."""
        self._path = path
        self._file = open_ordinary(path)
        self._before = os.fstat(self._file.fileno())
        self._digest = hashlib.sha256()
        self._left = self.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes."""
        return self._before.st_size

    @property
    def sha256(self) -> str:
        """Hex digest of what has been read so far."""
        return self._digest.hexdigest()

    def read(self, length: int) -> bytes:
        """The next `length` bytes, or those that are left; all of them have been read only if the
        file is still the same."""
        wanted = min(length, self._left)
        parts, missing = [], wanted
        try:
            while missing:
                part = self._file.read(missing)
                if not part:
                    raise self._changed()
                parts.append(part)
                missing -= len(part)
            self._left -= wanted
            if self._left == 0:
                self._must_be_same()
        except OSError as error:
            raise explain_os_error(error, "read", self._path) from error
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._digest.update(data)
        return data

    def chunks(self) -> Iterator[bytes]:
        """All that is left, in pieces."""
        while data := self.read(_CHUNK):
            yield data

    def _must_be_same(self) -> None:
        now = os.fstat(self._file.fileno())
        before = self._before
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise self._changed()

    def _changed(self) -> StoreError:
        return StoreError(
            f"{self._path} was written to while it was copied: nothing came of it. Copy it again"
            " when it is finished"
        )
