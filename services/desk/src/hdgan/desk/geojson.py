"""What a GeoJSON file says about candidates: whose shapes these are, and their mask.

Whatever has no area or no class is a problem, not a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.geojson import GeoJsonError, Shape, count_vertices, feature_shapes, load_features
from hdgan.core.masks import UNLABELLED
from hdgan.core.run import ClassConfig
from hdgan.desk.label_files import is_untouched
from hdgan.desk.png_text import CANDIDATE_ID
from hdgan.desk.rasterise import bounding_rows_and_columns, crossings, fill_polygon

# A brush may stray over the border; a shape further out was drawn on another image or at another
# scale.
BORDER_SHARE = 0.05
MIN_BORDER = 2.0

# Pixels that are looked at for all shapes of an image, and how many of them one crossing of an edge
# and a row costs. A brushed annotation of a 4096 px image has some ten million; this is a minute.
MAX_WORK = 4_000_000_000
CROSSING_WORK = 4


@dataclass
class Drawing:
    """What a file says about one candidate."""

    candidate: str | None
    """The id written in the file; None where only the file's name can tell."""
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class GeoJson:
    """A parsed file: drawings, and everything that is wrong with it."""

    drawings: list[Drawing] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    untouched: bool = False
    """Whether it is as an export wrote it: empty, or with the shapes there were before."""


def parse_geojson(data: bytes) -> GeoJson:
    """Parse a file. Raises GeoJsonError when it is no GeoJSON at all or too large."""
    features, around = load_features(data)
    try:
        common = _candidate(around, "the file")
    except ValueError as error:
        raise GeoJsonError(str(error)) from None
    result = GeoJson(untouched=is_untouched(around, features))
    by_candidate: dict[str | None, Drawing] = {}
    vertices = 0
    for number, feature in enumerate(features, start=1):
        try:
            shapes = list(feature_shapes(feature, number))
            candidate = _candidate(feature, f"feature {number}") or common
        except ValueError as error:
            result.problems.append(str(error))
            continue
        vertices = count_vertices(shapes, vertices)
        by_candidate.setdefault(candidate, Drawing(candidate)).shapes.extend(shapes)
    if not features:
        by_candidate[common] = Drawing(common)
    result.drawings = list(by_candidate.values())
    return result


def _candidate(thing: Any, where: str) -> str | None:
    """The candidate id in the properties (or QuPath's metadata in them) of a feature or file."""
    if not isinstance(thing, dict):
        return None
    properties = thing.get("properties")
    if not isinstance(properties, dict):
        return None
    metadata = properties.get("metadata")
    for holder in (properties, metadata):
        if isinstance(holder, dict) and CANDIDATE_KEYWORD in holder:
            value = holder[CANDIDATE_KEYWORD]
            if not isinstance(value, str) or not CANDIDATE_ID.fullmatch(value):
                raise ValueError(
                    f"{where}: {CANDIDATE_KEYWORD} is {str(value)[:80]!r}, no candidate id"
                )
            return value
    return None


def draw(
    shapes: Sequence[Shape], classes: Sequence[ClassConfig], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """The mask uint8 [H, W] of shapes, and what is wrong with them.

    Where shapes overlap, the class that comes later in `classes` wins, whatever their order in the
    file. What no shape covers is unlabelled (255).
    """
    mask = np.full((height, width), UNLABELLED, dtype=np.uint8)
    problems: list[str] = []
    indices = {entry.name: index for index, entry in enumerate(classes)}
    border = max(MIN_BORDER, BORDER_SHARE * max(height, width))
    fitting = []
    for shape in shapes:
        if shape.class_name not in indices:
            known = ", ".join(indices)
            problems.append(
                f"feature {shape.feature}: unknown class {shape.class_name[:80]!r}; the run has "
                f"{known} (spelled exactly so)"
            )
            continue
        low, high = shape.rings[0].min(axis=0), shape.rings[0].max(axis=0)
        if low.min() < -border or high[0] > width + border or high[1] > height + border:
            problems.append(
                f"feature {shape.feature}: reaches from ({low[0]:g}, {low[1]:g}) to "
                f"({high[0]:g}, {high[1]:g}), but the image is {width} x {height} px: it was drawn "
                "on another image or at another scale"
            )
            continue
        fitting.append(shape)
    work = 0
    for shape in sorted(fitting, key=lambda item: indices[item.class_name]):
        rows, columns = bounding_rows_and_columns(shape.rings, height, width)
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        work += tall * wide + CROSSING_WORK * crossings(shape.rings, height)
        if work > MAX_WORK:
            problems.append(
                f"feature {shape.feature}: the shapes up to this one cover the image many times "
                "over, or run up and down it many times: simplify them"
            )
            break
        # Only the part of the image that the shape can touch.
        corner = (columns.start, rows.start)
        inside = fill_polygon(shape.rings, tall, wide, corner)
        if not inside.any():
            problems.append(
                f"feature {shape.feature}: a {shape.class_name} shape covers no pixel centre; "
                "delete it or draw it larger"
            )
        mask[rows, columns][inside] = indices[shape.class_name]
    return mask, problems
