"""What is in a tile: exactly the region its rectangle names, however it was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdgan.core.run import TilerConfig
from hdgan.tiler.cut import Cutting, cut_slide, examine, plan_cutting, tile_prefix
from hdgan.tiler.overview import flatten, overview
from hdgan.tiler.slide import Slide, SlideError
from support.slides import DERMIS, ArraySlide, tissue_picture, write_tiff

WHITE = (255, 255, 255)


def everywhere(slide: Slide, **config: Any) -> Cutting:
    """Every place of the grid is a tile."""
    asked: dict[str, Any] = {"tile_size": 64, "mpp": 0.5, "max_whitespace": 1.0, **config}
    return plan_cutting(slide, TilerConfig(tissue="everywhere", **asked), "t")


def ramp(width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Red rises along x, green along y: a symmetric filter without a shift keeps both as is."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([20 + x * 200 / width, 20 + y * 200 / height, np.full_like(x, 90)], axis=-1)


@pytest.mark.parametrize("mpp", [0.5, 0.61, 1.37, 2.0])
@pytest.mark.parametrize("levels", [1, 2])
def test_no_subpixel_shift_at_any_scale_or_level(mpp: float, levels: int) -> None:
    full = ramp(640, 512)
    quarter = full.reshape(256, 2, 320, 2, 3).mean(axis=(1, 3))
    pyramid = [np.rint(level).astype(np.uint8) for level in (full, quarter)][:levels]
    slide: Slide = ArraySlide(*pyramid)
    cutting = everywhere(slide, mpp=mpp, stride=24)
    grid = cutting.grid
    inner = np.arange(6, 58)
    count = 0
    for tile in examine(cutting):
        x = tile.rect.x + (inner + 0.5) * grid.scale[0] - 0.5
        y = tile.rect.y + (inner + 0.5) * grid.scale[1] - 0.5
        red = tile.pixels[6:58, 6:58, 0].astype(float)
        green = tile.pixels[6:58, 6:58, 1].astype(float)
        assert np.abs(red - (20 + x * 200 / 640)[None, :]).max() <= 1.01
        assert np.abs(green - (20 + y * 200 / 512)[:, None]).max() <= 1.01
        # A shift of a quarter of a tile pixel would show in the mean.
        assert abs((red - (20 + x * 200 / 640)[None, :]).mean()) <= 0.1
        count += 1
    assert count == len(grid) > 4


@pytest.mark.parametrize("mpp", [0.5, 0.73])
def test_a_tile_is_the_resample_of_its_region_whatever_was_read_around_it(mpp: float) -> None:
    picture = tissue_picture(400, 300)
    slide: Slide = ArraySlide(picture)
    cutting = everywhere(slide, mpp=mpp, stride=17)
    width, height = cutting.grid.source
    together = {t.id: t.pixels for t in examine(cutting)}
    alone = {t.id: t.pixels for t in examine(cutting, threads=3, window_pixels=1)}
    assert together.keys() == alone.keys()
    for name, pixels in together.items():
        x, y = map(int, name.split("-")[1:])
        region = Image.fromarray(picture[y : y + height, x : x + width])
        expected = np.asarray(region.resize((64, 64), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(pixels, alone[name])


def test_same_scale_tiles_are_the_slides_own_pixels(tmp_path: Path) -> None:
    picture = tissue_picture(300, 260)
    path = write_tiff(tmp_path / "s.tif", picture)
    config = TilerConfig(tile_size=64, mpp=0.5, tissue="everywhere", max_whitespace=1.0)
    tiles = list(cut_slide(path, config))
    for tile in tiles:
        rect = tile.rect
        expected = picture[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
        np.testing.assert_array_equal(tile.pixels, expected)
    # 300 = 4 * 64 + 44: a fifth column ends at the edge.
    assert len(tiles) == 5 * 5
    assert tiles[0].id == "s-0-0"


def test_memory_of_a_read_is_bounded() -> None:
    slide = ArraySlide(tissue_picture(900, 700))
    cutting = everywhere(slide, tile_size=32, stride=8)
    slide.largest_read = 0
    for _ in examine(cutting, window_pixels=20_000):
        pass
    assert 10_000 < slide.largest_read <= 20_000


def test_whitespace_decides_what_is_accepted(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", tissue_picture(768, 256), mpp=8.0)  # tissue from x = 256
    strict = TilerConfig(tile_size=64, mpp=8.0, max_whitespace=0.1)
    assert {tile.rect.x for tile in cut_slide(path, strict)} == set(range(256, 768, 64))
    every = TilerConfig(tile_size=64, mpp=8.0, max_whitespace=1.0)
    # The tissue map has a margin, so the neighbouring column is looked at, too.
    assert {tile.rect.x for tile in cut_slide(path, every)} == set(range(192, 768, 64))
    all_places = TilerConfig(tile_size=64, mpp=8.0, max_whitespace=1.0, tissue="everywhere")
    assert len(list(cut_slide(path, all_places))) == 12 * 4


def test_transparent_is_shown_on_the_background_and_counts_as_whitespace() -> None:
    picture = np.zeros((128, 128, 4), np.uint8)
    picture[..., :3] = DERMIS
    picture[:, 64:, 3] = 255
    slide = ArraySlide(picture)
    slide.background = (10, 20, 30)
    left, right = list(examine(everywhere(slide)))[:2]
    assert left.measures.whitespace == 1.0
    assert tuple(left.pixels[30, 30]) == (10, 20, 30)
    assert right.measures.whitespace == 0.0
    assert tuple(right.pixels[30, 30]) == DERMIS


def test_overview_sees_the_whole_slide_and_its_glass() -> None:
    picture = tissue_picture(900, 300)
    view = overview(ArraySlide(picture), (2.0, 2.0), side=300)
    assert view.image.size == (300, 100)
    assert view.scale == (3.0, 3.0)
    assert np.abs(np.subtract(view.white, (244, 242, 243))).max() <= 2
    left = np.asarray(view.image)[:, :90].reshape(-1, 3).mean(axis=0)
    assert np.abs(left - (244, 242, 243)).max() < 1.5


def test_slide_without_scale_says_what_to_set(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", tissue_picture(300, 260), mpp=None)
    config = TilerConfig(tile_size=64, mpp=0.5)
    with pytest.raises(SlideError, match=r"slides\.metadata, or set slides\.assumeMpp"):
        next(cut_slide(path, config))
    assert next(cut_slide(path, config, assume_mpp=0.5)).rect.width == 64


def test_slide_smaller_than_a_tile_says_so(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", tissue_picture(300, 260))
    with pytest.raises(SlideError, match=r"300 x 260 px .* smaller than one tile"):
        next(cut_slide(path, TilerConfig(tile_size=512, mpp=0.5)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (b"not a slide at all", "no format OpenSlide reads")],
)
def test_unreadable_files_have_a_reason(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "s.svs"
    path.write_bytes(content)
    with pytest.raises(SlideError, match=message):
        next(cut_slide(path, TilerConfig(tile_size=64, mpp=0.5)))


def test_truncated_slide_has_a_reason(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "s.tif", tissue_picture(600, 600))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(SlideError, match="damaged"):
        list(cut_slide(path, TilerConfig(tile_size=64, mpp=0.5)))


def test_tile_names_are_safe_and_different_names_stay_different() -> None:
    assert tile_prefix("cmu_small_region.svs") == "cmu_small_region"
    names = ["a b.svs", "a_b.svs", "a/b.svs", "ä.svs", "x" * 90 + ".svs", "x" * 91 + ".svs", ".svs"]
    prefixes = [tile_prefix(name) for name in names]
    assert len(set(prefixes)) == len(names)
    assert all(p.isascii() and "/" not in p and "." not in p and len(p) <= 60 for p in prefixes)


def test_flatten_keeps_opaque_pictures() -> None:
    image = Image.new("RGBA", (4, 4), (1, 2, 3, 255))
    flat, covered = flatten(image, WHITE)
    assert covered is None
    assert flat.getpixel((0, 0)) == (1, 2, 3)
