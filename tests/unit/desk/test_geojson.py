"""QuPath's GeoJSON: geometry at pixel centres, classes by precedence, hostile files refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.desk.drawing import LabelFileError, draw
from hdgan.desk.formats import read_labels
from hdgan.desk.rasterise import fill_polygon
from support.desk_run import CLASSES

Ring = list[list[float]]


def box(x0: float, y0: float, x1: float, y1: float) -> Ring:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def feature(rings: Any, name: str | None = "stroma", kind: str = "Polygon", **more: Any) -> Any:
    properties: dict[str, Any] = {"objectType": "annotation", "measurements": [], **more}
    if name is not None:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": rings},
        "properties": properties,
    }


def parse(*features: Any, **more: Any) -> Any:
    document = {"type": "FeatureCollection", "features": list(features), **more}
    return read_labels(json.dumps(document).encode())


def mask_of(*features: Any) -> tuple[Any, list[str]]:
    parsed = parse(*features)
    assert parsed.problems == []
    areas = [area for drawing in parsed.drawings for area in drawing.areas]
    mask, problems, _ = draw(areas, CLASSES, 10, 12)
    return mask, problems


def test_a_box_covers_exactly_the_pixels_whose_centres_it_holds() -> None:
    mask, problems = mask_of(feature([box(2, 3, 5.4, 6.6)]))
    assert problems == []
    expected = np.full((10, 12), 255)
    expected[3:7, 2:5] = 1
    np.testing.assert_array_equal(mask, expected)


def test_holes_and_multipolygons() -> None:
    rings = [[box(0, 0, 4, 4), box(1, 1, 3, 3)], [box(6, 0, 8, 2)]]
    mask, _ = mask_of(feature(rings, kind="MultiPolygon"))
    assert (mask[:4, :4] == 1).sum() == 12
    assert (mask[1:3, 1:3] == 255).all()
    assert (mask[:2, 6:8] == 1).all()


@pytest.mark.parametrize("swap", [False, True])
def test_overlap_goes_to_the_class_later_in_the_run_whatever_the_order(swap: bool) -> None:
    shapes = [feature([box(0, 0, 6, 6)], "tumour"), feature([box(3, 3, 9, 9)], "stroma")]
    mask, _ = mask_of(*(shapes[::-1] if swap else shapes))
    assert (mask[:6, :6] == 2).all()
    assert mask[7, 7] == 1


@given(
    st.lists(st.tuples(st.floats(-2, 14), st.floats(-2, 12)), min_size=3, max_size=9),
)
def test_filling_agrees_with_a_point_in_polygon_test(points: list[tuple[float, float]]) -> None:
    ring = np.asarray(points)
    filled = fill_polygon([ring], 10, 12)
    for y in range(10):
        for x in range(12):
            assert filled[y, x] == _inside(points, x + 0.5, y + 0.5)


def _inside(points: list[tuple[float, float]], x: float, y: float) -> bool:
    """Even-odd: crossings at or left of the point, with the upper end of each edge first."""
    odd = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        if y0 <= y < y1 and x0 + (y - y0) * ((x1 - x0) / (y1 - y0)) <= x:
            odd = not odd
    return odd


@given(st.floats(0.1, 11.9), st.floats(0.1, 11.9))
def test_shapes_that_share_an_edge_share_no_pixel_and_leave_no_gap(top: float, low: float) -> None:
    left = fill_polygon([np.asarray([[0, 0], [top, 0], [low, 10], [0, 10]], float)], 10, 12)
    right = fill_polygon([np.asarray([[top, 0], [12, 0], [12, 10], [low, 10]], float)], 10, 12)
    assert (left ^ right).all()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (feature([box(0, 0, 4, 4)[:-1]]), "not closed"),
        (feature([box(0, 0, 4, 4)], None), "no class"),
        (feature([0, 0], kind="Point"), "no area"),
        (feature([[[0, 0], [1, 1], [0, 0]]]), "fewer than four"),
        (feature([[[0, 0], ["x", 1], [2, 2], [0, 0]]]), "not a number"),
        (feature([[[0, 0], [1e300, 1], [2, 2], [0, 0]]]), "out of all bounds"),
        (feature([]), "without rings"),
        ({"type": "Feature"}, "no geometry"),
        (7, "not a GeoJSON Feature"),
        (feature([box(0, 0, 4, 4)], **{"hdgan-candidate": "../x"}), "no candidate id"),
    ],
)
def test_a_bad_feature_is_a_problem_that_names_it(bad: Any, reason: str) -> None:
    (problem,) = parse(feature([box(0, 0, 1, 1)]), bad).problems
    assert "feature 2" in problem
    assert reason in problem


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b'{"type": "Topology"}', b"NaN"])
def test_what_is_no_geojson_is_refused(data: bytes) -> None:
    with pytest.raises(LabelFileError):
        read_labels(data)


def test_ids_come_from_the_collection_or_from_each_feature() -> None:
    first, second = "a" * 32, "b" * 32
    whole = parse(feature([box(0, 0, 1, 1)]), properties={"hdgan-candidate": first})
    assert [drawing.candidate for drawing in whole.drawings] == [first]
    each = parse(
        feature([box(0, 0, 1, 1)], metadata={"hdgan-candidate": first}),
        feature([box(0, 0, 1, 1)], metadata={"hdgan-candidate": second}),
    )
    assert {drawing.candidate for drawing in each.drawings} == {first, second}


def test_unknown_classes_other_scales_and_slivers_are_problems() -> None:
    _, problems = mask_of(
        feature([box(0, 0, 4, 4)], "Tumour"),
        feature([box(0, 0, 400, 4)]),
        feature([box(0.6, 0.6, 0.9, 0.9)]),
    )
    assert ["unknown class" in problems[0], "another scale" in problems[1]] == [True, True]
    assert "no pixel centre" in problems[2]


def test_a_shape_copied_from_another_picture_is_refused() -> None:
    own, other = "a" * 32, "b" * 32
    square = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 0]]]}

    def feature(identity: str | None) -> dict[str, Any]:
        properties: dict[str, Any] = {"classification": {"name": "stroma"}}
        if identity is not None:
            properties["metadata"] = {"hdgan-candidate": identity}
        return {"type": "Feature", "geometry": square, "properties": properties}

    document = {
        "type": "FeatureCollection",
        "properties": {"hdgan-candidate": own},
        "features": [feature(None), feature(own), feature(other)],
    }
    reading = read_labels(json.dumps(document).encode())
    assert [len(one.areas) for one in reading.drawings] == [2]
    (problem,) = reading.problems
    assert problem.startswith(f"feature 3: is of candidate {other}, but its file is of {own}")
