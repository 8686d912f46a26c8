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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdgan.nets.pyramid import NativeMap, axis_taps, stored_to_tensor

# Native rows are taken in bands of about this many values: 1 MB in float64, which the caches hold.
BAND_VALUES = 2**17
# Label rows that are in float64 at a time: 4096 x 128 of them are 4 MB.
LABEL_VALUES = 2**19
# The shift before squaring is the mean over one in so many native rows. If it is k standard
# deviations off the mean, squaring loses k^2 in precision, and k^2 is about this at most.
SHIFT_STRIDE = 8

Floats = npt.NDArray[np.float64]


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


def labelled_moments(maps: Sequence[NativeMap], labelled: npt.NDArray[np.bool_]) -> Moments:
    """Moments of the vectors of a picture's labelled pixels.

    `maps` native [h, w, C_m], coarse to fine, tensors on any device or (read-only) memory maps;
    `labelled` bool [H, W]. Memory: a few bands of rows, whatever the size of the maps. Exact up to
    float64 rounding of the native values' own spread.
    """
    count = int(np.count_nonzero(labelled))
    groups: dict[tuple[int, int], list[int]] = {}
    for index, one in enumerate(maps):
        groups.setdefault((int(one.shape[0]), int(one.shape[1])), []).append(index)
    found: dict[int, tuple[Floats, Floats]] = {}
    for shape, members in groups.items():
        sums = _sums([maps[index] for index in members], labelled, shape, count)
        found |= dict(zip(members, sums, strict=True))
    ordered = [found[index] for index in range(len(maps))]
    return Moments(
        count,
        np.concatenate([mean for mean, _ in ordered]),
        np.concatenate([deviation for _, deviation in ordered]),
    )


