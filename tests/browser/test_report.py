"""The report in a real browser: in light and dark, on a laptop, a phone and paper."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdgan.desk.report import render_report
from hdgan.desk.run_artifacts import open_run
from support.browser import Browser
from support.desk_run import TinyRun

LAPTOP, PHONE = 1280, 400
A4_PX = 720  # CSS pixels between the margins of A4, rounded up
CONTRAST = 4.5
"""WCAG 2, level AA, for text of any size."""


def begin(run: TinyRun) -> None:
    """Nothing is there."""


def wait(run: TinyRun) -> None:
    """Up to the candidates, which are to be labelled."""
    run.add_tiles()
    run.add_generator()
    run.add_candidates()


def fail(run: TinyRun) -> None:
    """Everything, but a gate says no."""
    run.finish()
    run.change("  extractor:", "  gates: {minMacroDice: 0.99, minPairs: 2}\n  extractor:")


def release(run: TinyRun) -> None:
    """Everything twice: the second run is compared with the first one's release."""
    run.finish(dice=0.9)
    run.release()
    run.change("  extractor:", "  classifier: {seed: 7}\n  extractor:")
    run.finish()
    run.release()


STATES: dict[str, tuple[Callable[[TinyRun], None], str]] = {
    "empty": (begin, "next stage is tiler|Nothing of this run exists yet"),
    "awaiting": (wait, "Waiting for annotations"),
    "gate-failed": (fail, "A gate said no"),
    "full": (release, "which is the latest release of tiny"),
}


@pytest.fixture(scope="module", params=STATES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run in one of these states."""
    make, says = STATES[request.param]
    folder = tmp_path_factory.mktemp("run")
    run = TinyRun.create(folder)
    make(run)
    html = render_report(open_run(run.file, None))
    assert re.search(says, html)
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [LAPTOP, PHONE])
def test_all_loads_and_nothing_has_to_be_scrolled_sideways(
    page: Path, browser: Browser, width: int
) -> None:
    browser.look(page, width=width)
    assert browser.complaints() == []
    assert browser.broken_pictures() == []
    assert browser.sideways() == 0
    assert browser.over_the_edge() == []


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(page: Path, browser: Browser, dark: bool) -> None:
    browser.look(page, dark=dark)
    contrasts = browser.contrasts()
    assert len(contrasts) > 20
    assert [one for one in contrasts if one[0] < CONTRAST] == []
    paper = darkest(browser)
    assert paper < 60 if dark else paper > 240


def darkest(browser: Browser) -> float:
    """Grey of the page's upper corner, 0 to 255."""
    with Image.open(io.BytesIO(browser.screenshot())) as picture:
        return float(np.asarray(picture.convert("L"))[:10, :10].mean())


def test_nothing_is_cut_on_paper(page: Path, browser: Browser) -> None:
    browser.look(page, width=A4_PX, paper=True)
    assert browser.over_the_edge() == []
    assert browser.sideways() == 0
    # The font decides how words are told apart in a PDF, so spaces do not count.
    browser.look(page)
    browser.ask("document.querySelector('nav').remove()")  # the only thing that paper leaves out
    shown = unicodedata.normalize("NFKC", browser.text())
    pdf = browser.pdf()
    assert 1 <= len(pdf.pages) <= 14
    text = "".join(sheet.extract_text() for sheet in pdf.pages)
    printed = "".join(unicodedata.normalize("NFKC", text).split())  # ligatures are letters
    lost = [line for line in shown.splitlines() if "".join(line.split()) not in printed]
    # A line that goes on in the next page or column is in the PDF in pieces.
    lost_words = [w for line in lost for w in line.split() if w not in printed and len(w) < 20]
    assert lost_words == []
    for sheet in pdf.pages:
        assert float(sheet.mediabox.width) == pytest.approx(595, abs=2)


def test_charts_follow_light_and_dark(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They are pictures, with a style of their own."""
    folder = tmp_path_factory.mktemp("charts")
    run = TinyRun.create(folder)
    run.add_tiles()
    run.add_generator()
    path = folder / "report.html"
    path.write_text(render_report(open_run(run.file, None)), encoding="utf-8")
    lines = {False: (0x1F, 0x66, 0xC1), True: (0x6A, 0xAE, 0xF5)}
    for dark in (False, True):
        browser.look(path, dark=dark)
        browser.ask("document.querySelector('.curves').scrollIntoView()")
        with Image.open(io.BytesIO(browser.screenshot())) as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
        found = {
            theme: int((np.abs(pixels - line).max(axis=1) < 6).sum())
            for theme, line in lines.items()
        }
        assert found[dark] > 100
        assert found[not dark] < 20


def test_the_page_forbids_scripts_and_the_network(page: Path, browser: Browser) -> None:
    """What an attacker got into the page after all would not run."""
    evil = page.with_name("evil.html")
    html = page.read_text(encoding="utf-8")
    put = "<script>document.title='run'</script><img src='http://127.0.0.1:9/x.png' alt='x'>"
    evil.write_text(html.replace("</main>", f"{put}</main>"), encoding="utf-8")
    browser.look(evil)
    complaints = browser.complaints()
    assert browser.ask("return document.title") != "run"
    assert sum("Content Security Policy" in one for one in complaints) >= 2
