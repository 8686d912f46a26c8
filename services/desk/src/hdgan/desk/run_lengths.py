"""Areas as run lengths, as COCO and CVAT write them: outside, inside, outside and so on.

COCO counts down the columns of the whole image, as a list or packed into a text (its `maskApi`);
CVAT along the rows of a box. Unpacked here rather than by pycocotools, whose C reads such a text
without looking at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.desk.drawing import Pixels

Counts = npt.NDArray[np.int64]

_MOST = 2**31
_BITS = 5
_MORE = 0x20
_SIGN = 0x10
_FIRST = 48
"""The character that stands for 0."""
_MAX_CHARACTERS = 7
"""Of one number: 35 bits."""


@dataclass(frozen=True)
class RunLengths:
    """Runs over a box of the image, whose top left pixel is (left, top)."""

    counts: Counts
    height: int
    width: int
    left: int = 0
    top: int = 0
    columns_first: bool = False
    """Whether the runs go down the columns, as COCO's do."""
    whole: bool = False
    """Whether the box has to be the image."""

    def misfit(self, height: int, width: int) -> str | None:
        if self.whole and (self.height, self.width) != (height, width):
            return (
                f"its mask is {self.width} x {self.height} px, but the image is {width} x {height} "
                "px: label at the exported size, do not resize"
            )
        right, bottom = self.left + self.width, self.top + self.height
        if self.left < 0 or self.top < 0 or right > width or bottom > height:
            return (
                f"its mask reaches from ({self.left}, {self.top}) to ({right}, {bottom}), but the "
                f"image is {width} x {height} px: it was drawn on another image"
            )
        total = int(self.counts.sum())
        if total != self.height * self.width:
            return (
                f"its run lengths are of {total} pixels, but its mask of {self.width} x "
                f"{self.height} px has {self.height * self.width}: export it again"
            )
        return None

    def _lines(self) -> tuple[int, int]:
        """The first of the lines (rows or columns) with pixels inside, and the last one's next."""
        length = self.height if self.columns_first else self.width
        ends = np.cumsum(self.counts)
        inside = np.flatnonzero(self.counts[1::2]) * 2 + 1
        if not len(inside) or not length:
            return 0, 0
        first, last = inside[0], inside[-1]
        return int(ends[first - 1]) // length, -(-int(ends[last]) // length)

    def work(self, height: int, width: int) -> int:
        first, last = self._lines()
        length = self.height if self.columns_first else self.width
        return (last - first) * length + len(self.counts)

    def pixels(self, height: int, width: int) -> tuple[slice, slice, Pixels]:
        first, last = self._lines()
        length = self.height if self.columns_first else self.width
        # Only the lines that hold something: an image may have thousands of small areas.
        ends = np.clip(np.cumsum(self.counts), first * length, last * length)
        runs = np.diff(ends, prepend=first * length)
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(last - first, length)
        if self.columns_first:
            return slice(0, self.height), slice(first, last), inside.T
        rows = slice(self.top + first, self.top + last)
        return rows, slice(self.left, self.left + self.width), inside

    def meetings(self) -> int:
        return 0

    def oddity(self) -> str | None:
        return None


def listed_counts(values: Sequence[Any]) -> Counts:
    """Run lengths of a list of numbers. ValueError for what is no count."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST:
            raise ValueError(f"a run length is {str(value)[:40]!r}, which is no count of pixels")
    return np.asarray(values, dtype=np.int64)


def packed_counts(text: str) -> Counts:
    """Run lengths of COCO's packed text. ValueError for what is no such text.

    Each number is in groups of five bits, the lowest first, in characters from "0" on: 0x20 says
    that more follow, 0x10 of the last one that it is negative. From the fourth number on each is
    the difference from the last but one.
    """
    try:
        codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - _FIRST
    except UnicodeEncodeError:
        codes = np.asarray([-1], dtype=np.int64)
    if len(codes) and not ((codes >= 0) & (codes < 64)).all():
        raise ValueError("its run lengths hold a character that no packed run length has")
    if not len(codes) or codes[-1] & _MORE:
        raise ValueError("its run lengths end in the middle of a number")
    last = np.flatnonzero((codes & _MORE) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise ValueError("its run lengths hold a number that is too large")
    place = np.arange(len(codes)) - np.repeat(first, lengths)
    numbers = np.add.reduceat((codes & 0x1F) << (_BITS * place), first)
    numbers -= np.where(codes[last] & _SIGN, np.int64(1) << (_BITS * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    if not ((numbers >= 0) & (numbers < _MOST)).all():
        raise ValueError("a run length is negative or too large")
    return numbers
