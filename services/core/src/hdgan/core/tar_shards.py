"""Deterministic tar shards: the same members give the same bytes, anywhere and at any time.

Plain uncompressed ustar with regular files only, readable by every tar and by WebDataset.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hdgan.core.atomic_file import explain_os_error, writing
from hdgan.core.errors import DataError, InputMissing, StoreError
from hdgan.core.store import check_key

MAX_NAME = 100
"""Bytes of a name that fit into a plain header without extensions."""

MAX_MEMBER_BYTES = 1 << 30
_BLOCK = 512


def write_shard(path: Path, members: Iterable[tuple[str, bytes]]) -> int:
    """Write (name, content) pairs in the given order; returns how many.

    Members are taken one at a time, so memory holds one of them. The file appears whole or not at
    all. Raises ValueError for names that are too long, unsafe or given twice.
    """
    seen: set[str] = set()
    with writing(path) as file:
        for name, data in members:
            reason = _bad_name(name) or ("it is given twice" if name in seen else None)
            if reason is None and len(data) > MAX_MEMBER_BYTES:
                reason = f"its {len(data)} bytes are more than {MAX_MEMBER_BYTES}"
            if reason is not None:
                raise ValueError(f"{path}: cannot hold a member {name!r}: {reason}")
            seen.add(name)
            info = tarfile.TarInfo(name)  # mtime, uid and gid are 0, mode is 0644
            info.size = len(data)
            file.write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
            file.write(data)
            file.write(bytes(-len(data) % _BLOCK))
        file.write(bytes(2 * _BLOCK))
    return len(seen)


def read_shard(path: Path, *, max_member: int = MAX_MEMBER_BYTES) -> Iterator[tuple[str, bytes]]:
    """The (name, content) pairs of a shard, one at a time.

    Raises DataError for links, folders, extended headers, unsafe or repeated names, members above
    `max_member` bytes and truncated files; InputMissing if there is no such file.
    """
    with _opened(path) as file:
        for name, offset, size in _members(file, path, max_member):
            file.seek(offset)
            data = file.read(size)
            if len(data) < size:
                raise _truncated(path, name)
            yield name, data


def shard_members(path: Path, *, max_member: int = MAX_MEMBER_BYTES) -> dict[str, tuple[int, int]]:
    """Where each member's content lies in a shard: name -> (offset, size) in bytes.

    Raises what `read_shard` raises.
    """
    with _opened(path) as file:
        return {name: (offset, size) for name, offset, size in _members(file, path, max_member)}


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise InputMissing(f"{path}: there is no such shard") from None
    except OSError as error:
        raise explain_os_error(error, "read", path) from error
    with file:
        yield file


def _members(file: IO[bytes], path: Path, max_member: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each member; every header is checked before it is believed."""
    seen: set[str] = set()
    length = os.fstat(file.fileno()).st_size
    offset = 0
    while True:
        file.seek(offset)
        header = file.read(_BLOCK)
        if header == bytes(_BLOCK):
            return
        if len(header) < _BLOCK:
            raise DataError(f"{path}: truncated at byte {offset}: copy or make it again")
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise DataError(f"{path}: no tar header at byte {offset}: it is damaged") from None
        where = f"{path}, member {info.name[:MAX_NAME]!r}"
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise DataError(f"{where}: is a link, folder or extension; shards hold plain files")
        reason = _bad_name(info.name) or ("it is there twice" if info.name in seen else None)
        if reason is not None:
            raise DataError(f"{where}: {reason}")
        if not 0 <= info.size <= max_member:
            raise DataError(f"{where}: {info.size} bytes; at most {max_member} are read")
        seen.add(info.name)
        content = offset + _BLOCK
        offset = content + info.size + -info.size % _BLOCK
        if offset > length:
            raise _truncated(path, info.name)
        yield info.name, content, info.size


def _truncated(path: Path, name: str) -> DataError:
    return DataError(f"{path}, member {name[:MAX_NAME]!r}: truncated: copy or make the shard again")


def _bad_name(name: str) -> str | None:
    """Why a member may not be called that, or None."""
    try:
        check_key(name)
    except StoreError as error:
        return str(error)
    if len(name.encode()) > MAX_NAME:
        return f"a name has at most {MAX_NAME} bytes"
    return None
