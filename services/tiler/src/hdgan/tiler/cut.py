"""Cut one slide into tiles: read each neighbourhood once, resample each tile once, judge it.

Tiles of a block share one read of the slide, which makes overlapping strides cheap; each is then
resampled from its own rectangle alone, so its pixels do not depend on its neighbours, on the block
or on the memory that was available. Blocks are worked on by threads (reading, resampling and
encoding release the interpreter's lock) and come out in their order.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdgan.core.run import TilerConfig
from hdgan.tiler.colour import Convert, srgb_converter, unchanged
from hdgan.tiler.compartments import Compartments
from hdgan.tiler.encoding import Encoding
from hdgan.tiler.focus import focus
from hdgan.tiler.grid import Block, Grid, Rect, best_level, blocks, on_level, plan_grid
from hdgan.tiler.heap import return_large_blocks
from hdgan.tiler.opening import open_slide
from hdgan.tiler.overview import Overview, flatten, overview
from hdgan.tiler.pen import pen_fraction
from hdgan.tiler.places import MaskSums, narrowed
from hdgan.tiler.slide import Slide, SlideError
from hdgan.tiler.tissue import Colour, tissue_mask, whitespace_of
from hdgan.tiler.tissue_map import TissueMap, tissue_map
from hdgan.tiler.verdict import Limits, Measures, Reason, judge

# Pixels of a level that are read at once; one tile always is. Tiles come in block order, so this
# number is part of the output's meaning: change it together with the stage's version.
WINDOW_PIXELS = 4 * 2**20
# Bytes of the tiles of a block, before they are encoded; overlapping tiles are many. As above.
BLOCK_BYTES = 64 * 2**20

Check = Callable[[], None]
"""Called before each tile is read; may raise to stop."""


@dataclass(frozen=True)
class Tile:
    """One place of a slide's grid.

    id: unique within the run, safe as a file name; rect: the level-0 pixels it shows; level: it was
    read from; mpp: micrometres per tile pixel (mean of both axes); reason: why it is rejected, None
    for a tile; image: RGB, tile_size x tile_size, None where it was not read; data: the encoded
    file of an accepted tile.
    """

    id: str
    rect: Rect
    level: int
    mpp: float
    measures: Measures
    reason: Reason | None
    image: Image.Image | None = None
    data: bytes = b""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [tile_size, tile_size, 3], RGB."""
        if self.image is None:
            raise ValueError(f"{self.id} was not read: {self.reason}")
        return np.asarray(self.image, dtype=np.uint8)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, 64 hex digits."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Cutting:
    """All that the tiles of one slide depend on. Used by several threads."""

    slide: Slide
    grid: Grid
    level: int
    view: Overview
    tissue: TissueMap | None
    worth: MaskSums | None
    """Where to look: tissue, and ink, which may hide some. None: everywhere."""
    ink: MaskSums | None
    compartments: Compartments | None
    limits: Limits
    encoding: Encoding
    converter: Callable[[], Convert]
    prefix: str

    @property
    def downsample(self) -> tuple[float, float]:
        """Level-0 pixels per pixel of the level that is read, (x, y)."""
        return self.slide.downsamples[self.level]

    def white_at(self, rect: Rect) -> Colour:
        """The colour of bare glass at a place."""
        if self.tissue is None:
            return self.view.white
        width, height = self.slide.dimensions
        x, y = rect.x + rect.width / 2, rect.y + rect.height / 2
        return self.tissue.glass.colour(x / width, y / height)

    @property
    def mpp(self) -> float:
        """Micrometres per tile pixel, mean of both axes."""
        return (self.grid.mpp[0] + self.grid.mpp[1]) / 2


def cut_slide(
    path: Path | str,
    config: TilerConfig,
    *,
    name: str | None = None,
    assume_mpp: float | None = None,
    threads: int = 1,
) -> Iterator[Tile]:
    """The accepted tiles of one slide file, in the order in which they are stored.

    name: the slide's name in tile ids (default: the file name); assume_mpp: micrometres per
    level-0 pixel for a slide that does not say. Raises SlideError where the slide is unusable.
    """
    path = Path(path)
    with open_slide(path) as slide:
        cutting = plan_cutting(slide, config, name or path.name, assume_mpp=assume_mpp)
        for tile in examine(cutting, threads=threads):
            if tile.reason is None:
                yield tile


def plan_cutting(
    slide: Slide,
    config: TilerConfig,
    name: str,
    *,
    mpp: tuple[float, float] | None = None,
    assume_mpp: float | None = None,
    compartments: Compartments | None = None,
) -> Cutting:
    """Look at a slide and decide where its tiles lie and how they are judged.

    mpp: micrometres per level-0 pixel (x, y), instead of what the slide says. SlideError without a
    scale or with room for no tile.
    """
    grid = slide_grid(slide, config, mpp=mpp, assume_mpp=assume_mpp)
    converter = _converter(slide, config)
    view = overview(slide, grid.level0_mpp, converter())
    tissue = None
    if config.tissue == "map":
        um_per_pixel = (
            view.scale[0] * grid.level0_mpp[0],
            view.scale[1] * grid.level0_mpp[1],
        )
        tissue = tissue_map(view.image, view.white, um_per_pixel, view.covered)
    return Cutting(
        slide=slide,
        grid=grid,
        level=best_level(slide.downsamples, grid.scale),
        view=view,
        tissue=tissue,
        worth=None if tissue is None else MaskSums(tissue.mask | tissue.pen, view.scale),
        ink=None if tissue is None else MaskSums(tissue.pen, view.scale),
        compartments=compartments,
        limits=Limits(
            max_whitespace=config.max_whitespace,
            max_pen=config.max_pen,
            min_focus=config.min_focus,
            min_compartment=config.min_compartment,
        ),
        encoding=Encoding(config.format, config.jpeg_quality),
        converter=converter,
        prefix=tile_prefix(name),
    )


