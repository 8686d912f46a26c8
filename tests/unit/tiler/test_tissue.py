"""What counts as tissue, on the colours that usually go wrong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hdgan.tiler.tissue import estimate_white, whitespace
from support.slides import DERMIS, GLASS, NUCLEI, PALE_COLLAGEN


def noisy(colour: tuple[int, int, int], sigma: float = 3.0) -> Image.Image:
    random = np.random.default_rng(1)
    pixels = np.array(colour) + random.normal(0, sigma, (128, 128, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("colour", [DERMIS, PALE_COLLAGEN, NUCLEI, (150, 150, 160), (60, 60, 60)])
def test_stained_tissue_is_found(colour: tuple[int, int, int]) -> None:
    assert whitespace(noisy(colour), GLASS) < 0.02


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (228, 226, 214)])
def test_noisy_glass_is_whitespace_whatever_the_lamp(glass: tuple[int, int, int]) -> None:
    assert whitespace(noisy(glass), glass) > 0.98


def test_unscanned_pixels_are_whitespace() -> None:
    covered = Image.new("L", (128, 128), 0)
    covered.paste(255, (0, 0, 32, 128))
    assert whitespace(noisy(DERMIS), GLASS, covered) == pytest.approx(0.75, abs=0.01)


def test_white_is_the_glass_even_where_tissue_prevails() -> None:
    picture = np.empty((100, 100, 3), np.uint8)
    picture[:] = PALE_COLLAGEN
    picture[:5] = (238, 240, 236)
    assert estimate_white(picture) == (238, 240, 236)


def test_white_is_assumed_where_no_glass_shows() -> None:
    picture = np.full((50, 50, 3), DERMIS, np.uint8)
    assert estimate_white(picture) == (255, 255, 255)
    assert estimate_white(picture, np.zeros((50, 50), bool)) == (255, 255, 255)
