"""Hostile tables, GeoJSON, OME descriptions and lines of processes, each with its message."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from hdgan.core import geojson as core_geojson
from hdgan.core import slide_facts
from hdgan.core.errors import RequestError
from hdgan.core.events import MAX_LINE, parse_event
from hdgan.core.progress_view import describe_progress
from hdgan.core.sections import ClassConfig
from hdgan.core.slide_facts import parse_table
from hdgan.desk import drawing as drawings
from hdgan.desk.drawing import LabelFileError, draw
from hdgan.desk.formats import read_labels
from hdgan.desk.rasterise import fill_polygon
from hdgan.tiler import compartments
from hdgan.tiler.compartments import parse_compartments
from hdgan.tiler.grid import Rect
from hdgan.tiler.ome_xml import parse_ome
from hdgan.tiler.slide import SlideError

TABLES = {
    "a quote never closed": (b'slide,case\na,"' + b"x" * 200_000, "field larger than field limit"),
    "a quote never closed, short": (b'slide,case\na,"x', "unexpected end of data"),
    "a cell of a megabyte": (b"slide,case\na," + b"x" * (1 << 20), "field larger than field limit"),
    "a cell too long to keep": (b"slide,case\na," + b"x" * 300, "line 2: case has more than 200"),
    "text after a quote": (b'slide,case\na,"x"y', "',' expected after '\"'"),
    "a million columns": (b"slide" + b"," * 1_000_000, "has 1000001 columns, more than 1000"),
    "many rows": (b"slide\n" + b"\n" * 60_000, "has more than 50000 rows"),
    "UTF-16": ("slide,case\n".encode("utf-16"), "is not UTF-8"),
    "no column named slide": (b"x" * 100_000 + b"\n", "has no column named slide; it has 'x{40}'"),
    "a column twice": (b"slide,case,CASE\n", "has several columns named case"),
    "a number of 1e400": (b"slide,mpp\na,1e400", "mpp is '1e400', not a number of micrometres"),
    "no number": (b"slide,mpp\na,nan", "mpp is 'nan', not a number"),
    "a number of 9000 digits": (b"slide,mpp\na," + b"9" * 9000, "mpp is '9{40}', not a number"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_hostile_table_is_refused_with_its_reason(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_facts, "MAX_ROWS", 50_000)
    data, message = TABLES[case]
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match=f"table.*{message}") as error:
            parse_table(data, ["a"], "table")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 400


CLASSES = [ClassConfig(name="a", color="#ff0000"), ClassConfig(name="b", color="#00ff00")]


def polygon(*rings: Any, name: str = "a") -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": list(rings)},
        "properties": {"classification": {"name": name}},
    }


def collection(*features: Any) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": list(features)}).encode()


SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
FILES = {
    "a hundred thousand levels": (b"[" * 100_000, "nested too deeply"),
    "coordinates in a hundred levels": (
        collection(polygon(json.loads("[" * 50 + "]" * 50))),
        "a ring has fewer than four",
    ),
    "NaN": (
        collection(polygon(SQUARE)).replace(b"[4, 0]", b"[NaN, 0]"),
        "NaN is not a number JSON knows",
    ),
    "infinity by overflow": (
        collection(polygon(SQUARE)).replace(b"[4, 0]", b"[1e999, 0]"),
        "the number 1e999 is too large",
    ),
    "far away": (
        collection(polygon([[0, 0], [1e12, 0], [1e12, 1], [0, 0]])),
        "feature 1: the coordinate 1000000000000.0 is out of all bounds",
    ),
    "text as a coordinate": (
        collection(polygon([["0", 0], [1, 0], [1, 1], ["0", 0]])),
        "feature 1: a coordinate is '0', not a number",
    ),
    "open": (collection(polygon(SQUARE[:-1])), "feature 1: a ring is not closed"),
    "ten million vertices": (
        b'{"type":"FeatureCollection","features":[{"coordinates":['
        + b"[1,2]," * 5_000_000
        + b"[1,2]]}]}",
        "values, at most 10000000 are read",
    ),
    "many vertices": (
        collection(polygon([[0, 0], *([[1, 2]] * 50_001), [0, 0]])),
        "has more than 50000 vertices",
    ),
    "many features": (
        b'{"type":"FeatureCollection","features":[' + b"0," * 100_001 + b"0]}",
        "has 100002 features, at most 100000",
    ),
    "a name twice": (b'{"type":"FeatureCollection","type":"x"}', "'type' is given twice"),
}


@pytest.mark.parametrize("case", FILES)
def test_hostile_geojson_is_refused_with_its_reason(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_geojson, "MAX_VERTICES", 50_000)
    data, message = FILES[case]
    try:
        problems = read_labels(data).problems
    except LabelFileError as error:
        problems = [str(error)]
    assert any(message in one for one in problems), problems
    with pytest.raises(SlideError, match=r"has outlines that cannot be used|has no outline of a"):
        parse_compartments(data, ["a"])


def test_drawing_what_touches_itself_gives_a_mask() -> None:
    bow = [[0, 0], [8, 8], [8, 0], [0, 8], [0, 0]]
    spike = [[0, 0], [8, 4], [0, 0], [0, 0], [0, 8], [0, 0]]
    (drawing,) = read_labels(collection(polygon(bow), polygon(spike, name="b"))).drawings
    mask, problems, notices = draw(drawing.areas, CLASSES, 8, 8)
    assert (mask == 0).any()
    assert problems == ["feature 2: a b shape covers no pixel centre; delete it or draw it larger"]
    assert [one.partition(" near")[0] for one in notices] == ["feature 1 crosses itself"]
    assert 0 < parse_compartments(collection(polygon(bow)), ["a"]).share(Rect(0, 0, 8, 8)) < 1


@pytest.mark.parametrize("kind", ["zigzag", "layers"])
def test_the_work_of_drawing_is_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand times up and down an image, or over it: refused after a known amount of work."""
    side = 64
    monkeypatch.setattr(drawings, "MAX_WORK", 200 * side * side)
    if kind == "zigzag":
        ring = [[n / 10_000 * side, side * (n % 2)] for n in range(10_000)]
        features = [polygon([*ring, ring[0]])]
    else:
        whole = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
        features = [polygon(whole)] * 1000
    (drawing,) = read_labels(collection(*features)).drawings
    _, problems, _ = draw(drawing.areas, CLASSES, side, side)
    assert len(problems) == 1
    assert "cover the image many times over, or run up and down it many times" in problems[0]


