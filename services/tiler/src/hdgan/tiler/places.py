"""What a small picture of the whole slide says about places of its grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hdgan.tiler.grid import Block, Rect


class MaskSums:
    """Answers how much of a mask of the whole slide lies in a rectangle of level-0 pixels."""

    def __init__(self, mask: NDArray[np.bool_], scale: tuple[float, float]) -> None:
        """mask: [h, w]; scale: level-0 pixels per pixel of it, (x, y)."""
        self._scale = scale
        self._height, self._width = mask.shape
        # sums[y, x]: mask pixels above y and left of x.
        self._sums = np.zeros((self._height + 1, self._width + 1), dtype=np.int64)
        np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=self._sums[1:, 1:])

    def touches(self, rect: Rect) -> bool:
        """Whether any pixel of the mask that the rectangle covers, even in part, is set."""
        return self._counts(rect)[0] > 0

    def share(self, rect: Rect) -> float:
        """The part of these pixels that is set, 0..1."""
        inside, pixels = self._counts(rect)
        return inside / pixels

    def _counts(self, rect: Rect) -> tuple[int, int]:
        """Set pixels and all pixels that the rectangle covers, even in part."""
        left = min(max(math.floor(rect.x / self._scale[0]), 0), self._width - 1)
        top = min(max(math.floor(rect.y / self._scale[1]), 0), self._height - 1)
        right = math.ceil((rect.x + rect.width) / self._scale[0])
        bottom = math.ceil((rect.y + rect.height) / self._scale[1])
        right = min(max(right, left + 1), self._width)
        bottom = min(max(bottom, top + 1), self._height)
        sums = self._sums
        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return int(inside), (bottom - top) * (right - left)


def narrowed(block: Block, wanted: list[bool]) -> Iterator[Block]:
    """The block with the wanted tiles alone, and the window these need; nothing if there are none.

    wanted: for each of the block's tiles.
    """
    tiles = [rect for rect, is_wanted in zip(block.tiles, wanted, strict=True) if is_wanted]
    if tiles:
        left, top = min(rect.x for rect in tiles), min(rect.y for rect in tiles)
        right = max(rect.x + rect.width for rect in tiles)
        bottom = max(rect.y + rect.height for rect in tiles)
        window = Rect(left, top, right - left, bottom - top)
        yield replace(block, window=window, tiles=tuple(tiles))
