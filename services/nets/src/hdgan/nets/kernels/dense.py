"""A tile of a picture from native features to every member's logits, without leaving the caches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.nets.kernels.compiled import compiled
from hdgan.nets.kernels.products import Address, blend, product

CHUNK = 64
"""Pixels whose hidden values are worked on at once: 32 kB with 128 of them."""

# Columns of the table of levels, coarse to fine; the last level has the picture's resolution.
DATA, FIRST_ROW, ROWS, SIDE, CHANNELS, WEIGHTS = range(6)
# Columns of the table of layers behind the first.
INNER, WIDTH, LAYER_WEIGHTS, LAYER_BIAS = range(4)

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def scratch_size(levels: Integers, hidden: int, widest: int, side: int, columns: int) -> int:
    """How many float32 `tile_logits` needs to work with, for tiles of up to `columns` pixels."""
    size = 2 * CHUNK * widest
    for level in levels[:-1]:
        across = min(level[SIDE], columns * level[SIDE] // side + 3)
        size += (level[ROWS] + 1) * across * hidden
    return int(size)


@compiled
def taps(native: int, output: int, position: int) -> Any:
    """Where the centre of an output pixel falls among native ones, as `pyramid.axis_taps` says:
    the pixel before it, the pixel after it, and the weight of the latter."""
    source = max((position + 0.5) * (native / output) - 0.5, 0.0)
    low = min(int(np.floor(source)), native - 1)
    return low, min(low + 1, native - 1), np.float32(source - low)


@compiled
def number(base: Address, index: int) -> Address:
    """The address of float32 `index` behind `base`."""
    return base + np.uintp(4 * index)


@compiled
def tile_logits(
    data: Floats,
    levels: Integers,
    weights: Floats,
    hidden: int,
    bias: int,
    layers: Integers,
    widest: int,
    side: int,
    first: int,
    rows: int,
    left: int,
    right: int,
    scratch: Floats,
    logits: Floats,
) -> None:
    """Logits of the pixels first <= y < first + rows, left <= x < right, of every member.

    Args:
        data: [*], the native rows of all levels that the output rows touch.
        levels: [levels, 6], coarse to fine: where a level lies in `data`, its first native row
            there and how many, its side and channels, where its weights [members, channels,
            hidden] lie in `weights`.
        weights: [*].
        hidden: width of the first layer, a multiple of LANES as all widths are.
        bias: where the first layer's bias [members, hidden] lies in `weights`.
        layers: [layers, 4]: width in and out of each further layer, where its weights [members,
            in, out] and its bias [members, out] lie in `weights`.
        widest: the largest width.
        side: of the picture, in pixels.
        scratch: [scratch_size(...)], overwritten.
        logits: [members, classes, rows, side], of which the tile's part is written.
    """
    features, parameters, work = data.ctypes.data, weights.ctypes.data, scratch.ctypes.data
    members, classes = logits.shape[0], logits.shape[1]
    coarse = levels.shape[0] - 1
    fine = levels[coarse]
    last = layers.shape[0] - 1
    zeros = np.zeros(hidden, dtype=np.float32)
    tap_rows = np.empty(2 * coarse + 2, dtype=np.int64)
    tap_weights = np.empty(2 * coarse + 2, dtype=np.float32)

    # In `scratch`: hidden values of a chunk before and behind a layer; per level, one member's
    # native hidden values under the tile, and one row of them at the height of the output row.
    west, across = np.empty(coarse, dtype=np.int64), np.empty(coarse, dtype=np.int64)
    natives, heights = np.empty(coarse, dtype=np.int64), np.empty(coarse, dtype=np.int64)
    used = 2 * CHUNK * widest
    for level in range(coarse):
        native = levels[level, SIDE]
        west[level] = taps(native, side, left)[0]
        across[level] = taps(native, side, right - 1)[1] + 1 - west[level]
        natives[level] = used
        used += levels[level, ROWS] * across[level] * hidden
        heights[level] = used
        used += across[level] * hidden

    for member in range(members):
        for level in range(coarse):
            channels = levels[level, CHANNELS]
            level_weights = levels[level, WEIGHTS] + member * channels * hidden
            for row in range(levels[level, ROWS]):
                pixel = row * levels[level, SIDE] + west[level]
                product(
                    zeros.ctypes.data,
                    0,
                    number(features, levels[level, DATA] + pixel * channels),
                    channels,
                    number(parameters, level_weights),
                    hidden,
                    number(work, natives[level] + row * across[level] * hidden),
                    hidden,
                    across[level],
                    channels,
                    hidden,
                    False,
                )
        for row in range(rows):
            for level in range(coarse):
                up, down, weight = taps(levels[level, SIDE], side, first + row)
                count = across[level] * hidden
                upper = number(work, natives[level] + (up - levels[level, FIRST_ROW]) * count)
                lower = number(work, natives[level] + (down - levels[level, FIRST_ROW]) * count)
                tap_rows[0], tap_rows[1] = lower, upper
                tap_weights[0], tap_weights[1] = weight, -weight
                blend(
                    upper,
                    tap_rows.ctypes.data,
                    tap_weights.ctypes.data,
                    number(work, heights[level]),
                    count,
                    2,
                )
            for begin in range(left, right, CHUNK):
                pixels = min(CHUNK, right - begin)
                start, step = number(parameters, bias + member * hidden), 0
                if coarse > 0:
                    for pixel in range(pixels):
                        for level in range(coarse):
                            low, high, weight = taps(levels[level, SIDE], side, begin + pixel)
                            base = number(work, heights[level])
                            tap_rows[2 * level] = number(base, (low - west[level]) * hidden)
                            tap_rows[2 * level + 1] = number(base, (high - west[level]) * hidden)
                            tap_weights[2 * level] = np.float32(1.0) - weight
                            tap_weights[2 * level + 1] = weight
                        blend(
                            start,
                            tap_rows.ctypes.data,
                            tap_weights.ctypes.data,
                            number(work, pixel * hidden),
                            hidden,
                            2 * coarse,
                        )
                    start, step = work, hidden
                channels = fine[CHANNELS]
                pixel = (first + row - fine[FIRST_ROW]) * side + begin
                product(
                    start,
                    step,
                    number(features, fine[DATA] + pixel * channels),
                    channels,
                    number(parameters, fine[WEIGHTS] + member * channels * hidden),
                    hidden,
                    work,
                    hidden,
                    pixels,
                    channels,
                    hidden,
                    True,
                )
                before, behind = 0, CHUNK * widest
                for layer in range(last + 1):
                    inner, width = layers[layer, INNER], layers[layer, WIDTH]
                    product(
                        number(parameters, layers[layer, LAYER_BIAS] + member * width),
                        0,
                        number(work, before),
                        inner,
                        number(parameters, layers[layer, LAYER_WEIGHTS] + member * inner * width),
                        width,
                        number(work, behind),
                        width,
                        pixels,
                        inner,
                        width,
                        layer < last,
                    )
                    before, behind = behind, before
                width = layers[last, WIDTH]
                for label in range(classes):
                    for pixel in range(pixels):
                        logits[member, label, row, begin + pixel] = scratch[
                            before + pixel * width + label
                        ]
