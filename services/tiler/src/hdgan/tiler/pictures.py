"""What a person sees of the tiling: a slide with its tiles marked, and sheets of sample tiles."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hdgan.tiler.grid import Rect
from hdgan.tiler.tissue_map import TissueMap

CELL = 96
COLUMNS = 8
SHEET_ROWS = 4
CONTACT_ROWS = 24
CAPTION = 14
INK = (40, 40, 40)
LINE = (0, 110, 60)
TISSUE = (200, 0, 160)
PEN = (255, 130, 0)


class Sampler:
    """Keeps a few of many tiles, evenly spread over the order they come in, in little memory."""

    def __init__(self, wanted: int = COLUMNS * SHEET_ROWS) -> None:
        self._wanted = wanted
        self._kept: list[Image.Image] = []
        self._interval = 1
        self._seen = 0

    def add(self, image: Image.Image, caption: str = "") -> None:
        """Offer a tile; only a small copy of it is kept, if any, with the caption on it."""
        if self._seen % self._interval == 0:
            if len(self._kept) == 2 * self._wanted:
                self._kept = self._kept[::2]
                self._interval *= 2
            if self._seen % self._interval == 0:
                self._kept.append(_cell(image, caption))
        self._seen += 1

    def chosen(self) -> list[Image.Image]:
        """At most `wanted` of the tiles offered, in order."""
        count = min(self._wanted, len(self._kept))
        return [self._kept[index * len(self._kept) // count] for index in range(count)]


def sample_sheet(images: Sequence[Image.Image]) -> Image.Image:
    """Sample tiles in rows of COLUMNS cells; at least one (blank) row."""
    rows = max(1, -(-len(images) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % COLUMNS * CELL, index // COLUMNS * CELL))
    return sheet


def contact_sheet(title: str, sheets: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Sample sheets of slides under each other, each with its name; at most CONTACT_ROWS rows.

    With more slides than rows every n-th is shown, with few slides several rows of each.
    """
    shown = min(len(sheets), CONTACT_ROWS)
    picked = [sheets[index * len(sheets) // shown] for index in range(shown)]
    rows_each = max(1, CONTACT_ROWS // max(1, shown))
    crops = [
        (name, sheet.crop((0, 0, sheet.width, min(sheet.height, rows_each * CELL))))
        for name, sheet in picked
    ]
    height = CAPTION + sum(CAPTION + crop.height for _, crop in crops)
    contact = Image.new("RGB", (COLUMNS * CELL, height), "white")
    draw = ImageDraw.Draw(contact)
    draw.text((2, 1), _plain(title), fill=INK)
    top = CAPTION
    for name, crop in crops:
        draw.text((2, top + 1), _plain(name), fill=INK)
        contact.paste(crop, (0, top + CAPTION))
        top += CAPTION + crop.height
    return contact


def marked_thumbnail(
    overview: Image.Image,
    scale: tuple[float, float],
    tiles: Sequence[Rect],
    tissue: TissueMap | None = None,
) -> Image.Image:
    """The slide with what no accepted tile covers dimmed, and tiles outlined unless they overlap.

    scale: level-0 pixels per pixel of the overview, (x, y); tissue: what was taken for tissue is
    outlined in magenta, for pen in orange.
    """
    covered = np.zeros((overview.height, overview.width), dtype=bool)
    edges: list[tuple[float, float, float, float]] = []
    for tile in tiles:
        left, top = tile.x / scale[0], tile.y / scale[1]
        right, bottom = (tile.x + tile.width) / scale[0], (tile.y + tile.height) / scale[1]
        covered[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
        edges.append((left, top, max(left, right - 1), max(top, bottom - 1)))
    grey = Image.blend(overview, Image.new("RGB", overview.size, (128, 128, 128)), 0.55)
    marked = Image.composite(overview, grey, Image.fromarray(covered.astype(np.uint8) * 255))
    if tiles and sum(tile.width * tile.height for tile in tiles) <= 1.2 * _area(covered, scale):
        draw = ImageDraw.Draw(marked)
        for edge in edges:
            draw.rectangle(edge, outline=LINE)
    if tissue is not None:
        for mask, colour in ((tissue.mask, TISSUE), (tissue.pen, PEN)):
            marked.paste(colour, mask=Image.fromarray(_outline(mask).astype(np.uint8) * 255))
    return marked


def png_bytes(image: Image.Image) -> bytes:
    """The picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at most `side` pixels."""
    shrink = max(image.size) / side
    if shrink <= 1:
        return image
    size = (max(1, round(image.width / shrink)), max(1, round(image.height / shrink)))
    return image.resize(size, Image.Resampling.BOX)


def _cell(image: Image.Image, caption: str) -> Image.Image:
    side = CELL - 2
    cell = Image.new("RGB", (CELL, CELL), "white")
    cell.paste(image.resize((side, side), Image.Resampling.LANCZOS), (1, 1))
    if caption:
        draw = ImageDraw.Draw(cell)
        left, top, right, bottom = draw.textbbox((3, 2), caption)
        draw.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill="white")
        draw.text((3, 2), caption, fill=INK)
    return cell


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask with a neighbour outside it."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[1:-1, :-2] & padded[1:-1, 2:] & padded[:-2, 1:-1] & padded[2:, 1:-1]
    outline: NDArray[np.bool_] = mask & ~inner
    return outline


def _plain(text: str) -> str:
    """Text that every built-in font can draw."""
    return text.encode("ascii", "replace").decode()[:110]


def _area(
    covered: np.ndarray[tuple[int, int], np.dtype[np.bool_]], scale: tuple[float, float]
) -> float:
    return float(covered.sum()) * scale[0] * scale[1]
