"""Mean and standard deviation per channel in float64, mergeable (Chan et al. 1979), of labelled
pixels' vectors without sampling one of them.

A labelled pixel's vector is a sum of native pixels, weighted along each axis by `axis_taps`:
s = sum_k w_k x_k with two neighbours per axis. So over all labelled pixels

    sum s   = sum_p first_p x_p
    sum s^2 = sum_p x_p (same_p x_p + 2 right_p x_right + 2 down_p x_down + 2 across_p x_diagonal)
              + 2 across_p x_right x_down

where the coefficients are the products of weights, added up over the labelled pixels. Both
diagonals of a cell have the same one, because the weights are products of an axis each. At the
paper's size that touches 0.5 billion native values per picture instead of sampling 8 billion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdgan.nets.kernels.sample_weights import add_sample_weights, add_weighted_sums
from hdgan.nets.pyramid import NativeMap, axis_taps, stored_to_tensor

# Native rows are taken in bands of about this many values: 512 kB, which the caches hold.
BAND_VALUES = 2**17
# The shift before squaring is the mean over one in so many native rows. If it is k standard
# deviations off the mean, squaring loses k^2 in precision, and k^2 is about this at most.
SHIFT_STRIDE = 8

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Moments:
    """Of `count` rows: the mean and the sum of squared deviations from it, float64 [C]."""

    count: int
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Population standard deviation per channel, float64 [C]."""
        return np.sqrt(self.deviation / max(self.count, 1))

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> Moments:
        return Moments(
            int(value["count"]),
            np.asarray(value["mean"], dtype=np.float64),
            np.asarray(value["deviation"], dtype=np.float64),
        )


def merge_moments(parts: Iterable[Moments], channels: int) -> Moments:
    """Moments of all rows together; the order of `parts` fixes the last bits."""
    count = 0
    mean = np.zeros(channels, dtype=np.float64)
    deviation = np.zeros(channels, dtype=np.float64)
    for part in parts:
        if part.count == 0:
            continue
        total = count + part.count
        delta = part.mean - mean
        deviation = deviation + part.deviation + delta**2 * (count * part.count / total)
        mean = mean + delta * (part.count / total)
        count = total
    return Moments(count, mean, deviation)


def labelled_moments(
    maps: Sequence[NativeMap], labelled: Bools, *, threads: int | None = None
) -> Moments:
    """Moments of the vectors of a picture's labelled pixels.

    `maps` native [h, w, C_m], coarse to fine, tensors on any device or (read-only) memory maps;
    `labelled` bool [H, W]; `threads`: None: as many as torch uses, their number changes nothing.
    Memory: a few bands of rows, whatever the size of the maps. Exact up to float64 rounding of the
    native values' own spread.
    """
    count = int(np.count_nonzero(labelled))
    groups: dict[tuple[int, int], list[int]] = {}
    for index, one in enumerate(maps):
        groups.setdefault((int(one.shape[0]), int(one.shape[1])), []).append(index)
    found: dict[int, tuple[Floats, Floats]] = {}
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        for shape, members in groups.items():
            sampling = Sampling.of(shape, np.ascontiguousarray(labelled))
            sums = _sums([maps[index] for index in members], sampling, count, pool)
            found |= dict(zip(members, sums, strict=True))
    ordered = [found[index] for index in range(len(maps))]
    return Moments(
        count,
        np.concatenate([mean for mean, _ in ordered]),
        np.concatenate([deviation for _, deviation in ordered]),
    )


@dataclass(frozen=True)
class AxisWeights:
    """How the output pixels of one axis draw on the native pixels.

    `low` int64 [N], non-decreasing: the first of an output pixel's two native neighbours; `high`
    float64 [N] in [0, 1): the weight of the next one, 0 where there is none.
    """

    low: npt.NDArray[np.int64]
    high: Floats

    @staticmethod
    def of(native: int, output: int) -> AxisWeights:
        """Of an axis of `native` pixels sampled at `output` pixel centres."""
        low, high, weight = axis_taps(native, output, torch.arange(output))
        inside = (high > low).to(torch.float64)
        return AxisWeights(low.numpy(), (weight.to(torch.float64) * inside).numpy())


