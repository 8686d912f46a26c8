"""The report: whole at every stage of a run, self-contained, escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hdgan.core.masks import encode_mask
from hdgan.desk.intake import import_annotations
from hdgan.desk.report import render_report
from hdgan.desk.report_facts import training_panels
from hdgan.desk.run_artifacts import open_run
from support.desk_run import CLASSES, TinyRun, striped_mask


class Page(HTMLParser):
    """Collects what the page refers to and whether its tags are balanced."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []
        self.scripts = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("src", "href")]
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(html: str) -> Page:
    page = Page(html)
    assert page.open == []
    assert page.scripts == 0
    assert all(ref.startswith(("data:", "#")) for ref in page.references)
    return page


@pytest.fixture
def run(tmp_path: Path) -> TinyRun:
    return TinyRun.create(tmp_path)


def test_a_run_that_has_not_begun_has_a_report(run: TinyRun) -> None:
    html = render_report(open_run(run.file, None))
    check_page(html)
    assert html.count("Not there yet") == 5


def test_a_run_that_waits_for_annotations_says_so(run: TinyRun) -> None:
    run.add_tiles()
    run.add_generator()
    run.add_candidates()
    html = render_report(open_run(run.file, None))
    check_page(html)
    assert "Waiting for annotations" in html
    assert "7 tiles accepted; places of the grid that gave none: 5 whitespace" in html
    assert "is truncated" in html
    assert "<td>&lt;PAS&gt; 4</td><td>unknown</td>" in html
    assert "case-&lt;1&gt;" in html
    assert "case-<1>" not in html


def test_a_finished_run_shows_everything(run: TinyRun) -> None:
    run.add_tiles()
    run.add_generator()
    run.add_candidates()
    view = open_run(run.file, None)
    config = view.run.spec.annotations
    candidates = view.candidates()
    assigned = candidates.assign(config)
    masks = run.folder / "masks"
    masks.mkdir()
    for identity in assigned:
        (masks / f"{identity}.png").write_bytes(encode_mask(striped_mask(), CLASSES))
    import_annotations(run.store, candidates, config, [masks], run_info={"author": "Dr. <A>"})
    run.add_classifier([i for i, split in assigned.items() if split == "test"])
    run.add_dataset()

    html = render_report(open_run(run.file, None))
    page = check_page(html)
    assert "Not there yet" not in html
    assert "The dataset is there: 3 image + mask pairs." in html
    for text in ("0.951", "0.931 to 0.971", "RGB alone", "0.0123", "1 min 05 s", "Dr. &lt;A&gt;"):
        assert text in html
    # contact, reals, fakes, two grids, curves, sheet, labels, figure 2, reliability, samples,
    # balance, uncertainty
    assert sum(ref.startswith("data:image/") for ref in page.references) == 13
    rows = re.findall(r"<tr class=\"total\">.*?</tr>", html, flags=re.DOTALL)
    assert len(rows) == 1
    assert render_report(open_run(run.file, None)) == html

    # That it is there does not say that it is released.
    gates = "  gates: {minMacroDice: 0.99, minPairs: 2}\n"
    run.file.write_text(run.file.read_text(encoding="utf-8") + gates, encoding="utf-8")
    html = render_report(open_run(run.file, None))
    assert "A gate said no: macro Dice 0.9512 on the test images is below" in html
    assert "Its 3 pairs are not released." in html
    assert "The dataset is there" not in html


def test_what_the_generator_was_measured_by_is_shown_with_its_floor_and_counts(
    run: TinyRun,
) -> None:
    run.add_tiles()
    generator = run.add_generator()
    lines = training_panels(generator)["KID against held-out tiles"]
    assert lines == {
        "generator": [(0.5, 0.5), (1.0, 0.25)],
        "half of the training tiles": [(0.5, 0.125), (1.0, 0.125)],
    }
    html = render_report(open_run(run.file, None))
    check_page(html)
    for text in (
        "0.250 ± 0.013",
        "80 samples, 90 held-out tiles; half of the training tiles: 0.125",
        "0.875",
        "2.5 %",
        "is no guarantee",
        "Features of some network",
    ):
        assert text in html
    assert "FID</td>" not in html
