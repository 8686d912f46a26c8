"""Whether a place of a slide gives a tile, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal["noTissue", "compartment", "whitespace", "pen", "blurred"]


@dataclass(frozen=True)
class Measures:
    """What is known of a place; None: not measured (yet), or it cannot be told.

    touches_tissue: whether it touches the tissue of the whole-slide map; compartment, whitespace,
    pen: shares of its pixels, 0..1; focus: see `hdgan.tiler.focus`.
    """

    touches_tissue: bool = True
    compartment: float | None = None
    whitespace: float | None = None
    pen: float | None = None
    focus: float | None = None


@dataclass(frozen=True)
class Limits:
    """What a tile must keep to; None: anything goes."""

    max_whitespace: float
    max_pen: float | None = None
    min_focus: float | None = None
    min_compartment: float = 0.0


def judge(measures: Measures, limits: Limits) -> Reason | None:
    """The first reason that holds, in the order of `Reason`; None for a tile.

    That order is the order in which things are measured: cheap ones first, and what is no tissue
    is not looked at for pen or focus. What was not measured is no reason.
    """
    if not measures.touches_tissue:
        return "noTissue"
    if measures.compartment is not None and measures.compartment < limits.min_compartment:
        return "compartment"
    if measures.whitespace is not None and measures.whitespace > limits.max_whitespace:
        return "whitespace"
    if _above(measures.pen, limits.max_pen):
        return "pen"
    if measures.focus is not None and _above(limits.min_focus, measures.focus):
        return "blurred"
    return None


def _above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
