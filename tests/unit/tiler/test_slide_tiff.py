"""TIFF slides: every region is what was written, levels and scale are the file's own, and what
cannot be trusted is refused with a reason."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from hdgan.tiler.opening import open_slide
from hdgan.tiler.segment_cache import SegmentCache
from hdgan.tiler.slide import SlideError
from hdgan.tiler.tiff_level import jpeg_size
from hdgan.tiler.tiff_reader import TiffSlide, open_tiff
from support.slides import Bytes, pyramid, write_ome_tiff

SHARED = Path(__file__).parents[4] / "shared" / "data" / "slides"


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Bytes:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def cut_out(picture: Bytes, x: int, y: int, width: int, height: int) -> Bytes:
    """What a read has to give: slices of the array, transparent beyond it."""
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    whole = np.concatenate([picture, alpha], axis=2) if picture.shape[2] == 3 else picture
    pad = 700
    room = np.pad(whole, ((pad, pad), (pad, pad), (0, 0)))
    return room[y + pad : y + pad + height, x + pad : x + pad + width]


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles, plain": {"tile": (128, 128)},
    "tiles, LZW, predictor": {"tile": (64, 112), "compression": "lzw", "predictor": True},
    "tiles, Deflate, BigTIFF": {"tile": (128, 128), "compression": "zlib", "bigtiff": True},
    "tiles, Zstandard, big-endian": {"tile": (128, 128), "compression": "zstd", "byteorder": ">"},
    "tiles, JPEG 2000": {"tile": (128, 128), "compression": "jpeg2000"},
    "tiles, planar": {"tile": (128, 128), "compression": "zlib", "planarconfig": "separate"},
    "strips, Deflate": {"rowsperstrip": 17, "compression": "zlib"},
    "strips, PackBits": {"rowsperstrip": 40, "compression": "packbits"},
    "strips, planar": {"rowsperstrip": 33, "planarconfig": "separate"},
    "one strip, plain": {"rowsperstrip": 10_000},
    "one strip, planar": {"rowsperstrip": 10_000, "planarconfig": "separate"},
    "one strip, LZW": {"rowsperstrip": 10_000, "compression": "lzw"},
}


def write(path: Path, picture: Bytes, **layout: Any) -> Path:
    options = {"photometric": "rgb", "metadata": None, "resolutionunit": "NONE"} | layout
    with tifffile.TiffWriter(
        path,
        bigtiff=bool(options.pop("bigtiff", False)),
        byteorder=options.pop("byteorder", None),
    ) as file:
        if options.get("planarconfig") == "separate":
            picture = np.ascontiguousarray(picture.transpose(2, 0, 1))
        file.write(picture, **options)
    return path


@pytest.fixture(scope="module", params=LAYOUTS)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    picture = noise(301, 407)
    path = tmp_path_factory.mktemp("tiff") / "s.tif"
    with open_slide(write(path, picture, **LAYOUTS[request.param])) as slide:
        assert type(slide).__name__ == "TiffSlide"
        yield picture, slide


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(-50, 450),
    y=st.integers(-50, 350),
    width=st.integers(1, 200),
    height=st.integers(1, 200),
)
def test_any_region_is_the_slice_of_the_array(
    stored: tuple[Bytes, TiffSlide], x: int, y: int, width: int, height: int
) -> None:
    picture, slide = stored
    assert slide.dimensions == (407, 301)
    image = slide.read(0, x, y, width, height)
    within = x >= 0 and y >= 0 and x + width <= 407 and y + height <= 301
    assert image.mode == ("RGB" if within else "RGBA")
    assert np.array_equal(np.asarray(image.convert("RGBA")), cut_out(picture, x, y, width, height))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(level=st.integers(0, 2), x=st.integers(-9, 500), y=st.integers(-9, 500))
def test_levels_in_subifds_are_read_as_they_were_written(
    ome: tuple[list[Bytes], TiffSlide], level: int, x: int, y: int
) -> None:
    levels, slide = ome
    region = np.asarray(slide.read(level, x, y, 90, 70).convert("RGBA"))
    assert np.array_equal(region, cut_out(levels[level], x, y, 90, 70))


@pytest.fixture(scope="module", params=[False, True])
def ome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    levels = pyramid(noise(555, 611), 3)
    path = tmp_path_factory.mktemp("ome") / "s.ome.tif"
    write_ome_tiff(path, levels, mpp=(0.25, 0.26), bigtiff=request.param)
    with open_slide(path) as slide:
        assert type(slide).__name__ == "TiffSlide"
        assert slide.vendor == "ome-tiff"
        assert slide.level_dimensions == ((611, 555), (305, 277), (152, 138))
        assert slide.downsamples == ((1.0, 1.0), (2.0, 2.0), (4.0, 4.0))
        assert slide.mpp == (0.25, 0.26)
        yield levels, slide


def test_levels_in_pages_are_found_and_labels_are_not(tmp_path: Path) -> None:
    levels = pyramid(noise(600, 800), 3)
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        file.write(noise(90, 40), **options)  # an overview before all others
        file.write(levels[0], tile=(128, 128), **options)
        file.write(noise(75, 100), **options)  # a thumbnail: in strips and not marked as reduced
        file.write(levels[2], tile=(128, 128), **options)
        file.write(levels[1], rowsperstrip=16, subfiletype=1, **options)
        file.write(noise(300, 300), tile=(128, 128), **options)  # a label: another shape
    with open_slide(tmp_path / "s.tif") as slide:
        assert slide.level_dimensions == ((800, 600), (400, 300), (200, 150))
        for number, level in enumerate(levels):
            assert np.array_equal(
                np.asarray(slide.read(number, 0, 0, 70, 60))[..., :3], level[:60, :70]
            )


def test_jpeg_tiles_with_their_subsampled_colours_come_near_the_picture(tmp_path: Path) -> None:
    y, x = np.mgrid[:300, :400]
    picture = np.stack([x / 2, y / 2, 255 - x / 2], axis=2).astype(np.uint8)
    for args, photometric in (({}, 6), ({"outcolorspace": "rgb"}, 2)):
        path = tmp_path / f"{photometric}.tif"
        tifffile.imwrite(
            path,
            picture,
            photometric="rgb",
            tile=(128, 128),
            compression="jpeg",
            compressionargs=args,
            metadata=None,
        )
        with tifffile.TiffFile(path) as file:
            assert file.pages.first.photometric == photometric
        with open_slide(path) as slide:
            read = np.asarray(slide.read(0, 0, 0, 400, 300).convert("RGBA"))
        assert np.abs(read[..., :3].astype(int) - picture).mean() < 1
        with openslide.OpenSlide(path) as other:
            assert np.array_equal(read, np.asarray(other.read_region((0, 0), 0, (400, 300))))


def test_grey_becomes_rgb_and_alpha_stays(tmp_path: Path) -> None:
    grey = noise(200, 150, 1)
    for photometric, expected in (("minisblack", grey), ("miniswhite", 255 - grey)):
        path = tmp_path / f"{photometric}.tif"
        tifffile.imwrite(path, grey[..., 0], photometric=photometric, tile=(64, 64), metadata=None)
        with open_slide(path) as slide:
            read = np.asarray(slide.read(0, 0, 0, 150, 200).convert("RGBA"))
        assert np.array_equal(read[..., :3], expected.repeat(3, axis=2))
    colours = noise(200, 150, 4)
    for extra in ("unassalpha", "unspecified"):
        path = tmp_path / f"{extra}.tif"
        tifffile.imwrite(
            path, colours, photometric="rgb", extrasamples=[extra], tile=(64, 64), metadata=None
        )
        with open_slide(path) as slide:
            read = np.asarray(slide.read(0, 0, 0, 150, 200).convert("RGBA"))
        assert np.array_equal(read[..., :3], colours[..., :3])
        assert np.array_equal(read[..., 3], colours[..., 3]) == (extra == "unassalpha")


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((20_000, 20_000), "CENTIMETER", (0.5, 0.5)),
        ((101_600, 50_800), "INCH", (0.25, 0.5)),
        ((20_000, 20_000), "NONE", None),
        ((72, 72), "INCH", None),
        ((96, 96), "INCH", None),
        ((300, 300), "INCH", None),
        ((1200, 1200), "INCH", None),
        ((118.11, 118.11), "CENTIMETER", None),
        ((1, 1), "CENTIMETER", None),
        ((20_000, 200), "CENTIMETER", None),
        ((1e9, 1e9), "CENTIMETER", None),
    ],
)
def test_resolution_tags_are_a_scale_only_where_they_can_be_a_microscopes(
    tmp_path: Path,
    resolution: tuple[float, float],
    unit: str,
    mpp: tuple[float, float] | None,
) -> None:
    path = tmp_path / "s.tif"
    write(path, noise(64, 64), tile=(64, 64), resolution=resolution, resolutionunit=unit)
    with open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(
    ("size", "unit", "mpp"),
    [
        (0.25, "µm", 0.25),
        (250, "nm", 0.25),
        (0.00025, "mm", 0.25),
        (0.25, "pixel", None),
        (264.6, "µm", None),
        (0.0, "µm", None),
    ],
)
def test_ome_sizes_count_with_their_unit(
    tmp_path: Path, size: float, unit: str, mpp: float | None
) -> None:
    path = write_ome_tiff(tmp_path / "s.ome.tif", [noise(90, 90)], mpp=(size, size), unit=unit)
    with open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx((mpp, mpp)))


def test_the_objective_and_the_largest_picture_are_found_in_the_description(tmp_path: Path) -> None:
    macro, scan = noise(100, 60), noise(200, 300)
    description = """<?xml version="1.0"?><OME xmlns="x">
      <Instrument ID="I"><Objective ID="O" NominalMagnification="40"/></Instrument>
      <Image ID="0"><Pixels SizeX="60" SizeY="100" SizeC="3" Type="uint8">
        <Channel SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image>
      <Image ID="1"><ObjectiveSettings ID="O"/><Pixels SizeX="300" SizeY="200" SizeC="3"
        Type="uint8" PhysicalSizeX="0.5" PhysicalSizeY="0.5"><Channel SamplesPerPixel="3"/>
        <TiffData IFD="1" PlaneCount="1"/></Pixels></Image></OME>"""
    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(macro, photometric="rgb", description=description, metadata=None)
        file.write(scan, photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        assert slide.dimensions == (300, 200)
        assert slide.objective_power == 40
        assert slide.mpp == (0.5, 0.5)
        assert np.array_equal(np.asarray(slide.read(0, 0, 0, 300, 200))[..., :3], scan)


def test_the_colour_profile_is_handed_over(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "s.tif"
    write(path, noise(64, 64), tile=(64, 64), iccprofile=profile)
    with open_slide(path) as slide:
        assert slide.icc_profile == profile
    write(path, noise(64, 64), tile=(64, 64))
    with open_slide(path) as slide:
        assert slide.icc_profile is None


def test_threads_read_the_same_and_decode_each_tile_once(tmp_path: Path) -> None:
    picture = noise(1000, 1000)
    path = write(tmp_path / "s.tif", picture, tile=(256, 256), compression="zlib")
    with open_slide(path) as slide, ThreadPoolExecutor(8) as pool:
        places = [(x, y) for x in range(0, 900, 90) for y in range(0, 900, 90)]
        read = pool.map(
            lambda at: np.asarray(slide.read(0, at[0], at[1], 100, 100).convert("RGBA")), places
        )
        for (x, y), region in zip(places, read, strict=True):
            assert np.array_equal(region[..., :3], picture[y : y + 100, x : x + 100])

    cache, decoded = SegmentCache(10_000), []
    barrier = threading.Barrier(4)

    def decode() -> Bytes:
        decoded.append(1)
        return picture[:10, :10]

    def ask(_: int) -> Bytes:
        barrier.wait()
        return cache.get("one", decode)

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(ask, range(4)))) == 4
    assert decoded == [1]


def test_an_error_in_one_thread_reaches_all_that_wait_and_is_not_remembered() -> None:
    cache = SegmentCache(1000)

    def fail() -> Bytes:
        raise SlideError("no")

    with pytest.raises(SlideError):
        cache.get("one", fail)
    assert cache.get("one", lambda: np.zeros((1, 1, 3), np.uint8)).size == 3


def test_memory_stays_bounded_while_a_large_slide_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    side = 8192  # 192 MB of pixels

    def tiles() -> Any:
        for number in range((side // 512) ** 2):
            yield np.full((512, 512, 3), number % 251, np.uint8)

    with tifffile.TiffWriter(path) as file:
        file.write(
            tiles(),
            shape=(side, side, 3),
            dtype=np.uint8,
            tile=(512, 512),
            photometric="rgb",
            compression="zlib",
            metadata=None,
        )
    with open_tiff(path, cache_bytes=8 << 20) as slide:
        tracemalloc.start()
        for y in range(0, side, 1024):
            for x in range(0, side, 1024):
                corner = np.asarray(slide.read(0, x, y, 1024, 1024))[0, 0, 0]
                assert corner == (y // 512 * 16 + x // 512) % 251
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 32 << 20


def damaged(path: Path, change: Any) -> Path:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def refused(path: Path, message: str) -> None:
    """The reason is given when the slide is opened or when its pixels are read."""
    with pytest.raises(SlideError, match=message), open_slide(path) as slide:
        slide.read(0, 0, 0, *slide.dimensions)


def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path) -> None:
    whole = write(tmp_path / "s.tif", noise(300, 300), tile=(64, 64), compression="zlib")
    data = whole.read_bytes()
    ends = [5, 8, 9, 20, 100, 180, 250, 400, len(data) // 2, len(data) - 1]
    for end in ends:
        path = tmp_path / f"{end}.tif"
        path.write_bytes(data[:end])
        refused(path, "damaged|incomplete|not .*completely|without a picture")


def tag_at(data: bytes, code: int) -> int:
    """Where the entry of a tag of the first directory begins, in a little-endian plain TIFF."""
    directory = int.from_bytes(data[4:8], "little")
    for number in range(int.from_bytes(data[directory : directory + 2], "little")):
        at = directory + 2 + 12 * number
        if int.from_bytes(data[at : at + 2], "little") == code:
            return at
    raise AssertionError(code)


@pytest.mark.parametrize(
    ("code", "field", "value"),
    [
        (256, 8, 2**32 - 1),  # width
        (257, 8, 2**32 - 1),  # height
        (322, 8, 0),  # tile width
        (322, 8, 2**31),
        (323, 8, 0),
        (324, 4, 2**31),  # number of tile offsets
        (324, 4, 1),
        (324, 8, 2**32 - 1),  # where they are
        (325, 4, 3),
        (258, 8, 2**31),  # bits
        (277, 8, 60_000),  # samples
        (259, 8, 41_000),  # compression
        (262, 8, 99),  # photometric
        (284, 8, 7),  # planar
        (305, 2, 77),  # type of a tag: the program's name
    ],
)
def test_absurd_tags_are_refused(tmp_path: Path, code: int, field: int, value: int) -> None:
    path = write(tmp_path / "s.tif", noise(300, 300), tile=(64, 64), compression="zlib")

    def change(data: bytearray) -> None:
        at = tag_at(bytes(data), code) + field
        size = 2 if field == 2 else 4
        data[at : at + size] = value.to_bytes(4, "little")[:size]

    damaged(path, change)
    if code == 305:
        open_slide(path).__exit__(None, None, None)  # says nothing that is needed
    else:
        refused(path, "[a-z]{4}")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8))
def test_whatever_bytes_are_wrong_nothing_but_a_reason_comes_out(
    tiny: tuple[bytes, Path], places: list[tuple[float, int]]
) -> None:
    data, path = tiny
    spoilt = bytearray(data)
    for place, value in places:
        spoilt[int(place * len(data))] = value
    path.write_bytes(spoilt)
    try:
        with open_slide(path) as slide:
            width, height = slide.dimensions
            slide.read(0, 0, 0, min(width, 500), min(height, 500))
            _ = slide.mpp, slide.icc_profile, slide.downsamples
    except SlideError:
        pass  # anything else fails the test


@pytest.fixture(scope="module", params=["jpeg", "zlib", "ome", "jpeg2000"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("spoilt") / "s.tif"
    picture = np.zeros((60, 60, 3), np.uint8) + 200
    if request.param == "ome":
        write_ome_tiff(path, pyramid(picture, 2), tile=(32, 32))
    else:
        write(path, picture, tile=(32, 32), compression=request.param)
    return path.read_bytes(), path


def test_a_tag_larger_than_any_slide_needs_is_not_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", noise(64, 64), tile=(64, 64), description="slide" * 9)
    length = 1 << 30

    def change(data: bytearray) -> None:
        at = tag_at(bytes(data), 270)
        data[at + 4 : at + 12] = length.to_bytes(4, "little") + len(data).to_bytes(4, "little")

    damaged(path, change)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + length)  # a hole: takes no room on the disk
    tracemalloc.start()
    refused(path, r"tag \(270\) of 1073741824 bytes")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_pages_that_follow_each_other_in_circles_end(tmp_path: Path) -> None:
    picture = noise(64, 64)
    path = write(tmp_path / "s.tif", picture, tile=(64, 64))

    def change(data: bytearray) -> None:
        directory = int.from_bytes(data[4:8], "little")
        end = directory + 2 + 12 * int.from_bytes(data[directory : directory + 2], "little")
        data[end : end + 4] = data[4:8]

    with pytest.raises(SlideError), open_slide(damaged(path, change)):
        pass


def test_a_tile_without_data_is_named_and_the_others_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", noise(300, 300), tile=(64, 64), compression="zlib")

    def change(data: bytearray) -> None:
        at = int.from_bytes(data[tag_at(bytes(data), 325) + 8 :][:4], "little")
        data[at + 4 * 6 : at + 4 * 7] = bytes(4)

    with open_slide(damaged(path, change)) as slide:
        assert slide.read(0, 0, 0, 64, 64).mode == "RGB"
        with pytest.raises(SlideError, match="no data at x 64, y 64 of the picture of 300 x 300"):
            slide.read(0, 60, 60, 10, 10)


def test_a_spoilt_tile_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", noise(300, 300), tile=(64, 64), compression="zlib")

    def change(data: bytearray) -> None:
        table = int.from_bytes(data[tag_at(bytes(data), 324) + 8 :][:4], "little")
        at = int.from_bytes(data[table:][:4], "little")
        data[at : at + 40] = bytes(40)

    with open_slide(damaged(path, change)) as slide:
        with pytest.raises(SlideError, match=r"cannot be decoded at x 0, y 0 .* copy or export"):
            slide.read(0, 0, 0, 10, 10)
        assert slide.read(0, 100, 100, 10, 10).size == (10, 10)


def test_a_tile_that_holds_a_huge_picture_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    write(path, noise(128, 128), tile=(128, 128), compression="jpeg")

    def change(data: bytearray) -> None:
        frame = data.index(
            b"\xff\xc0", int.from_bytes(data[tag_at(bytes(data), 324) + 8 :][:4], "little")
        )
        data[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"

    refused(damaged(path, change), "holds a picture of 65500 x 65500 px .* room for 128 x 128")


def test_a_huge_single_piece_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", noise(64, 64), rowsperstrip=64, compression="zlib")

    def change(data: bytearray) -> None:
        for code, value in ((256, 60_000), (257, 60_000), (278, 60_000)):
            at = tag_at(bytes(data), code)
            data[at + 2 : at + 12] = b"\x04\0\x01\0\0\0" + value.to_bytes(4, "little")

    refused(damaged(path, change), r"pieces of 60000 x 60000 px.* save it as a tiled TIFF")


@pytest.mark.parametrize(
    ("picture", "options", "message"),
    [
        (np.zeros((64, 64), np.uint16), {"photometric": "minisblack"}, "16-bit integer .* 8-bit"),
        (np.zeros((64, 64, 3), np.uint16), {"photometric": "rgb"}, "16-bit"),
        (np.zeros((64, 64), np.float32), {"photometric": "minisblack"}, "floating-point"),
        (
            np.zeros((64, 64, 5), np.uint8),
            {"photometric": "minisblack", "planarconfig": "contig"},
            "5 samples .* neither",
        ),
        (np.zeros((64, 64, 4), np.uint8), {"photometric": "separated"}, "SEPARATED, neither RGB"),
        (np.zeros((4, 64, 64), np.uint8), {"photometric": "minisblack"}, "4 pages of the same"),
        (
            np.zeros((64, 64), np.uint8),
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "PALETTE, neither",
        ),
        (np.zeros((64, 64, 3), np.uint8), {"photometric": "rgb", "compression": "png"}, "by PNG"),
    ],
)
def test_what_is_no_8_bit_colour_is_refused(
    tmp_path: Path, picture: Any, options: dict[str, Any], message: str
) -> None:
    layouts: list[tuple[str, dict[str, Any]]] = [("t.tif", {"tile": (64, 64)}), ("s.tif", {})]
    for name, tiled in layouts:
        if picture.ndim == 3 and picture.shape[0] == 4 and tiled:
            continue
        tifffile.imwrite(tmp_path / name, picture, metadata=None, **options, **tiled)
        refused(tmp_path / name, message)


def described(path: Path, description: str) -> Path:
    tifffile.imwrite(path, noise(64, 64), photometric="rgb", description=description, metadata=None)
    return path


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ('SizeX="64" SizeY="64" SizeC="3" SizeZ="5"', "5 focal planes"),
        ('SizeX="65" SizeY="64" SizeC="3"', "65 x 64 px and a picture of 64 x 64"),
        ('SizeX="64" SizeY="tall"', "cannot be understood"),
        ("", "cannot be understood"),
    ],
)
def test_an_ome_description_that_does_not_fit_is_refused(
    tmp_path: Path, pixels: str, message: str
) -> None:
    text = (
        f'<OME><Image ID="0"><Pixels {pixels}><Channel SamplesPerPixel="3"/></Pixels></Image></OME>'
    )
    refused(described(tmp_path / "s.tif", text), message)


def test_fluorescence_channels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(
        path, np.zeros((3, 64, 64), np.uint8), ome=True, photometric="minisblack",
        metadata={"axes": "CYX"},
    )  # fmt: skip
    refused(path, "3 separate channels.*raw2ometiff --rgb")


def test_xml_is_read_without_entities_and_only_so_much_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("secret")
    for text in (
        f'<!DOCTYPE O [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><OME>&x;</OME>',
        '<!DOCTYPE O [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><OME>&b;</OME>',
    ):
        refused(described(tmp_path / "s.tif", text), "DOCTYPE")
    monkeypatch.setattr("hdgan.tiler.ome_xml.MAX_CHARACTERS", 1000)
    refused(described(tmp_path / "s.tif", f"<OME>{' ' * 1000}</OME>"), "1011 characters")
    monkeypatch.undo()
    refused(described(tmp_path / "s.tif", "<OME>" * 100_000 + "</OME>"), "cannot be understood")


def test_the_size_in_a_jpeg_header_is_found(tmp_path: Path) -> None:
    for options in ({}, {"progressive": True}, {"comment": b"x" * 500}):
        Image.new("RGB", (77, 33)).save(tmp_path / "p.jpg", **options)
        data = (tmp_path / "p.jpg").read_bytes()
        assert jpeg_size(data) == (77, 33)
        assert jpeg_size(data[:20]) is None
    assert jpeg_size(b"") is None


def test_a_real_ome_tiff_that_openslide_refuses() -> None:
    path = SHARED / "OS-1-detail.ome.tif"
    if not path.exists():
        pytest.skip("no shared slides here")
    with open_slide(path) as slide:
        assert slide.vendor == "ome-tiff"
        assert slide.dimensions == (1101, 1101)
        assert slide.mpp == pytest.approx((0.2271, 0.2271), abs=1e-4)
        mine = slide.read(0, 0, 0, 1101, 1101)
    assert mine.mode == "RGB"
    assert np.array_equal(np.asarray(mine), tifffile.imread(path))
