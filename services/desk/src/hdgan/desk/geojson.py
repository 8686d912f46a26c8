"""QuPath's GeoJSON, read defensively: which class has which polygons, and of which candidate.

Understood: a FeatureCollection, one Feature or a plain list of Features, with Polygon and
MultiPolygon geometry and the class in ``properties.classification.name``. Hierarchy, measurements,
colours and everything else are ignored. Whatever has no area or no class is a problem, not a guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.masks import UNLABELLED
from hdgan.core.run import ClassConfig
from hdgan.desk.png_text import CANDIDATE_ID
from hdgan.desk.rasterise import Ring, fill_polygon

MAX_BYTES = 64 << 20
MAX_FEATURES = 100_000
MAX_VERTICES = 2_000_000

# A brush may stray over the border; a shape further out was drawn on another image or at another
# scale.
BORDER_SHARE = 0.05
MIN_BORDER = 2.0


class GeoJsonError(Exception):
    """The file as a whole cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Shape:
    """One polygon (outer ring, then holes) of one class."""

    class_name: str
    rings: tuple[Ring, ...]
    feature: int
    """Position of its feature in the file, from 1, for messages."""


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


def parse_geojson(data: bytes) -> GeoJson:
    """Parse a file. Raises GeoJsonError when it is no GeoJSON at all or too large."""
    if len(data) > MAX_BYTES:
        raise GeoJsonError(f"has {len(data)} bytes, at most {MAX_BYTES} are read: simplify shapes")
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise GeoJsonError("is nested too deeply: export it from QuPath again") from None
    except ValueError as error:
        raise GeoJsonError(f"is not JSON ({error}): export it from QuPath again") from None
    features, common = _features(document)
    if len(features) > MAX_FEATURES:
        raise GeoJsonError(f"has {len(features)} features, at most {MAX_FEATURES} are read")
    result = GeoJson()
    by_candidate: dict[str | None, Drawing] = {}
    vertices = 0
    for number, feature in enumerate(features, start=1):
        try:
            shapes = list(_shapes(feature, number))
            candidate = _candidate(feature, f"feature {number}") or common
        except ValueError as error:
            result.problems.append(str(error))
            continue
        vertices += sum(len(ring) for shape in shapes for ring in shape.rings)
        if vertices > MAX_VERTICES:
            raise GeoJsonError(f"has more than {MAX_VERTICES} vertices: simplify its shapes")
        drawing = by_candidate.setdefault(candidate, Drawing(candidate))
        drawing.shapes.extend(shapes)
    if not features:
        by_candidate[common] = Drawing(common)
    result.drawings = list(by_candidate.values())
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number JSON knows")


def _features(document: Any) -> tuple[list[Any], str | None]:
    """The features of a document and the candidate id it gives for all of them."""
    if isinstance(document, list):
        return document, None
    if isinstance(document, dict):
        try:
            common = _candidate(document, "the file")
        except ValueError as error:
            raise GeoJsonError(str(error)) from None
        if document.get("type") == "FeatureCollection":
            features = document.get("features")
            if isinstance(features, list):
                return features, common
        elif document.get("type") == "Feature":
            return [document], common
    raise GeoJsonError("is not a GeoJSON FeatureCollection: export objects from QuPath as GeoJSON")


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


def _shapes(feature: Any, number: int) -> Iterator[Shape]:
    """The polygons of one feature. ValueError names the feature and what is wrong."""
    where = f"feature {number}"
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise ValueError(f"{where}: is not a GeoJSON Feature")
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict):
        raise ValueError(f"{where}: has no geometry; delete it in QuPath")
    kind = geometry.get("type")
    coordinates = geometry.get("coordinates")
    if kind == "Polygon":
        polygons = [coordinates]
    elif kind == "MultiPolygon" and isinstance(coordinates, list):
        polygons = coordinates
    else:
        raise ValueError(
            f"{where}: is a {str(kind)[:40]}, which has no area; delete it or draw a polygon"
        )
    if not polygons:
        raise ValueError(f"{where}: has no polygons; delete it in QuPath")
    name = _class_name(feature, where)
    for polygon in polygons:
        if not isinstance(polygon, list) or not polygon:
            raise ValueError(f"{where}: has a polygon without rings; delete it in QuPath")
        yield Shape(name, tuple(_ring(ring, where) for ring in polygon), number)


def _class_name(feature: dict[str, Any], where: str) -> str:
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    name = classification.get("name") if isinstance(classification, dict) else None
    if name is None and isinstance(classification, dict):
        # Some versions write a list of names; several would be a derived class such as "A: B".
        names = classification.get("names")
        if isinstance(names, list) and len(names) == 1:
            name = names[0]
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: has no class; set one in QuPath, or delete the object")
    return name


def _ring(ring: Any, where: str) -> Ring:
    """A closed ring as float64 [N, 2], without the repeated last vertex."""
    if not isinstance(ring, list) or len(ring) < 4:
        raise ValueError(f"{where}: a ring has fewer than four positions; draw the shape again")
    if len(ring) > MAX_VERTICES:
        raise ValueError(f"{where}: has more than {MAX_VERTICES} vertices; simplify the shape")
    points = []
    for position in ring:
        if not isinstance(position, list) or len(position) < 2:
            raise ValueError(f"{where}: a position is not a pair of numbers")
        pair = position[:2]
        for value in pair:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{where}: a coordinate is {str(value)[:40]!r}, not a number")
            if not (abs(value) < 1e9 and math.isfinite(value)):
                raise ValueError(f"{where}: the coordinate {str(value)[:40]} is out of all bounds")
        points.append((float(pair[0]), float(pair[1])))
    if points[0] != points[-1]:
        raise ValueError(
            f"{where}: a ring is not closed: it starts at {points[0]} and ends at {points[-1]}; "
            "close it, or export it from QuPath again"
        )
    return np.asarray(points[:-1], dtype=np.float64)


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
    for shape in sorted(fitting, key=lambda item: indices[item.class_name]):
        inside = fill_polygon(shape.rings, height, width)
        if not inside.any():
            problems.append(
                f"feature {shape.feature}: a {shape.class_name} shape covers no pixel centre; "
                "delete it or draw it larger"
            )
        mask[inside] = indices[shape.class_name]
    return mask, problems
