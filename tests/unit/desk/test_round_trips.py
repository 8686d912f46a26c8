"""A mask written in each format and read again: exact, or within a pixel of a boundary."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as reference

from hdgan.core.masks import encode_mask
from hdgan.desk.drawing import draw
from hdgan.desk.formats import read_labels
from hdgan.desk.label_files import label_file
from hdgan.desk.mask_files import read_mask
from hdgan.desk.outlines import outlines
from hdgan.desk.rle_pack import unpack
from hdgan.desk.run_lengths import packed_counts
from support.desk_run import CLASSES
from support.label_formats import (
    Inside,
    Mask,
    as_bytes,
    brush,
    classes_in,
    coco,
    coco_list,
    cvat,
    cvat_file,
    label_studio,
    region,
    rle_pack,
)

NAMES = [entry.name for entry in CLASSES]
IDENTITY = "ab" * 16
PICTURE = f"train-{IDENTITY}.png"

# Holes, classes that touch and single pixels all come by themselves.
masks = arrays(
    np.uint8,
    array_shapes(min_dims=2, max_dims=2, max_side=14),
    elements=st.sampled_from([0, 1, 2, 255]),
)


def packed(inside: Inside) -> dict[str, Any]:
    """Run lengths as pycocotools packs them."""
    found = reference.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode("ascii")}


def as_png(mask: Mask) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def as_colours(mask: Mask) -> bytes:
    table = np.zeros((256, 3), np.uint8)
    for index, entry in enumerate(CLASSES):
        table[index] = entry.rgb
    return as_png(table[mask])


WRITERS: dict[str, Callable[[Mask], bytes]] = {
    "indexed PNG": lambda mask: encode_mask(mask, CLASSES),
    "grey PNG": as_png,
    "RGB PNG": as_colours,
    "GeoJSON": lambda mask: label_file(IDENTITY, PICTURE, CLASSES, outlines(mask) or []),
    "COCO, listed": lambda mask: as_bytes(coco(PICTURE, mask, NAMES, coco_list)),
    "COCO, packed": lambda mask: as_bytes(coco(PICTURE, mask, NAMES, packed)),
    "CVAT": lambda mask: cvat(PICTURE, mask, NAMES),
    "Label Studio": lambda mask: as_bytes(
        label_studio(PICTURE, [brush(inside, NAMES[v]) for v, inside in classes_in(mask)])
    ),
}


def read(data: bytes, shape: tuple[int, ...]) -> Mask:
    height, width = shape
    reading = read_labels(data)
    assert reading.problems == []
    (drawing,) = reading.drawings
    if drawing.png is not None:
        return read_mask(drawing.png, CLASSES, height, width)
    assert IDENTITY in (drawing.candidate or drawing.picture or "")
    assert drawing.size in (None, (width, height))
    mask, problems, _ = draw(drawing.areas, CLASSES, height, width)
    assert problems == []
    return mask


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=60, deadline=None)
@given(mask=masks)
def test_a_mask_comes_back_as_it_was(name: str, mask: Mask) -> None:
    np.testing.assert_array_equal(read(WRITERS[name](mask), mask.shape), mask)


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()),
    st.integers(1, 60),
)
def test_packed_run_lengths_are_those_of_the_reference(inside: Inside, zoom: int) -> None:
    """Also long ones, which take several characters."""
    large = inside.repeat(zoom, axis=0)
    assert packed_counts(packed(large)["counts"]).tolist() == coco_list(large)["counts"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(1, 700)), max_size=30),
    st.permutations([1, 2, 5, 9]),
)
def test_packed_bytes_are_unpacked(parts: list[tuple[int, int]], sizes: list[int]) -> None:
    data = b"".join(bytes([value]) * count for value, count in parts)
    # The writer takes the first size that is large enough, so the order of sizes is tried, too.
    sizes = sorted(sizes) if not data else sizes
    found = unpack(bytes(rle_pack(data, sizes)), len(data))
    assert found.tobytes() == data


boxes = st.tuples(*[st.floats(0, 20)] * 4).map(
    lambda b: [
        [b[0], b[1]],
        [b[0] + 1 + b[2], b[1]],
        [b[0] + 1 + b[2], b[1] + 1 + b[3]],
        [b[0], b[1] + 1 + b[3]],
    ]
)


@settings(max_examples=100, deadline=None)
@given(boxes, st.sampled_from(["COCO", "CVAT", "Label Studio"]))
def test_a_polygon_is_within_a_pixel_of_its_boundary(box: list[list[float]], name: str) -> None:
    height, width = 48, 50
    if name == "COCO":
        empty = np.full((height, width), 255, np.uint8)
        document = coco(PICTURE, empty, NAMES, None)
        ring = [value for point in box for value in point]
        document["annotations"] = [
            {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [ring], "iscrowd": 0}
        ]
        data = as_bytes(document)
    elif name == "CVAT":
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in box)
        data = cvat_file(
            PICTURE, (height, width), [f'<polygon label="stroma" points="{points}" z_order="0"/>']
        )
    else:
        value = {
            "points": [[100 * x / width, 100 * y / height] for x, y in box],
            "closed": True,
            "polygonlabels": ["stroma"],
        }
        results = [region(value, "polygonlabels", width, height)]
        data = as_bytes(label_studio(PICTURE, results))
    drawn = read(data, (height, width)) == 1
    y, x = np.mgrid[:height, :width]
    (left, top), (right, bottom) = box[0], box[2]
    # The centre of a pixel decides; hundredths, and percent, move what is that near.
    near = 0.01
    surely = (x + 0.5 > left + near) & (x + 0.5 < right - near)
    surely &= (y + 0.5 > top + near) & (y + 0.5 < bottom - near)
    perhaps = (x + 0.5 > left - near) & (x + 0.5 < right + near)
    perhaps &= (y + 0.5 > top - near) & (y + 0.5 < bottom + near)
    assert (drawn | ~surely).all()
    assert (perhaps | ~drawn).all()
