"""The report of a run whose names, messages and documents mean harm: all of it is text, none of it
is markup, and a document of another form is refused with its place."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.errors import InputMissing
from hdgan.desk import charts, report
from hdgan.desk.candidates import read_json
from hdgan.desk.report import render_report
from hdgan.desk.report_tiles import tiles_section
from hdgan.desk.run_artifacts import open_run
from support.desk_run import TinyRun
from support.fuzzing import MemoryStore, changed_json, examples, survives

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "</style><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt;&#60;i&#62;",
    "\u202ereversed\u0000\u001b[31m",
    "]]><!--",
    "$\\frac{$ $x^$",
]
ALL = " ".join(EVIL)


class Page(HTMLParser):
    """Tags, attributes and what text is left of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def changed(artifact: Artifact, documents: dict[str, Any]) -> None:
    """Write an artifact anew with other documents, and digests that match."""
    files = {name: artifact.read(name) for name in artifact.names()}
    store = artifact.store
    manifest = artifact.manifest
    store.delete(f"artifacts/{manifest.stage}/{manifest.key}/manifest.json")
    attempt = Attempt(store, manifest.stage, manifest.key, stage_version=manifest.stage_version)
    for name, data in files.items():
        document = documents.get(name)
        attempt.add_bytes(name, data if document is None else json.dumps(document).encode())
    attempt.commit({"seconds": 1.0, "device": ALL, "author": ALL, "date": ALL})


@pytest.fixture
def run(tmp_path: Path) -> TinyRun:
    run = TinyRun.create(tmp_path)
    slides = read_json(run.add_tiles(), "slides.json")
    slides["holdout"] = ALL
    slides["tilesPerFold"] = [ALL]
    for one in slides["slides"]:
        one |= {"name": ALL, "case": ALL, "reason": ALL, "dimensions": [ALL, 1]}
    slides["slides"][0]["tiles"]["rejected"] = {ALL: 3}
    for one in slides["balance"]:
        one |= {"tilesByStain": {ALL: 1}, "tilesByCentre": {ALL: 1}}
    view = open_run(run.file, None)
    changed(view.artifacts["tiler"], {"slides.json": slides})
    generator = run.add_generator()
    evaluation = read_json(generator, "evaluation.json")
    evaluation["extractor"] = {"name": ALL}
    evaluation["memorisation"] = {"share": 0.5, "note": ALL}
    evaluation["kid"] = {ALL: evaluation["kid"]["whole"]}
    changed(generator, {"evaluation.json": evaluation})
    candidates = run.add_candidates()
    document = read_json(candidates, "candidates.json")
    changed(candidates, {"candidates.json": document | {"psi": ALL, "generator": "9" * 64}})
    assigned = run.annotate(ALL)
    classifier = run.add_classifier([i for i, split in assigned.items() if split == "test"])
    scores = read_json(classifier, "scores.json")
    scores["baselines"][ALL] = scores["baselines"]["rgb"]
    scores["test"]["leftOut"] = [ALL]
    scores["test"]["images"] = ALL
    scores["test"]["boundaryF"]["tolerance"]["um"] = ALL
    changed(classifier, {"scores.json": scores})
    run.add_dataset()
    return run


def test_everything_is_escaped_in_text_and_in_attributes(run: TinyRun) -> None:
    html = render_report(open_run(run.file, None))
    page = Page(html)
    allowed = {"html", "head", "meta", "title", "link", "style", "body", "main", "header", "h1"}
    allowed |= {"h2", "h3", "p", "ul", "li", "span", "b", "nav", "a", "section", "div", "table"}
    allowed |= {"tr", "th", "td", "thead", "tbody", "caption", "ol", "dl", "dt", "dd"}
    allowed |= {"figure", "img", "figcaption", "i", "br", "code", "em"}
    assert set(page.tags) <= allowed
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value or "" for name, value in page.attributes if name in ("href", "src")]
    assert all(one.startswith(("#", "data:image/", "data:,")) for one in links)
    assert page.tags.count("style") == 1
    assert "<script" not in html
    assert "{{ 7*7 }}" in html
    # The case, the reason, the baseline, the note: all are there, as text.
    assert sum(one.count("alert(1)") for one in page.text) > 20
    assert "\u0000" not in html


def test_styles_have_no_text_from_outside(run: TinyRun) -> None:
    html = render_report(open_run(run.file, None))
    styles = [value or "" for name, value in Page(html).attributes if name == "style"]
    assert styles
    for one in styles:
        background = r"background:(#[0-9a-fA-F]{3,6}|rgba\(var\(--heat\),[0-9.]+\))"
        assert re.fullmatch(rf"{background}|width:[0-9.]+%", one)


def svgs(html: str) -> list[bytes]:
    found = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html)
    return [base64.b64decode(one) for one in found]


def test_charts_are_inert(run: TinyRun) -> None:
    found = svgs(render_report(open_run(run.file, None)))
    assert len(found) == 7
    for one in found:
        check_svg(one)


