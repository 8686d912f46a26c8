"""Vectors of single pixels straight from stored maps; only what is asked for is converted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hdgan.nets.kernels.compiled import compiled
from hdgan.nets.kernels.dense import taps
from hdgan.nets.kernels.products import Address

# Columns of the table of maps, and how a map's numbers are stored.
PLACE, SIDE, CHANNELS, KIND = range(4)
FLOAT16, BFLOAT16, FLOAT32, UINT8 = range(4)
ITEM_BYTES = {FLOAT16: 2, BFLOAT16: 2, FLOAT32: 4, UINT8: 1}

LANES = 8

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def _bilinear(kind: int, lanes: int) -> Any:
    """out[lanes] = (a * A + b * B + c * C + d * D - mean) * factor, from channel `offset` on.

    A to D: addresses of four stored pixels; `out`, `mean`, `factor`: of float32.
    """
    numbers = ir.VectorType(ir.FloatType(), lanes)
    stored: ir.Type = {
        FLOAT16: ir.HalfType(),
        BFLOAT16: ir.IntType(16),
        FLOAT32: ir.FloatType(),
        UINT8: ir.IntType(8),
    }[kind]

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        *pixels, a, b, c, d, mean, factor, out, offset = arguments

        def place(address: ir.Value, item: ir.Type) -> ir.Value:
            pointer = builder.inttoptr(address, item.as_pointer())
            moved = builder.gep(pointer, [offset])
            return builder.bitcast(moved, ir.VectorType(item, lanes).as_pointer())

        def load(address: ir.Value, item: ir.Type, size: int) -> ir.Value:
            value = builder.load(place(address, item))
            value.align = size
            return value

        def convert(value: ir.Value) -> ir.Value:
            if kind == FLOAT16:
                return builder.fpext(value, numbers)
            if kind == UINT8:
                return builder.uitofp(value, numbers)
            if kind == BFLOAT16:
                wide = ir.VectorType(ir.IntType(32), lanes)
                shift = ir.Constant(wide, [16] * lanes)
                return builder.bitcast(builder.shl(builder.zext(value, wide), shift), numbers)
            return value

        def everywhere(number: ir.Value) -> ir.Value:
            first = ir.Constant(ir.IntType(32), 0)
            lone = builder.insert_element(ir.Constant(numbers, ir.Undefined), number, first)
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            return builder.shuffle_vector(lone, ir.Constant(numbers, ir.Undefined), zeros)

        total = None
        for pixel, weight in zip(pixels, (a, b, c, d), strict=True):
            value = convert(load(pixel, stored, ITEM_BYTES[kind]))
            part = builder.fmul(value, everywhere(weight))
            total = part if total is None else builder.fadd(total, part)
        centred = builder.fsub(total, load(mean, ir.FloatType(), 4))
        scaled = builder.fmul(centred, load(factor, ir.FloatType(), 4))
        builder.store(scaled, place(out, ir.FloatType())).align = 4
        return context.get_dummy_value()

    # numba reads the names of the parameters.
    def bilinear(typing, p, q, r, s, a, b, c, d, mean, factor, out, offset):  # type: ignore[no-untyped-def]
        addresses, weights = [types.uintp] * 4, [types.float32] * 4
        return types.void(*addresses, *weights, *[types.uintp] * 3, types.intp), emit

    return intrinsic(bilinear)


_half_8, _half_1 = _bilinear(FLOAT16, LANES), _bilinear(FLOAT16, 1)
_brain_8, _brain_1 = _bilinear(BFLOAT16, LANES), _bilinear(BFLOAT16, 1)
_float_8, _float_1 = _bilinear(FLOAT32, LANES), _bilinear(FLOAT32, 1)
_byte_8, _byte_1 = _bilinear(UINT8, LANES), _bilinear(UINT8, 1)


@compiled
def _vector(
    kind: int,
    p: Address,
    q: Address,
    r: Address,
    s: Address,
    a: np.float32,
    b: np.float32,
    c: np.float32,
    d: np.float32,
    mean: Address,
    factor: Address,
    out: Address,
    channels: int,
) -> None:
    """All channels of one pixel in one map."""
    at = 0
    while at < channels:
        many = channels - at >= LANES
        if kind == FLOAT16:
            if many:
                _half_8(p, q, r, s, a, b, c, d, mean, factor, out, at)
            else:
                _half_1(p, q, r, s, a, b, c, d, mean, factor, out, at)
        elif kind == BFLOAT16:
            if many:
                _brain_8(p, q, r, s, a, b, c, d, mean, factor, out, at)
            else:
                _brain_1(p, q, r, s, a, b, c, d, mean, factor, out, at)
        elif kind == FLOAT32:
            if many:
                _float_8(p, q, r, s, a, b, c, d, mean, factor, out, at)
            else:
                _float_1(p, q, r, s, a, b, c, d, mean, factor, out, at)
        elif many:
            _byte_8(p, q, r, s, a, b, c, d, mean, factor, out, at)
        else:
            _byte_1(p, q, r, s, a, b, c, d, mean, factor, out, at)
        at += LANES if many else 1


@compiled
def pixel_vectors(
    maps: Integers,
    side: int,
    pixels: Integers,
    mean: Floats,
    factor: Floats,
    out: Floats,
    first: int,
    stop: int,
) -> None:
    """Rows first .. stop - 1 of `out` [N, C]: (the vectors of the pixels - mean) * factor.

    Args:
        maps: [maps, 4]: address of a map [side, side, channels], its side, channels and kind.
        side: of the picture, in pixels.
        pixels: [N], flat indices y * side + x.
        mean, factor: [C].
    """
    for row in range(first, stop):
        y, x = pixels[row] // side, pixels[row] % side
        channel = 0
        for index in range(maps.shape[0]):
            native, channels, kind = maps[index, SIDE], maps[index, CHANNELS], maps[index, KIND]
            item = 4 if kind == FLOAT32 else 1 if kind == UINT8 else 2
            top, bottom, down = taps(native, side, y)
            left, right, across = taps(native, side, x)
            base, pixel = np.uintp(maps[index, PLACE]), item * channels
            up, along = np.float32(1.0) - down, np.float32(1.0) - across
            _vector(
                kind,
                base + np.uintp(pixel * (top * native + left)),
                base + np.uintp(pixel * (top * native + right)),
                base + np.uintp(pixel * (bottom * native + left)),
                base + np.uintp(pixel * (bottom * native + right)),
                up * along,
                up * across,
                down * along,
                down * across,
                mean.ctypes.data + np.uintp(4 * channel),
                factor.ctypes.data + np.uintp(4 * channel),
                out.ctypes.data + np.uintp(4 * (row * out.shape[1] + channel)),
                channels,
            )
            channel += channels
