"""The folder a tool writes to: looked at before hours are spent, never overwritten by accident."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hdgan.core.atomic_file import writing
from hdgan.core.disk_space import require_space
from hdgan.core.errors import RequestError, StoreError
from hdgan.core.store import open_store


def claim(folder: Path, names: Iterable[str], *, force: bool, size: int) -> None:
    """Make the folder and see that files of these names, `size` bytes in all, can be written.

    Raises:
        RequestError: one of them exists and `force` is false.
        StoreError: the folder cannot be written to; NoSpace: the disk is too full.
    """
    taken = sorted(name for name in names if (folder / name).exists())
    if taken and not force:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise RequestError(
            f"{folder / taken[0]}{more} exists already: name another folder, or add --force to "
            "overwrite"
        )
    try:
        open_store(str(folder)).probe()
    except StoreError as error:
        raise type(error)(f"OUT {folder}: {error}") from None
    require_space(folder, size, "what may be written")


def write(folder: Path, name: str, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with writing(folder / name) as file:
        file.write(data)
