"""The table of slides and their outlines: what is understood, what is refused, in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.slide_facts import (
    AllFacts,
    SlideFacts,
    find_facts,
    load_facts,
    parse_table,
    save_facts,
)
from hdgan.core.slides import SlideFile, SlideSnapshot
from hdgan.core.store import open_store

NAMES = ["a/one.svs", "a/two.svs", "b/two.svs", "three.ndpi"]


def snapshot(*names: str) -> SlideSnapshot:
    slides = [SlideFile(name=name, uri=f"/x/{name}", size=1, version="1") for name in names]
    return SlideSnapshot(uri="/x", slides=slides)


def test_rows_are_found_by_path_name_or_stem() -> None:
    table = (
        "\ufeffSlide;Case;STAIN;ward;mpp\n"
        "one;P1;HE;north;0.25\n"
        "a/two.svs;P2;;;\n"
        "b/two;P3;PAS;;\n"
        ";;;;\n"
        "three.ndpi;P4;;;\n"
        "elsewhere.svs;P5;;;\n"
    )
    facts, unused = parse_table(table.encode(), NAMES, "t.csv")
    assert facts == {
        "a/one.svs": SlideFacts(case="P1", stain="HE", mpp=(0.25, 0.25)),
        "a/two.svs": SlideFacts(case="P2"),
        "b/two.svs": SlideFacts(case="P3", stain="PAS"),
        "three.ndpi": SlideFacts(case="P4"),
    }
    assert unused == 1


def test_quoted_cells_and_two_scales() -> None:
    table = b'slide,diagnosis,mppX,mppY\nthree,"IgA, grade 2",0.25,0.5\n'
    facts, _ = parse_table(table, NAMES, "t.csv")
    assert facts["three.ndpi"] == SlideFacts(diagnosis="IgA, grade 2", mpp=(0.25, 0.5))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "no column named slide; it has nothing"),
        (b"file,case\na,b\n", "no column named slide; it has 'file', 'case'"),
        (b"slide,case,Case\n", "several columns named case"),
        (b"slide,case\nthree,a,b\n", "line 2: has 3 cells, the header 2"),
        (b"slide,case\n,a\n", "line 2: names no slide"),
        (b"slide,case\ntwo.svs,a\n", "line 2: 'two.svs' could be a/two.svs or b/two.svs"),
        (b"slide,case\nthree,a\nthree.ndpi,b\n", "line 3: three.ndpi was named in line 2 already"),
        (b"slide,mpp\nthree,0\n", "line 2: mpp is '0', not a number of micrometres"),
        (b"slide,mpp\nthree,nan\n", "line 2: mpp is 'nan'"),
        (b"slide,mpp\nthree,0,25\n", "line 2: has 3 cells"),
        (b"slide,mppx\nthree,0.25\n", "mppX and mppY are given together"),
        (b"slide,mpp,mppx,mppy\nthree,1,1,1\n", "give mpp, or mppX and mppY"),
        (b"slide,case\nthree," + b"x" * 201 + b"\n", "case has more than 200 characters"),
        (b"slide,case\n\xff,a\n", "is not UTF-8"),
        (b'slide,case\n"three,a\n', "is no CSV"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(table: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse_table(table, NAMES, "t.csv")
    assert str(caught.value).startswith("t.csv")


def test_facts_travel_through_the_store(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    table = tmp_path / "t.csv"
    table.write_text("slide,case\nthree,P\n")
    (tmp_path / "outlines").mkdir()
    (tmp_path / "outlines" / "three.geojson").write_text("[]")
    found = find_facts(snapshot(*NAMES), str(table), str(tmp_path / "outlines"))
    key = save_facts(store, found)
    assert key is not None
    assert load_facts(store, key) == found
    assert found.outlines["three.ndpi"].size == 2
    assert list(found.outlines) == ["three.ndpi"]
    store.put(key, store.get(key).replace(b'"P"', b'"Q"'))
    with pytest.raises(InputMissing, match=r"it was changed.*start the run again"):
        load_facts(store, key)


def test_identity_changes_with_what_is_said_and_not_with_where(tmp_path: Path) -> None:
    def digest(folder: str, table: str, outline: str | None = None) -> str | None:
        root = tmp_path / folder
        (root / "o").mkdir(parents=True)
        (root / "t.csv").write_text(table)
        if outline is not None:
            path = root / "o" / "three.geojson"
            path.write_text(outline)
            os.utime(path, ns=(1, 1))
        return find_facts(snapshot(*NAMES), str(root / "t.csv"), str(root / "o")).digest

    one = digest("1", "slide,case\nthree,P\n")
    assert one == digest("2", "slide,ward,case\nthree,x,P\nnobody,x,Q\n")
    assert one != digest("3", "slide,case\nthree,Q\n")
    assert one != digest("4", "slide,case\nthree,P\n", "[]")
    assert digest("5", "slide,case\nthree,P\n", "[]") == digest("6", "slide,case\nthree,P\n", "{}")
    assert digest("7", "slide,case\nnobody,P\n") is None
    assert AllFacts().digest is None


def test_places_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"slides\.metadata: .*none\.csv cannot be read"):
        find_facts(snapshot(*NAMES), str(tmp_path / "none.csv"), None)
    with pytest.raises(RequestError, match=r"slides\.outlines: .*none is no folder"):
        find_facts(snapshot(*NAMES), None, str(tmp_path / "none"))


def test_a_file_address_is_read_as_that_of_the_slides_is(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "t.csv").write_text("slide,case\nthree,P\n")
    (folder / "three.geojson").write_text("[]")
    assert "%20" in folder.as_uri()
    found = find_facts(snapshot(*NAMES), (folder / "t.csv").as_uri(), folder.as_uri())
    assert list(found.facts) == list(found.outlines) == ["three.ndpi"]
