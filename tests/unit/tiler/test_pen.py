"""Pen on tiles: ink is found, stains and what scanners and tissue do are not."""

from __future__ import annotations

import numpy as np
import openslide
import pytest
from PIL import Image

from hdgan.tiler.pen import pen_fraction
from support.demo_slide import DEMO_SLIDE
from support.stained import LAMP, PENS, STAINS, StainName, fat_density, inked_tile, photograph, tile


def glass(side: int = 256) -> Image.Image:
    return Image.fromarray(photograph(np.zeros((side, side, 3), np.float32)))


def stroke(side: int, share: float) -> np.ndarray:
    """A mark along the left side that covers a share of the tile."""
    where = np.zeros((side, side), bool)
    where[:, : round(share * side)] = True
    return where


@pytest.mark.parametrize("colour", PENS)
@pytest.mark.parametrize(("mpp", "side"), [(0.25, 1024), (0.5, 512), (1.0, 256), (2.0, 256)])
def test_ink_over_glass_is_measured(colour: str, mpp: float, side: int) -> None:
    marked = inked_tile(glass(side), colour, stroke(side, 0.5))
    assert pen_fraction(marked, LAMP, mpp) == pytest.approx(0.5, abs=0.15)
    whole = inked_tile(glass(side), colour, np.ones((side, side), bool))
    assert pen_fraction(whole, LAMP, mpp) > 0.9


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("colour", PENS)
def test_ink_over_tissue_is_seen(colour: str, stain: StainName) -> None:
    image = tile(stain, side=512, seed=1)
    marked = inked_tile(image, colour, stroke(512, 0.5))
    assert 0.1 < pen_fraction(marked, LAMP, 0.5) < 0.65


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("amount", [0.3, 1.0, 1.6])
@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 4.0])
def test_no_stain_is_ink(stain: StainName, amount: float, mpp: float) -> None:
    for seed in range(2):
        image = tile(stain, side=256, mpp=mpp, amount=amount, seed=seed)
        assert pen_fraction(image, LAMP, mpp) == 0
    fat = Image.fromarray(photograph(fat_density(stain, (256, 256), mpp)))
    assert pen_fraction(fat, LAMP, mpp) == 0
    assert pen_fraction(glass(), LAMP, mpp) == 0


def test_it_does_not_depend_on_the_lamp() -> None:
    dim = (190, 184, 180)
    image = inked_tile(tile("h&e", side=512, lamp=dim), "green", stroke(512, 0.5))
    usual = inked_tile(tile("h&e", side=512), "green", stroke(512, 0.5))
    assert pen_fraction(image, dim, 0.5) == pytest.approx(pen_fraction(usual, LAMP, 0.5), abs=0.05)


@pytest.mark.skipif(not DEMO_SLIDE.is_file(), reason="the demo's slide is not here")
def test_the_real_slide_has_none() -> None:
    with openslide.OpenSlide(DEMO_SLIDE) as opened:
        for y in range(0, 2900, 500):
            for x in range(300, 2000, 500):
                image = opened.read_region((x, y), 0, (512, 512)).convert("RGB")
                assert pen_fraction(image, (243, 243, 243), 0.499) == 0, (x, y)
