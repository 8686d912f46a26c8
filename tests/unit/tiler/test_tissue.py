"""What counts as tissue, on the colours that usually go wrong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hdgan.tiler.tissue import BAND_PIXELS, estimate_white, tissue_mask, whitespace, whitespace_of
from support.slides import DERMIS, GLASS, NUCLEI, PALE_COLLAGEN
from support.stained import LAMP, STAINS, StainName, photograph, tile


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


@pytest.mark.parametrize("stain", STAINS)
def test_tissue_of_every_stain_is_tissue_when_pale(stain: StainName) -> None:
    assert whitespace(tile(stain, seed=3), LAMP) < 0.01
    # Silver's counterstain at half its amount is, in places, as pale as badly lit glass.
    assert whitespace(tile(stain, seed=3, amount=0.5), LAMP) < (0.45 if stain == "jones" else 0.01)


@pytest.mark.parametrize("stain", STAINS)
def test_cells_of_fat_are_whitespace_and_their_septa_are_not(stain: StainName) -> None:
    assert 0.85 < whitespace(tile(stain, side=512, fat=True), LAMP) < 0.99


def test_glass_is_whitespace_where_it_is_lit_less() -> None:
    for dimmer in (0.95, 0.91):
        red, green, blue = (dimmer * channel for channel in LAMP)
        glass = photograph(np.zeros((128, 128, 3), np.float32), (red, green, blue))
        assert whitespace(Image.fromarray(glass), LAMP) > 0.98


@pytest.mark.parametrize("stain", STAINS)
def test_whitespace_does_not_depend_on_the_lamp(stain: StainName) -> None:
    dim = (180, 172, 168)
    usual = whitespace(tile(stain, seed=6, amount=0.6), LAMP)
    assert whitespace(tile(stain, seed=6, amount=0.6, lamp=dim), dim) == pytest.approx(
        usual, abs=0.03
    )


def test_the_mask_is_the_rule_in_optical_density() -> None:
    """Against the rule written out in floating point, a mean of 3 x 3 pixels by hand."""
    image = tile("jones", side=96, amount=0.6, seed=2)
    padded = np.pad(np.asarray(image, float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    mean = sum(padded[y : y + 96, x : x + 96] for y in range(3) for x in range(3)) / 9
    density = np.maximum(-np.log10(mean / np.array(LAMP)), 0)
    expected = (density.mean(-1) > 0.05) | (density.max(-1) - density.min(-1) > 0.02)
    mask = tissue_mask(image, LAMP)
    assert np.mean(mask != expected) < 0.02
    assert whitespace_of(mask) == pytest.approx(1 - mask.mean())


def test_a_tall_picture_is_looked_at_in_bands_and_none_shows() -> None:
    random = np.random.default_rng(0)
    rows = BAND_PIXELS // 40
    pixels = random.integers(190, 256, (2 * rows + 70, 40, 3), dtype=np.uint8)
    found = tissue_mask(Image.fromarray(pixels), GLASS)
    middle = slice(rows - 50, rows + 50)
    alone = tissue_mask(Image.fromarray(pixels[middle.start - 1 : middle.stop + 1]), GLASS)
    assert np.array_equal(found[middle], alone[1:-1])
    assert 0.05 < found.mean() < 0.95
