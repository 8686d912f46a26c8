"""A look at a TIFF's directories before anything in them is believed: how much they would load."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from hdgan.tiler.slide import SlideError

# A slide of 4 million tiles needs 32 MB for their places; nothing else is near that.
MAX_TAG_BYTES = 64 << 20
MAX_TAGS = 1024
# Pages with their SubIFDs. A longer chain is not followed to its end, here or later.
MAX_DIRECTORIES = 256

SUB_IFDS = 330
# Bytes of one value, by type number.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
SIZES |= {16: 8, 17: 8, 18: 8}
PLACES = {4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class _Format:
    """How numbers are written: counts of tags, whole entries and places in the file."""

    order: str
    tags: struct.Struct
    entry: struct.Struct
    place: struct.Struct


def check_tags(path: Path) -> None:
    """SlideError where a tag needs more memory than any slide's, or lies outside the file."""
    with path.open("rb") as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        header = os.pread(descriptor, 16, 0)
        order = "<" if header[:2] == b"II" else ">"
        big = header[2:4] in (b"+\0", b"\0+")
        form = _Format(
            order,
            struct.Struct(order + ("Q" if big else "H")),
            struct.Struct(order + ("HHQ8s" if big else "HHI4s")),
            struct.Struct(order + ("Q" if big else "I")),
        )
        start = 8 if big else 4
        todo, seen = [_unpack(form.place, header[start:])], set[int]()
        while todo and len(seen) < MAX_DIRECTORIES:
            at = todo.pop()
            if at == 0 or at in seen:
                continue
            seen.add(at)
            todo += _directory(descriptor, at, form, size)


def _directory(file: int, at: int, form: _Format, size: int) -> list[int]:
    """Check one directory; the places of its SubIFDs and of the next one."""
    if at >= size:
        raise SlideError(
            f"is damaged or incomplete: it has {size} bytes and a directory at {at}; copy it again"
        )
    count = _unpack(form.tags, os.pread(file, form.tags.size, at))
    if count > MAX_TAGS:
        raise SlideError(f"is damaged: it has a directory of {count} tags; copy it again")
    start = at + form.tags.size
    table = os.pread(file, count * form.entry.size + form.place.size, start)
    found: list[int] = []
    for number in range(count):
        entry = table[number * form.entry.size : (number + 1) * form.entry.size]
        if len(entry) < form.entry.size:
            raise _cut_off()
        code, kind, values, field = form.entry.unpack(entry)
        length = values * SIZES.get(kind, 1)
        if length <= len(field):
            data = field[:length]
        else:
            place = _unpack(form.place, field)
            if length > MAX_TAG_BYTES:
                raise SlideError(
                    f"has a tag ({code}) of {length} bytes, more than {MAX_TAG_BYTES}, which no "
                    "slide needs; the file is damaged: copy or export it again"
                )
            if place + length > size:
                raise SlideError(
                    f"is damaged or incomplete: tag {code} lies at {place} to {place + length}, "
                    f"the file has {size} bytes; copy it again"
                )
            data = os.pread(file, length, place) if code == SUB_IFDS else b""
        if code == SUB_IFDS and kind in PLACES:
            whole = data[: len(data) // SIZES[kind] * SIZES[kind]][: MAX_DIRECTORIES * SIZES[kind]]
            found += (place for (place,) in struct.iter_unpack(form.order + PLACES[kind], whole))
    after = table[count * form.entry.size :]
    # Pages before SubIFDs: what was put last is looked at first. Without a next page it may be cut.
    return [*found, _unpack(form.place, after)] if len(after) >= form.place.size else found


def _unpack(form: struct.Struct, data: bytes) -> int:
    if len(data) < form.size:
        raise _cut_off()
    return int(form.unpack(data[: form.size])[0])


def _cut_off() -> SlideError:
    return SlideError("is damaged or incomplete: it ends within a directory; copy it again")
