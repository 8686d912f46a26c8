"""The tissue map of painted slides, where all is known, and of a real one."""

from __future__ import annotations

from functools import cache

import numpy as np
import openslide
import pytest
from PIL import Image
from scipy import ndimage

from hdgan.tiler.tissue import estimate_white
from hdgan.tiler.tissue_map import TissueMap, tissue_map
from support.demo_slide import DEMO_SLIDE
from support.stained import LAMP, PENS, STAINS, StainedSlide, StainName, paint_slide, photograph

# The pen over tissue is of a colour that is hard to tell from the stain.
HARD_PEN = {"h&e": "blue", "pas": "red", "jones": "black", "trichrome": "blue"}


@cache
def full_slide(stain: StainName) -> StainedSlide:
    return paint_slide(stain, seed=3, pens=PENS, pen_on_tissue=HARD_PEN[stain])


@cache
def found_on_full_slide(stain: StainName) -> TissueMap:
    return find(full_slide(stain))


def find(slide: StainedSlide) -> TissueMap:
    white = estimate_white(slide.picture, slide.covered)
    return tissue_map(slide.image, white, (slide.um, slide.um), slide.covered)


def share(part: np.ndarray, of: np.ndarray) -> float:
    return float(np.count_nonzero(part & of) / np.count_nonzero(of))


@pytest.mark.parametrize("stain", STAINS)
def test_every_piece_is_found_beside_pen_edges_dust_and_uneven_light(stain: StainName) -> None:
    slide, found = full_slide(stain), found_on_full_slide(stain)
    assert share(found.mask, slide.tissue) > 0.99
    for name, piece in slide.pieces.items():
        assert share(found.mask, piece) > 0.95, name


@pytest.mark.parametrize("stain", STAINS)
def test_little_else_is_kept(stain: StainName) -> None:
    slide, found = full_slide(stain), found_on_full_slide(stain)
    away = ndimage.distance_transform_edt(~slide.tissue) * slide.um > 100
    assert np.count_nonzero(found.mask & away) < 0.04 * np.count_nonzero(slide.tissue)
    assert share(found.mask, slide.rubbish) < 0.01
    assert share(found.mask, slide.dust) < 0.2
    assert not (found.mask & ~slide.covered).any()


@pytest.mark.parametrize("stain", STAINS)
def test_pen_is_told_from_stain_over_glass_and_over_tissue(stain: StainName) -> None:
    slide, found = full_slide(stain), found_on_full_slide(stain)
    # Blue pen across blue collagen is the one case where a part is left in doubt.
    assert share(found.pen, slide.pen) > (0.9 if stain == "trichrome" else 0.95)
    assert share(found.pen, slide.tissue) < 0.01
    assert not (found.mask & found.pen).any()


@pytest.mark.parametrize("stain", STAINS)
def test_nothing_is_taken_for_pen_or_rubbish_where_there_is_none(stain: StainName) -> None:
    slide = paint_slide(stain, seed=8, edges=False, fiducials=False, unscanned=False, dust=0)
    found = find(slide)
    assert not found.pen.any()
    assert share(found.rubbish, slide.tissue) == 0
    assert share(found.mask, slide.tissue) > 0.995


@pytest.mark.parametrize("stain", ["jones", "h&e"])
def test_pale_slides_in_a_dim_uneven_light(stain: StainName) -> None:
    slide = paint_slide(
        stain, seed=12, amount=0.6, lamp=(226, 221, 214), unevenness=0.15, pens=PENS, edges=False
    )
    found = find(slide)
    assert share(found.mask, slide.tissue) > 0.99
    assert share(found.pen, slide.pen) > 0.93
    # The colour of the glass is known at each place: the last corner is the darkest.
    expected = np.array([226, 221, 214]) * 0.85
    assert np.abs(np.array(found.glass.colour(1, 1)) - expected).max() < 5
    assert np.abs(np.array(found.glass.colour(0.3, 0.4)) - found.glass.white).max() < 14


@pytest.mark.parametrize("stain", ["h&e", "jones"])
def test_a_coarse_picture_finds_the_same_pieces(stain: StainName) -> None:
    slide = paint_slide(stain, um=20.0, seed=4, pens=PENS)
    found = find(slide)
    assert share(found.mask, slide.tissue) > 0.99
    assert share(found.mask, slide.pieces["fragment 1"]) > 0.9
    assert share(found.pen, slide.pen) > 0.93


