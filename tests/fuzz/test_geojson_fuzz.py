"""GeoJSON: annotations and outlines with values replaced and bytes damaged, drawn and joined."""

from __future__ import annotations

import json

from hypothesis import given

from hdgan.core.sections import ClassConfig
from hdgan.desk.drawing import LabelFileError, draw
from hdgan.desk.formats import read_labels
from hdgan.tiler.compartments import Compartments, parse_compartments
from hdgan.tiler.grid import Rect
from hdgan.tiler.slide import SlideError
from support.fuzzing import examples, json_files, survives

CLASSES = [ClassConfig(name="gland", color="#aa3355"), ClassConfig(name="fat", color="#3355aa")]


def feature(name: str, *rings: list[list[int]], kind: str = "Polygon") -> dict[str, object]:
    coordinates = list(rings) if kind == "Polygon" else [list(rings)]
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"classification": {"name": name}, "hdgan-candidate": "0" * 32},
    }


SQUARE = [[1, 1], [9, 1], [9, 9], [1, 9], [1, 1]]
HOLE = [[3, 3], [5, 3], [5, 5], [3, 3]]
BOW = [[0, 0], [8, 8], [8, 0], [0, 8], [0, 0]]
VALID = {
    "type": "FeatureCollection",
    "features": [
        feature("gland", SQUARE, HOLE),
        feature("fat", BOW, kind="MultiPolygon"),
        feature("gland", SQUARE),
    ],
}


@examples(200, 10_000)
@given(json_files(VALID))
def test_changed_shapes_are_drawn_or_refused(data: bytes) -> None:
    found = survives(lambda: read_labels(data))
    if not isinstance(found, LabelFileError):
        for drawing in found.drawings:
            mask, problems, _ = draw(drawing.areas, CLASSES, 16, 16)
            assert mask.shape == (16, 16)
            assert all(problems)


@examples(200, 10_000)
@given(json_files(VALID))
def test_changed_outlines_are_joined_or_refused(data: bytes) -> None:
    found = survives(lambda: parse_compartments(data, ["gland", "fat"]), SlideError)
    if isinstance(found, Compartments):
        assert 0 <= found.share(Rect(0, 0, 8, 8)) <= 1


def test_the_valid_file_is_drawn() -> None:
    (drawing,) = read_labels(json.dumps(VALID).encode()).drawings
    mask, problems, _ = draw(drawing.areas, CLASSES, 16, 16)
    assert problems == []
    assert set(mask.ravel().tolist()) == {0, 1, 255}
