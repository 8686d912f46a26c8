"""Slides: damaged TIFF, OME-TIFF, PNG and JPEG files, and OME descriptions of other values."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hdgan.tiler.ome_xml import parse_ome
from hdgan.tiler.opening import open_slide
from hdgan.tiler.slide import SlideError
from support.fuzzing import damaged, examples, survives

FOLDER = Path(tempfile.mkdtemp(prefix="hdgan-fuzz-"))
RGB = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def _tiff(**options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=bool(options.pop("ome", False))) as writer:
        writer.write(RGB, photometric="rgb", tile=(16, 16), **options)
    return buffer.getvalue()


def _picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind, dpi=(25_400, 25_400))
    return buffer.getvalue()


VALID = {
    ".tif": [_tiff(), _tiff(compression="deflate"), _tiff(ome=True), _tiff(compression="jpeg")],
    ".png": [_picture("PNG")],
    ".jpg": [_picture("JPEG")],
}
FILES = [(suffix, data) for suffix, several in VALID.items() for data in several]


@examples(150, 10_000)
@given(st.sampled_from(FILES).flatmap(lambda one: st.tuples(st.just(one[0]), damaged(one[1]))))
def test_a_damaged_slide_is_read_or_refused(made: tuple[str, bytes]) -> None:
    suffix, data = made
    place = FOLDER / f"slide{suffix}"
    place.write_bytes(data)

    def look() -> None:
        with open_slide(place) as slide:
            assert slide.mpp is None or all(one > 0 for one in slide.mpp)
            width, height = slide.dimensions
            assert width * height <= 1 << 40
            slide.read(0, 0, 0, min(width, 64), min(height, 64)).load()

    survives(look, SlideError)


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Instrument ID="I:0"><Objective ID="O:0" NominalMagnification="40"/></Instrument>
<Image ID="Image:0"><ObjectiveSettings ID="O:0"/>
<Pixels SizeX="64" SizeY="64" SizeC="3" SizeZ="1" SizeT="1" Type="uint8" PhysicalSizeX="0.25"
 PhysicalSizeY="0.25" PhysicalSizeXUnit="\u00b5m"><Channel SamplesPerPixel="3"/>
<TiffData IFD="0"><UUID FileName="a.tif">x</UUID></TiffData></Pixels></Image></OME>"""
PIECES = [
    "&lol;",
    "<!DOCTYPE x>",
    "<![CDATA[",
    "<!--",
    '"' + "9" * 5000 + '"',
    '"-1"',
    '"nan"',
    '"1e999"',
    "\U0001f600",
    "<Image/>",
    "<a>" * 500,
    "\x00",
]


@st.composite
def descriptions(draw: st.DrawFn) -> str:
    text = OME
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text) - 1))
        kind = draw(st.sampled_from(["insert", "leave", "attribute"]))
        if kind == "insert":
            text = text[:place] + draw(st.sampled_from(PIECES)) + text[place:]
        elif kind == "leave":
            text = text[:place] + text[place + draw(st.integers(1, 20)) :]
        else:
            old = draw(st.sampled_from(['"64"', '"3"', '"1"', '"0"', '"0.25"', '"40"']))
            text = text.replace(old, draw(st.sampled_from([p for p in PIECES if p[0] == '"'])))
    return text or "<OME>"


@examples(200, 20_000)
@given(st.one_of(descriptions(), st.text(max_size=60)))
def test_a_changed_description_is_read_or_refused(text: str) -> None:
    found = survives(lambda: parse_ome(text), SlideError)
    if isinstance(found, list):
        for image in found:
            assert 0 <= image.width < 10**9
            assert image.ifd >= 0
