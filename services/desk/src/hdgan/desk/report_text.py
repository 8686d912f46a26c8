"""Numbers of the report as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

NOTHING = "–"
"""Where there is no number."""


@dataclass(frozen=True)
class Fact:
    """One number with its name and what it means."""

    label: str
    value: str
    note: str = ""


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object, digits: int = 3) -> str:
    """A score as text; a dash where it is undefined."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return NOTHING
    return f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """A difference as text, always with its sign."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(value: object, digits: int = 1) -> str:
    """A share (0 to 1) as text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return NOTHING
    return f"{100 * value:.{digits}f} %"


def interval(values: object, digits: int = 3) -> str:
    """A 95 % interval as text, empty where there is none."""
    if not isinstance(values, Sequence) or len(values) != 2 or None in values:
        return ""
    return f"{number(values[0], digits)} to {number(values[1], digits)}"


def duration(seconds: object) -> str:
    """Seconds as people write them; no line ends between a number and its unit."""
    if not is_number(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    large, small = ((hours, "h"), (minutes, "min")) if hours else ((minutes, "min"), (rest, "s"))
    space = "\N{NO-BREAK SPACE}"
    return f"{large[0]}{space}{large[1]} {small[0]:02d}{space}{small[1]}"


def counted(count: int, one: str, more: str | None = None) -> str:
    """A count with its noun: `1 slide`, `2 slides`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names as one text; beyond `most` it says how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
