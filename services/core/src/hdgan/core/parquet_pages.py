"""What a parquet file says about itself, read before any of it is unpacked: its footer, and the
header of each page (Apache Parquet format, both structs in Thrift's compact protocol).

A footer says how large columns are, but nothing makes it tell the truth. A reader gives a page
exactly the room that the page's own header asks for: so the sum over pages is what bounds memory.
The footer is read here as well, because pyarrow's own accessors of a damaged one end the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

DATA, INDEX, DICTIONARY, DATA_V2 = 0, 1, 2, 3
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS: Final = frozenset({4, 5, 6})
_MAX_HEADER = 1 << 20
_MAX_DEPTH = 16
_MAX_ELEMENTS = 1_000_000
"""Of all lists of a struct."""

Fields = dict[int, Any]


@dataclass(frozen=True)
class Page:
    """What a page's header says: sizes in bytes, values, and how these are encoded."""

    kind: int
    unpacked: int
    packed: int
    values: int
    encoding: int


@dataclass(frozen=True)
class Chunk:
    """A column of a group of rows: its name, its values, and where its pages lie."""

    name: str
    values: int
    start: int
    length: int


@dataclass(frozen=True)
class Group:
    """Rows of a file, and their columns."""

    rows: int
    chunks: tuple[Chunk, ...]


def groups(footer: memoryview) -> list[Group]:
    """The groups of rows that a file's footer describes. ValueError where it is no footer."""
    try:
        fields = _Reader(footer).struct()
        return [
            Group(_integer(one, 3), tuple(_chunk(chunk[3]) for chunk in one[1]))
            for one in fields[4]
        ]
    except (IndexError, KeyError, TypeError, AttributeError):
        raise ValueError("the footer is damaged") from None


def _chunk(fields: Fields) -> Chunk:
    first, own = _integer(fields, 9), fields.get(11)
    # A reader begins with the dictionary, if that comes before the data.
    start = own if isinstance(own, int) and 0 < own < first else first
    name = ".".join(part.decode("utf-8", "replace") for part in fields[3])
    return Chunk(name, _integer(fields, 5), start, _integer(fields, 7))


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
            reader = _Reader(header)
            fields = reader.struct()
        except IndexError:
            raise ValueError("the header of a page is damaged") from None
        page = _page(fields)
        place += reader.place + page.packed
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


class _Reader:
    """Reads one struct: integers, byte strings, lists and structs by number of field. IndexError
    where the bytes end too soon, ValueError for everything else that is wrong."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._left = _MAX_ELEMENTS
        self.place = 0

    def struct(self, depth: int = 0) -> Fields:
        if depth > _MAX_DEPTH:
            raise ValueError("a header is nested too deeply")
        fields: Fields = {}
        number = 0
        while mark := self._byte():
            if mark >> 4:
                number += mark >> 4
            else:
                number = self._zigzag()
            kind = mark & 15
            # In a field, unlike in a list, the kind of a boolean is its value.
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        raise ValueError("a header is damaged")

    def _list(self, depth: int) -> list[Any]:
        mark = self._byte()
        size = mark >> 4 if mark >> 4 < 15 else self._varint()
        self._left -= size
        if self._left < 0:
            raise ValueError("a header has too many values")
        return [self._value(mark & 15, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        byte = self._data[self.place]
        self.place += 1
        return byte

    def _bytes(self, size: int) -> bytes:
        if size > len(self._data) - self.place:
            raise ValueError("a header is cut off")
        self.place += size
        return bytes(self._data[self.place - size : self.place])

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a header is damaged")
