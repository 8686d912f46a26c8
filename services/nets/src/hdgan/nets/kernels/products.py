"""Small matrix products that live in vector registers, written as LLVM instructions.

A block of 8 x 2 vectors is summed up in registers while the inner dimension runs: per vector
multiplication there is less than one load. Compilers do not find this form by themselves, and for
matrices as small as a pixel classifier's the usual libraries are slower (`make bench`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hdgan.nets.kernels.compiled import compiled

LANES = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
"""float32 numbers in a vector register."""

TALL = 8 if LANES == 16 else 4
"""Rows of a block: its sums, two weights and one factor fit the registers (32, or 16)."""

_FLOAT, _INDEX, _INT = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FLOAT_BYTES = 4

Address = Any
"""Of float32 numbers: an unsigned integer as wide as a pointer."""


class _Emitter:
    """The few instructions that the kernels below are made of. Offsets count numbers."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        name = f"llvm.fma.v{LANES}f32"
        self._fma = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), name
        )

    def pointer(self, address: ir.Value) -> ir.Value:
        return self.builder.inttoptr(address, _FLOAT.as_pointer())

    def times(self, count: int, stride: ir.Value) -> ir.Value:
        return self.builder.mul(ir.Constant(_INDEX, count), stride)

    def vector_at(self, base: ir.Value, *offsets: ir.Value | int) -> ir.Value:
        return self.builder.bitcast(self._at(base, offsets), _VECTOR.as_pointer())

    def load(self, place: ir.Value) -> ir.Value:
        value = self.builder.load(place)
        value.align = _FLOAT_BYTES
        return value

    def store(self, value: ir.Value, place: ir.Value) -> None:
        self.builder.store(value, place).align = _FLOAT_BYTES

    def number(self, base: ir.Value, *offsets: ir.Value | int) -> ir.Value:
        return self.builder.load(self._at(base, offsets))

    def everywhere(self, number: ir.Value) -> ir.Value:
        """A vector of one number."""
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.Constant(_INT, 0))
        lanes = ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def positive(self, vector: ir.Value) -> ir.Value:
        """max(vector, 0); NaN stays NaN, as in torch's relu."""
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        return self.builder.select(self.builder.fcmp_ordered("<", vector, zero), zero, vector)

    def loop(
        self,
        count: ir.Value,
        first: list[ir.Value],
        step: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """`values = step(index, values)` for index 0 .. count - 1, at least once."""
        builder, before = self.builder, self.builder.block
        body, end = (builder.append_basic_block(name) for name in ("body", "end"))
        builder.branch(body)
        builder.position_at_end(body)
        index = builder.phi(_INDEX)
        index.add_incoming(ir.Constant(_INDEX, 0), before)
        values = [builder.phi(_VECTOR) for _ in first]
        results = step(index, values)
        following = builder.add(index, ir.Constant(_INDEX, 1))
        index.add_incoming(following, builder.block)
        for value, one, other in zip(values, first, results, strict=True):
            value.add_incoming(one, before)
            value.add_incoming(other, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), body, end)
        builder.position_at_end(end)
        return results

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, rounded once."""
        return self.builder.call(self._fma, [a, b, c])

    def _at(self, base: ir.Value, offsets: tuple[ir.Value | int, ...]) -> ir.Value:
        values = [ir.Constant(_INDEX, o) if isinstance(o, int) else o for o in offsets]
        return self.builder.gep(base, [reduce(self.builder.add, values)])


def _block(rows: int, vectors: int, relu: bool) -> Any:
    """out[rows, vectors * LANES] = start + x[rows, inner] @ w[inner, vectors * LANES].

    Every matrix is an address and the count of numbers from one of its rows to the next. `relu`:
    the positive part of that.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        to = _Emitter(builder)
        start, start_step, x, x_step, w, w_step, out, out_step, inner = arguments
        start, x, w, out = (to.pointer(one) for one in (start, x, w, out))
        places = [(row, vector) for row in range(rows) for vector in range(vectors)]
        first = [
            to.load(to.vector_at(start, to.times(row, start_step), vector * LANES))
            for row, vector in places
        ]

        def add_up(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            offset = builder.mul(index, w_step)
            weights = [to.load(to.vector_at(w, offset, v * LANES)) for v in range(vectors)]
            factors = [to.everywhere(to.number(x, to.times(r, x_step), index)) for r in range(rows)]
            return [
                to.fma(factors[row], weights[vector], total)
                for (row, vector), total in zip(places, sums, strict=True)
            ]

        for (row, vector), total in zip(places, to.loop(inner, first, add_up), strict=True):
            place = to.vector_at(out, to.times(row, out_step), vector * LANES)
            to.store(to.positive(total) if relu else total, place)
        return context.get_dummy_value()

    matrices = [types.uintp, types.intp] * 4

    # numba reads the names of the parameters.
    def block(typing, start, start_step, x, x_step, w, w_step, out, out_step, inner):  # type: ignore[no-untyped-def]
        return types.void(*matrices, types.intp), emit

    return intrinsic(block)


def _blend(vectors: int) -> Any:
    """out[vectors * LANES] = start + sum over i < count of weights[i] * (the row at rows[i]).

    `start`, `out`: addresses of float32; `rows`: of int64 addresses; `weights`: of float32.
    `offset` numbers into `start`, `out` and every row is where to begin.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        to = _Emitter(builder)
        start, rows, weights, out, offset, count = arguments
        start, weights, out = (to.pointer(one) for one in (start, weights, out))
        rows = builder.inttoptr(rows, _INDEX.as_pointer())
        first = [to.load(to.vector_at(start, offset, v * LANES)) for v in range(vectors)]

        def add_up(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            row = to.pointer(builder.load(builder.gep(rows, [index])))
            weight = to.everywhere(to.number(weights, index))
            return [
                to.fma(weight, to.load(to.vector_at(row, offset, v * LANES)), total)
                for v, total in enumerate(sums)
            ]

        for v, total in enumerate(to.loop(count, first, add_up)):
            to.store(total, to.vector_at(out, offset, v * LANES))
        return context.get_dummy_value()

    # numba reads the names of the parameters.
    def blend(typing, start, rows, weights, out, offset, count):  # type: ignore[no-untyped-def]
        addresses = [types.uintp] * 4
        return types.void(*addresses, types.intp, types.intp), emit

    return intrinsic(blend)


_tall_wide, _tall_narrow = _block(TALL, 2, relu=False), _block(TALL, 1, relu=False)
_low_wide, _low_narrow = _block(1, 2, relu=False), _block(1, 1, relu=False)
_tall_wide_relu, _tall_narrow_relu = _block(TALL, 2, relu=True), _block(TALL, 1, relu=True)
_low_wide_relu, _low_narrow_relu = _block(1, 2, relu=True), _block(1, 1, relu=True)
_blend_4, _blend_1 = _blend(4), _blend(1)


@compiled
def product(
    start: Address,
    start_step: int,
    x: Address,
    x_step: int,
    w: Address,
    w_step: int,
    out: Address,
    out_step: int,
    rows: int,
    inner: int,
    width: int,
    relu: bool,
) -> None:
    """out[rows, width] = start + x[rows, inner] @ w[inner, width], or the positive part of that.

    Matrices of float32 are given by address (uintp) and the count of numbers from one row to the
    next; step 0 repeats one row. `inner` is at least 1, `width` a multiple of LANES. Each number is
    a sum in the order of `inner`, whatever the other numbers are.
    """
    column = 0
    while column < width:
        wide = width - column >= 2 * LANES
        at = np.uintp(4 * column)
        row = 0
        while row < rows:
            tall = rows - row >= TALL
            s = start + np.uintp(4 * row * start_step) + at
            f = x + np.uintp(4 * row * x_step)
            o = out + np.uintp(4 * row * out_step) + at
            if relu:
                if tall and wide:
                    _tall_wide_relu(s, start_step, f, x_step, w + at, w_step, o, out_step, inner)
                elif tall:
                    _tall_narrow_relu(s, start_step, f, x_step, w + at, w_step, o, out_step, inner)
                elif wide:
                    _low_wide_relu(s, start_step, f, x_step, w + at, w_step, o, out_step, inner)
                else:
                    _low_narrow_relu(s, start_step, f, x_step, w + at, w_step, o, out_step, inner)
            elif tall and wide:
                _tall_wide(s, start_step, f, x_step, w + at, w_step, o, out_step, inner)
            elif tall:
                _tall_narrow(s, start_step, f, x_step, w + at, w_step, o, out_step, inner)
            elif wide:
                _low_wide(s, start_step, f, x_step, w + at, w_step, o, out_step, inner)
            else:
                _low_narrow(s, start_step, f, x_step, w + at, w_step, o, out_step, inner)
            row += TALL if tall else 1
        column += 2 * LANES if wide else LANES


@compiled
def blend(
    start: Address, rows: Address, weights: Address, out: Address, width: int, count: int
) -> None:
    """out[width] = start + sum over i < count of weights[i] * (the row at address rows[i]).

    `start`, `out` are addresses (uintp) of float32, `rows` of int64, `weights` of float32; `count`
    is at least 1, `width` a multiple of LANES.
    """
    column = 0
    while column < width:
        if width - column >= 4 * LANES:
            _blend_4(start, rows, weights, out, column, count)
            column += 4 * LANES
        else:
            _blend_1(start, rows, weights, out, column, count)
            column += LANES
