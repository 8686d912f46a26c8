"""The contact sheet of an export in a real browser: on screens, in the dark, on paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.core.run import ClassConfig
from hdgan.desk.contact_sheet import Thumbnail, contact_sheet, thumbnail, thumbnail_side
from hdgan.desk.splits import Split
from support.browser import Browser
from support.desk_run import noise_rgb

CLASSES = [
    ClassConfig(name="glass", color="#f0f0f0"),
    ClassConfig(name="stroma + fat", color="#f08cac"),
]
COUNTS: dict[Split, int] = {"train": 16, "val": 4, "test": 16}


def sheet(path: Path, height: int = 400) -> Path:
    """The sheet of the paper's 36 pictures, some large, some smaller than they are shown."""
    thumbnails: list[Thumbnail] = []
    for split, count in COUNTS.items():
        for number in range(count):
            identity = f"{len(thumbnails) + 1:032x}"
            rgb = noise_rgb(len(thumbnails), 32 if number == 0 else 400)[:height]
            thumbnails.append(thumbnail(identity, split, rgb, thumbnail_side(36)))
    path.write_bytes(contact_sheet("a-run", thumbnails, CLASSES, 0.5))
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sheet(tmp_path_factory.mktemp("sheet") / "contact-sheet.html")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 480])
def test_on_screen_every_picture_loads_and_nothing_is_wrong(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.look(page, width=width, dark=dark)
    assert browser.complaints() == []
    assert browser.pictures() == 36
    assert browser.broken_pictures() == []
    assert browser.over_the_edge() == []
    assert browser.contrasts()[0][0] >= 4.5
    text = browser.text()
    assert "a-run: 36 candidates to label" in text
    assert "1 stroma + fat" in text
    assert "Validation (4)" in text


def test_small_pictures_are_shown_pixel_by_pixel(browser: Browser, page: Path) -> None:
    browser.look(page)
    shown = browser.ask(
        "return Array.from(document.images)"
        ".map(one => [one.naturalWidth, getComputedStyle(one).imageRendering])"
    )
    assert sorted(map(tuple, shown)) == [(32, "pixelated")] * 3 + [(320, "auto")] * 33


def test_on_paper_it_is_black_on_white_a4(browser: Browser, page: Path) -> None:
    browser.look(page, dark=True, paper=True)
    ink = browser.ask(
        "const style = getComputedStyle(document.body);return [style.color, style.backgroundColor]"
    )
    assert ink == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    pages = browser.pdf().pages
    assert len(pages) == 3
    assert [round(float(side)) for side in pages[0].mediabox[2:]] == [595, 842]  # in points


@pytest.mark.parametrize("height", [400, 370, 340, 310, 280, 250])
def test_pages_break_between_rows(browser: Browser, tmp_path: Path, height: int) -> None:
    browser.look(sheet(tmp_path / "sheet.html", height), paper=True)
    pages = browser.pdf().pages
    pictures = [len(one.images) for one in pages]
    # No picture is cut in two, and none is apart from its split and id.
    assert sum(pictures) == 36
    for page, count in zip(pages, pictures, strict=True):
        text = page.extract_text()
        assert sum(text.count(f"{split} ") for split in COUNTS) == count
        assert sum(line.startswith("0" * 16) for line in text.splitlines()) == count
        assert count % 4 == 0
