"""COCO, CVAT, Label Studio and GeoJSON files with values replaced or bytes damaged, drawn or
refused."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from hdgan.core.sections import ClassConfig
from hdgan.desk.drawing import LabelFileError, draw
from hdgan.desk.formats import read_labels
from hdgan.desk.rle_pack import unpack
from hdgan.desk.run_lengths import packed_counts
from support.fuzzing import HOSTILE_VALUES, damaged, examples, json_files, survives
from support.label_formats import (
    as_bytes,
    brush,
    coco,
    coco_list,
    cvat,
    label_studio,
    region,
)

CLASSES = [ClassConfig(name="gland", color="#aa3355"), ClassConfig(name="fat", color="#3355aa")]
NAMES = [entry.name for entry in CLASSES]
PICTURE = f"train-{'0' * 32}.png"
MASK = np.full((16, 16), 255, np.uint8)
MASK[2:9, 3:8] = 0
MASK[5:12, 5:14] = 1
MASK[7, 7] = 0

PACKED = reference.encode(np.asfortranarray(MASK == 1).astype(np.uint8))["counts"].decode()
COCO = coco(PICTURE, MASK, NAMES, coco_list)
COCO["annotations"] += [
    {"id": 8, "image_id": 7, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
    {
        "id": 9,
        "image_id": 7,
        "category_id": 2,
        "segmentation": {"size": [16, 16], "counts": PACKED},
    },
]
POLYGON = {"points": [[1, 1], [50, 1], [50, 50]], "closed": True, "polygonlabels": ["fat"]}
LABEL_STUDIO = label_studio(
    PICTURE,
    [
        brush(MASK == 0, "gland"),
        region(POLYGON, "polygonlabels", 16, 16),
        region({"x": 1, "rectanglelabels": ["fat"]}, "rectanglelabels", 16, 16),
    ],
)
BOW = [[0, 0], [8, 8], [8, 0], [0, 8], [0, 0]]
GEOJSON = {
    "type": "FeatureCollection",
    "properties": {"hdgan-candidate": "0" * 32, "hdgan-untouched": "x"},
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [BOW, BOW]},
            "properties": {
                "classification": {"names": ["gland"], "color": [1, 2, 3]},
                "metadata": {"hdgan-candidate": "0" * 32},
            },
        },
        {
            "type": "Feature",
            "geometry": {
                "type": "GeometryCollection",
                "geometries": [{"type": "MultiPolygon", "coordinates": [[BOW]]}],
            },
            "properties": {"classification": {"name": "fat"}},
        },
    ],
}


def with_every_value_replaced(document: Any) -> Iterator[Any]:
    """Documents in each of which one value is another one; of long lists, one of the first."""

    def inside(holder: Any) -> Iterator[Any]:
        keys = list(holder) if isinstance(holder, dict) else range(min(len(holder), 3))
        for key in keys:
            kept = holder[key]
            for value in HOSTILE_VALUES:
                holder[key] = copy.deepcopy(value)
                yield document
            holder[key] = kept
            if isinstance(kept, dict | list):
                yield from inside(kept)

    document = copy.deepcopy(document)
    yield from inside(document)


def drawn_or_refused(data: bytes) -> None:
    found = survives(lambda: read_labels(data))
    if isinstance(found, LabelFileError):
        return
    assert all(found.problems)
    for drawing in found.drawings:
        mask, problems, notices = draw(drawing.areas, CLASSES, 16, 16)
        assert mask.shape == (16, 16)
        assert all(problems)
        assert all(notices)


@pytest.mark.parametrize(
    "valid", [COCO, LABEL_STUDIO, GEOJSON], ids=["COCO", "Label Studio", "GeoJSON"]
)
def test_every_value_may_be_of_any_kind(valid: Any) -> None:
    for document in with_every_value_replaced(valid):
        drawn_or_refused(as_bytes(document))


@examples(200, 10_000)
@given(json_files(COCO))
def test_changed_coco_is_drawn_or_refused(data: bytes) -> None:
    drawn_or_refused(data)


@examples(150, 10_000)
@given(json_files(LABEL_STUDIO))
def test_changed_label_studio_is_drawn_or_refused(data: bytes) -> None:
    drawn_or_refused(data)


@examples(200, 10_000)
@given(damaged(cvat(PICTURE, MASK, NAMES)))
def test_damaged_cvat_is_drawn_or_refused(data: bytes) -> None:
    drawn_or_refused(data)


@examples(300, 20_000)
@given(st.text(max_size=40) | st.text(alphabet=[chr(48 + n) for n in range(64)], max_size=40))
def test_packed_run_lengths_are_counts_or_refused(text: str) -> None:
    try:
        counts = packed_counts(text)
    except ValueError:
        return
    assert (counts >= 0).all()


@examples(300, 20_000)
@given(st.binary(max_size=80), st.integers(0, 4096))
def test_packed_bytes_are_unpacked_or_refused(body: bytes, expected: int) -> None:
    head = expected.to_bytes(4, "big") + bytes([0b00111001, 27, 254])
    with contextlib.suppress(ValueError):
        assert len(unpack(head + body, expected)) == expected


def test_the_valid_files_are_drawn() -> None:
    for data in (as_bytes(COCO), cvat(PICTURE, MASK, NAMES), as_bytes(LABEL_STUDIO)):
        reading = read_labels(data)
        (drawing,) = reading.drawings
        mask, problems, _ = draw(drawing.areas, CLASSES, 16, 16)
        assert len(reading.problems) == (data == as_bytes(LABEL_STUDIO))  # its rectangle
        assert problems == []
        assert set(mask.ravel().tolist()) == {0, 1, 255}
