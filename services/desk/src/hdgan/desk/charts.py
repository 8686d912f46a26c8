"""Line and bar charts as SVG, equal for equal numbers.

Their colours are variables of a style inside the SVG, which follows the reader's choice of light or
dark, as the page around it does; on paper they are the light ones. Lines and bars differ in more
than colour: the second is dashed or hatched.
"""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# What matplotlib is told to draw in, and the variable that takes its place: light, dark.
_THEME = {
    "#010101": ("ink", "#4a5158", "#b4bbc2"),
    "#020202": ("grid", "#d9dde1", "#3a4047"),
    "#030301": ("one", "#1f66c1", "#6aaef5"),
    "#030302": ("two", "#b45309", "#f0a35a"),
    "#030303": ("three", "#1d7a43", "#6fcf97"),
    "#030304": ("four", "#8e3fb0", "#cf9ae6"),
}
_INK, _GRID, *_COLOURS = _THEME
_LINES = ("-", "--", ":", "-.")
_HATCHES = ("", "////", "....", "xxxx")
_MARKED = 20

_FEW_BEYOND = 0.1
"""Largest share of the values that an axis leaves out."""
_ORDERS = 100.0
"""An axis is bent or cut where the largest value is this many times the middle one."""

# Any: matplotlib's own type for the keys lists every setting there is.
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # A $ in a name begins no formula.
    "svg.fonttype": "none",  # Text stays text: small files, sharp in print.
    "svg.hashsalt": "hdgan",  # Ids inside the SVG do not change from run to run.
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
}

MAX_DRAWN = 1e30

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Points (x, y) of each line by its name."""


def drawable(value: object) -> bool:
    """Whether a number can be drawn: it is one, and axes can be made for it."""
    return isinstance(value, int | float) and abs(value) < MAX_DRAWN


@dataclass(frozen=True)
class Axis:
    """How far an axis of values reaches. None: as far as the values do."""

    low: float | None = None
    high: float | None = None
    logarithmic: bool = False
    """Linear near zero, so that negative values have a place, too."""
    linear_within: float = 1.0
    beyond: int = 0
    """Values that it leaves out."""
    furthest: float = 0.0
    """The one of them that is furthest from zero."""


def axis_for(values: Sequence[float]) -> Axis:
    """An axis on which most of the values can be told apart.

    A few that are far out are left out of it, and counted; where they are many, it is logarithmic.
    """
    drawn = sorted(value for value in values if drawable(value))
    if not drawn:
        return Axis()
    sizes = sorted(abs(value) for value in drawn)
    middle = statistics.median(sizes)
    if sizes[-1] <= _ORDERS * max(middle, 1e-9):
        return Axis()
    inside = [value for value in drawn if abs(value) <= _ORDERS / 10 * max(middle, 1e-9)]
    beyond = len(drawn) - len(inside)
    if middle == 0 or beyond > _FEW_BEYOND * len(drawn):
        smallest = next(size for size in sizes if size > 0)
        return Axis(logarithmic=True, linear_within=max(smallest, middle, 1e-9))
    margin = 0.05 * (inside[-1] - inside[0]) or 0.05 * middle
    furthest = max(drawn[0], drawn[-1], key=abs)
    return Axis(inside[0] - margin, inside[-1] + margin, beyond=beyond, furthest=furthest)


def line_chart(series: Series, x_label: str, axis: Axis | None = None, y_label: str = "") -> bytes:
    """Lines over the same x; one that has points of no number in it is interrupted there."""
    axis = axis or Axis()
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        for number, (name, points) in enumerate(series.items()):
            drawn = [(x, y if drawable(y) else float("nan")) for x, y in points if drawable(x)]
            # A line of few points shows them: one alone would be invisible.
            marker = "o" if len(points) <= _MARKED else ""
            axes.plot(
                [x for x, _ in drawn],
                [y for _, y in drawn],
                label=name,
                color=_COLOURS[number % len(_COLOURS)],
                linestyle=_LINES[number % len(_LINES)],
                linewidth=1.5,
                marker=marker,
                markersize=3.5,
            )
        if axis.logarithmic:
            axes.set_yscale("symlog", linthresh=axis.linear_within)
        elif axis.low is not None and axis.high is not None:
            axes.set_ylim(axis.low, axis.high)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        if len(series) > 1:
            axes.legend(fontsize=9)
        return _svg(figure)


def grouped_bars(groups: Mapping[str, Sequence[float]], names: Sequence[str]) -> bytes:
    """Shares (0 to 1) per name, a bar for each group: how two distributions differ."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(height=max(2.6, 0.32 * len(names) * len(groups) + 1.0))
        thick = 0.8 / len(groups)
        for number, (group, values) in enumerate(groups.items()):
            places = [n - 0.4 + thick * (number + 0.5) for n in range(len(names))]
            shares = [100 * v if drawable(v) else 0.0 for v in values]
            colour = _COLOURS[number % len(_COLOURS)]
            bars = axes.barh(
                places,
                shares,
                thick,
                label=group,
                facecolor=colour if number == 0 else "none",
                edgecolor=colour,
                hatch=_HATCHES[number % len(_HATCHES)],
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("% of pixels")
        axes.grid(visible=False, axis="y")
        if len(groups) > 1:
            axes.legend(fontsize=9)
        return _svg(figure)


def histogram(values: Sequence[float], marker: float | None, x_label: str) -> bytes:
    """Histogram of values; `marker` is a dashed vertical line (a threshold)."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure()
        axes.hist([value for value in values if drawable(value)], bins=30, color=_COLOURS[0])
        if marker is not None and drawable(marker):
            axes.axvline(marker, color=_COLOURS[1], linestyle="--", linewidth=1.5)
        axes.set_xlabel(x_label)
        axes.set_ylabel("images")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def _figure(height: float = 2.7) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, height), layout="constrained")
    axes: Axes = figure.subplots()
    axes.grid(visible=True)
    return figure, axes


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _themed(buffer.getvalue().decode("utf-8")).encode("utf-8")


def _themed(svg: str) -> str:
    """The SVG with variables in the place of the colours it was drawn in."""
    for colour, (name, _, _) in _THEME.items():
        svg = re.sub(rf"(?<=[:\s]){colour}(?=[;\"\s])", f"var(--{name})", svg)
        svg = svg.replace(f'="{colour}"', f'="var(--{name})"')
    light = "".join(f"--{name}:{one};" for name, one, _ in _THEME.values())
    dark = "".join(f"--{name}:{other};" for name, _, other in _THEME.values())
    style = (
        f"<style>svg{{{light}color-scheme:light dark}}"
        f"@media screen and (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    )
    return svg.replace("<defs>", f"{style}<defs>", 1)
