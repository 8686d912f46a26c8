"""COCO, CVAT and Label Studio: what is read of them, and the reason where something is not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from hdgan.desk.drawing import LabelFileError, draw
from hdgan.desk.formats import read_labels
from hdgan.desk.rle_pack import unpack
from hdgan.desk.sources import MatchedBy, MatchError, match
from support.desk_run import CLASSES
from support.label_formats import (
    as_bytes,
    brush,
    coco,
    coco_list,
    cvat_file,
    label_studio,
    region,
)

NAMES = [entry.name for entry in CLASSES]
ONE, OTHER = "ab" * 16, "cd" * 16
MASK = np.full((5, 7), 255, np.uint8)
MASK[1:4, 2:5] = 1
COCO = coco(f"{ONE}.png", MASK, NAMES, coco_list)


def changed(**annotation: Any) -> bytes:
    """COCO with a second annotation, which is not as it should be."""
    document = copy.deepcopy(COCO)
    document["annotations"].append({**document["annotations"][0], "id": 2, **annotation})
    return as_bytes(document)


def rle(counts: Any, size: Any = (5, 7)) -> dict[str, Any]:
    return {"segmentation": {"counts": counts, "size": list(size)}}


def drawn(data: bytes) -> tuple[np.ndarray[Any, Any], list[str], list[str]]:
    reading = read_labels(data)
    (drawing,) = reading.drawings
    mask, problems, notices = draw(drawing.areas, CLASSES, 5, 7)
    return mask, [*reading.problems, *problems], [*reading.notices, *notices]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"iscrowd": 1}, "is marked iscrowd"),
        ({"segmentation": []}, "has a box only"),
        ({"segmentation": None}, "has a box only"),
        ({"segmentation": [[1, 1, 2, 2, 3]]}, "not a list of x, y"),
        ({"segmentation": [[1, 1, 2, 2]]}, "fewer than three corners"),
        ({"segmentation": [[1, 1, "a", 2, 3, 3]]}, "'a', not a number"),
        ({"segmentation": [[1, 1, 1e12, 2, 3, 3]]}, "out of all bounds"),
        ({"segmentation": [[0, 0, 90, 0, 90, 4]]}, "drawn on another image"),
        ({"segmentation": [[1.6, 1.6, 1.9, 1.6, 1.9, 1.9]]}, "covers no pixel centre"),
        ({"category_id": 9}, "has category 9, which is not in the file"),
        ({"image_id": 9}, "is of image 9, which is not in the file"),
        (rle([35, 1]), "are of 36 pixels, but its mask of 7 x 5 px has 35"),
        (rle([10, -1, 26]), "'-1', which is no count"),
        (rle([10, 1.5, 23.5]), "'1.5', which is no count"),
        (rle([10, True, 24]), "'True', which is no count"),
        (rle([10, 2**40]), "which is no count"),
        (rle([35], (5, 1)), "its mask is 1 x 5 px, but the image is 7 x 5 px"),
        (rle([35], (5,)), "have no size"),
        (rle([35], (5, -7)), "no number of pixels"),
        (rle(None), "has no counts"),
        (rle(""), "end in the middle"),
        (rle("P"), "end in the middle"),
        (rle("ooooooooo0"), "too large"),
        (rle("A\u00e9"), "no packed run length has"),
        (rle("\x7f\x1b"), "no packed run length has"),
        (rle("N"), "negative"),
    ],
)
def test_a_bad_coco_annotation_is_a_problem_that_names_it(annotation: Any, reason: str) -> None:
    mask, problems, _ = drawn(changed(**annotation))
    (problem,) = problems
    assert problem.startswith("annotation 2: ")
    assert reason in problem
    np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"categories": [{"id": 1}]}, "category 1: has no name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "the id of another"),
        ({"categories": 3}, "no list of categories"),
        ({"annotations": [3]}, "no list of annotations"),
        ({"images": [{"id": 7, "file_name": "x", "width": -1, "height": 5}]}, "its width is '-1'"),
        ({"images": [{"id": "7", "width": 7, "height": 5}]}, "its id is '7', which is no number"),
        ({"images": COCO["images"] * 2}, "image 2: has the id of another"),
    ],
)
def test_coco_that_is_broken_as_a_whole_is_refused(change: Any, reason: str) -> None:
    with pytest.raises(LabelFileError, match=reason):
        read_labels(as_bytes({**COCO, **change}))


def test_a_class_later_in_the_run_wins_in_coco_and_a_layer_in_cvat() -> None:
    square = {"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
    document = copy.deepcopy(COCO)
    document["annotations"] = [
        {"id": 1, "image_id": 7, "category_id": 3, **square},
        {"id": 2, "image_id": 7, "category_id": 2, **square},
    ]
    assert (drawn(as_bytes(document))[0][:4, :4] == 2).all()

    def cvat(layer: int) -> bytes:
        points = 'points="0,0;4,0;4,4;0,4"'
        shapes = [
            f'<polygon label="stroma" {points} z_order="{layer}"/>',
            f'<polygon label="tumour" {points} z_order="0"/>',
        ]
        return cvat_file(f"{ONE}.png", (5, 7), shapes)

    assert (drawn(cvat(0))[0][:4, :4] == 2).all()
    assert (drawn(cvat(1))[0][:4, :4] == 1).all()


BOX = 'left="1" top="1" width="2" height="2"'


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<box label="stroma" xtl="1" ytl="1" xbr="3" ybr="3"/>', "is a box"),
        ('<polyline label="stroma" points="1,1;2,2;3,1"/>', "is a line"),
        ('<ellipse label="stroma" cx="3" cy="3" rx="1" ry="1"/>', "is an ellipse"),
        ('<polygon points="1,1;3,1;3,3"/>', "has no label"),
        ('<polygon label="bone" points="1,1;3,1;3,3"/>', "unknown class 'bone'"),
        ('<polygon label="stroma" points="1,1;3,1"/>', "fewer than three corners"),
        ('<polygon label="stroma" points="1,1;3;3,3"/>', "the point '3' is not x,y"),
        ('<polygon label="stroma" points="1,1;nan,1;3,3"/>', "out of all bounds"),
        ('<polygon label="stroma" points="1,1;inf,1;3,3"/>', "out of all bounds"),
        ('<polygon label="stroma" points="1,1;3,1;3,3" z_order="x"/>', "its z_order is 'x'"),
        (f'<mask label="stroma" rle="0, 9" {BOX}/>', "are of 9 pixels"),
        (f'<mask label="stroma" rle="0, -4" {BOX}/>', "'-4', which is no count"),
        (f'<mask label="stroma" rle="" {BOX}/>', "a run length is ''"),
        ('<mask label="stroma" rle="0, 4" left="1" top="1" width="2"/>', "its height is ''"),
        (
            '<mask label="stroma" rle="0, 4" left="6" top="1" width="2" height="2"/>',
            "reaches from (6, 1) to (8, 3)",
        ),
        (
            '<mask label="stroma" rle="0" left="0" top="0" width="0" height="2"/>',
            "has 0 x 2 pixels",
        ),
        (
            '<mask label="stroma" rle="0" left="0" top="0" width="999999999" height="999999999"/>',
            "drawn on another image",
        ),
    ],
)
def test_a_bad_shape_of_cvat_is_a_problem_that_names_it(shape: str, reason: str) -> None:
    good = '<polygon label="stroma" points="2,1;5,1;5,4;2,4" z_order="0"/>'
    mask, problems, _ = drawn(cvat_file(f"{ONE}.png", (5, 7), [good, shape]))
    (problem,) = problems
    assert problem.startswith(f"picture {ONE}.png, ")
    assert reason in problem
    np.testing.assert_array_equal(mask, MASK)


def painted(**changes: Any) -> dict[str, Any]:
    found = brush(MASK == 1, "stroma")
    value = {**found["value"], **changes.pop("value", {})}
    return {**found, **changes, "value": value}


def polygon(**changes: Any) -> dict[str, Any]:
    value = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["stroma"], **changes}
    return region(value, "polygonlabels", 7, 5)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (painted(value={"rle": [1, 2]}), "cannot be unpacked: they end early"),
        (painted(value={"rle": [0, 0, 0, 139, 57, 27, 254]}), "they are 139 bytes"),
        (painted(value={"rle": [0, 0, 0, 140, 255, 255, 254]}), "in words of 32 bits"),
        (painted(value={"rle": [256]}), "no list of bytes"),
        (painted(value={"rle": "abc"}), "no list of bytes"),
        (painted(value={"rle": [0.5]}), "no list of bytes"),
        (painted(value={"brushlabels": []}), "has no label"),
        (painted(value={"brushlabels": ["stroma", "glass"]}), "has 2 labels"),
        (painted(original_width=8), "another size"),
        (painted(original_width=None), "how large the picture was"),
        (painted(image_rotation=90), "turned round"),
        (polygon(closed=False), "is not closed"),
        (polygon(points=[[1, 2, 3]]), "no list of pairs"),
        (polygon(points=[[0, 0], [1, 0]]), "fewer than three corners"),
        (polygon(points=[[0, 0], [5000, 0], [50, 50]]), "drawn on another image"),
        (region({"x": 1, "rectanglelabels": ["stroma"]}, "rectanglelabels", 7, 5), "of kind rect"),
        (3, "has no value"),
    ],
)
def test_a_bad_region_of_label_studio_is_a_problem_that_names_it(result: Any, reason: str) -> None:
    mask, problems, _ = drawn(as_bytes(label_studio(f"{ONE}.png", [painted(), result])))
    (problem,) = problems
    assert "region 2" in problem
    assert reason in problem
    np.testing.assert_array_equal(mask, MASK)


def test_of_several_peoples_work_none_is_chosen_and_skipped_work_is_left_out() -> None:
    (task,) = label_studio(f"{ONE}.png", [painted()])
    (work,) = task["annotations"]
    skipped = {**work, "was_cancelled": True, "result": [polygon()]}
    answer = region({"choices": ["good"]}, "choices", 7, 5)
    alone = {**task, "annotations": [skipped, {**work, "result": [painted(), answer]}]}
    mask, problems, notices = drawn(as_bytes([{**alone, "drafts": [{"id": 1}]}]))
    assert problems == []
    assert "has a draft that nobody has submitted" in notices[0]
    np.testing.assert_array_equal(mask, MASK)
    reading = read_labels(as_bytes([{**task, "annotations": [work, work]}]))
    assert "has the work of 2 people; keep one" in reading.problems[0]
    assert reading.drawings == []
    # As it was called before version 1.0.
    (older,) = label_studio(f"{ONE}.png", [painted()])
    older["completions"] = older.pop("annotations")
    np.testing.assert_array_equal(drawn(as_bytes([older]))[0], MASK)
    small = [{"id": 1, "image": "x.png", "annotator": 1, "annotation_id": 4, "brush": []}]
    with pytest.raises(LabelFileError, match="JSON-MIN"):
        read_labels(as_bytes(small))


def test_brush_strokes_of_label_studios_own_converter_are_unpacked() -> None:
    """What its `encode_rle` (label-studio-converter 0.0.59) gave for a ring in a 5 x 7 picture."""
    packed = [0, 0, 0, 140, 57, 27, 254, 35, 0, 183, 255, 124, 2, 63, 248, 192, 35, 255, 190, 1]
    packed += [111, 255, 17, 128, 0]
    ring = np.zeros((5, 7), np.uint8)
    ring[1:4, 2:5] = 255
    ring[2, 3] = 0
    assert unpack(bytes(packed), 140).tolist() == ring.repeat(4).tolist()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04rest", "is a ZIP archive"),
        (b"\x1f\x8brest", "is compressed"),
        (b"\xff\xd8\xff\xe0", "is a JPEG"),
        (b"hello", "is none of what is read"),
        (b"{}", "is JSON, but none of what is read"),
        (b'[{"a": 1}]', "is JSON, but none of what is read"),
        (b"<svg></svg>", "is XML with <svg>"),
        (b"<annotations><track/></annotations>", "CVAT for video"),
        (b"<annotations><meta></annotations>", "is not XML"),
        (b'<annotations><image name="x" width="a"/></annotations>', "its width is 'a'"),
    ],
)
def test_what_is_no_label_file_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(LabelFileError, match=reason):
        read_labels(data)


def test_which_candidate_a_file_labels() -> None:
    ids = frozenset({ONE, OTHER})
    assert match("x", ONE, ids).by is MatchedBy.CONTENT
    assert match("", None, ids, f"/data/upload/1/0a1b2c3d-train-{ONE}.png").by is MatchedBy.PICTURE
    assert match("annotations", None, ids, f"train-{ONE[:8]}.png").by is MatchedBy.PART_OF_NAME
    assert match(f"train-{ONE}", None, ids).by is MatchedBy.NAME
    assert [one.value for one in MatchedBy if one.verified] == ["content", "picture"]
    for stem, inside, picture in (
        (OTHER, ONE, None),
        (OTHER, None, ONE),
        ("x", ONE, OTHER),
        (f"{ONE}-{OTHER}", None, None),
        ("x", None, "y.png"),
        ("x", None, "ef" * 16),
    ):
        with pytest.raises(MatchError):
            match(stem, inside, ids, picture)
