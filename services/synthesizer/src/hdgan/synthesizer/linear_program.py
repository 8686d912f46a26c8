"""A small linear program, solved exactly: no rounding decides what a dataset accepts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

from hdgan.core.errors import InternalError

ZERO, ONE = Fraction(0), Fraction(1)


@dataclasses.dataclass(frozen=True)
class Solution:
    """The best x, and what each x would gain beyond its bound: above 0 it is 1 in every best
    solution, below 0 it is 0 in every one, at 0 others may be as good."""

    x: list[Fraction]
    gain: list[Fraction]


def maximise(gains: Sequence[Fraction], at_least_zero: Sequence[Sequence[Fraction]]) -> Solution:
    """x that maximises sum_j gains[j] x[j], with 0 <= x <= 1 and sum_j row[j] x[j] >= 0 per row.

    The simplex method for bounded variables with Bland's rule, which always ends. It starts at
    x = 0, where every row holds.

    Args:
        gains: not negative, [n].
        at_least_zero: rows of n coefficients.
    """
    n, m = len(gains), len(at_least_zero)
    # Row i says: slack_i - sum_j row[j] x[j] = 0, with slack_i >= 0.
    table = [
        [-value for value in row] + [ONE if i == k else ZERO for k in range(m)]
        for i, row in enumerate(at_least_zero)
    ]
    basis = [n + i for i in range(m)]
    reduced = [*gains, *[ZERO] * m]
    upper: list[Fraction | None] = [*[ONE] * n, *[None] * m]
    values = [ZERO] * (n + m)
    while (entering := _entering(reduced, values, upper, basis)) is not None:
        sign = 1 if reduced[entering] > 0 else -1
        slopes = [-sign * row[entering] for row in table]
        step, leaving = _step(entering, sign, slopes, values, upper, basis)
        values[entering] += sign * step
        for j, slope in zip(basis, slopes, strict=True):
            values[j] += slope * step
        if leaving is not None:
            _pivot(table, reduced, leaving, entering)
            basis[leaving] = entering
    return Solution(values[:n], reduced[:n])


def _entering(
    reduced: list[Fraction],
    values: list[Fraction],
    upper: list[Fraction | None],
    basis: list[int],
) -> int | None:
    """The first variable outside the basis whose change would gain something."""
    for j, gain in enumerate(reduced):
        if j in basis:
            continue
        if (gain > 0 and values[j] != upper[j]) or (gain < 0 and values[j] > 0):
            return j
    return None


def _step(
    entering: int,
    sign: int,
    slopes: list[Fraction],
    values: list[Fraction],
    upper: list[Fraction | None],
    basis: list[int],
) -> tuple[Fraction, int | None]:
    """How far the entering variable can go, and the row whose variable leaves the basis for it."""
    # (step, variable, row): of equal steps the lowest variable, as Bland's rule wants.
    limits: list[tuple[Fraction, int, int | None]] = []
    own = upper[entering]
    if sign < 0:
        limits.append((values[entering], entering, None))
    elif own is not None:
        limits.append((own - values[entering], entering, None))
    for row, (j, slope) in enumerate(zip(basis, slopes, strict=True)):
        top = upper[j]
        if slope < 0:
            limits.append((values[j] / -slope, j, row))
        elif slope > 0 and top is not None:
            limits.append(((top - values[j]) / slope, j, row))
    if not limits:
        raise InternalError("a linear program within bounds cannot be unbounded")
    step, _, leaving = min(limits, key=lambda limit: limit[:2])
    return step, leaving


def _pivot(table: list[list[Fraction]], reduced: list[Fraction], row: int, column: int) -> None:
    """Write the equations anew, so that `column` stands in equation `row` alone."""
    divisor = table[row][column]
    table[row] = [value / divisor for value in table[row]]
    pivot = table[row]
    for other in [*(line for k, line in enumerate(table) if k != row), reduced]:
        factor = other[column]
        if factor:
            for j, value in enumerate(pivot):
                if value:
                    other[j] -= factor * value
