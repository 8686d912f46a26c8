"""What a label file says about a picture, whatever its format: areas with a class, drawn to a mask.

A format's reader gives a `Reading`; what an area covers is its `Form`: a polygon here, run lengths
in `run_lengths`, a painted picture in `rle_pack`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import shapely

from hdgan.core.errors import HdganError
from hdgan.core.geojson import Ring
from hdgan.core.masks import UNLABELLED
from hdgan.core.run import ClassConfig
from hdgan.desk.messages import Messages
from hdgan.desk.rasterise import bounding_rows_and_columns, crossings, fill_polygon

# A brush may stray over the border; a shape further out was drawn on another image or at another
# scale.
BORDER_SHARE = 0.05
MIN_BORDER = 2.0

# Pixels that are looked at for all areas of an image, and how many of them an area costs, however
# small it is, and one crossing of an edge and a row. A brushed annotation of a 4096 px image has
# some ten million, ten thousand nuclei five hundred million; this is a minute.
MAX_WORK = 4_000_000_000
AREA_WORK = 50_000
CROSSING_WORK = 4

MAX_COORDINATE = 1e9
MAX_VERTICES = 2_000_000
"""Of one file."""

SPECK = 4
"""An area of fewer pixels is a speck: rarely what somebody meant to label."""
MAX_MEETINGS = 250_000_000
"""Pairs of lines beside or across each other that are looked at for crossings in all areas of an
image: about five seconds. An outline of 20,000 corners drawn by hand has a million, a zigzag of as
many lines as high as the image 200 million."""

Mask = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.bool_]


class LabelFileError(HdganError):
    """A label file cannot be used as a whole; the message says why and what to do."""

    exit_code = 64


class Form(Protocol):
    """The pixels of an area."""

    def misfit(self, height: int, width: int) -> str | None:
        """Why it cannot be an area of an image of this size; checked before anything else."""

    def work(self, height: int, width: int) -> int:
        """What `pixels` will cost, in pixels."""

    def pixels(self, height: int, width: int) -> tuple[slice, slice, Pixels]:
        """Rows and columns of the part of the image it can touch, and which pixels there it does.

        LabelFileError for packed data that cannot be unpacked.
        """

    def meetings(self) -> int:
        """What `oddity` will cost, in pairs of lines; 0 for what has none."""

    def oddity(self) -> str | None:
        """What is unusual about it, but allowed: nothing that changes which pixels it covers."""


@dataclass(frozen=True)
class Polygon:
    """An outer ring and holes, filled at pixel centres by the even-odd rule."""

    rings: tuple[Ring, ...]

    def misfit(self, height: int, width: int) -> str | None:
        border = max(MIN_BORDER, BORDER_SHARE * max(height, width))
        low, high = self.rings[0].min(axis=0), self.rings[0].max(axis=0)
        if low.min() >= -border and high[0] <= width + border and high[1] <= height + border:
            return None
        return (
            f"reaches from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}), but the image "
            f"is {width} x {height} px: it was drawn on another image or at another scale"
        )

    def work(self, height: int, width: int) -> int:
        rows, columns = bounding_rows_and_columns(self.rings, height, width)
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        return int(area) + CROSSING_WORK * crossings(self.rings, height)

    def pixels(self, height: int, width: int) -> tuple[slice, slice, Pixels]:
        rows, columns = bounding_rows_and_columns(self.rings, height, width)
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        return rows, columns, fill_polygon(self.rings, tall, wide, (columns.start, rows.start))

    def meetings(self) -> int:
        """At least as many as there are pairs of edges whose boxes meet: those whose extents meet
        in x, or those in y if they are fewer."""
        starts = np.concatenate(self.rings)
        ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in self.rings])
        low, high = np.minimum(starts, ends), np.maximum(starts, ends)
        count = len(starts)
        # Of two extents each begins before the other ends if they meet, else one of them does.
        begun = [
            int(np.searchsorted(np.sort(low[:, axis]), high[:, axis], side="right").sum())
            for axis in (0, 1)
        ]
        return min(begun) - count * (count + 1) // 2

    def oddity(self) -> str | None:
        """Where it crosses itself. A ring that only touches itself means what it shows."""
        outer, *holes = [shapely.linearrings(ring) for ring in self.rings]
        reason = str(shapely.is_valid_reason(shapely.polygons(outer, holes or None)))
        if not reason.startswith("Self-intersection"):
            return None
        x, y = reason.partition("[")[2].rstrip("]").split()[:2]
        return f"crosses itself near x={float(x):.4g}, y={float(y):.4g}"


@dataclass(frozen=True)
class Area:
    """One area of one class."""

    class_name: str
    where: str
    """How to find it in its file, for messages: "feature 3"."""
    form: Form
    layer: int = 0
    """A higher one lies on top; within a layer the class decides."""


@dataclass
class Drawing:
    """What a file says about one picture."""

    candidate: str | None = None
    """The id written in the file for it; None where there is none."""
    picture: str | None = None
    """The name the file gives the picture, which may hold the id."""
    size: tuple[int, int] | None = None
    """Width and height of the picture as the file says."""
    areas: list[Area] = field(default_factory=list)
    png: bytes | None = None
    """A mask as a picture of its own, instead of areas."""


@dataclass
class Reading:
    """A file as read: its drawings, and what is wrong with it."""

    drawings: list[Drawing] = field(default_factory=list)
    wrong: Messages = field(default_factory=Messages)
    notices: Messages = field(default_factory=Messages)
    untouched: bool = False
    """Whether it is as an export wrote it: empty, or with the shapes there were before."""

    @property
    def problems(self) -> list[str]:
        """What is wrong with it, in at most `MAX_TOLD` + 1 lines."""
        return self.wrong.lines()


def ring_of(points: Iterable[Sequence[Any]], where: str) -> Ring:
    """A ring float64 [N, 2] that is closed by itself, of at least three (x, y). ValueError."""
    found = []
    for point in points:
        for value in point:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{where}: a coordinate is {str(value)[:40]!r}, not a number")
            if not abs(value) < MAX_COORDINATE:  # nor NaN
                raise ValueError(f"{where}: the coordinate {str(value)[:40]} is out of all bounds")
        found.append((float(point[0]), float(point[1])))
    if len(found) > 1 and found[0] == found[-1]:
        found.pop()
    if len(found) < 3:
        raise ValueError(f"{where}: has fewer than three corners; draw the shape again")
    return np.asarray(found, dtype=np.float64)


def draw(
    areas: Sequence[Area], classes: Sequence[ClassConfig], height: int, width: int
) -> tuple[Mask, Messages, list[str]]:
    """The mask uint8 [H, W] of areas, what is wrong with them, and what somebody should know.

    Where areas overlap, a higher layer wins, and in one layer the class that comes later in
    `classes`, whatever their order in the file. What no area covers is unlabelled (255).

    Nothing is drawn if that would be more than MAX_WORK. What an area covers is decided by the
    even-odd rule alone; whether it crosses itself is only told, and for areas beyond MAX_MEETINGS
    it is told that nobody has looked.
    """
    mask = np.full((height, width), UNLABELLED, dtype=np.uint8)
    indices = {entry.name: index for index, entry in enumerate(classes)}
    if len(areas) * AREA_WORK > MAX_WORK:  # before anything is done with each of them
        return mask, Messages([_too_much(areas[MAX_WORK // AREA_WORK])]), []
    problems = Messages()
    fitting = []
    for area in areas:
        wrong = _misfit(area, indices, height, width)
        if wrong is None:
            fitting.append(area)
        else:
            problems.append(f"{area.where}: {wrong}")
    ordered = sorted(fitting, key=lambda one: (one.layer, indices[one.class_name]))
    work = 0
    for area in ordered:
        work += AREA_WORK + area.form.work(height, width)
        if work > MAX_WORK:
            problems.append(_too_much(area))
            return mask, problems, []
    meetings, specks, odd, unseen = 0, [], [], []
    for area in ordered:
        try:
            rows, columns, inside = area.form.pixels(height, width)
        except LabelFileError as error:
            problems.append(f"{area.where}: {error}")
            continue
        covered = int(np.count_nonzero(inside))
        if not covered:
            problems.append(
                f"{area.where}: a {area.class_name} shape covers no pixel centre; delete it or "
                "draw it larger"
            )
        elif covered < SPECK:
            specks.append(area.where)
        mask[rows, columns][inside] = indices[area.class_name]
        more = area.form.meetings()
        if meetings + more > MAX_MEETINGS:
            unseen.append(area.where)
            continue
        meetings += more
        oddity = area.form.oddity()
        if oddity is not None:
            odd.append(f"{area.where} {oddity}")
    return mask, problems, _notices(specks, odd, unseen)


def _too_much(area: Area) -> str:
    return (
        f"{area.where}: the shapes up to this one cover the image many times over, or run up and "
        "down it many times, or are very many: simplify them"
    )


def _misfit(area: Area, indices: dict[str, int], height: int, width: int) -> str | None:
    if area.class_name not in indices:
        return (
            f"unknown class {area.class_name[:80]!r}; the run has {', '.join(indices)} (spelled "
            "exactly so)"
        )
    return area.form.misfit(height, width)


def _notices(specks: Sequence[str], odd: Sequence[str], unseen: Sequence[str]) -> list[str]:
    notices = []
    if specks:
        shapes = "1 shape covers" if len(specks) == 1 else f"{len(specks)} shapes cover"
        notices.append(
            f"{shapes} fewer than {SPECK} pixels (first: {specks[0]}): delete what slipped in"
        )
    if odd:
        more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
        notices.append(f"{odd[0]}{more}: labelled is what lies inside an odd number of its lines")
    if unseen:
        shapes = "1 shape was" if len(unseen) == 1 else f"{len(unseen)} shapes were"
        notices.append(
            f"{shapes} not looked at for lines that cross, as so many lie beside each other "
            f"(first: {unseen[0]}): labelled is what lies inside an odd number of lines"
        )
    return notices
