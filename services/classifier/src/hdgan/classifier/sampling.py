"""Training rows: which labelled pixels each member sees at each step.

Labelled pixels are read into a pool that all members share: everything if it fits the memory
budget, else a class-balanced part of it that is replaced as training goes on. Every draw is a
function of (seed, member, step) or (seed, filling), never of what was drawn before, so a resumed
run sees the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hdgan.core.errors import RequestError
from hdgan.core.masks import UNLABELLED
from hdgan.nets.ensemble import PixelEnsemble
from hdgan.nets.pyramid import sample_rows
from hdgan.nets.shards import ImageFeatures

POOL_BYTES = 2**30
ROWS_PER_READ = 16384
# First words of the seed sequences; 1 is taken by the initial weights.
DRAW_STREAM, DROPOUT_STREAM, FILL_STREAM, NOISE_STREAM = 2, 3, 4, 5


@dataclass(frozen=True)
class LabelledPixels:
    """Where the labelled pixels of the training images are, per class.

    `image` int32 [n] and `pixel` int64 [n] (flat index) for each class, in image order.
    """

    image: tuple[npt.NDArray[np.int32], ...]
    pixel: tuple[npt.NDArray[np.int64], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Labelled pixels per class."""
        return tuple(len(one) for one in self.pixel)


def labelled_pixels(labels: Sequence[npt.NDArray[np.uint8]], classes: int) -> LabelledPixels:
    """Index the labelled pixels of masks [H, W]; 255 is in no class."""
    image, pixel = [], []
    for value in range(classes):
        found = [np.flatnonzero(np.asarray(one).reshape(-1) == value) for one in labels]
        image.append(np.repeat(np.arange(len(labels), dtype=np.int32), [len(one) for one in found]))
        pixel.append(
            np.concatenate(found).astype(np.int64) if found else np.empty(0, dtype=np.int64)
        )
    return LabelledPixels(tuple(image), tuple(pixel))


def require_every_class(counts: Sequence[int], names: Sequence[str]) -> None:
    """`RequestError` naming the classes that no training pixel has: they cannot be learned."""
    missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if missing:
        raise RequestError(
            f"no training image has a pixel of class {', '.join(map(repr, missing))}: label some "
            "in the images of split train, or remove the class from spec.annotations.classes"
        )


@dataclass(frozen=True)
class Batch:
    """Rows of one step: `rows` [M, B, C] standardised float32, `labels` [M, B] int64."""

    rows: torch.Tensor
    labels: torch.Tensor


class RowPool:
    """Standardised rows in memory, from which every member draws its own batches."""

    def __init__(
        self,
        ensemble: PixelEnsemble,
        images: Sequence[ImageFeatures],
        pixels: LabelledPixels,
        *,
        seed: int,
        batch: int,
        device: str = "cpu",
        budget: int = POOL_BYTES,
    ) -> None:
        """Nothing is read before the first `draw`. `budget` bounds the rows in memory, in bytes."""
        self._ensemble = ensemble
        self._images = images
        self._pixels = pixels
        self._seed = seed
        self._batch = batch
        self._device = device
        self._side = ensemble.spec.plan.resolution
        channels = ensemble.spec.plan.channels
        total = sum(pixels.counts)
        capacity = max(budget // (4 * channels), len(pixels.counts))
        self._whole = total <= capacity
        self._per_class = capacity // len(pixels.counts)
        self._steps_per_filling = max(1, capacity // batch)
        self._filling = -1
        self._rows = torch.empty(0)
        self._starts: list[int] = []
        self._sizes: list[int] = []

    def draw(self, step: int) -> Batch:
        """The rows of `step`: for each member its own, every class equally often."""
        self._fill(0 if self._whole else step // self._steps_per_filling)
        members = self._ensemble.spec.members
        shares = even_shares(self._batch, len(self._sizes), step)
        indices = np.stack([self._member_rows(member, step, shares) for member in range(members)])
        flat = torch.from_numpy(indices.reshape(-1)).to(self._device)
        x = self._rows[flat].reshape(members, self._batch, -1)
        labels = torch.from_numpy(np.repeat(np.arange(len(shares)), shares))
        return Batch(x, labels.to(self._device).expand(members, -1))

    def _member_rows(self, member: int, step: int, shares: Sequence[int]) -> npt.NDArray[np.int64]:
        sequence = np.random.SeedSequence([DRAW_STREAM, self._seed, member, step])
        stream = np.random.Generator(np.random.Philox(sequence))
        parts = [
            start + stream.integers(0, size, share)
            for start, size, share in zip(self._starts, self._sizes, shares, strict=True)
        ]
        return np.concatenate(parts)

    def _fill(self, filling: int) -> None:
        if filling == self._filling:
            return
        sequence = np.random.SeedSequence([FILL_STREAM, self._seed, filling])
        stream = np.random.Generator(np.random.Philox(sequence))
        chosen = [self._choose(size, stream) for size in self._pixels.counts]
        self._sizes = [len(one) for one in chosen]
        self._starts = [0, *np.cumsum(self._sizes)[:-1].tolist()]
        self._rows = torch.empty(0)  # free the old rows before the new ones are read
        rows = torch.empty(sum(self._sizes), self._ensemble.spec.plan.channels)
        for value, (start, keep) in enumerate(zip(self._starts, chosen, strict=True)):
            self._read(
                rows, start, self._pixels.image[value][keep], self._pixels.pixel[value][keep]
            )
        self._rows = rows.to(self._device)
        self._filling = filling

    def _choose(self, size: int, stream: np.random.Generator) -> npt.NDArray[np.int64]:
        """Positions in a class's list, ascending, so that reading goes forward through the maps."""
        if self._whole or size <= self._per_class:
            return np.arange(size, dtype=np.int64)
        return np.sort(stream.choice(size, self._per_class, replace=False, shuffle=False))

    def _read(
        self,
        rows: torch.Tensor,
        start: int,
        image: npt.NDArray[np.int32],
        pixel: npt.NDArray[np.int64],
    ) -> None:
        """Sample one class's chosen pixels, image by image, into `rows` from `start` on."""
        for index in np.unique(image).tolist():
            low, high = np.searchsorted(image, [index, index + 1]).tolist()
            for first in range(low, high, ROWS_PER_READ):
                last = min(first + ROWS_PER_READ, high)
                here = torch.from_numpy(pixel[first:last].copy())
                sampled = sample_rows(self._images[index].maps, here, self._side)
                standardised = self._ensemble.standardise(sampled.to(self._device))
                rows[start + first : start + last] = standardised.to(rows.device)


def even_shares(batch: int, classes: int, step: int) -> list[int]:
    """Rows per class in a batch: equal, and the remainder goes to other classes at each step."""
    shares = [batch // classes] * classes
    for extra in range(batch % classes):
        shares[(step + extra) % classes] += 1
    return shares


def labelled_count(labels: npt.NDArray[np.uint8]) -> int:
    """Labelled pixels of a mask."""
    return int(np.count_nonzero(np.asarray(labels) != UNLABELLED))
