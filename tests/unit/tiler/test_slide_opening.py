"""Who reads a file is decided by its content; what nobody can read has a reason."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image, ImageCms

from hdgan.tiler import openslide_reader
from hdgan.tiler.opening import open_slide
from hdgan.tiler.scale import factors
from hdgan.tiler.slide import SlideError
from support.slides import Bytes, tissue_picture, write_tiff

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data" / "slides"


def refused(path: Path, message: str) -> None:
    with pytest.raises(SlideError, match=message), open_slide(path) as opened:
        opened.read(0, 0, 0, *opened.dimensions)


def test_readers_load_no_torch() -> None:
    code = "import sys, hdgan.tiler.opening; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.svs", b"", r"0 bytes.*copy it again"),
        ("s.svs", b"\0" * 5000, "begins with zeros.*copy it again"),
        ("s.svs", b"<html>404</html>", "no format OpenSlide reads"),
        ("s.mrxs", b"\xff\xd8\xff garbage", "lacks some of its other files"),
        ("s.mrxs", b"something", "no .mrxs slide or lacks"),
        ("s.tif", b"II*\0", "damaged or incomplete"),
        ("s.tif", b"II*\0\xff\xff\xff\xff", "damaged|without a picture"),
        ("s.tif", b"MM\0+\0\x08\0\0" + b"\xff" * 8, "damaged|without a picture"),
        ("s.png", b"\x89PNG\r\n\x1a\n", "damaged or incomplete"),
        ("s.jpg", b"\xff\xd8\xff", "damaged or incomplete"),
    ],
)
def test_what_nobody_can_read_has_a_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


def test_missing_files_and_folders_have_a_reason(tmp_path: Path) -> None:
    refused(tmp_path / "none.svs", "No such file")
    (tmp_path / "folder.svs").mkdir()
    refused(tmp_path / "folder.svs", "directory")


def test_content_decides_and_a_picture_under_a_slides_name_is_a_mistake(tmp_path: Path) -> None:
    picture = tissue_picture(200, 100)
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.svs")
    refused(tmp_path / "a.svs", r"JPEG picture, not a \.svs slide.*name it \.jpeg")
    Image.fromarray(picture).save(tmp_path / "b.png")
    (tmp_path / "b.png").rename(tmp_path / "b.jpg")
    with open_slide(tmp_path / "b.jpg") as opened:
        assert opened.vendor == "png"
    write_tiff(tmp_path / "c.svs", picture)
    with open_slide(tmp_path / "c.svs") as opened:
        assert opened.vendor == "generic-tiff"
        assert np.array_equal(np.asarray(opened.read(0, 0, 0, 200, 100))[..., :3], picture)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P"])
def test_png_regions_are_those_of_the_picture(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(tissue_picture(200, 100)).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(tmp_path / "s.png")
    whole = np.asarray(picture.convert("RGBA"))
    with open_slide(tmp_path / "s.png") as opened:
        assert type(opened).__name__ == "PictureSlide"
        assert (opened.dimensions, opened.downsamples) == ((200, 100), ((1.0, 1.0),))
        assert np.array_equal(
            np.asarray(opened.read(0, 30, 20, 50, 40).convert("RGBA")), whole[20:60, 30:80]
        )
        over = np.asarray(opened.read(0, -10, 90, 50, 40))
        assert np.array_equal(over[:10, 10:], whole[90:, :40])
        assert not over[10:].any()
        assert not over[:, :10].any()
        assert not np.asarray(opened.read(0, 500, 500, 5, 5)).any()


def test_jpeg_is_read_with_its_profile_and_no_false_scale(tmp_path: Path) -> None:
    picture = Image.fromarray(tissue_picture(200, 100))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, dpi, mpp in (("a", 72, None), ("b", 300, None), ("c", 50_800, 0.5)):
        picture.save(tmp_path / f"{name}.jpg", dpi=(dpi, dpi), icc_profile=profile)
        picture.save(tmp_path / f"{name}.png", dpi=(dpi, dpi), icc_profile=profile)
        for path in (tmp_path / f"{name}.jpg", tmp_path / f"{name}.png"):
            with open_slide(path) as opened, Image.open(path) as expected:
                read = opened.read(0, 0, 0, 200, 100).convert("RGB")
                assert read.tobytes() == expected.convert("RGB").tobytes()
                assert opened.icc_profile == profile
                assert opened.mpp == (None if mpp is None else pytest.approx((mpp, mpp), rel=1e-3))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_huge_pictures_are_refused_by_their_declared_size(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    (tmp_path / "s.png").write_bytes(data + chunk(b"IDAT", zlib.compress(bytes(1000))))
    refused(tmp_path / "s.png", "60000 x 60000 px.* tiled TIFF")
    Image.new("RGB", (60, 60)).save(tmp_path / "s.jpg")
    spoilt = bytearray((tmp_path / "s.jpg").read_bytes())
    frame = spoilt.index(b"\xff\xc0")
    spoilt[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "s.jpg").write_bytes(spoilt)
    refused(tmp_path / "s.jpg", "65000 x 65000 px.* tiled TIFF")


def test_a_picture_above_pillows_own_limit_and_below_ours_raises_no_warning(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "s.png")
    with open_slide(tmp_path / "s.png") as opened:
        assert opened.read(0, 9_990, 9_990, 20, 20).getpixel((0, 0)) == (0, 0, 0, 255)


def test_pictures_that_are_no_8_bit_colour_or_damaged_are_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (50, 50)).save(tmp_path / "s.jpg")
    refused(tmp_path / "s.jpg", "CMYK.*convert it to 8-bit RGB")
    Image.fromarray(np.zeros((50, 50), np.uint16)).save(tmp_path / "s.png")
    refused(tmp_path / "s.png", "16-bit samples")
    for name in ("a.png", "a.jpg"):
        noisy = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
        Image.fromarray(noisy).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        for end in (10, 40, len(data) // 2):
            (tmp_path / name).write_bytes(data[:end])
            refused(tmp_path / name, "damaged")


@pytest.mark.parametrize(
    ("full", "level", "expected"),
    [
        ((1101, 1303), (550, 651), (2, 2)),
        ((1101, 1303), (551, 652), (2, 2)),
        ((46_000, 32_914), (11_500, 8_228), (4, 4)),
        ((100_001, 77_777), (1_562, 1_215), (64, 64)),
        ((1000, 1000), (400, 400), (2.5, 2.5)),
        ((1000, 500), (500, 125), (2, 4)),
        ((700, 700), (700, 700), (1, 1)),
    ],
)
def test_levels_lie_where_whole_factors_put_them(
    full: tuple[int, int], level: tuple[int, int], expected: tuple[float, float]
) -> None:
    assert factors(full, level) == expected


def write_aperio(path: Path, levels: list[Bytes]) -> Path:
    about = "Aperio Image Library v1\r\n|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            options: dict[str, Any] = {"tile": (240, 240), "compression": "jpeg"}
            file.write(
                level,
                photometric="rgb",
                description=about,
                metadata=None,
                subfiletype=0,
                compressionargs={"level": 98, "outcolorspace": "rgb"},
                **options,
            )
            if number == 0:
                file.write(level[::8, ::8], photometric="rgb", description=about, metadata=None)
    return path


def test_openslides_levels_are_read_where_they_are(tmp_path: Path) -> None:
    """Of odd sizes, read pixel by pixel and compared with the level resampled on its own."""
    y, x = np.mgrid[:1301, :1703]
    full = np.stack(
        [128 + 90 * np.sin(x / 17), 128 + 90 * np.cos(y / 23), 128 + 90 * np.sin((x + y) / 31)], 2
    ).astype(np.uint8)
    small = np.asarray(Image.fromarray(full).reduce(4))[:-1, :-1]  # as scanners do: 425 x 325
    with open_slide(write_aperio(tmp_path / "s.svs", [full, small])) as opened:
        assert type(opened).__name__ == "OpenSlideSlide"
        assert opened.vendor == "aperio"
        assert opened.mpp == (0.5, 0.5)
        assert opened.level_dimensions == ((1703, 1301), (425, 325))
        assert opened.downsamples == ((1.0, 1.0), (4.0, 4.0))
        with openslide.OpenSlide(tmp_path / "s.svs") as other:
            assert other.level_downsamples[1] != 4  # the library's own is off by the broken pixel
        for left, top in ((0, 0), (1, 3), (97, 51), (301, 203), (333, 240), (361, 261)):
            region = np.asarray(opened.read(1, left, top, 64, 64)).astype(int)
            assert region[..., 3].min() == 255
            wanted = small[top : top + 64, left : left + 64].astype(int)
            errors = np.abs(region[..., :3] - wanted)
            assert errors.mean() < 2, (left, top)
            assert errors.max() < 12, (left, top)
            # and on level 0 the same place, four times larger
            large = opened.read(0, 4 * left, 4 * top, 256, 256).convert("RGB").reduce(4)
            assert np.abs(np.asarray(large).astype(int) - region[..., :3]).mean() < 2, (left, top)


@pytest.mark.parametrize("factor", [2.0016771400642366, 3.001152, 4.0003, 4.956916, 16.5])
def test_a_read_begins_where_openslide_hardly_interpolates(factor: float) -> None:
    for position in (0, 1, 5, 31, 100, 1000, 12_345):
        corner, skipped = openslide_reader._corner(position, factor)
        missed = abs(corner / factor - (position - skipped))
        assert missed <= abs(round(position * factor) / factor - position) + 1e-9
        assert missed <= 0.5 / factor


def test_slides_of_a_scanner_are_openslides() -> None:
    paths = sorted(SHARED.glob("*.ndpi"))
    if not paths:
        pytest.skip("no shared slides here")
    for path in paths:
        with open_slide(path) as opened:
            assert (opened.vendor, opened.objective_power) == ("hamamatsu", 40.0)
            assert opened.dimensions == (3968, 4864)
            assert opened.mpp == pytest.approx((0.2282, 0.2282), abs=1e-4)
            assert opened.downsamples[3] == (8.0, 8.0)
            level = opened.read(3, 100, 100, 200, 200).convert("RGB")
            full = opened.read(0, 800, 800, 1600, 1600).convert("RGB").reduce(8)
            assert np.abs(np.asarray(level).astype(int) - np.asarray(full)).mean() < 3


def test_the_demo_slide_is_openslides() -> None:
    path = ROOT / "demo" / "slides" / "cmu_small_region.svs"
    if not path.exists():
        pytest.skip("no demo slide here")
    with open_slide(path) as opened:
        assert (opened.vendor, opened.dimensions) == ("aperio", (2220, 2967))
        assert opened.mpp == (0.499, 0.499)
        assert np.asarray(opened.read(0, 2200, 2950, 40, 40))[17:, :, 3].max() == 0
