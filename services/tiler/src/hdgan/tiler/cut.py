"""Cut one slide into tiles: read each neighbourhood once, resample each tile once.

Tiles of a block share one read of the slide, which makes overlapping strides cheap; each is then
resampled from its own rectangle alone, so its pixels do not depend on its neighbours, on the block
or on the memory that was available.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdgan.core.run import TilerConfig
from hdgan.tiler.grid import Grid, Rect, best_level, blocks, on_level, plan_grid
from hdgan.tiler.slide import Slide, SlideError, open_slide
from hdgan.tiler.tissue import Colour, estimate_white, whitespace

# Pixels held from one read (4 bytes each while decoding). Tiles come in block order, so this
# number is part of the output's meaning: change it together with the stage's version.
WINDOW_PIXELS = 16 * 2**20
THUMBNAIL_SIDE = 1024


@dataclass(frozen=True)
class Tile:
    """One tile of a slide.

    id: unique within the run, safe as a file name; rect: the level-0 pixels it shows; mpp:
    micrometres per tile pixel (mean of both axes); whitespace: fraction without tissue, 0..1;
    image: RGB, tile_size x tile_size.
    """

    id: str
    rect: Rect
    mpp: float
    whitespace: float
    image: Image.Image

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [tile_size, tile_size, 3], RGB."""
        return np.asarray(self.image, dtype=np.uint8)

    @cached_property
    def png(self) -> bytes:
        """The tile as PNG bytes: lossless, the same bytes for the same pixels."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG", compress_level=6)
        return buffer.getvalue()

    @property
    def digest(self) -> str:
        """SHA-256 of the PNG bytes, 64 hex digits."""
        return hashlib.sha256(self.png).hexdigest()


@dataclass(frozen=True)
class Overview:
    """A slide seen whole: a small RGB picture, level-0 pixels per its pixel, and its white."""

    image: Image.Image
    scale: tuple[float, float]
    white: Colour


def cut_slide(
    path: Path | str,
    config: TilerConfig,
    *,
    name: str | None = None,
    assume_mpp: float | None = None,
) -> Iterator[Tile]:
    """The accepted tiles of one slide file, in the order in which they are stored.

    name: the slide's name in tile ids (default: the file name); assume_mpp: micrometres per
    level-0 pixel for a slide that does not say. Raises SlideError where the slide is unusable.
    """
    path = Path(path)
    with open_slide(path) as slide:
        grid = slide_grid(slide, config, assume_mpp=assume_mpp)
        view = overview(slide)
        for tile in examine(slide, grid, view.white, tile_prefix(name or path.name)):
            if tile.whitespace <= config.max_whitespace:
                yield tile


def slide_grid(slide: Slide, config: TilerConfig, *, assume_mpp: float | None = None) -> Grid:
    """The tile positions of a slide; SlideError without a scale or with room for no tile."""
    mpp = slide.mpp
    if mpp is None and assume_mpp is not None:
        mpp = (assume_mpp, assume_mpp)
    if mpp is None:
        raise SlideError(
            "does not say its scale (micrometres per pixel); "
            "set slides.assumeMpp if you know it, for example from the scanner's settings"
        )
    grid = plan_grid(
        slide.dimensions, mpp, tile_size=config.tile_size, mpp=config.mpp, stride=config.stride
    )
    if not len(grid):
        width, height = slide.dimensions
        raise SlideError(
            f"is {width} x {height} px at {mpp[0]:g} um/px, smaller than one tile "
            f"({grid.source[0]} x {grid.source[1]} px of it); "
            "set a smaller tiler.tileSize or tiler.mpp"
        )
    return grid


def examine(
    slide: Slide,
    grid: Grid,
    white: Colour,
    prefix: str,
    *,
    window_pixels: int = WINDOW_PIXELS,
) -> Iterator[Tile]:
    """Every tile of the grid, good or not, block by block.

    window_pixels: the most pixels that are read at once (one tile is always allowed).
    """
    level = best_level(slide.downsamples, grid.scale)
    downsample = slide.downsamples[level]
    mpp = (grid.mpp[0] + grid.mpp[1]) / 2
    for block in blocks(grid, window_pixels * downsample[0] * downsample[1]):
        hull = on_level(block.window, downsample).hull()
        window, covered = flatten(
            slide.read(level, hull.x, hull.y, hull.width, hull.height), slide.background
        )
        for rect in block.tiles:
            image = resample(window, (hull.x, hull.y), rect, downsample, grid.tile_size)
            coverage = (
                None
                if covered is None
                else resample(covered, (hull.x, hull.y), rect, downsample, grid.tile_size)
            )
            yield Tile(
                id=f"{prefix}-{rect.x}-{rect.y}",
                rect=rect,
                mpp=mpp,
                whitespace=whitespace(image, white, coverage),
                image=image,
            )


def resample(
    window: Image.Image,
    corner: tuple[int, int],
    rect: Rect,
    downsample: tuple[float, float],
    tile_size: int,
) -> Image.Image:
    """One tile from a window of a level: Lanczos, widened by the reduction so nothing aliases.

    corner: the level pixel at the window's top left; rect: the tile in level-0 pixels. Only pixels
    the rectangle touches take part.
    """
    box = on_level(rect, downsample)
    hull = box.hull()
    left, top = hull.x - corner[0], hull.y - corner[1]
    own = window.crop((left, top, left + hull.width, top + hull.height))
    size = (tile_size, tile_size)
    inner = box.shifted(hull.x, hull.y)
    whole = (0.0, 0.0, float(tile_size), float(tile_size))
    if own.size == size and inner == whole:
        return own
    return own.resize(size, Image.Resampling.LANCZOS, box=inner)


def flatten(image: Image.Image, background: Colour) -> tuple[Image.Image, Image.Image | None]:
    """RGB over the background colour, and how much of each pixel was scanned (None: all of it)."""
    alpha = image.getchannel("A")
    if int(np.asarray(alpha).min()) == 255:
        return image.convert("RGB"), None
    flat = Image.new("RGB", image.size, background)
    flat.paste(image, mask=alpha)
    return flat, alpha


def overview(slide: Slide, side: int = THUMBNAIL_SIDE) -> Overview:
    """A picture of the whole slide, longer side about `side` pixels, with the white it shows."""
    width, height = slide.dimensions
    shrink = max(width, height) / side
    level = best_level(slide.downsamples, (shrink, shrink))
    size = (max(1, round(width / max(shrink, 1))), max(1, round(height / max(shrink, 1))))
    small = _shrunk(slide, level, size)
    flat, alpha = flatten(small, slide.background)
    covered = None if alpha is None else np.asarray(alpha) >= 128
    return Overview(
        image=flat,
        scale=(width / size[0], height / size[1]),
        white=estimate_white(np.asarray(flat), covered),
    )


def _shrunk(slide: Slide, level: int, size: tuple[int, int]) -> Image.Image:
    """The level scaled to `size`, read in bands so that memory does not grow with the slide."""
    width, height = slide.level_dimensions[level]
    result = Image.new("RGBA", size)
    rows_per_band = max(1, min(size[1], WINDOW_PIXELS * size[1] // max(1, width * height)))
    for top in range(0, size[1], rows_per_band):
        bottom = min(size[1], top + rows_per_band)
        first, last = top * height // size[1], max(1, -(-bottom * height // size[1]))
        band = slide.read(level, 0, first, width, last - first)
        box = (0, top * height / size[1] - first, width, bottom * height / size[1] - first)
        part = band.resize((size[0], bottom - top), Image.Resampling.BOX, box=box)
        result.paste(part, (0, top))
    return result


def tile_prefix(slide_name: str) -> str:
    """The part of a tile id that stands for its slide: readable, safe in any file system.

    slide_name: its path relative to the slides' folder. Where that cannot be written with letters,
    digits, `_` and `-` alone, a digest keeps different names different.
    """
    stem = str(PurePosixPath(slide_name).with_suffix(""))
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:48] or "slide"
    if slug == stem:
        return slug
    return f"{slug}-{hashlib.sha256(slide_name.encode()).hexdigest()[:8]}"
