"""Training rows: which labelled pixels each member sees at each step.

Rows are read into a pool that all members share and draw their batches from. If all labelled pixels
fit the memory budget, the pool holds them all. Else it is a shuffle buffer of segments: each
segment holds random chunks of every class from all images; while training draws from the pool, the
next segment is read in the background and takes the place of the oldest. Chunks come in an order
drawn anew for each pass, so that every labelled pixel is read once in a pass.

Every draw is a function of (seed, member, step), every segment of (seed, its number): a resumed run
sees the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hdgan.classifier.labelled_pixels import LabelledPixels
from hdgan.classifier.random_order import random_order
from hdgan.nets.cpu_rows import cpu_rows
from hdgan.nets.ensemble import PixelEnsemble
from hdgan.nets.read_ahead import expect_random_reads, read_ahead
from hdgan.nets.sending import sent
from hdgan.nets.shards import ImageFeatures

POOL_BYTES = 2**30
SEGMENTS = 8
"""Segments in the pool; one more is being read."""

CHUNKS_IN_POOL = 1024
"""Chunks of each class in the pool and the segment being read; the pool alone has 8 in 9 of them,
fewer where chunks cannot be smaller. With 50, it is of so few places that a network learns them by
turns and its loss falls later than from rows of everywhere; from 800 on, the curves are the same
(benchmarks/classifier_training.py)."""

SMALLEST_CHUNK, LARGEST_CHUNK = 4, 1024
"""Pixels of one class that are read together from one block. The fewer, the slower; above, it gets
no faster."""

READ_AHEAD = 16
"""Chunks whose bytes are on their way from disk while one is read."""

# First words of the seed sequences; 1 is taken by the initial weights.
DRAW_STREAM, DROPOUT_STREAM, ORDER_STREAM, NOISE_STREAM = 2, 3, 4, 5

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows of one step: `rows` [M, B, C] standardised float32, `labels` [M, B] int64."""

    rows: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Segment:
    """Standardised rows float32 [N, C], sorted by class, and how many each class has."""

    rows: Floats
    sizes: tuple[int, ...]


class RowReader:
    """Standardised rows of labelled pixels, from the maps of the training images."""

    def __init__(
        self,
        ensemble: PixelEnsemble,
        images: Sequence[ImageFeatures],
        pixels: LabelledPixels,
        chunk: int = LARGEST_CHUNK,
    ) -> None:
        """`chunk`: most pixels of one."""
        spec = ensemble.spec
        self.channels = spec.plan.channels
        self._images = images
        self._side = spec.plan.resolution
        self._mean = spec.mean.astype(np.float32)
        self._factor = spec.inverse_std().astype(np.float32)
        for image in images:
            expect_random_reads(image.maps)
        self._chunks = [pixels.chunks(value, chunk) for value in range(len(pixels.counts))]

    @property
    def chunks(self) -> tuple[int, ...]:
        """Chunks of each class."""
        return tuple(one.count for one in self._chunks)

    def read(self, chosen: Sequence[Integers], *, threads: int) -> Segment:
        """The chunks with these numbers, for each class."""
        wanted = [
            [chunks.read(int(number)) for number in numbers]
            for chunks, numbers in zip(self._chunks, chosen, strict=True)
        ]
        sizes = tuple(sum(len(found) for _, found in of_class) for of_class in wanted)
        rows = np.empty((sum(sizes), self.channels), dtype=np.float32)
        found = [one for of_class in wanted for one in of_class]
        ends = np.cumsum([len(pixels) for _, pixels in found])

        def fill(index: int) -> None:
            if index + READ_AHEAD < len(found):
                self._read_ahead(*found[index + READ_AHEAD])
            image, pixels = found[index]
            cpu_rows(
                self._images[image].maps,
                pixels,
                self._side,
                mean=self._mean,
                factor=self._factor,
                out=rows[ends[index] - len(pixels) : ends[index]],
                threads=1,
            )

        for image, pixels in found[:READ_AHEAD]:
            self._read_ahead(image, pixels)
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(fill, range(len(found))):
                pass
        return Segment(rows, sizes)

    def _read_ahead(self, image: int, pixels: Integers) -> None:
        top, last = int(pixels[0]) // self._side, int(pixels[-1]) // self._side
        read_ahead(self._images[image].maps, self._side, top, last + 1)


