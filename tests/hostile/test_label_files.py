"""Label files made to exhaust or to mislead: refused after a bounded amount of work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from defusedxml.ElementTree import XMLParser

from hdgan.core.sections import ClassConfig
from hdgan.desk import coco, cvat, drawing, label_studio, understanding
from hdgan.desk.drawing import LabelFileError, draw
from hdgan.desk.formats import read_labels
from hdgan.desk.intake import AnnotationProblems
from hdgan.desk.messages import MAX_NAME, MAX_TOLD
from hdgan.desk.sources import Match, MatchedBy, MatchError, match
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
    monkeypatch.setattr(drawing, "AREA_WORK", 1)
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


@pytest.mark.parametrize(
    "kind", ["vertices", "entries", "tasks", "runs", "elements", "attributes", "depth"]
)
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
    elif kind == "attributes":
        monkeypatch.setattr(cvat, "MAX_ATTRIBUTES", 20)
        many = " ".join(f"a{n}=''" for n in range(50))
        files = [f"<annotations {many}/>".encode()]
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


@pytest.mark.parametrize("kind", ["one attribute", "references", "comment"])
def test_what_is_long_is_not_begun_anew_again_and_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions of expat before 2.6 look at an unfinished attribute or comment from its beginning,
    with each piece they are given: 16 KiB at a time, 4 MB take as long as 500 MB."""
    fed: list[int] = []

    class Counting(XMLParser):  # type: ignore[misc]
        def feed(self, data: bytes) -> None:
            fed.append(len(data))
            super().feed(data)

    monkeypatch.setattr(cvat, "XMLParser", Counting)
    size = 4 << 20
    square = 'points="0,0;8,0;8,8"'
    if kind == "comment":
        inner = f'<!--{"a" * size}--><polygon label="aaa" {square}/>'
    else:
        label = "a" * size if kind == "one attribute" else "&amp;" * (size // 5)
        inner = f'<polygon label="{label}" {square}/>'
    data = cvat_file("x", (64, 64), [inner])
    (problem,) = problems(data)
    assert "unknown class" in problem
    assert fed == [len(data)]


def test_texts_are_not_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[int] = []
    monkeypatch.setattr(cvat._Reader, "data", lambda self, text: texts.append(len(text)))
    assert problems(cvat_file("x", (64, 64), ["a\n" * 100_000])) == []
    assert sum(texts) > 200_000
    assert len(texts) < 100


BAD = 3000


def many_problems(kind: str, picture: str) -> bytes:
    square = [[0, 0], [8, 0], [8, 8], [0, 0]]
    if kind == "CVAT":
        return cvat_file(picture, (64, 64), ['<box label="a"/>'] * BAD)
    if kind == "COCO":
        return coco_file(None, count=BAD)
    if kind in ("Label Studio", "tasks"):
        value = {"x": 1, "rectanglelabels": ["a"]}
        results = [region(value, "rectanglelabels", 64, 64)] * (BAD if kind != "tasks" else 1)
        return as_bytes(label_studio_file(picture, results) * (BAD if kind == "tasks" else 1))
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [square]},
        "properties": {} if kind == "GeoJSON" else {"classification": {"name": "c" * 1000}},
    }
    return as_bytes({"type": "FeatureCollection", "features": [feature] * BAD})


@pytest.mark.parametrize(
    "kind", ["CVAT", "COCO", "Label Studio", "tasks", "GeoJSON", "unknown classes"]
)
def test_a_problem_in_every_shape_is_told_some_times_and_counted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(understanding, "match", lambda *_: Match("ab" * 16, MatchedBy.CONTENT))
    path = tmp_path / "labels"
    path.write_bytes(many_problems(kind, "n" * 1000))
    understood = understanding.understand([path], OneCandidate(), CLASSES)  # type: ignore[arg-type]
    assert len(understood.problems) == MAX_TOLD
    assert understood.problems.total == BAD
    message = str(AnnotationProblems(understood.problems))
    assert message.startswith("nothing was imported: 3,000 problems\n")
    assert message.endswith("\n  - and 2,950 more")
    assert len(message) < (MAX_TOLD + 1) * (len(str(path)) + 400)
    assert "n" * (MAX_NAME + 1) not in message


