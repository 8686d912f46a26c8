"""How much of a tile lies in outlines of the classes of interest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hdgan.tiler.compartments import parse_compartments
from hdgan.tiler.grid import Rect
from hdgan.tiler.slide import SlideError


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(name: str | None, *rings: Any, kind: str = "Polygon") -> dict[str, Any]:
    coordinates = list(rings) if kind == "Polygon" else [[ring] for ring in rings]
    properties = {} if name is None else {"classification": {"name": name}}
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def file(*features: Any) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def test_shares_of_tiles_are_exact_with_holes_and_overlaps() -> None:
    data = file(
        feature("Glomerulus", square(0, 0, 100), square(25, 25, 50)),
        feature("Glomerulus", square(50, 0, 100)),  # overlaps the first, and its hole
        feature("Tubule", square(300, 0, 100)),
    )
    found = parse_compartments(data, ["Glomerulus"])
    # The hole is 25..75 in both axes; the second square covers its right half.
    assert found.share(Rect(0, 0, 100, 100)) == pytest.approx(1 - 25 * 50 / 100**2)
    assert found.share(Rect(25, 25, 25, 50)) == 0
    assert found.share(Rect(140, 90, 20, 20)) == pytest.approx(0.25)
    assert found.share(Rect(300, 0, 100, 100)) == 0
    both = parse_compartments(data, ["Glomerulus", "Tubule"])
    assert both.share(Rect(300, 0, 200, 100)) == pytest.approx(0.5)


def test_multipolygons_and_shapes_drawn_over_themselves() -> None:
    bow = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
    data = file(feature("g", square(20, 0, 10), square(40, 0, 10), kind="MultiPolygon"))
    assert parse_compartments(data, ["g"]).share(Rect(20, 0, 40, 10)) == pytest.approx(0.5)
    assert parse_compartments(file(feature("g", bow)), ["g"]).share(Rect(0, 0, 10, 10)) > 0.4


def test_other_features_may_be_anything() -> None:
    wrong = {"type": "Feature", "geometry": None, "properties": {"classification": {"name": "x"}}}
    data = file(wrong, feature(None, [[0, 0]]), feature("g", square(0, 0, 10)))
    assert parse_compartments(data, ["g"]).share(Rect(0, 0, 10, 10)) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "outlines that cannot be used: is not JSON"),
        (b'{"type": "Topology"}', "is not a GeoJSON FeatureCollection"),
        (file(feature("g", [[0, 0], [1, 0], [1, 1], [0, 1]])), "ring is not closed"),
        (file(feature("g", [[0, 0], [1, 0], [0, 0]])), "fewer than four positions"),
        (file(feature("x", square(0, 0, 1))), "no outline of g .* its classes are x"),
        (file(), "its classes are none"),
    ],
)
def test_outlines_that_cannot_be_used_say_why(data: bytes, message: str) -> None:
    with pytest.raises(SlideError, match=message):
        parse_compartments(data, ["g"])
