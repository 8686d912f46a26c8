"""What the pages of a parquet file say about themselves, read before any of them is unpacked.

A file's footer says how large its columns are, but nothing makes it tell the truth. Each page has a
header of its own (Apache Parquet format, PageHeader in Thrift's compact protocol), and a reader
gives a page exactly the room that header asks for: so the sum over pages is what bounds memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

DATA, INDEX, DICTIONARY, DATA_V2 = 0, 1, 2, 3
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_INTEGERS: Final = frozenset({4, 5, 6})
_MAX_HEADER = 1 << 20
_MAX_DEPTH = 8

Fields = dict[int, "int | Fields"]


@dataclass(frozen=True)
class Page:
    """What a page's header says: sizes in bytes, values, and how these are encoded."""

    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int


def column_pages(data: memoryview, start: int, length: int) -> Iterator[Page]:
    """The pages of one column chunk, which lies at `start` and has `length` bytes.

    ValueError where that is no sequence of pages.
    """
    if not 0 <= start <= start + length <= len(data):
        raise ValueError("a column lies outside of the file")
    place, end = start, start + length
    while place < end:
        header = data[place : min(end, place + _MAX_HEADER)]
        try:
            fields, used = _struct(header, 0, 0)
        except IndexError:
            raise ValueError("the header of a page is damaged") from None
        page = _page(fields)
        place += used + page.packed
        if place > end:
            raise ValueError("a page reaches beyond its column")
        yield page


def _page(fields: Fields) -> Page:
    kind, unpacked, packed = (_integer(fields, number) for number in (1, 2, 3))
    inside = fields.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(kind, -1))
    if not isinstance(inside, dict):
        raise ValueError(f"a page is of an unknown kind ({kind})")
    if unpacked < 0 or packed < 0:
        raise ValueError("a page has a negative size")
    encoding = _integer(inside, 4 if kind == DATA_V2 else 2)
    return Page(kind, unpacked, packed, _integer(inside, 1), encoding)


def _integer(fields: Fields, number: int) -> int:
    found = fields.get(number)
    if not isinstance(found, int):
        raise ValueError("the header of a page is incomplete")
    return found


def _struct(data: memoryview, place: int, depth: int) -> tuple[Fields, int]:
    """Integers and structs of a struct by number of field; where it ends. IndexError if not."""
    if depth > _MAX_DEPTH:
        raise ValueError("the header of a page is nested too deeply")
    fields: Fields = {}
    number = 0
    while True:
        mark = data[place]
        place += 1
        if mark == 0:
            return fields, place
        kind = mark & 15
        if mark >> 4:
            number += mark >> 4
        else:
            number, place = _zigzag(data, place)
        if kind in _INTEGERS:
            fields[number], place = _zigzag(data, place)
        elif kind == _STRUCT:
            fields[number], place = _struct(data, place, depth + 1)
        else:
            place = _skipped(data, place, kind)


def _skipped(data: memoryview, place: int, kind: int) -> int:
    """Where a field ends that nobody asks for. Pages have no lists, sets and maps."""
    if kind in (_TRUE, _FALSE):
        return place
    if kind in (_BYTE, _DOUBLE):
        return place + (1 if kind == _BYTE else 8)
    if kind == _BINARY:
        size, place = _varint(data, place)
        return place + size
    raise ValueError("the header of a page is damaged")


def _zigzag(data: memoryview, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("the header of a page is damaged")
