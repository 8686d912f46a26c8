"""Label Studio's brush: a painted RGBA picture, packed as the library `@thi.ng/rle-pack` does it.

The bits, highest first: how many words there are (32), the bits of a word less one (5), four sizes
of counts less one (4 each); then blocks: 1 for a word that is repeated or 0 for words as they are,
which of the four sizes (2), the count less one in that size, and the word or words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdgan.desk.drawing import LabelFileError, Pixels

CHANNELS = 4
PAINTED = 128
"""Alpha from which a pixel counts as painted: half."""
_HEADER_BITS = 32 + 5 + 4 * 4
_WORD = 8


@dataclass(frozen=True)
class Painted:
    """A packed RGBA picture: what is not transparent is inside."""

    packed: bytes
    height: int
    width: int

    def misfit(self, height: int, width: int) -> str | None:
        if (self.height, self.width) == (height, width):
            return None
        return (
            f"was painted on a picture of {self.width} x {self.height} px, but the image is "
            f"{width} x {height} px: label what was exported"
        )

    def work(self, height: int, width: int) -> int:
        return height * width + 8 * len(self.packed)

    def pixels(self, height: int, width: int) -> tuple[slice, slice, Pixels]:
        try:
            values = unpack(self.packed, height * width * CHANNELS)
        except ValueError as error:
            raise LabelFileError(f"its brush strokes cannot be unpacked: {error}") from None
        alpha = values.reshape(height, width, CHANNELS)[..., CHANNELS - 1]
        return slice(0, height), slice(0, width), alpha >= PAINTED

    def meetings(self) -> int:
        return 0

    def oddity(self) -> str | None:
        return None


def unpack(packed: bytes, expected: int) -> npt.NDArray[np.uint8]:
    """The `expected` bytes that were packed. ValueError where these are not that many, or the data
    end early."""
    end = 8 * len(packed)
    if end < _HEADER_BITS:
        raise ValueError("they end early")
    head = _bits(packed, 0, _HEADER_BITS)
    count, word = head >> 21, ((head >> 16) & 31) + 1
    sizes = [((head >> shift) & 15) + 1 for shift in (12, 8, 4, 0)]
    if word != _WORD:
        raise ValueError(f"they are in words of {word} bits, not of {_WORD}")
    if count != expected:
        raise ValueError(f"they are {count} bytes, the picture has {expected}")
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    values = np.zeros(expected, dtype=np.uint8)
    position, done = _HEADER_BITS, 0
    while done < expected:
        if position + 3 > end:
            raise ValueError("they end early")
        kind = _bits(packed, position, 3)
        size = sizes[kind & 3]
        position += 3 + size
        repeated = kind & 4
        if position + _WORD > end:
            raise ValueError("they end early")
        run = _bits(packed, position - size, size) + 1
        if done + run > expected:
            raise ValueError("they are more than they say")
        if repeated:
            values[done : done + run] = _bits(packed, position, _WORD)
            position += _WORD
        else:
            if position + _WORD * run > end:
                raise ValueError("they end early")
            values[done : done + run] = np.packbits(bits[position : position + _WORD * run])
            position += _WORD * run
        done += run
    return values


def _bits(packed: bytes, position: int, count: int) -> int:
    """`count` bits from `position` on as a number."""
    last = position + count
    part = int.from_bytes(packed[position >> 3 : (last + 7) >> 3], "big")
    return (part >> (-last % 8)) & ((1 << count) - 1)
