"""The contact sheet: every exported picture with its split and id on A4 pages, in one HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
import numpy as np
from PIL import Image

from hdgan.core.run import ClassConfig
from hdgan.desk.pictures import Rgb
from hdgan.desk.splits import SPLITS, Split

# About 30 kB for a picture at the first size, 8 kB at the second: 36 are a megabyte, and some
# thousand still a page that opens.
_MANY = 500
_SIDE, _SIDE_OF_MANY = 320, 140
_QUALITY = 85
_HEADINGS: dict[Split, str] = {
    "train": "Training",
    "val": "Validation",
    "test": "Test",
}


@dataclass(frozen=True)
class Thumbnail:
    """A picture of the sheet."""

    identity: str
    split: Split
    width: int
    height: int
    """Size in px of the picture itself."""
    uri: str
    pixelated: bool
    """Smaller than it is shown: its pixels are to be seen."""


def thumbnail_side(count: int) -> int:
    """The longer side in px of the thumbnails of a sheet of `count` pictures."""
    return _SIDE if count <= _MANY else _SIDE_OF_MANY


def thumbnail(identity: str, split: Split, rgb: Rgb, side: int) -> Thumbnail:
    """A picture at most `side` px large, as data: URI; a small one pixel by pixel."""
    height, width = rgb.shape[:2]
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    small = max(width, height) <= side // 2
    buffer = io.BytesIO()
    if small:
        picture.save(buffer, "PNG")
    else:
        picture.thumbnail((side, side), Image.Resampling.BOX)
        picture.save(buffer, "JPEG", quality=_QUALITY)
    kind = "png" if small else "jpeg"
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Thumbnail(identity, split, width, height, uri, small)


def contact_sheet(
    run_name: str,
    thumbnails: Sequence[Thumbnail],
    classes: Sequence[ClassConfig],
    mpp: float,
) -> bytes:
    """The page: self-contained HTML.

    mpp  size of a pixel in micrometres
    """
    groups = [
        (_HEADINGS[split], split, [one for one in thumbnails if one.split == split])
        for split in SPLITS
    ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("hdgan.desk").joinpath("templates/contact-sheet.html.j2")
    text = environment.from_string(source.read_text("utf-8")).render(
        name=run_name,
        count=len(thumbnails),
        size=thumbnails[0],
        mpp=mpp,
        side_um=f"{thumbnails[0].width * mpp:.4g}",
        groups=[group for group in groups if group[2]],
        classes=classes,
    )
    return text.encode()
