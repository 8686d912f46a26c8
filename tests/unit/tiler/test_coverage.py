"""Tiles of painted slides of four stains, overlaid on them, cover the tissue that was painted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdgan.core.run import TilerConfig
from hdgan.tiler.cut import cut_slide
from support.slides import write_tiff
from support.stained import STAINS, StainName, paint_slide

TILE = 32


@pytest.mark.parametrize("stain", STAINS)
def test_tiles_cover_all_tissue_and_every_piece(stain: StainName, tmp_path: Path) -> None:
    slide = paint_slide(stain, um=8.0)
    path = write_tiff(tmp_path / "s.tif", slide.picture, mpp=slide.um)
    config = TilerConfig(tile_size=TILE, mpp=slide.um, max_whitespace=1.0, max_pen=None)
    covered = np.zeros(slide.tissue.shape, dtype=bool)
    tiles = list(cut_slide(path, config))
    for tile in tiles:
        rect = tile.rect
        covered[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = True
    assert covered[slide.tissue].mean() >= 0.99
    for name, piece in slide.pieces.items():
        assert covered[piece].any(), name
    # And it is not simply everything.
    places = -(-slide.tissue.shape[0] // TILE) * -(-slide.tissue.shape[1] // TILE)
    assert len(tiles) < 0.75 * places
