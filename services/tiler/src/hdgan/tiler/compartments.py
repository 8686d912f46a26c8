"""How much of a tile lies inside outlines of the classes of interest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import shapely

from hdgan.core.geojson import GeoJsonError, count_vertices, feature_shapes, load_features
from hdgan.core.geojson import class_name as class_of
from hdgan.tiler.grid import Rect
from hdgan.tiler.slide import SlideError


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
    return Compartments([_polygon(shape.rings) for shape in shapes])


def _polygon(rings: Sequence[Any]) -> Any:
    """An area by the even-odd rule: what is drawn over itself, by hand, is made valid."""
    polygon = shapely.polygons(rings[0], holes=list(rings[1:]) or None)
    return polygon if shapely.is_valid(polygon) else shapely.make_valid(polygon)