def _sums(
    maps: Sequence[NativeMap], labelled: npt.NDArray[np.bool_], shape: tuple[int, int], count: int
) -> list[tuple[Floats, Floats]]:
    """Mean and summed squared deviation, float64 [C] each, of maps of one native shape."""
    height, width = shape
    channels = [int(one.shape[2]) for one in maps]
    if count == 0:
        return [(np.zeros(size), np.zeros(size)) for size in channels]
    down, right = (
        AxisWeights.of(height, labelled.shape[0]),
        AxisWeights.of(width, labelled.shape[1]),
    )
    shifts = [_shift(one, labelled, down, right) for one in maps]
    first = [np.zeros(size) for size in channels]
    second = [np.zeros(size) for size in channels]
    rows = max(1, BAND_VALUES // (width * max(channels)))
    for start, weights in coefficient_bands(labelled, down, right, rows):
        stop = min(start + weights.first.shape[0] + 1, height)
        for native, shift, ones, squares in zip(maps, shifts, first, second, strict=True):
            x_RWC = _rows(native, start, stop)
            x_RWC -= shift
            _add_band(x_RWC, weights, ones, squares)
    return [
        (shift + ones / count, np.maximum(squares - ones**2 / count, 0.0))
        for shift, ones, squares in zip(shifts, first, second, strict=True)
    ]


def _add_band(x_RWC: Floats, weights: Coefficients, ones: Floats, squares: Floats) -> None:
    """Add a band's share to `ones` and `squares` [C].

    `x_RWC` is shifted; it has one row more than the coefficients [r, W], except at the bottom of
    the map, where the last row has no row below and its coefficients for that are 0. numpy, on one
    thread: torch's would wait for each other in operations as short as these.
    """
    rows, width, channels = weights.first.shape[0], x_RWC.shape[1], x_RWC.shape[2]
    here, below = x_RWC[:rows], x_RWC[1 : rows + 1]
    ones += weights.first.reshape(-1) @ here.reshape(-1, channels)
    total = here * weights.same[:, :, None]
    scratch = np.empty_like(total)

    def add(coefficients: Floats, other: Floats, columns: int) -> None:
        """Twice the pairs of a pixel with `other`; the pixels at the right end have none."""
        part = scratch[: other.shape[0], :columns]
        twice = 2 * coefficients[: other.shape[0], :columns, None]
        total[: other.shape[0], :columns] += np.multiply(other, twice, out=part)

    if weights.right.any():
        add(weights.right, here[:, 1:], width - 1)
    if weights.down.any():
        add(weights.down, below, width)
    if weights.across.any():
        add(weights.across, below[:, 1:], width - 1)
        crossed = scratch[: below.shape[0], : width - 1]
        np.multiply(here[: below.shape[0], 1:], below[:, :-1], out=crossed)
        twice = 2 * weights.across[: below.shape[0], :-1]
        squares += np.einsum("rw,rwc->c", twice, crossed)
    total *= here
    squares += total.sum(axis=(0, 1))


def _shift(
    native: NativeMap, labelled: npt.NDArray[np.bool_], down: AxisWeights, right: AxisWeights
) -> Floats:
    """About the mean, float64 [C]: the weighted mean over one in `SHIFT_STRIDE` native rows that
    any labelled pixel touches."""
    total, weight = np.zeros(int(native.shape[2])), 0.0
    for row in down.touched(np.asarray(labelled.any(axis=1)))[::SHIFT_STRIDE].tolist():
        coefficients = band_coefficients(labelled, down, right, row, row + 1).first[0]
        total += coefficients @ _rows(native, row, row + 1)[0]
        weight += float(coefficients.sum())
    # The first row is the lower neighbour of a labelled pixel, with a weight above 0.
    return total / weight


@dataclass(frozen=True)
class AxisWeights:
    """How the output pixels of one axis draw on the native pixels.

    `low` int64 [N], non-decreasing: the first of an output pixel's two native neighbours; `high`
    float64 [N] in [0, 1): the weight of the next one, 0 where there is none.
    """

    native: int
    low: npt.NDArray[np.int64]
    high: Floats

    @staticmethod
    def of(native: int, output: int) -> AxisWeights:
        """Of an axis of `native` pixels sampled at `output` pixel centres."""
        low, high, weight = axis_taps(native, output, torch.arange(output))
        inside = (high > low).to(torch.float64)
        return AxisWeights(native, low.numpy(), (weight.to(torch.float64) * inside).numpy())

    def outputs(self, start: int, stop: int) -> tuple[int, int]:
        """First and last + 1 output pixel that draws on native pixels start..stop."""
        first, last = np.searchsorted(self.low, [start - 1, stop])
        return int(first), int(last)

    def touched(self, outputs: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Native pixels, ascending, that the output pixels in the bool [N] draw on."""
        seen = np.zeros(self.native + 1, dtype=bool)
        seen[self.low[outputs]] = True
        seen[self.low[outputs & (self.high > 0)] + 1] = True
        return np.flatnonzero(seen[: self.native])

    def sums(
        self, values: Floats, axis: int, first: int, start: int, stop: int
    ) -> tuple[Floats, Floats, Floats]:
        """Weighted sums of output values onto native pixels start..stop along `axis`.

        `values` are those of output pixels from `first` on. The three results weight an output
        pixel by w (onto both of its native pixels), by w^2 (onto both) and by the product of its
        two weights (onto the lower one).
        """
        values = np.moveaxis(values, axis, 0)
        here = slice(first, first + values.shape[0])
        low, high = self.low[here], self.high[here]
        starts = np.flatnonzero(np.diff(low, prepend=-1))
        shape = (stop - start + 2, *values.shape[1:])  # one spare at either end

        def onto(weights: Floats, offset: int, result: Floats) -> None:
            weighted = values * weights.reshape(-1, *[1] * (values.ndim - 1))
            result[low[starts] - start + 1 + offset] += np.add.reduceat(weighted, starts, axis=0)

        once, square, both = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        if starts.size:
            onto(1 - high, 0, once)
            onto((1 - high) ** 2, 0, square)
            if high.any():
                onto(high, 1, once)
                onto(high**2, 1, square)
                onto(high * (1 - high), 0, both)
        inner = slice(1, -1)
        return (
            np.moveaxis(once[inner], 0, axis),
            np.moveaxis(square[inner], 0, axis),
            np.moveaxis(both[inner], 0, axis),
        )


@dataclass(frozen=True)
class Coefficients:
    """Of native rows: float64 [rows, w] each, see the module's docstring. `right`, `down` and
    `across` are of the pair that begins at a pixel."""

    first: Floats
    same: Floats
    right: Floats
    down: Floats
    across: Floats


def band_coefficients(
    labelled: npt.NDArray[np.bool_], down: AxisWeights, right: AxisWeights, start: int, stop: int
) -> Coefficients:
    """Coefficients of native rows start..stop of a map that is sampled at `labelled` [H, W]."""
    rows = stop - start
    width = right.native
    once, square, both = (np.zeros((rows, labelled.shape[1])) for _ in range(3))
    top, bottom = down.outputs(start, stop)
    step = max(1, LABEL_VALUES // labelled.shape[1])
    for first in range(top, bottom, step):
        last = min(first + step, bottom)
        values = labelled[first:last].astype(np.float64)
        low, high = int(down.low[first]), int(down.low[last - 1]) + 2
        parts = down.sums(values, 0, first, low, high)
        to = slice(max(low - start, 0), min(high - start, rows))
        of = slice(to.start + start - low, to.stop + start - low)
        for total, part in zip((once, square, both), parts, strict=True):
            total[to] += part[of]
    across_once, _, _ = right.sums(once, 1, 0, 0, width)
    _, across_square, across_both = right.sums(square, 1, 0, 0, width)
    _, both_square, both_both = right.sums(both, 1, 0, 0, width)
    return Coefficients(across_once, across_square, across_both, both_square, both_both)


def coefficient_bands(
    labelled: npt.NDArray[np.bool_], down: AxisWeights, right: AxisWeights, rows: int
) -> Iterator[tuple[int, Coefficients]]:
    """(first native row, coefficients) of bands of at most `rows` rows; bands that no labelled
    pixel touches are left out."""
    touched = down.touched(np.asarray(labelled.any(axis=1)))
    position = 0
    while position < len(touched):
        start = int(touched[position])
        position = int(np.searchsorted(touched, start + rows))
        stop = int(touched[position - 1]) + 1
        yield start, band_coefficients(labelled, down, right, start, stop)


def _rows(native: NativeMap, start: int, stop: int) -> Floats:
    """Rows start..stop of a native map as float64, a copy."""
    rows = native[start:stop]
    if isinstance(rows, np.ndarray) and rows.dtype != np.uint16:
        return rows.astype(np.float64)
    tensor = rows if isinstance(rows, torch.Tensor) else stored_to_tensor(np.array(rows))
    copy: Floats = tensor.to(torch.float64, copy=True).cpu().numpy()
    return copy
