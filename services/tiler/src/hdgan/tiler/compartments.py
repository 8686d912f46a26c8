"""How much of a tile lies inside outlines of the classes of interest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from hdgan.core.geojson import (
    GeoJsonError,
    Ring,
    count_vertices,
    feature_shapes,
    load_features,
)
from hdgan.core.geojson import class_name as class_of
from hdgan.tiler.grid import Rect
from hdgan.tiler.slide import SlideError

# Pairs of edges whose boxes meet: ten or so for each edge of a shape drawn by hand, each counted
# twice, and each with itself.
MEETINGS_PER_EDGE = 100
MIN_MEETINGS = 4_000_000
QUERY_EDGES = 64


class Compartments:
    """The union of a slide's outlines, in level-0 pixels."""

    def __init__(self, polygons: Sequence[Any]) -> None:
        """polygons: shapely areas; where they overlap, counted once."""
        union = shapely.union_all(polygons)
        self._parts = shapely.get_parts(union)
        self._tree = shapely.STRtree(self._parts)

    def share(self, rect: Rect) -> float:
        """The part of a rectangle that lies inside, 0..1."""
        box = shapely.box(rect.x, rect.y, rect.x + rect.width, rect.y + rect.height)
        near = self._parts[self._tree.query(box)]
        inside = float(shapely.area(shapely.intersection(near, box)).sum())
        return min(1.0, inside / (rect.width * rect.height))


def parse_compartments(data: bytes, classes: Sequence[str]) -> Compartments:
    """The outlines of these classes in a GeoJSON file, as QuPath exports them.

    Features of other classes, and those without a class, are not looked at. SlideError where the
    file or a shape of these classes is wrong, or none of these classes is in it.
    """
    try:
        features, _ = load_features(data)
        shapes = []
        vertices = 0
        for number, feature in enumerate(features, start=1):
            if class_of(feature) in classes:
                found = list(feature_shapes(feature, number))
                vertices = count_vertices(found, vertices)
                shapes += found
    except (GeoJsonError, ValueError) as error:
        raise SlideError(f"has outlines that cannot be used: {error}") from error
    if not shapes:
        present = sorted({name for one in features if (name := class_of(one)) is not None})
        raise SlideError(
            f"has no outline of {', '.join(classes)} (tiler.compartments); its classes are "
            f"{', '.join(present[:10]) or 'none'}"
        )
    _check_crossings([ring for shape in shapes for ring in shape.rings])
    try:
        return Compartments([_polygon(shape.rings) for shape in shapes])
    except shapely.errors.ShapelyError as error:
        words = str(error).splitlines()[0][:200]
        raise SlideError(f"has outlines that cannot be used ({words}); draw them again") from error


def _check_crossings(rings: Sequence[Ring]) -> None:
    """SlideError if so many edges lie across each other that joining the outlines has no end.

    The work of making an area valid, and of joining areas, grows with the number of places where
    edges cross, up to the square of the number of edges. Those whose boxes meet are counted: a few
    for each edge of what is drawn by hand.
    """
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    boxes = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    tree = shapely.STRtree(boxes)
    found, most = 0, max(MIN_MEETINGS, MEETINGS_PER_EDGE * len(boxes))
    for first in range(0, len(boxes), QUERY_EDGES):
        found += tree.query(boxes[first : first + QUERY_EDGES]).shape[1]
        if found > most:
            raise SlideError(
                f"has outlines whose {len(boxes)} edges lie across each other in very many places; "
                "simplify them, or draw them again"
            )


def _polygon(rings: Sequence[Any]) -> Any:
    """An area by the even-odd rule: what is drawn over itself, by hand, is made valid."""
    polygon = shapely.polygons(rings[0], holes=list(rings[1:]) or None)
    return polygon if shapely.is_valid(polygon) else shapely.make_valid(polygon)