@dataclass(frozen=True)
class SegmentPlan:
    """How many chunks of each class a segment has, and in which order they come.

    `chunks`: of each class in all. A class with fewer chunks than the segments of a pool hold comes
    several times in it.
    """

    seed: int
    chunks: tuple[int, ...]
    per_segment: int

    def chosen(self, segment: int) -> list[Integers]:
        """Numbers of a segment's chunks, for each class, in ascending order."""
        result = []
        for value, count in enumerate(self.chunks):
            places = np.arange(segment * self.per_segment, (segment + 1) * self.per_segment)
            passes, within = np.divmod(places, count)
            numbers = [
                random_order(
                    within[passes == one],
                    count,
                    np.random.SeedSequence([ORDER_STREAM, self.seed, value, one]),
                )
                for one in np.unique(passes).tolist()
            ]
            result.append(np.sort(np.concatenate(numbers)))
        return result


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
        """Nothing is read before the first `draw`. `budget` bounds the rows in memory, in bytes.

        Every class must have a pixel.
        """
        self._members = ensemble.spec.members
        self._seed = seed
        self._batch = batch
        self._device = device
        classes = len(pixels.counts)
        channels = ensemble.spec.plan.channels
        capacity = budget // (4 * channels)
        self._whole = sum(pixels.counts) <= capacity
        chunk = LARGEST_CHUNK
        if not self._whole:
            chunk = max(SMALLEST_CHUNK, min(chunk, capacity // (classes * CHUNKS_IN_POOL)))
        self._reader = RowReader(ensemble, images, pixels, chunk)
        per_segment = max(1, capacity // ((SEGMENTS + 1) * classes * chunk))
        self._plan = SegmentPlan(seed, self._reader.chunks, per_segment)
        # A member draws as many rows as are read meanwhile.
        self._steps_per_segment = max(1, per_segment * classes * chunk // batch)
        rows = sum(pixels.counts) if self._whole else per_segment * classes * chunk
        self._shape = (1 if self._whole else SEGMENTS, rows, channels)
        self._rows = torch.empty(0)  # [segments, rows, C]: segment n is in place n % segments
        self._sizes = np.zeros((self._shape[0], classes), dtype=np.int64)
        self._held: list[int | None] = [None] * self._shape[0]
        self._coming: dict[int, Future[Segment]] = {}
        self._background = ThreadPoolExecutor(1, "rows")

    def close(self) -> None:
        """End the reading in the background."""
        self._background.shutdown(cancel_futures=True)

    def draw(self, step: int) -> Batch:
        """The rows of `step`: for each member its own, every class equally often."""
        self._hold(0 if self._whole else step // self._steps_per_segment)
        shares = even_shares(self._batch, self._sizes.shape[1], step)
        drawn = [self._drawn(member, step, shares) for member in range(self._members)]
        flat = sent(torch.from_numpy(np.concatenate(drawn)), self._device)
        x_MBC = self._rows.flatten(0, 1)[flat].reshape(self._members, self._batch, -1)
        labels = torch.from_numpy(np.repeat(np.arange(len(shares)), shares))
        return Batch(x_MBC, sent(labels, self._device).expand(self._members, -1))

    def _drawn(self, member: int, step: int, shares: Sequence[int]) -> Integers:
        """Which rows of the pool a member gets, int64 [B], class after class."""
        sequence = np.random.SeedSequence([DRAW_STREAM, self._seed, member, step])
        stream = np.random.Generator(np.random.Philox(sequence))
        first_of_class = np.cumsum(self._sizes, axis=1) - self._sizes
        parts = []
        for value, share in enumerate(shares):
            sizes = self._sizes[:, value]
            ends = np.cumsum(sizes)
            drawn = stream.integers(0, ends[-1], share)
            place = np.searchsorted(ends, drawn, side="right")
            within = drawn - (ends - sizes)[place] + first_of_class[place, value]
            parts.append(place * self._shape[1] + within)
        return np.concatenate(parts)

    def _hold(self, oldest: int) -> None:
        """Have the segments from `oldest` on in memory, and the one after them on its way."""
        if not self._rows.numel():
            self._rows = torch.empty(self._shape, device=self._device)
        places = self._shape[0]
        for number in range(oldest, oldest + places):
            place = number % places
            if self._held[place] == number:
                continue
            coming = self._coming.pop(number, None)
            segment = (
                self._read(number, torch.get_num_threads()) if coming is None else coming.result()
            )
            self._rows[place, : len(segment.rows)] = torch.from_numpy(segment.rows)
            self._sizes[place] = segment.sizes
            self._held[place] = number
        following = oldest + places
        if not self._whole and following not in self._coming:
            self._coming = {following: self._background.submit(self._read, following, 1)}

    def _read(self, number: int, threads: int) -> Segment:
        if self._whole:
            everything = [np.arange(count) for count in self._plan.chunks]
            return self._reader.read(everything, threads=threads)
        return self._reader.read(self._plan.chosen(number), threads=threads)


def even_shares(batch: int, classes: int, step: int) -> list[int]:
    """Rows per class in a batch: equal, and the remainder goes to other classes at each step."""
    shares = [batch // classes] * classes
    for extra in range(batch % classes):
        shares[(step + extra) % classes] += 1
    return shares
