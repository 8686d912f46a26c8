"""What a benchmark finds, as rows of one table and of `results.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure, and the same of what it is compared with.

    Attributes:
        baseline: of the straightforward way, in the same unit; None: there is none.
        ratio: how many times as good as the baseline; above 1 is better, whatever the unit.
        peak_rss_mb: most memory of the process that did it, in 10^6 bytes; None: not measured.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    peak_rss_mb: float | None = None


def faster(
    name: str, value: float, baseline: float, unit: str, peak: float | None = None
) -> Figure:
    """A figure of which more is better, such as rows per second."""
    return Figure(name, value, unit, baseline, value / baseline, peak)


def smaller(
    name: str, value: float, baseline: float, unit: str, peak: float | None = None
) -> Figure:
    """A figure of which less is better, such as seconds or bytes."""
    return Figure(name, value, unit, baseline, baseline / value, peak)


def rows(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """As `results.json` holds them, rounded to four digits."""
    return [
        {
            key: float(f"{value:.4g}") if isinstance(value, float) else value
            for key, value in dataclasses.asdict(one).items()
        }
        for one in figures
    ]


def print_table(figures: Sequence[Figure]) -> None:
    """All figures, for people."""
    table = Table("figure", "value", "baseline", "unit", "ratio", "peak MB")
    for one in figures:
        table.add_row(
            one.name,
            _number(one.value),
            _number(one.baseline),
            one.unit,
            _number(one.ratio),
            _number(one.peak_rss_mb),
        )
    Console(width=120).print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
