"""Label files made to exhaust or to mislead: refused after a bounded amount of work."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hdgan.core.sections import ClassConfig
from hdgan.desk import coco, cvat, drawing, label_studio
from hdgan.desk.drawing import LabelFileError, draw
from hdgan.desk.formats import read_labels
from support.label_formats import as_bytes, cvat_file, region
from support.label_formats import label_studio as label_studio_file

CLASSES = [ClassConfig(name="a", color="#ff0000"), ClassConfig(name="b", color="#00ff00")]
HUGE = 1 << 19


def coco_file(segmentation: Any, size: int = 64, count: int = 1) -> bytes:
    annotation = {"image_id": 1, "category_id": 1, "segmentation": segmentation}
    return as_bytes(
        {
            "images": [{"id": 1, "file_name": "x", "width": size, "height": size}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [annotation] * count,
        }
    )


def problems(data: bytes, side: int = 64) -> list[str]:
    reading = read_labels(data)
    found = list(reading.problems)
    for one in reading.drawings:
        found += draw(one.areas, CLASSES, side, side)[1]
    return found


def test_run_lengths_of_more_pixels_than_the_image_are_never_unpacked() -> None:
    whole = {"size": [HUGE, HUGE], "counts": [0, HUGE * HUGE // 1024]}
    (problem,) = problems(coco_file(whole))
    assert f"its mask is {HUGE} x {HUGE} px, but the image is 64 x 64 px" in problem
    (problem,) = problems(coco_file({"size": [64, 64], "counts": [0, 2**31 - 1]}))
    assert "are of 2147483647 pixels" in problem
    box = f'left="0" top="0" width="{HUGE}" height="{HUGE}"'
    shape = f'<mask label="a" rle="0, {2**29}" z_order="0" {box}/>'
    (problem,) = problems(cvat_file("x", (64, 64), [shape]))
    assert "drawn on another image" in problem
    packed = [255, 255, 255, 255, 57, 27, 254, *[255] * 100]
    value = {"format": "rle", "rle": packed, "brushlabels": ["a"]}
    results = [region(value, "brushlabels", 64, 64)]
    (problem,) = problems(as_bytes(label_studio_file("x", results)))
    assert "they are 4294967295 bytes, the picture has 16384" in problem


def test_packed_bytes_that_go_on_past_their_end_are_refused() -> None:
    # The right length, then a repeat of 65,536 bytes where 16,384 are left.
    bits = f"{16384:032b}{7:05b}" + "1111" * 4 + "100" + "1" * 16 + "0" * 8
    packed = [int(bits[n : n + 8].ljust(8, "0"), 2) for n in range(0, len(bits), 8)]
    value = {"format": "rle", "rle": packed, "brushlabels": ["a"]}
    results = [region(value, "brushlabels", 64, 64)]
    (problem,) = problems(as_bytes(label_studio_file("x", results)))
    assert "they are more than they say" in problem


def test_the_work_of_many_masks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MAX_WORK", 20 * 64 * 64)
    whole = {"size": [64, 64], "counts": [0, 64 * 64]}
    (problem,) = problems(coco_file(whole, count=1000))
    assert "annotation 20: the shapes up to this one cover the image many times over" in problem


def test_small_masks_of_a_large_image_cost_what_they_cover() -> None:
    """Ten thousand nuclei, each as run lengths over the whole image."""
    side = 4096
    counts = [side * 7 + 3, 5, side * side - side * 7 - 8]
    (one,) = read_labels(coco_file({"size": [side, side], "counts": counts}, side)).drawings
    assert one.areas[0].form.work(side, side) * 10_000 < drawing.MAX_WORK
    rows, columns, inside = one.areas[0].form.pixels(side, side)
    mask = np.zeros((side, side), np.bool_)
    mask[rows, columns] = inside
    assert np.argwhere(mask).tolist() == [[y, 7] for y in range(3, 8)]


@pytest.mark.parametrize("kind", ["vertices", "entries", "tasks", "runs", "elements", "depth"])
def test_bounds_on_how_much_there_is(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    many = ";".join("1,1" for _ in range(50))
    if kind == "vertices":
        for module in (coco, cvat, label_studio):
            monkeypatch.setattr(module, "MAX_VERTICES", 20)
        polygon = {"points": [[1, n] for n in range(50)], "polygonlabels": ["a"]}
        results = [region(polygon, "polygonlabels", 64, 64)]
        files = [
            coco_file([[n % 7 for n in range(100)]]),
            cvat_file("x", (64, 64), [f'<polygon label="a" points="{many}"/>']),
            as_bytes(label_studio_file("x", results)),
        ]
    elif kind == "entries":
        monkeypatch.setattr(coco, "MAX_ENTRIES", 20)
        files = [coco_file([[1, 1, 2, 2, 3, 1]], count=50)]
    elif kind == "tasks":
        monkeypatch.setattr(label_studio, "MAX_TASKS", 20)
        files = [as_bytes(label_studio_file("x", []) * 50)]
    elif kind == "runs":
        monkeypatch.setattr(cvat, "MAX_RUNS", 20)
        rle = ",".join("1" for _ in range(50))
        shape = f'<mask label="a" rle="{rle}" left="0" top="0" width="5" height="10"/>'
        files = [cvat_file("x", (64, 64), [shape])]
    elif kind == "elements":
        monkeypatch.setattr(cvat, "MAX_ELEMENTS", 20)
        files = [cvat_file("x", (64, 64), ['<tag label="a"/>'] * 50)]
    else:
        files = [b"<annotations>" + b"<a>" * 100_000]
    for data in files:
        with pytest.raises(LabelFileError, match=r"has more than|at most|too deeply"):
            read_labels(data)


ENTITIES = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "lol"}">' for n in range(9))


@pytest.mark.parametrize(
    "head",
    [
        f"<!DOCTYPE annotations [{ENTITIES}]>",
        '<!DOCTYPE annotations [<!ENTITY a8 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE annotations SYSTEM "http://127.0.0.1:1/a.dtd">',
        f'<!DOCTYPE annotations [<!ENTITY a8 "{"x" * 100_000}">]>',
    ],
)
def test_xml_that_declares_anything_is_refused(head: str) -> None:
    body = "<annotations><image name='&a8;' width='1' height='1'/></annotations>"
    with pytest.raises(LabelFileError, match="declares entities or a document type"):
        read_labels((head + body).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"<" + b"a" * 1_000_000,
        b"<annotations " + b"a='b' " * 10 + b"/>",
        b"<?xml version='1.0' encoding='utf-7'?><annotations/>",
        b"<?xml version='1.0' encoding='nothing'?><annotations/>",
        b"\xff\xfe<\0a\0>\0",
        b"<annotations>\x00</annotations>",
        b"[" * 100_000,
        b'{"images": [], "annotations": [NaN]}',
        json.dumps({"images": [], "annotations": [], "categories": {}}).encode(),
    ],
)
def test_broken_files_are_refused(data: bytes) -> None:
    with pytest.raises(LabelFileError):
        read_labels(data)


def test_strokes_of_a_star_are_looked_at_in_bounded_time() -> None:
    """A star of 20,000 lines has a hundred million crossings; the first one is enough."""
    count = 20_001
    turns = np.arange(count) * (2 * np.pi * (count // 2) / count)
    ring = np.stack([32 + 30 * np.cos(turns), 32 + 30 * np.sin(turns)], axis=1)
    oddity = drawing.Polygon((ring,)).oddity()
    assert oddity is not None
    assert oddity.startswith("crosses itself near")