def test_shapes_are_drawn_where_they_are_as_they_were_before_they_were_cut_out() -> None:
    """By the whole canvas, shape for shape."""
    random = np.random.default_rng(0)
    features, rings = [], []
    for _ in range(40):
        centre, size = random.uniform(-2, 34, 2), random.uniform(0.5, 9)
        angles = np.sort(random.uniform(0, 2 * math.pi, 7))
        ring = centre + size * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        if ring.min() < -2 or ring.max() > 34:
            continue
        features.append(polygon([*ring.tolist(), ring[0].tolist()]))
        rings.append(ring)
    assert len(rings) > 10
    (drawing,) = read_labels(collection(*features)).drawings
    mask, _, _ = draw(drawing.areas, CLASSES, 32, 32)
    expected = np.zeros((32, 32), bool)
    for ring in rings:
        expected |= fill_polygon([ring], 32, 32)
    assert ((mask == 0) == expected).all()


def test_outlines_that_cross_each_other_everywhere_are_refused() -> None:
    """A star of 4000 edges has millions of crossings; one of 50,000 would have a billion."""
    count = 4001
    turns = [2 * math.pi * (n * (count // 2)) / count for n in range(count)]
    star = [[1000 + 900 * math.cos(turn), 1000 + 900 * math.sin(turn)] for turn in turns]
    with pytest.raises(SlideError, match="whose 4001 edges lie across each other in very many"):
        parse_compartments(collection(polygon([*star, star[0]])), ["a"])


def test_a_long_outline_drawn_by_hand_is_no_such_thing() -> None:
    count = 20_000
    turns = [2 * math.pi * n / count for n in range(count)]
    ring = [
        [5000 + (4000 + 50 * math.sin(99 * t)) * math.cos(t), 5000 + 4000 * math.sin(t)]
        for t in turns
    ]
    found = parse_compartments(collection(polygon([*ring, ring[0]])), ["a"])
    assert 0.3 < found.share(Rect(0, 0, 10_000, 10_000)) < 0.7
    assert compartments.MEETINGS_PER_EDGE > 20


OME = '<OME><Image><Pixels SizeX="4" SizeY="4"{}/></Image></OME>'
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
DESCRIPTIONS = {
    "billion laughs": (
        f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><OME>&l9;</OME>',
        "with a DOCTYPE, which OME-XML never has",
    ),
    "a file from this machine": (
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><OME>&e;</OME>',
        "with a DOCTYPE",
    ),
    "a file from elsewhere": (
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><OME/>',
        "with a DOCTYPE",
    ),
    "an entity alone": ('<!ENTITY e "x"><OME>&e;</OME>', "with a DOCTYPE"),
    "an entity nobody declared": ("<OME>&e;</OME>", "undefined entity"),
    "a million elements": ("<OME>" + "<a/>" * 1_000_001 + "</OME>", "more than 1000000 elements"),
    "very long": ("<OME>" + "x" * (1 << 24) + "</OME>", "characters, more than 16777216"),
    "a hundred thousand levels": ("<a>" * 100_000, "cannot be understood"),
    "a size of 5000 digits": (OME.format("").replace('"4"', f'"{"9" * 5000}"'), "no whole number"),
    "a size below nothing": (OME.format("").replace('"4"', '"-4"'), "'-4' is no whole number"),
    "planes whose product overflows": (
        OME.format(f' SizeZ="{"9" * 4000}" SizeT="{"9" * 4000}"'),
        "no whole number",
    ),
    "a page before the first": (
        OME.format("><TiffData IFD='-1'/></Pixels>").replace("</Pixels>/>", "</Pixels>"),
        "'-1' is no whole number",
    ),
    "digits of another script": (OME.format("").replace('"4"', '"\u0664"'), "no whole number"),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_hostile_description_is_refused_with_its_reason(case: str) -> None:
    text, message = DESCRIPTIONS[case]
    with pytest.raises(SlideError, match=message) as error:
        parse_ome(text)
    assert len(str(error.value)) < 400


LINES = {
    "deep": '{"event":' + "[" * 100_000,
    "long": '{"event": "log", "message": "' + "x" * MAX_LINE + '"}',
    "an event that is a list": '{"event": ["log"]}',
    "a name twice": '{"event": "log", "event": "error"}',
    "digits": '{"event": "progress", "done": ' + "9" * 5000 + "}",
    "no object": '["event"]',
    "an unknown event": '{"event": "exec"}',
    "cut off": '{"event": "log"',
}


@pytest.mark.parametrize("case", LINES)
def test_a_hostile_line_is_no_event(case: str) -> None:
    assert parse_event(LINES[case]) is None


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"x"', "[]", "null"])
def test_a_number_that_is_none_is_not_shown(value: str) -> None:
    event = parse_event(
        '{"event": "progress", "done": %s, "total": %s, "rate": %s, "eta": %s, "unit": "u"}'
        % ((value,) * 4)
    )
    assert event is not None
    assert describe_progress(event) == "0 u"
