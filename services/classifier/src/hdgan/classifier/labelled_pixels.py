"""Where the labelled pixels of the training images are: counted per class and block of rows.

A 4096 px image has 16.8 million pixels; a list of them all would not fit into memory. Blocks are
small enough to look through when their pixels are wanted, and what they touch in the feature maps
lies together on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdgan.core.errors import RequestError

BLOCK_PIXELS = 16_384  # 4 rows of a 4096 px image: about 2 MB of 16-bit features of 496 channels
Mask = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledPixels:
    """Labelled pixels per class and block.

    `labels`: the masks uint8 [H, W], all of one size; blocks are numbered through all of them.
    `per_block` int64 [K, blocks].
    """

    labels: tuple[Mask, ...]
    block_rows: int
    per_block: Integers

    @property
    def counts(self) -> tuple[int, ...]:
        """Labelled pixels per class."""
        return tuple(int(one) for one in self.per_block.sum(axis=1))

    def of_block(self, value: int, block: int) -> tuple[int, Integers]:
        """The number of the image, and the flat indices of the block's pixels of a class."""
        height, width = self.labels[0].shape
        image, within = divmod(block, -(-height // self.block_rows))
        top = within * self.block_rows
        rows = np.asarray(self.labels[image][top : top + self.block_rows])
        return image, np.flatnonzero(rows.reshape(-1) == value).astype(np.int64) + top * width

    def chunks(self, value: int, size: int) -> Chunks:
        """The pixels of a class in chunks of at most `size`, each from one block."""
        of_block = -(-self.per_block[value] // size)
        return Chunks(self, value, of_block, np.cumsum(of_block))


@dataclass(frozen=True)
class Chunks:
    """One class's pixels in chunks, block after block.

    `of_block`, `ends` int64 [blocks]: a block's chunks, and the number after its last.
    """

    pixels: LabelledPixels
    value: int
    of_block: Integers
    ends: Integers

    @property
    def count(self) -> int:
        """Chunks of all blocks."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, chunk: int) -> tuple[int, Integers]:
        """Image and flat pixel indices, ascending; a block's chunks share its pixels out evenly,
        every n-th to each."""
        block = int(np.searchsorted(self.ends, chunk, side="right"))
        image, found = self.pixels.of_block(self.value, block)
        shares = int(self.of_block[block])
        return image, found[chunk - (int(self.ends[block]) - shares) :: shares]


def labelled_pixels(labels: Sequence[Mask], classes: int) -> LabelledPixels:
    """Count the labelled pixels of masks [H, W], all of one size; 255 is in no class."""
    masks = tuple(labels)
    if not masks:
        return LabelledPixels((), 1, np.zeros((classes, 0), dtype=np.int64))
    height, width = masks[0].shape
    block_rows = max(1, min(height, BLOCK_PIXELS // width))
    counts = [
        np.bincount(np.asarray(one[top : top + block_rows]).reshape(-1), minlength=256)[:classes]
        for one in masks
        for top in range(0, height, block_rows)
    ]
    return LabelledPixels(masks, block_rows, np.stack(counts, axis=1).astype(np.int64))


def require_every_class(counts: Sequence[int], names: Sequence[str]) -> None:
    """`RequestError` naming the classes that no training pixel has: they cannot be learned."""
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if missing:
        raise RequestError(
            f"no training image has a pixel of class {', '.join(map(repr, missing))}: label some "
            "in the images of split train, or remove the class from spec.annotations.classes"
        )