def slide_grid(
    slide: Slide,
    config: TilerConfig,
    *,
    mpp: tuple[float, float] | None = None,
    assume_mpp: float | None = None,
) -> Grid:
    """The tile positions of a slide; SlideError without a scale or with room for no tile."""
    mpp = mpp or slide.mpp
    if mpp is None and assume_mpp is not None:
        mpp = (assume_mpp, assume_mpp)
    if mpp is None:
        raise SlideError(
            "does not say its scale (micrometres per pixel): give it in a column mpp of "
            "slides.metadata, or set slides.assumeMpp if you know it for all such slides, for "
            "example from the scanner's settings"
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
    cutting: Cutting,
    *,
    threads: int = 1,
    window_pixels: int = WINDOW_PIXELS,
    check: Check = lambda: None,
) -> Iterator[Tile]:
    """Every place of the grid, accepted or not, block by block.

    window_pixels: the most pixels that are read at once (one tile is always allowed).
    """
    return_large_blocks()
    area = cutting.downsample[0] * cutting.downsample[1]
    tiles = max(1, BLOCK_BYTES // (3 * cutting.grid.tile_size**2))
    work = blocks(cutting.grid, window_pixels * area, tiles)
    if threads <= 1:
        for block in work:
            yield from cut_block(cutting, block, check)
        return
    coming: deque[Future[list[Tile]]] = deque()
    with ThreadPoolExecutor(threads, "tiles") as pool:
        try:
            for block in work:
                coming.append(pool.submit(cut_block, cutting, block, check))
                if len(coming) >= threads:
                    yield from coming.popleft().result()
            while coming:
                yield from coming.popleft().result()
        finally:
            for one in coming:
                one.cancel()


def cut_block(cutting: Cutting, block: Block, check: Check = lambda: None) -> list[Tile]:
    """The tiles of a block in their order; only what has to be looked at is read."""
    found = {rect: _judged(cutting, rect, _before_reading(cutting, rect)) for rect in block.tiles}
    wanted = [found[rect].reason is None for rect in block.tiles]
    for part in narrowed(block, wanted):
        convert = cutting.converter()
        hull = on_level(part.window, cutting.downsample).hull()
        window, covered = flatten(
            cutting.slide.read(cutting.level, hull.x, hull.y, hull.width, hull.height),
            cutting.slide.background,
        )
        window = convert(window)
        for rect in part.tiles:
            check()
            tile = _cut(cutting, found[rect], window, covered, (hull.x, hull.y))
            found[rect] = tile
    return [found[rect] for rect in block.tiles]


def _before_reading(cutting: Cutting, rect: Rect) -> Measures:
    touches = cutting.worth is None or cutting.worth.touches(rect)
    share = None
    if touches and cutting.compartments is not None:
        share = cutting.compartments.share(rect)
    return Measures(touches_tissue=touches, compartment=share)


def _judged(cutting: Cutting, rect: Rect, measures: Measures) -> Tile:
    return Tile(
        id=f"{cutting.prefix}-{rect.x}-{rect.y}",
        rect=rect,
        level=cutting.level,
        mpp=cutting.mpp,
        measures=measures,
        reason=judge(measures, cutting.limits),
    )


def _cut(
    cutting: Cutting,
    tile: Tile,
    window: Image.Image,
    covered: Image.Image | None,
    corner: tuple[int, int],
) -> Tile:
    """Resample one tile from a window of the level, judge and encode it."""
    size, down = cutting.grid.tile_size, cutting.downsample
    image = resample(window, corner, tile.rect, down, size)
    coverage = None if covered is None else resample(covered, corner, tile.rect, down, size)
    white = cutting.white_at(tile.rect)
    mask = tissue_mask(image, white)
    if coverage is not None:
        mask &= np.asarray(coverage) >= 128
    measures = replace(tile.measures, whitespace=whitespace_of(mask))
    reason = judge(measures, cutting.limits)
    if reason is None:
        pen = None
        if cutting.limits.max_pen is not None:
            pen = pen_fraction(image, white, cutting.mpp)
            if cutting.ink is not None:  # only the map knows the slide's own stain
                pen = max(pen, cutting.ink.share(tile.rect))
        measures = replace(measures, pen=pen, focus=focus(image, mask, white, cutting.mpp))
        reason = judge(measures, cutting.limits)
    data = b"" if reason is not None else cutting.encoding.encode(image)
    return replace(tile, measures=measures, reason=reason, image=image, data=data)


def _converter(slide: Slide, config: TilerConfig) -> Callable[[], Convert]:
    profile = slide.icc_profile if config.colour == "srgb" else None
    if profile is None:
        return lambda: unchanged
    srgb_converter(profile)  # a profile that is no good is found before anything is cut
    return lambda: srgb_converter(profile)


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
    part = (left, top, left + hull.width, top + hull.height)
    own = window if part == (0, 0, *window.size) else window.crop(part)  # large tiles: no copy
    size = (tile_size, tile_size)
    inner = box.shifted(hull.x, hull.y)
    whole = (0.0, 0.0, float(tile_size), float(tile_size))
    if own.size == size and inner == whole:
        return own
    return own.resize(size, Image.Resampling.LANCZOS, box=inner)


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
