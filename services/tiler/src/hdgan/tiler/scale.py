"""What counts as a scale, and where the levels of a pyramid lie."""

from __future__ import annotations

import math

Mpp = tuple[float, float]
"""Micrometres per pixel, (x, y)."""

# Between a 100x oil objective with a small sensor and a flatbed scanner of 1,270 dpi. What programs
# write when they know nothing lies beyond: 72, 96, 300, 600 and 1,200 dpi are 353 to 21 um.
MIN_MPP, MAX_MPP = 0.02, 20.0
# Scanners have nearly square pixels; a larger ratio is a mistake in one of the two numbers.
MAX_RATIO = 4.0

UM_PER_INCH = 25_400.0
UM_PER_CENTIMETRE = 10_000.0


def plausible(x: float | None, y: float | None) -> Mpp | None:
    """Two numbers of micrometres per pixel if they can be a microscope's, or None."""
    if x is None or y is None:
        return None
    if not all(math.isfinite(one) and MIN_MPP <= one <= MAX_MPP for one in (x, y)):
        return None
    return (x, y) if max(x, y) <= MAX_RATIO * min(x, y) else None


def factors(full: tuple[int, int], level: tuple[int, int]) -> tuple[float, float]:
    """Level-0 pixels per pixel of a level, (x, y), from both sizes (width, height).

    Writers shrink by whole factors and drop or add the broken pixel at the rim, so 1101 -> 550 is a
    factor of 2, not of 2.0018; sizes that no whole factor explains are taken as they are.
    """
    ratio = (full[0] / level[0], full[1] / level[1])
    whole = max(1, round(math.sqrt(ratio[0] * ratio[1])))
    if all(abs(a / whole - b) < 1 for a, b in zip(full, level, strict=True)):
        return float(whole), float(whole)
    return ratio
