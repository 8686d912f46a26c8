"""Where the tiles of a slide lie: exact, pure geometry in level-0 pixels.

A tile is a rectangle of whole level-0 pixels, `source` wide and high, that is resampled to
`tile_size` x `tile_size`. Corners lie on a lattice of whole level-0 pixels too, so every tile is
the resample of exactly the rectangle its index row names, whichever tiles surround it; at a scale
that is no whole number the lattice gives way by less than half a level-0 pixel per step, never the
picture. The last column and row are moved back to end at the slide's edge: no tissue at the rim
is lost and no pixel is invented.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Rect:
    """A rectangle of whole level-0 pixels: corner (x, y), width and height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Box:
    """A rectangle in a level's own pixels; edges may fall within a pixel."""

    left: float
    top: float
    right: float
    bottom: float

    def hull(self) -> Rect:
        """The smallest rectangle of whole pixels that covers the box."""
        left, top = math.floor(self.left), math.floor(self.top)
        return Rect(left, top, math.ceil(self.right) - left, math.ceil(self.bottom) - top)

    def shifted(self, x: int, y: int) -> tuple[float, float, float, float]:
        """The box as (left, top, right, bottom) seen from the corner (x, y)."""
        return (self.left - x, self.top - y, self.right - x, self.bottom - y)


@dataclass(frozen=True)
class Grid:
    """All tile positions of one slide.

    columns, rows: level-0 x and y of the tiles' corners, ascending; source: level-0 pixels a tile
    covers (width, height); tile_size: pixels of the finished tile; mpp: the micrometres per tile
    pixel really reached, (x, y), off the asked mpp by the rounding of `source` alone.
    """

    columns: tuple[int, ...]
    rows: tuple[int, ...]
    source: tuple[int, int]
    tile_size: int
    mpp: tuple[float, float]

    def __len__(self) -> int:
        return len(self.columns) * len(self.rows)

    @property
    def scale(self) -> tuple[float, float]:
        """Level-0 pixels per tile pixel, (x, y)."""
        return self.source[0] / self.tile_size, self.source[1] / self.tile_size

    @property
    def level0_mpp(self) -> tuple[float, float]:
        """Micrometres per level-0 pixel, (x, y)."""
        return self.mpp[0] / self.scale[0], self.mpp[1] / self.scale[1]


@dataclass(frozen=True)
class Block:
    """Neighbouring tiles that are cut from one read: the read's rectangle and its tiles."""

    window: Rect
    tiles: tuple[Rect, ...]


def source_pixels(pixels: int, mpp: float, slide_mpp: float) -> int:
    """Level-0 pixels that `pixels` at `mpp` cover on a slide of `slide_mpp`, rounded half up.

    Computed on the decimal numbers as written, so 0.1 means one tenth. At least 1.
    """
    exact = Fraction(pixels) * Fraction(repr(float(mpp))) / Fraction(repr(float(slide_mpp)))
    return max(1, math.floor(exact + Fraction(1, 2)))


def plan_grid(
    dimensions: tuple[int, int],
    slide_mpp: tuple[float, float],
    *,
    tile_size: int,
    mpp: float,
    stride: int | None = None,
) -> Grid:
    """Lay tiles of `tile_size` pixels at `mpp`, `stride` pixels apart (None: side by side).

    dimensions: level-0 width and height; slide_mpp: micrometres per level-0 pixel, (x, y).
    A slide smaller than one tile has an empty grid.
    """
    step = tile_size if stride is None else stride
    source = (
        source_pixels(tile_size, mpp, slide_mpp[0]),
        source_pixels(tile_size, mpp, slide_mpp[1]),
    )
    steps = (source_pixels(step, mpp, slide_mpp[0]), source_pixels(step, mpp, slide_mpp[1]))
    return Grid(
        columns=_corners(dimensions[0], source[0], steps[0]),
        rows=_corners(dimensions[1], source[1], steps[1]),
        source=source,
        tile_size=tile_size,
        mpp=(slide_mpp[0] * source[0] / tile_size, slide_mpp[1] * source[1] / tile_size),
    )


def best_level(downsamples: Sequence[tuple[float, float]], scale: tuple[float, float]) -> int:
    """The coarsest level that still has at least the resolution asked for; level 0 if none has.

    downsamples: level-0 pixels per level pixel, (x, y) of each level; scale: level-0 pixels per
    tile pixel.
    """
    # Formats round level sizes, so "4.0" is written 4.0003: a thousandth is no loss of detail.
    slack = 1.001
    fitting = [
        (x * y, level)
        for level, (x, y) in enumerate(downsamples)
        if x <= scale[0] * slack and y <= scale[1] * slack
    ]
    return max(fitting)[1] if fitting else 0


def on_level(rect: Rect, downsample: tuple[float, float]) -> Box:
    """The level-0 rectangle in the pixels of a level."""
    return Box(
        rect.x / downsample[0],
        rect.y / downsample[1],
        (rect.x + rect.width) / downsample[0],
        (rect.y + rect.height) / downsample[1],
    )


def blocks(grid: Grid, max_area: float, max_tiles: int = 2**31) -> Iterator[Block]:
    """Group the grid into neighbouring tiles whose common window covers at most `max_area`.

    max_area: level-0 pixels; max_tiles: in a block; one tile is always allowed. Blocks go row by
    row, tiles within a block too, and every tile comes exactly once.
    """
    across, down = _block_shape(grid, max_area)
    down = min(down, max(1, math.isqrt(max_tiles)))
    across = min(across, max(1, max_tiles // down))
    width, height = grid.source
    for top in range(0, len(grid.rows), down):
        rows = grid.rows[top : top + down]
        for left in range(0, len(grid.columns), across):
            columns = grid.columns[left : left + across]
            yield Block(
                window=Rect(
                    columns[0],
                    rows[0],
                    columns[-1] - columns[0] + width,
                    rows[-1] - rows[0] + height,
                ),
                tiles=tuple(Rect(x, y, width, height) for y in rows for x in columns),
            )


def _corners(length: int, source: int, step: int) -> tuple[int, ...]:
    """Corners of tiles along one axis; the last one ends at the edge."""
    last = length - source
    if last < 0:
        return ()
    corners = list(range(0, last + 1, step))
    # Tiles further apart than their size leave gaps by wish; the rim is then a gap like others.
    if corners[-1] != last and step <= source:
        corners.append(last)
    return tuple(corners)


def _block_shape(grid: Grid, max_area: float) -> tuple[int, int]:
    """How many tiles across and down fit one window: as near to a square as it goes."""
    width, height = grid.source
    side = math.sqrt(max_area)

    def fitting(corners: tuple[int, ...], source: int, room: float) -> int:
        count = 1
        while count < len(corners) and corners[count] - corners[0] + source <= room:
            count += 1
        return count

    if not len(grid):
        return 1, 1
    down = fitting(grid.rows, height, side)
    used = grid.rows[min(down, len(grid.rows)) - 1] - grid.rows[0] + height
    across = fitting(grid.columns, width, max_area / used)
    return across, down