def check_svg(data: bytes) -> str:
    root = ET.fromstring(data)
    for element in root.iter():
        name = str(element.tag).rpartition("}")[2]
        assert name not in ("script", "foreignObject", "image", "iframe", "animate", "set", "a")
        if name == "style":
            assert not re.search("url|import|[<>]", element.text or "")
        for attribute, value in element.attrib.items():
            assert not attribute.rpartition("}")[2].startswith("on")
            if attribute.endswith("href"):
                assert value.startswith("#")
    return "".join(root.itertext())


@pytest.mark.parametrize("text", EVIL)
def test_texts_in_charts_are_text_and_no_formulas(text: str) -> None:
    """Class names can be no markup; whoever else draws with these functions need not know that."""
    clean = re.sub("[\x00-\x1f]", "", text)
    drawn = charts.line_chart({clean: [(0.0, 1.0)], "b": [(1.0, 2.0)]}, clean, y_label=clean)
    lines = check_svg(drawn)
    bars = check_svg(charts.grouped_bars({clean: [0.5, 0.5]}, [clean, "b"]))
    bins = check_svg(charts.histogram([0.1, 0.2], 0.15, clean))
    for text_of in (lines, bars, bins):
        assert "".join(clean.split()) in "".join(text_of.split())


@pytest.mark.parametrize("value", [1e308, -1e308, float("nan"), float("inf"), None, "x", [], {}])
def test_numbers_that_cannot_be_drawn_are_left_out(value: Any) -> None:
    check_svg(charts.line_chart({"b": [(0.0, value), (1.0, 2.0), (value, 1.0)]}, "x"))
    charts.axis_for([value, 1.0, 2.0])
    check_svg(charts.grouped_bars({"a": [value, 0.5]}, ["c", "d"]))
    check_svg(charts.histogram([value, 0.1, 0.2], value, "x"))


DOCUMENTS = {
    "slides.json": "tiler",
    "evaluation.json": "gan-trainer",
    "candidates.json": "candidates",
    "annotations.json": "annotations",
    "scores.json": "classifier",
    "calibration.json": "dataset",
}


FORMS = ["[]", "null", "{}", "[" * 9999, '{"slides": 3, "kid": 3}', "x"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_of_another_form_is_refused_with_its_place(name: str, run: TinyRun) -> None:
    view = open_run(run.file, None)
    found = view.artifacts[DOCUMENTS[name]]
    files = {one: found.read(one) for one in found.names()}
    for content in FORMS:
        attempt = Attempt(
            MemoryStore(),  # type: ignore[arg-type]
            found.manifest.stage,
            found.manifest.key,
        )
        for one, data in (files | {name: content.encode()}).items():
            attempt.add_bytes(one, data)
        broken = replace(view, artifacts={**view.artifacts, DOCUMENTS[name]: attempt.commit({})})
        made = survives(lambda: render_report(broken))  # noqa: B023
        if isinstance(made, str):
            assert content.startswith("{")
            assert "script" not in Page(made).tags
        else:
            assert found.manifest.stage in str(made) or name in str(made)
            assert len(str(made)) < 1000


SLIDES = {
    "holdout": "case",
    "tilesPerFold": [1],
    "balance": [
        {"fold": 0, "tiles": 1, "cases": 1, "tilesByStain": {"a": 1}, "tilesByCentre": {"b": 1}}
    ],
    "slides": [
        {
            "name": "a",
            "case": "b",
            "dimensions": [1, 2],
            "slideMpp": [0.5, 0.5],
            "tiles": {"accepted": 1, "rejected": {"pen": 2}},
        }
    ],
}


@examples(80, 3000)
@given(changed_json(SLIDES))
def test_changed_slides_are_shown_or_refused(document: Any) -> None:
    attempt = Attempt(MemoryStore(), "tiler", "a" * 64)  # type: ignore[arg-type]
    attempt.add_bytes("slides.json", json.dumps(document).encode())
    made = attempt.commit({})
    survives(lambda: report._section(made, tiles_section))


def test_a_tampered_manifest_is_refused(run: TinyRun) -> None:
    found = open_run(run.file, None).artifacts["tiler"]
    place = f"artifacts/tiler/{found.manifest.key}/manifest.json"
    document = json.loads(run.store.get(place))
    for change, message in (
        (
            {"files": [*document["files"], {**document["files"][0], "name": "../x"}]},
            "not a valid key",
        ),
        ({"files": document["files"][1:]}, "content digest does not match"),
        ({"files": document["files"] + document["files"]}, "names a file twice"),
        ({"key": "f" * 64}, "belongs to another artifact"),
        ({"stage": "dataset"}, "belongs to another artifact"),
        ({"extra": 1}, "not a manifest"),
        ({"config": {"a": float("nan")}}, "NaN is not a number JSON knows"),
    ):
        run.store.put(place, json.dumps(document | change).encode())
        with pytest.raises(InputMissing, match=rf"manifest\.json is damaged \(.*{message}"):
            open_run(run.file, None)
    run.store.put(place, json.dumps(document).encode())
    files = found.manifest.files[0]
    run.store.put(f"artifacts/tiler/{found.manifest.key}/{files.attempt}/{files.name}", b"other")
    with pytest.raises(InputMissing, match="it was changed or damaged after it was committed"):
        render_report(open_run(run.file, None))
