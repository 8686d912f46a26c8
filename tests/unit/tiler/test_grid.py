"""Where tiles lie: properties that hold for every slide, and scales computed by hand."""

from __future__ import annotations

import itertools
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.tiler.grid import best_level, blocks, plan_grid, source_pixels

mpps = st.integers(1, 4000).map(lambda thousandths: thousandths / 1000)
sides = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("pixels", "mpp", "slide_mpp", "expected"),
    [
        (1024, 0.25, 0.265, 966),  # 966.04
        (64, 2.0, 0.499, 257),  # 256.51
        (4096, 0.25, 0.25, 4096),
        (5, 0.1, 0.2, 3),  # 2.5 rounds up, and 0.1 means one tenth
        (1, 0.1, 3.0, 1),
    ],
)
def test_source_side_is_rounded_exactly(
    pixels: int, mpp: float, slide_mpp: float, expected: int
) -> None:
    assert source_pixels(pixels, mpp, slide_mpp) == expected


@given(st.integers(1, 4096), mpps, mpps)
def test_source_side_agrees_with_decimal_arithmetic(
    pixels: int, mpp: float, slide_mpp: float
) -> None:
    exact = pixels * Decimal(str(mpp)) / Decimal(str(slide_mpp))
    rounded = exact.quantize(Decimal(1), rounding=ROUND_HALF_UP)
    assert source_pixels(pixels, mpp, slide_mpp) == max(1, int(rounded))


@given(sides, sides, st.sampled_from([32, 64]), mpps, st.one_of(st.none(), st.integers(8, 64)))
def test_overlapping_or_touching_tiles_cover_the_slide_and_stay_inside(
    width: int, height: int, tile: int, mpp: float, stride: int | None
) -> None:
    stride = None if stride is None else min(stride, tile)
    grid = plan_grid((width, height), (0.5, 0.25), tile_size=tile, mpp=mpp, stride=stride)
    for length, corners, source in (
        (width, grid.columns, grid.source[0]),
        (height, grid.rows, grid.source[1]),
    ):
        if length < source:
            assert not corners
            continue
        assert corners[0] == 0
        assert corners[-1] + source == length
        assert all(a < b <= a + source for a, b in itertools.pairwise(corners))


def test_tiles_further_apart_than_their_size_keep_their_distance() -> None:
    grid = plan_grid((1000, 100), (1.0, 1.0), tile_size=32, mpp=1.0, stride=100)
    assert grid.columns == tuple(range(0, 901, 100))


def test_anisotropic_pixels_give_a_source_of_another_shape_and_square_tiles() -> None:
    grid = plan_grid((4000, 4000), (0.25, 0.5), tile_size=64, mpp=1.0)
    assert grid.source == (256, 128)
    assert grid.mpp == (1.0, 1.0)


def test_a_slide_smaller_than_a_tile_has_none() -> None:
    assert len(plan_grid((100, 4000), (0.5, 0.5), tile_size=64, mpp=1.0)) == 0


@given(
    st.integers(64, 900),
    st.integers(64, 900),
    st.integers(1, 64),
    st.integers(1, 400_000),
)
def test_blocks_hold_every_tile_once_within_the_allowed_area(
    width: int, height: int, stride: int, area: int
) -> None:
    grid = plan_grid((width, height), (1.0, 1.0), tile_size=64, mpp=1.0, stride=max(stride, 16))
    seen = []
    for block in blocks(grid, area):
        window = block.window
        assert window.width * window.height <= area or len(block.tiles) == 1
        for tile in block.tiles:
            assert window.x <= tile.x
            assert tile.x + tile.width <= window.x + window.width
            assert window.y <= tile.y
            assert tile.y + tile.height <= window.y + window.height
        seen += [(tile.x, tile.y) for tile in block.tiles]
    assert len(seen) == len(set(seen)) == len(grid)


def test_best_level_is_the_coarsest_with_enough_detail() -> None:
    levels = [(1.0, 1.0), (4.0003, 4.0003), (16.0, 16.0)]
    assert best_level(levels, (3.9, 3.9)) == 0
    assert best_level(levels, (4.0, 4.0)) == 1
    assert best_level(levels, (15.0, 40.0)) == 1
    assert best_level(levels, (100.0, 100.0)) == 2
    assert best_level(levels, (0.5, 0.5)) == 0


@pytest.mark.parametrize("most", [1, 2, 7, 64, 1000])
def test_overlapping_tiles_do_not_fill_a_block_without_end(most: int) -> None:
    grid = plan_grid((900, 700), (0.5, 0.5), tile_size=64, mpp=0.5, stride=4)
    found = list(blocks(grid, 1e9, most))
    assert all(1 <= len(block.tiles) <= most for block in found)
    tiles = [rect for block in found for rect in block.tiles]
    assert len(tiles) == len(set(tiles)) == len(grid)
    for block in found:
        window = block.window
        for rect in block.tiles:
            assert window.x <= rect.x <= rect.x + rect.width <= window.x + window.width
            assert window.y <= rect.y <= rect.y + rect.height <= window.y + window.height