def test_the_map_does_not_depend_on_the_lamp() -> None:
    bright = paint_slide("h&e", seed=1, lamp=(250, 250, 250))
    dim = paint_slide("h&e", seed=1, lamp=(225, 221, 215))
    assert np.mean(find(bright).mask != find(dim).mask) < 0.02


def test_pieces_and_areas_are_counted() -> None:
    density = np.zeros((300, 400, 3), np.float32)
    density[40:80, 50:150] = (0.1, 0.5, 0.15)
    density[200:230, 300:320] = (0.1, 0.5, 0.15)
    found = tissue_map(Image.fromarray(photograph(density, quality=None)), LAMP, (8.0, 10.0))
    assert len(found.areas) == 2
    assert found.areas[0] > found.areas[1]
    # 100 x 40 and 20 x 30 pixels of 8 x 10 um, and a pixel around them from the 3 x 3 mean.
    assert 320_000 <= found.areas[0] <= 102 * 42 * 80
    assert 48_000 <= found.areas[1] <= 22 * 32 * 80
    assert not found.mask[:, :40].any()
    assert not found.mask[:32].any()
    facts = found.to_json()
    assert facts["pieces"] == 2
    assert facts["areasMm2"] == [round(area / 1e6, 4) for area in found.areas]


def test_bare_glass_has_no_tissue_and_tissue_alone_has_no_glass() -> None:
    glass = photograph(np.zeros((300, 500, 3), np.float32), unevenness=0.15)
    found = tissue_map(Image.fromarray(glass), LAMP, (8.0, 8.0))
    assert not found.mask.any()
    assert found.areas == ()
    crop = Image.fromarray(full_slide("jones").picture).crop((95, 300, 125, 500))
    assert tissue_map(crop, (255, 255, 255), (8.0, 8.0)).mask.mean() > 0.95


def test_a_dark_picture_is_looked_at_everywhere() -> None:
    dark = np.random.default_rng(0).integers(0, 12, (400, 400, 3)).astype(np.uint8)
    found = tissue_map(Image.fromarray(dark), (255, 255, 255), (8.0, 8.0))
    assert found.mask.mean() > 0.9


def test_a_fine_picture_gives_a_mask_of_its_own_size() -> None:
    density = np.zeros((333, 517, 3), np.float32)
    density[100:200, 100:300] = (0.1, 0.5, 0.15)
    covered = np.ones((333, 517), bool)
    covered[:, 280:] = False
    found = tissue_map(Image.fromarray(photograph(density)), LAMP, (1.3, 1.1), covered)
    assert found.mask.shape == found.pen.shape == found.rubbish.shape == (333, 517)
    assert found.mask[100:200, 100:280].mean() > 0.99
    assert not found.mask[:, 280:].any()


@pytest.mark.skipif(not DEMO_SLIDE.is_file(), reason="the demo's slide is not here")
@pytest.mark.parametrize("um", [0.75, 8.0, 20.0])
def test_the_real_slide_is_found_whole(um: float) -> None:
    """Against what is coloured at full resolution, by HSV saturation instead of optical density."""
    with openslide.OpenSlide(DEMO_SLIDE) as opened:
        mpp = float(opened.properties[openslide.PROPERTY_NAME_MPP_X])
        picture = opened.read_region((0, 0), 0, opened.dimensions).convert("RGB")
    labelled = Image.fromarray((np.asarray(picture.convert("HSV"))[..., 1] > 40).astype(np.uint8))
    size = (round(picture.width * mpp / um), round(picture.height * mpp / um))
    small = picture.resize(size, Image.Resampling.BOX)
    covers = np.asarray(labelled.convert("F").resize(size, Image.Resampling.BOX)) >= 0.5
    # By eye: two specks of 30 um off the tissue and one at the corner are not pieces of 50 um.
    numbers, count = ndimage.label(ndimage.binary_dilation(covers, iterations=max(1, int(15 / um))))
    sizes = np.bincount(numbers.reshape(-1), weights=covers.reshape(-1), minlength=count + 1)
    truth = covers & (sizes * um * um > np.pi / 4 * 50**2)[numbers]
    found = tissue_map(small, estimate_white(np.asarray(small)), (um, um))
    assert share(found.mask, truth) > 0.995
    assert not found.pen.any()
    # Bare glass, by eye: the left and the right side of the slide's upper half.
    height, width = found.mask.shape
    assert found.mask[: int(0.3 * height), : int(0.2 * width)].mean() < 0.02
    assert found.mask[: int(0.28 * height), int(0.8 * width) :].mean() < 0.2
