"""GeoJSON as QuPath writes it, read defensively: polygons and their classes.

Understood: a FeatureCollection, one Feature or a plain list of Features, with Polygon and
MultiPolygon geometry, or collections of them, and the class in ``properties.classification.name``.
Hierarchy, measurements, nuclei, colours and everything else are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hdgan.core.json_documents import JsonError, parse_json

MAX_BYTES = 64 << 20
MAX_FEATURES = 100_000
MAX_VERTICES = 2_000_000
MAX_VALUES = 10_000_000
"""Values of the JSON: three for each vertex, and some hundred for each feature."""

Ring = npt.NDArray[np.float64]
"""Vertices float64 [N, 2] (x, y) in pixels; the last joins the first and is not repeated."""


class GeoJsonError(Exception):
    """The file as a whole cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Shape:
    """One polygon (outer ring, then holes) of one class."""

    class_name: str
    rings: tuple[Ring, ...]
    feature: int
    """Position of its feature in the file, from 1, for messages."""


def load_features(data: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The features of a file, unchecked, and the document around them (empty for a plain list).

    GeoJsonError where it is no GeoJSON at all or too large.
    """
    if len(data) > MAX_BYTES:
        raise GeoJsonError(f"has {len(data)} bytes, at most {MAX_BYTES} are read: simplify shapes")
    try:
        document = parse_json(data, max_bytes=MAX_BYTES, max_values=MAX_VALUES)
    except JsonError as error:
        raise GeoJsonError(f"is not JSON ({error}): export it from QuPath again") from None
    return document_features(document)


def document_features(document: Any) -> tuple[list[Any], dict[str, Any]]:
    """What `load_features` gives, of JSON that is parsed already."""
    features, around = _features(document)
    if len(features) > MAX_FEATURES:
        raise GeoJsonError(f"has {len(features)} features, at most {MAX_FEATURES} are read")
    return features, around


def class_name(feature: Any) -> str | None:
    """The class of a feature; None if it has none, or is no feature."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    classification = properties.get("classification") if isinstance(properties, dict) else None
    name = classification.get("name") if isinstance(classification, dict) else None
    if name is None and isinstance(classification, dict):
        # Some versions write a list of names; several are a derived class, which is shown so.
        names = classification.get("names")
        if isinstance(names, list) and all(isinstance(one, str) for one in names):
            name = ": ".join(names)
    return name if isinstance(name, str) and name else None


def feature_shapes(feature: Any, number: int) -> Iterator[Shape]:
    """The polygons of one feature. ValueError names the feature and what is wrong."""
    where = f"feature {number}"
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise ValueError(f"{where}: is not a GeoJSON Feature")
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict):
        raise ValueError(f"{where}: has no geometry; delete it in QuPath")
    polygons = _polygons(geometry, where)
    if not polygons:
        raise ValueError(f"{where}: has no polygons; delete it in QuPath")
    name = class_name(feature)
    if name is None:
        raise ValueError(f"{where}: has no class; set one in QuPath, or delete the object")
    for polygon in polygons:
        if not isinstance(polygon, list) or not polygon:
            raise ValueError(f"{where}: has a polygon without rings; delete it in QuPath")
        yield Shape(name, tuple(_ring(ring, where) for ring in polygon), number)


def count_vertices(shapes: list[Shape], before: int = 0) -> int:
    """Vertices of shapes, added to those before. GeoJsonError if they are too many."""
    total = before + sum(len(ring) for shape in shapes for ring in shape.rings)
    if total > MAX_VERTICES:
        raise GeoJsonError(f"has more than {MAX_VERTICES} vertices: simplify its shapes")
    return total


def _features(document: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(document, list):
        return document, {}
    if isinstance(document, dict):
        if document.get("type") == "FeatureCollection":
            features = document.get("features")
            if isinstance(features, list):
                return features, document
        elif document.get("type") == "Feature":
            return [document], document
    raise GeoJsonError("is not a GeoJSON FeatureCollection: export objects from QuPath as GeoJSON")


def _polygons(geometry: dict[str, Any], where: str) -> list[Any]:
    """The coordinates of the polygons of a geometry, unchecked. ValueError for what has no area."""
    kind = geometry.get("type")
    coordinates = geometry.get("coordinates")
    if kind == "Polygon":
        return [coordinates]
    if kind == "MultiPolygon" and isinstance(coordinates, list):
        return coordinates
    members = geometry.get("geometries")
    if (
        kind == "GeometryCollection"
        and isinstance(members, list)
        and all(isinstance(one, dict) and one.get("type") != kind for one in members)
    ):
        return [polygon for one in members for polygon in _polygons(one, where)]
    raise ValueError(
        f"{where}: is a {str(kind)[:40]}, which has no area; delete it or draw a polygon"
    )


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
