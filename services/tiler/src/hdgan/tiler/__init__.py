"""The tiler: whole-slide images in, honest tiles at one scale out."""

from __future__ import annotations

from hdgan.tiler.cut import Tile, cut_slide

__all__ = ["Tile", "cut_slide"]