class OneCandidate:
    ids = ("ab" * 16,)

    def png(self, identity: str) -> bytes:
        return b""

    def rgb(self, identity: str) -> Any:
        return np.zeros((64, 64, 3), np.uint8)


def test_a_name_from_outside_begins_no_line_of_its_own(tmp_path: Path) -> None:
    name = "x\n  - /etc/passwd: was deleted\ny"
    in_xml = name.replace("\n", "&#10;")
    shape = '<box label="a"/>'
    xml = cvat_file("NAME", (64, 64), [shape]).replace(b"NAME", in_xml.encode())
    value = {"x": 1, "rectanglelabels": ["a"]}
    studio = label_studio_file(name, [region(value, "rectanglelabels", 64, 64)])
    polygon = {"points": [[1, 1], [50, 1], [50, 50]], "polygonlabels": ["a"]}
    good = label_studio_file(name, [region(polygon, "polygonlabels", 64, 64)])
    for data in (xml, as_bytes(studio)):
        (problem,) = read_labels(data).problems
        assert "was deleted" in problem
        assert "\n" not in problem
    bad_size = xml.replace(b'width="64"', b'width="x"')
    files = {"a.xml": xml, "b.xml": bad_size, "c": as_bytes(studio), "d": as_bytes(good * 2)}
    files["e\n  - f"] = b"nothing"
    for place, data in files.items():
        (tmp_path / place).write_bytes(data)
    paths = [tmp_path / place for place in files]
    understood = understanding.understand(paths, OneCandidate(), CLASSES)  # type: ignore[arg-type]
    lines = str(AnnotationProblems(understood.problems)).splitlines()
    assert len(lines) == 1 + len(understood.problems) == 7
    assert sum("was deleted" in line for line in lines) == 5
    assert all(line.startswith(f"  - {tmp_path}") for line in lines[1:])


class Counted(frozenset[str]):
    """Ids that count how often somebody goes through all of them."""

    gone_through = 0

    def __iter__(self) -> Iterator[str]:
        Counted.gone_through += 1
        return super().__iter__()


def test_names_full_of_what_may_be_ids_are_matched_in_bounded_work() -> None:
    ids = Counted(f"{n:032x}" for n in range(1, 2000))
    for _ in range(5):
        with pytest.raises(MatchError, match="of no candidate"):
            match("", None, ids, " ".join(f"{n:06x}" for n in range(1, 5000)))
    assert Counted.gone_through <= 5
    with pytest.raises(MatchError, match="names several candidates") as error:
        match("", None, ids, " ".join(ids))
    assert len(str(error.value)) < 300
    letters = frozenset(letter * 32 for letter in "abc")
    assert match("", None, letters, "aaaaaa").candidate == "a" * 32
    with pytest.raises(MatchError, match="begins the ids of several"):
        match("", None, letters, "aaaaaa bbbbbb")
    with pytest.raises(MatchError, match="begins the ids of several"):
        match("", None, ids, "0" * 12)


