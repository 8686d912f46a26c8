"""Masks to polygons and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hdgan.core.run import ClassConfig
from hdgan.desk import drawing
from hdgan.desk.drawing import draw
from hdgan.desk.formats import read_labels
from hdgan.desk.label_files import is_untouched, label_file
from hdgan.desk.outlines import MAX_PARTS, outlines

CLASSES = [ClassConfig(name=f"class {n}", color=f"#0000{n:02x}") for n in range(3)]
IDENTITY = "ab" * 16


def round_trip(mask: np.ndarray) -> np.ndarray:
    parts = outlines(mask)
    assert parts is not None
    (drawing,) = read_labels(label_file(IDENTITY, "train.png", CLASSES, parts)).drawings
    drawn, problems, _ = draw(drawing.areas, CLASSES, *mask.shape)
    assert not problems
    return drawn


@settings(max_examples=200, deadline=None)
@given(
    arrays(
        np.uint8,
        array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.sampled_from([0, 1, 2, 255]),
    )
)
def test_outlines_filled_again_are_the_mask_and_valid(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(round_trip(mask), mask)
    for part in outlines(mask) or []:
        polygon = shapely.Polygon(part.rings[0], part.rings[1:])
        assert shapely.is_valid(polygon), shapely.is_valid_reason(polygon)


def test_a_ring_has_a_hole_and_nothing_but_its_corners() -> None:
    mask = np.full((8, 9), 255, np.uint8)
    mask[1:7, 1:8] = 1
    mask[3:5, 3:6] = 2
    mask[4, 4] = 255
    ring, island = outlines(mask) or []
    assert (ring.value, island.value) == (1, 2)
    assert [sorted(map(tuple, one[:-1])) for one in ring.rings] == [
        [(1, 1), (1, 7), (8, 1), (8, 7)],
        [(3, 3), (3, 5), (6, 3), (6, 5)],
    ]
    # The pixel that is left out lies at the island's edge: a notch, no hole.
    assert len(island.rings) == 1
    assert len(island.rings[0]) == 9


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    mask = np.array([[1, 0], [0, 1]], np.uint8)
    assert [part.value for part in outlines(mask) or []].count(1) == 2


def test_a_mask_without_labels_has_no_outlines() -> None:
    assert outlines(np.full((5, 4), 255, np.uint8)) == []


def test_what_is_too_intricate_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = np.indices((6, 6)).sum(axis=0).astype(np.uint8) % 2
    assert len(outlines(checks) or []) == 36
    monkeypatch.setattr("hdgan.desk.outlines.MAX_SEGMENTS", 83)  # it has 2 * 6 * 7 of length 1
    assert outlines(checks) is None
    monkeypatch.undo()
    monkeypatch.setattr("hdgan.desk.outlines.MAX_PARTS", 35)
    assert outlines(checks) is None


def test_as_many_parts_as_are_written_are_drawn_again() -> None:
    assert 2 * MAX_PARTS * drawing.AREA_WORK <= drawing.MAX_WORK


def test_a_label_file_is_untouched_until_its_shapes_change() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[:2] = 2
    data = label_file(IDENTITY, "train.png", CLASSES, outlines(mask) or [])
    parsed = read_labels(data)
    assert parsed.untouched
    assert [drawing.candidate for drawing in parsed.drawings] == [IDENTITY]
    document = json.loads(data)
    indented = json.dumps(document, indent=4).encode()  # another tool has saved it unchanged
    assert read_labels(indented).untouched
    document["features"][0]["geometry"]["coordinates"][0][1][0] -= 1
    assert not read_labels(json.dumps(document).encode()).untouched
    assert not is_untouched({}, [])
    assert not is_untouched({"properties": {"hdgan-untouched": None}}, [])
