"""Small files and objects from outside, read whole: never more of them than a limit, and never from
what is no file (a pipe would be waited for, a device never ends)."""

from __future__ import annotations

import io
from pathlib import Path

from hdgan.core.errors import DataError, KeyMissing
from hdgan.core.steady_file import open_ordinary
from hdgan.core.store import Store


class TooLarge(ValueError):
    """A file or object has more bytes than are read."""


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of an ordinary file, or of one that a link leads to.

    Raises TooLarge, or OSError where it cannot be read or is no ordinary file.
    """
    with io.BufferedReader(open_ordinary(path)) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"it has more than {limit} bytes")
    return data


def read_object(store: Store, key: str, limit: int) -> bytes:
    """The bytes of an object that is read whole. Raises TooLarge, KeyMissing or StoreError."""
    info = store.head(key)
    if info is None:
        raise KeyMissing(f"{store.url(key)}: there is no such object")
    if info.size > limit:
        raise TooLarge(f"it has {info.size} bytes, at most {limit} are read")
    return store.get(key)


def refuse_link_out(folder: Path, path: Path) -> None:
    """DataError if `path`, below `folder`, is reached or is itself by a link that leads out of it.

    Whoever may write into a folder must not make us read, or give away, what lies elsewhere.
    """
    inside = folder.resolve()
    try:
        found = path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        raise DataError(f"{path}: is a link that leads nowhere: remove it") from None
    if not found.is_relative_to(inside):
        raise DataError(
            f"{path}: is or is reached by a link that leads out of {folder}: put the file itself "
            "there"
        )
