"""Tiling as it is usually written: read every place of the grid on its own, look whether there is
enough colour, save it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

Read = Callable[[int, int, int], Image.Image]
"""(x, y, side) in level-0 pixels -> picture."""


def save(image: Image.Image) -> bytes:
    """PNG with the settings the tiler has."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def bare_loop(slide: Any, places: list[tuple[int, int]], side: int) -> Iterator[bytes]:
    """The limit: nothing but reading these places and saving them."""
    for place in places:
        yield save(slide.read_region(place, 0, (side, side)).convert("RGB"))


def grid_loop(slide: Any, side: int, max_whitespace: float) -> Iterator[bytes]:
    """Every place of the grid, with a check for tissue by saturation."""
    width, height = slide.dimensions
    for y in range(0, height - side + 1, side):
        for x in range(0, width - side + 1, side):
            image = slide.read_region((x, y), 0, (side, side)).convert("RGB")
            saturation = np.asarray(image.convert("HSV"))[..., 1]
            if (saturation < 15).mean() <= max_whitespace:
                yield save(image)
