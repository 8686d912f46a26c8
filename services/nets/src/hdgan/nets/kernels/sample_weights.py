"""Sums over the samples at labelled pixels, from native pixels and the pairs of neighbours that the
samples are mixed from. What they compute is `nets.moments`; its tests compare with the samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hdgan.nets.kernels.compiled import compiled

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@compiled
def add_sample_weights(
    labelled: Bools,
    row_low: Integers,
    row_high: Floats,
    column_low: Integers,
    column_high: Floats,
    first_row: int,
    last_row: int,
    start: int,
    out: Floats,
) -> None:
    """Add up the weights of the labelled pixels of rows first_row .. last_row - 1.

    Args:
        labelled: [H, W].
        row_low, column_low: [H], [W]: the first of a pixel's two native neighbours per axis.
        row_high, column_high: weight of the one after it, 0 where there is none; the first has the
            rest.
        start: native row of out[:, 0].
        out: [5, rows, w]: sums of the weight itself; of its square; of the products with the
            weights of the native pixel to the right, below, and below the one to the right.
    """
    rows, width = out.shape[1], out.shape[2]
    once, square, both = np.empty(width + 1), np.empty(width + 1), np.empty(width + 1)
    for y in range(first_row, last_row):
        row = row_low[y] - start
        beneath = row_high[y]
        above = 1.0 - beneath
        if row < -1 or row >= rows or (row == -1 and beneath == 0.0):
            continue
        once[:] = 0.0
        square[:] = 0.0
        both[:] = 0.0
        for x in range(labelled.shape[1]):
            if labelled[y, x]:
                column, right = column_low[x], column_high[x]
                left = 1.0 - right
                once[column] += left
                square[column] += left * left
                both[column] += left * right
                once[column + 1] += right
                square[column + 1] += right * right
        if row >= 0:
            for column in range(width):
                out[0, row, column] += above * once[column]
                out[1, row, column] += above * above * square[column]
                out[2, row, column] += above * above * both[column]
                out[3, row, column] += above * beneath * square[column]
                out[4, row, column] += above * beneath * both[column]
        if row + 1 < rows and beneath > 0.0:
            for column in range(width):
                out[0, row + 1, column] += beneath * once[column]
                out[1, row + 1, column] += beneath * beneath * square[column]
                out[2, row + 1, column] += beneath * beneath * both[column]


@compiled
def add_weighted_sums(
    native: Singles, shift: Floats, weights: Floats, once: Floats, squared: Floats
) -> None:
    """Add a band's share to the sums of samples and of their squares, both less `shift`.

    Args:
        native: float32 [rows, w, C]; one row more than the weights, except at the bottom of a map.
        shift: float64 [C].
        weights: [5, rows, w], as `add_sample_weights` makes them.
        once, squared: [C].
    """
    for row in range(weights.shape[1]):
        for column in range(native.shape[1]):
            first, same = weights[0, row, column], weights[1, row, column]
            if same == 0.0:
                continue
            right, down = 2.0 * weights[2, row, column], 2.0 * weights[3, row, column]
            across = 2.0 * weights[4, row, column]
            if right == 0.0 and down == 0.0:
                for channel in range(native.shape[2]):
                    x = native[row, column, channel] - shift[channel]
                    once[channel] += first * x
                    squared[channel] += same * x * x
                continue
            # A neighbour without weight may not exist, or hold anything.
            beside = column + 1 if right != 0.0 or across != 0.0 else column
            below = row + 1 if down != 0.0 or across != 0.0 else row
            for channel in range(native.shape[2]):
                x = native[row, column, channel] - shift[channel]
                x_beside = native[row, beside, channel] - shift[channel]
                x_below = native[below, column, channel] - shift[channel]
                x_across = native[below, beside, channel] - shift[channel]
                pairs = same * x + right * x_beside + down * x_below + across * x_across
                once[channel] += first * x
                squared[channel] += x * pairs + across * x_beside * x_below