def test_very_many_shapes_are_refused_before_any_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A MultiPolygon of 300,000 squares of one pixel took minutes: each costs, not its pixels."""
    assert drawing.AREA_WORK * 300_000 > drawing.MAX_WORK
    assert drawing.AREA_WORK * 20_000 < drawing.MAX_WORK
    square = [[1, 1], [2, 1], [2, 2], [1, 2], [1, 1]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "MultiPolygon", "coordinates": [[square]] * 300},
        "properties": {"classification": {"name": "a"}},
    }
    (one,) = read_labels(as_bytes(feature)).drawings
    assert draw(one.areas, CLASSES, 64, 64)[1] == []
    for name in ("pixels", "oddity"):
        monkeypatch.delattr(drawing.Polygon, name)
    monkeypatch.setattr(drawing, "MAX_WORK", 300 * drawing.AREA_WORK)  # and nothing for pixels
    (problem,) = draw(one.areas, CLASSES, 64, 64)[1]
    assert "or are very many" in problem
    for name in ("misfit", "work"):
        monkeypatch.delattr(drawing.Polygon, name)
    monkeypatch.setattr(drawing, "MAX_WORK", 299 * drawing.AREA_WORK)
    (problem,) = draw(one.areas, CLASSES, 64, 64)[1]
    assert "or are very many" in problem


def zigzag(lines: int) -> Any:
    """Side by side, all as high as the others: every pair of them has boxes that meet."""
    return np.array([[n * 30 / lines + 30 * (n % 2), 60 * (n % 2)] for n in range(lines)])


def by_hand(corners: int) -> Any:
    """An outline with a trembling hand."""
    turns = np.arange(corners) * 2 * np.pi / corners
    away = 25 + 3 * np.sin(9 * turns) + 0.01 * np.random.default_rng(0).normal(size=corners)
    return np.stack([32 + away * np.cos(turns), 32 + away * np.sin(turns)], axis=1)


def test_outlines_in_which_every_line_meets_every_other_are_not_looked_at_for_crossings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """90,000 lines up and down took 72 s. What they cover is drawn as before, and that nobody has
    looked is told."""
    looked: list[int] = []
    look = drawing.Polygon.oddity

    def counted(polygon: drawing.Polygon) -> str | None:
        looked.append(len(polygon.rings[0]))
        return look(polygon)

    monkeypatch.setattr(drawing.Polygon, "oddity", counted)
    forms = [by_hand(20_000), zigzag(90_000), by_hand(50)]
    areas = [drawing.Area("a", f"shape {n}", drawing.Polygon((f,))) for n, f in enumerate(forms)]
    mask, found, notices = draw(areas, CLASSES, 64, 64)
    assert found == []
    assert looked == [20_000, 50]
    assert [one for one in notices if "(first: shape 1)" in one] == notices
    assert "1 shape was not looked at for lines that cross" in notices[0]
    monkeypatch.setattr(drawing, "MAX_MEETINGS", 0)
    np.testing.assert_array_equal(draw(areas, CLASSES, 64, 64)[0], mask)
    assert looked == [20_000, 50]
    # All shapes of an image together.
    one = drawing.Polygon((zigzag(2_000),))
    monkeypatch.setattr(drawing, "MAX_MEETINGS", 10 * one.meetings())
    areas = [drawing.Area("a", f"shape {n}", one) for n in range(15)]
    notices = draw(areas, CLASSES, 64, 64)[2]
    assert looked[2:] == [2_000] * 10
    assert "5 shapes were not looked at" in notices[-1]


def test_lines_that_meet_are_never_fewer_than_counted() -> None:
    noise = np.random.default_rng(0)
    for corners in (3, 4, 7, 30):
        rings = (noise.integers(0, 9, (corners, 2)).astype(float), noise.random((3, 2)) * 9)
        ends = [(a, b) for ring in rings for a, b in zip(ring, np.roll(ring, -1, 0), strict=True)]
        boxes = [(np.minimum(a, b), np.maximum(a, b)) for a, b in ends]
        by_axis = np.zeros(2, int)
        both = 0
        for n, (low, high) in enumerate(boxes):
            for other_low, other_high in boxes[:n]:
                meet = (low <= other_high) & (other_low <= high)
                by_axis += meet
                both += bool(meet.all())
        counted = drawing.Polygon(rings).meetings()
        assert counted == by_axis.min()
        assert counted >= both


def test_strokes_of_a_star_are_looked_at_in_bounded_time() -> None:
    """A star of 20,000 lines has a hundred million crossings; the first one is enough."""
    count = 20_001
    turns = np.arange(count) * (2 * np.pi * (count // 2) / count)
    ring = np.stack([32 + 30 * np.cos(turns), 32 + 30 * np.sin(turns)], axis=1)
    assert drawing.Polygon((ring,)).meetings() < drawing.MAX_MEETINGS
    oddity = drawing.Polygon((ring,)).oddity()
    assert oddity is not None
    assert oddity.startswith("crosses itself near")