@dataclass(frozen=True)
class Sampling:
    """A native map's shape [h, w], sampled at the labelled pixels of a picture [H, W]."""

    shape: tuple[int, int]
    labelled: Bools
    rows: AxisWeights
    columns: AxisWeights

    @staticmethod
    def of(shape: tuple[int, int], labelled: Bools) -> Sampling:
        height, width = labelled.shape
        rows, columns = AxisWeights.of(shape[0], height), AxisWeights.of(shape[1], width)
        return Sampling(shape, labelled, rows, columns)

    def touched(self) -> npt.NDArray[np.int64]:
        """Native rows, ascending, that any labelled pixel draws on with a weight above 0."""
        outputs = np.asarray(self.labelled.any(axis=1))
        seen = np.zeros(self.shape[0] + 1, dtype=bool)
        seen[self.rows.low[outputs]] = True
        seen[self.rows.low[outputs & (self.rows.high > 0)] + 1] = True
        return np.flatnonzero(seen[:-1])

    def weights(self, start: int, stop: int) -> Floats:
        """Of native rows start..stop, float64 [5, rows, w]: first, same, right, down and across of
        the module's docstring; the last three are of the pair that begins at a pixel."""
        result = np.zeros((5, stop - start, self.shape[1]))
        first, last = np.searchsorted(self.rows.low, [start - 1, stop]).tolist()
        add_sample_weights(
            self.labelled,
            self.rows.low,
            self.rows.high,
            self.columns.low,
            self.columns.high,
            first,
            last,
            start,
            result,
        )
        return result


def _sums(
    maps: Sequence[NativeMap], sampling: Sampling, count: int, pool: ThreadPoolExecutor
) -> list[tuple[Floats, Floats]]:
    """Mean and summed squared deviation, float64 [C] each, of maps of one native shape."""
    channels = [int(one.shape[2]) for one in maps]
    if count == 0:
        return [(np.zeros(size), np.zeros(size)) for size in channels]
    height, width = sampling.shape
    touched = sampling.touched()
    shifts = _shifts(maps, sampling, touched, pool)

    def band(rows: tuple[int, int]) -> list[tuple[Floats, Floats]]:
        start, stop = rows
        weights = sampling.weights(start, stop)
        below = min(stop + 1, height)
        parts = []
        for native, shift in zip(maps, shifts, strict=True):
            once, squared = np.zeros_like(shift), np.zeros_like(shift)
            add_weighted_sums(_rows(native, start, below), shift, weights, once, squared)
            parts.append((once, squared))
        return parts

    first = [np.zeros(size) for size in channels]
    second = [np.zeros(size) for size in channels]
    bands = row_bands(touched, max(1, BAND_VALUES // (width * max(channels))))
    # In the order of the bands, so that the last bits do not depend on the threads.
    for parts in pool.map(band, bands):
        for index, (once, squared) in enumerate(parts):
            first[index] += once
            second[index] += squared
    return [
        (shift + once / count, np.maximum(squared - once**2 / count, 0.0))
        for shift, once, squared in zip(shifts, first, second, strict=True)
    ]


def _shifts(
    maps: Sequence[NativeMap],
    sampling: Sampling,
    touched: npt.NDArray[np.int64],
    pool: ThreadPoolExecutor,
) -> list[Floats]:
    """About the means, float64 [C] each: weighted means over one in `SHIFT_STRIDE` of the native
    rows that count."""

    def row_sums(row: int) -> tuple[float, list[Floats]]:
        weights = sampling.weights(row, row + 1)[0, 0]
        return float(weights.sum()), [weights @ _rows(one, row, row + 1)[0] for one in maps]

    total = 0.0
    sums = [np.zeros(int(one.shape[2])) for one in maps]
    for weight, parts in pool.map(row_sums, touched[::SHIFT_STRIDE].tolist()):
        total += weight
        for index, part in enumerate(parts):
            sums[index] += part
    return [one / total for one in sums]


def row_bands(touched: npt.NDArray[np.int64], rows: int) -> list[tuple[int, int]]:
    """(start, stop) of bands of at most `rows` native rows that cover those in `touched`."""
    bands = []
    position = 0
    while position < len(touched):
        start = int(touched[position])
        position = int(np.searchsorted(touched, start + rows))
        bands.append((start, int(touched[position - 1]) + 1))
    return bands


def _rows(native: NativeMap, start: int, stop: int) -> Singles:
    """Rows start..stop of a native map as float32, which holds every stored kind exactly."""
    rows = native[start:stop]
    if isinstance(rows, np.ndarray) and rows.dtype != np.uint16:
        return np.ascontiguousarray(rows, dtype=np.float32)
    tensor = rows if isinstance(rows, torch.Tensor) else stored_to_tensor(np.array(rows))
    converted: Singles = tensor.to(torch.float32).contiguous().cpu().numpy()
    return converted
