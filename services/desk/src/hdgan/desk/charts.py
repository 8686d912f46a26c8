"""Line and bar charts as SVG, readable on light and on dark paper, equal for equal numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# A grey with the same contrast (about 4.3 to 1) against white and against the dark background.
_INK = "#7b7b7b"
_MARKED = 20
_COLOURS = ("#2f7ed8", "#d9822b", "#2e9e5b", "#b04fc4")
# Any: matplotlib's own type for the keys lists every setting there is.
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # A $ in a name begins no formula.
    "svg.fonttype": "none",  # Text stays text: small files, sharp in print.
    "svg.hashsalt": "hdgan",  # Ids inside the SVG do not change from run to run.
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}

MAX_DRAWN = 1e30

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Points (x, y) of each line by its name."""


def drawable(value: object) -> bool:
    """Whether a number can be drawn: it is one, and axes can be made for it."""
    return isinstance(value, int | float) and abs(value) < MAX_DRAWN


def line_panels(panels: Mapping[str, Series], x_label: str) -> bytes:
    """Line charts side by side over the same x, one for each title in `panels`."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4 * len(panels), 2.6), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, series) in zip(axes, panels.items(), strict=True):
            for (name, points), colour in zip(series.items(), _COLOURS, strict=False):
                drawn = [(x, y) for x, y in points if drawable(x) and drawable(y)]
                xs, ys = [x for x, _ in drawn], [y for _, y in drawn]
                # A line of few points shows them: one alone would be invisible.
                marker = "o" if len(points) <= _MARKED else ""
                axis.plot(
                    xs, ys, label=name, color=colour, linewidth=1.3, marker=marker, markersize=3
                )
            axis.set_title(title, fontsize=9)
            axis.set_xlabel(x_label)
            axis.grid(visible=True)
            if len(series) > 1:
                axis.legend(fontsize=8)
        return _svg(figure)


def grouped_bars(groups: Mapping[str, Sequence[float]], names: Sequence[str]) -> bytes:
    """Shares (0 to 1) per name, a bar for each group: how two distributions differ."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(3.4, 1.1 * len(names) + 1.5), 2.6), layout="constrained")
        axis: Axes = figure.subplots()
        width = 0.8 / len(groups)
        for number, (group, values) in enumerate(groups.items()):
            left = [n - 0.4 + width * (number + 0.5) for n in range(len(names))]
            colour = _COLOURS[number % len(_COLOURS)]
            shares = [100 * v if drawable(v) else 0.0 for v in values]
            bars = axis.bar(left, shares, width, label=group, color=colour)
            axis.bar_label(bars, fmt="%.1f", fontsize=7)
        axis.set_xticks(range(len(names)), names)
        axis.set_ylabel("% of pixels")
        axis.legend(fontsize=8)
        return _svg(figure)


def histogram(values: Sequence[float], marker: float | None, x_label: str) -> bytes:
    """Histogram of values; `marker` is a dashed vertical line (a threshold)."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.8, 2.6), layout="constrained")
        axis: Axes = figure.subplots()
        axis.hist([value for value in values if drawable(value)], bins=30, color=_COLOURS[0])
        if marker is not None and drawable(marker):
            axis.axvline(marker, color=_COLOURS[1], linestyle="--", linewidth=1.3)
        axis.set_xlabel(x_label)
        axis.set_ylabel("images")
        return _svg(figure)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
