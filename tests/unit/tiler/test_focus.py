"""Sharpness: what is sharp, what is blurred, and what cannot be told."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
from PIL import Image
from scipy import ndimage

from hdgan.tiler.focus import RECOMMENDED, focus
from hdgan.tiler.tissue import Colour, tissue_mask
from support.demo_slide import DEMO_SLIDE
from support.stained import LAMP, STAINS, StainName, tile


def sharpness(image: Image.Image, white: Colour = LAMP, mpp: float = 0.5) -> float | None:
    return focus(image, tissue_mask(image, white), white, mpp)


def told(image: Image.Image, white: Colour = LAMP, mpp: float = 0.5) -> float:
    value = sharpness(image, white, mpp)
    assert value is not None
    return value


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize(("mpp", "side"), [(0.25, 512), (0.5, 256), (1.0, 256)])
@pytest.mark.parametrize("amount", [1.0, 0.5])
def test_a_sharp_tile_is_told_from_one_blurred_by_two_micrometres(
    stain: StainName, mpp: float, side: int, amount: float
) -> None:
    sharp = told(tile(stain, side=side, mpp=mpp, amount=amount, seed=2), mpp=mpp)
    blurred = sharpness(tile(stain, side=side, mpp=mpp, amount=amount, seed=2, blur_um=2), mpp=mpp)
    assert sharp > 1.2 * RECOMMENDED
    assert blurred is None or blurred < 0.9 * RECOMMENDED
    if amount == 1.0:
        assert blurred is not None


@pytest.mark.parametrize("stain", STAINS)
def test_it_falls_as_blur_grows(stain: StainName) -> None:
    values = [told(tile(stain, blur_um=blur)) for blur in (0, 0.5, 1, 1.5, 2)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("stain", STAINS)
def test_it_depends_neither_on_lamp_nor_on_amount_of_stain(stain: StainName) -> None:
    usual = told(tile(stain, seed=4))
    dim = (170, 166, 160)
    assert told(tile(stain, seed=4, lamp=dim), white=dim) == pytest.approx(usual, rel=0.05)
    # A white that was estimated wrong changes nothing either.
    assert told(tile(stain, seed=4), white=(255, 255, 255)) == pytest.approx(usual, rel=0.05)
    for amount in (0.5, 1.5):
        assert told(tile(stain, seed=4, amount=amount)) == pytest.approx(usual, rel=0.15)


def test_flat_tiles_are_not_called_blurred() -> None:
    random = np.random.default_rng(0)
    for colour in ((230, 190, 205), (190, 120, 170), LAMP):
        flat = np.array(colour) + random.normal(0, 2, (256, 256, 3))
        assert sharpness(Image.fromarray(flat.clip(0, 255).astype(np.uint8))) is None
    for stain in STAINS:
        value = sharpness(tile(stain, fat=True, side=512))
        assert value is None or value > RECOMMENDED
        value = sharpness(tile(stain, amount=0.1))
        assert value is None or value > RECOMMENDED


def test_pixels_too_large_to_show_blur_and_tiles_without_tissue_tell_nothing() -> None:
    image = tile("h&e")
    assert sharpness(image, mpp=2.0) is None
    assert focus(image, np.zeros((256, 256), bool), LAMP, 0.5) is None
    assert sharpness(tile("h&e", side=16)) is None


@pytest.mark.skipif(not DEMO_SLIDE.is_file(), reason="the demo's slide is not here")
@pytest.mark.parametrize(
    "corner", [(900, 900), (700, 1900), (1200, 1300), (1600, 2500), (1100, 300)]
)
def test_a_real_slide_is_sharp_and_blurred_is_not(corner: tuple[int, int]) -> None:
    with openslide.OpenSlide(DEMO_SLIDE) as opened:
        image = opened.read_region(corner, 0, (256, 256)).convert("RGB")
    white = (243, 243, 243)
    assert told(image, white) > 2 * RECOMMENDED
    for blur_um in (2, 4):
        pixels = ndimage.gaussian_filter(np.asarray(image), (2 * blur_um, 2 * blur_um, 0))
        assert told(Image.fromarray(pixels), white) < RECOMMENDED
