"""Hostile pictures, each with the message it must produce."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdgan.core.errors import DataError, RequestError
from hdgan.core.masks import decode_mask, encode_mask, read_palette
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.sections import ClassConfig
from hdgan.core.tiles import decode_tile
from hdgan.desk.mask_files import read_mask
from hdgan.desk.pictures import open_rgb
from hdgan.desk.png_text import read_candidate_id
from hdgan.extractor.pictures import decode_picture
from support.fuzzing import survives

CLASSES = [ClassConfig(name="a", color="#ff0000"), ClassConfig(name="b", color="#00ff00")]
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, payload: bytes) -> bytes:
    whole = kind + payload
    return struct.pack(">I", len(payload)) + whole + struct.pack(">I", zlib.crc32(whole))


def header(width: int, height: int, depth: int = 8, colour: int = 3) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0]))
END = chunk(b"IEND", b"")


def pixels(width: int, height: int, value: bytes = b"\0") -> bytes:
    return chunk(b"IDAT", zlib.compress((b"\0" + value * width) * height, 9))


def bomb(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


GOOD = SIGNATURE + header(4, 4) + PALETTE + pixels(4, 4) + END
ZEROS = chunk(b"IDAT", bomb(50_000_000))
CASES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is not a PNG file"),
    "a JPEG by name only": (b"\xff\xd8\xff" + bytes(100), "is not a PNG file"),
    "60000 pixels a side": (
        SIGNATURE + header(60_000, 60_000) + PALETTE + ZEROS + END,
        "is 60000 x 60000 pixels; at most 8192 a side",
    ),
    "as wide as can be": (
        SIGNATURE + header(2**31 - 1, 1) + PALETTE + ZEROS + END,
        "is 2147483647 x 1 pixels; at most 8192 a side",
    ),
    "no pixels": (SIGNATURE + header(0, 4) + PALETTE + END, "is 0 x 4 pixels"),
    "two headers": (
        SIGNATURE + header(4, 4) + header(7_000, 7_000) + PALETTE + ZEROS + END,
        "the PNG is truncated or damaged",
    ),
    "a header of another kind first": (
        SIGNATURE + chunk(b"tEXt", b"a\0b") + header(4, 4) + PALETTE + pixels(4, 4) + END,
        "is not a PNG file",
    ),
    "more pixels than are said": (
        SIGNATURE + header(4, 4) + PALETTE + ZEROS + END,
        "",
    ),
    "fewer pixels than are said": (
        SIGNATURE + header(4, 4) + PALETTE + pixels(4, 2) + END,
        "",
    ),
    "a text that unpacks to 50 MB": (
        SIGNATURE + header(4, 4) + chunk(b"zTXt", b"a\0\0" + bomb(50_000_000)) + PALETTE + END,
        "the PNG is truncated or damaged",
    ),
    "an international one": (
        SIGNATURE
        + header(4, 4)
        + chunk(b"iTXt", b"a\0\x01\0\0\0" + bomb(50_000_000))
        + PALETTE
        + pixels(4, 4)
        + END,
        "the PNG is truncated or damaged",
    ),
    "a colour profile that unpacks to 50 MB": (
        SIGNATURE
        + header(4, 4)
        + chunk(b"iCCP", b"a\0\0" + bomb(50_000_000))
        + PALETTE
        + pixels(4, 4)
        + END,
        "the PNG is truncated or damaged",
    ),
    "a hundred texts of a megabyte": (
        SIGNATURE
        + header(4, 4)
        + b"".join(chunk(b"zTXt", b"%d\0\0" % n + bomb(1_000_000)) for n in range(100))
        + PALETTE
        + pixels(4, 4)
        + END,
        "the PNG is truncated or damaged",
    ),
    "a length beyond the file": (
        SIGNATURE + header(4, 4) + b"\x7f\xff\xff\xffIDAT" + END,
        "the PNG is truncated or damaged",
    ),
    "a checksum that is wrong": (
        GOOD.replace(PALETTE, PALETTE[:-1] + b"\0"),
        "the PNG is truncated or damaged",
    ),
    "16 bits": (SIGNATURE + header(4, 4, 16, 0) + END, "is a 16-bit greyscale PNG"),
    "interlaced in an unknown way": (
        SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 9))
        + PALETTE
        + pixels(4, 4)
        + END,
        "the PNG is truncated or damaged",
    ),
    "values that are no class": (
        SIGNATURE + header(4, 4) + PALETTE + pixels(4, 4, b"\x07") + END,
        r"holds the values \[7\]",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_mask_is_refused_with_its_reason_and_takes_no_memory(case: str) -> None:
    """An empty message: Pillow takes it for what it says it is, which is no harm."""
    data, message = CASES[case]
    assert len(data) < 200_000
    tracemalloc.start()
    try:
        if message:
            with pytest.raises(RequestError, match=f"^mask: {message}"):
                decode_mask(data, classes=2)
        else:
            assert decode_mask(data, classes=2).shape == (4, 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000


READERS: dict[str, Callable[[bytes], Any]] = {
    "palette": read_palette,
    "mask of a person": lambda data: read_mask(data, CLASSES, 4, 4),
    "picture of the report": lambda data: open_rgb(data, "picture"),
    "picture of a candidate": lambda data: decode_picture(data, 4, "picture"),
    "tile": lambda data: decode_tile(data, _sha256(data), "tile"),
}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_of_pictures_is_harmed(reader: str, case: str) -> None:
    tracemalloc.start()
    try:
        survives(lambda: READERS[reader](CASES[case][0]))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16_000_000


def test_the_number_of_pixels_is_exact() -> None:
    for most, read in ((16, True), (15, False)):
        try:
            with open_picture(GOOD, max_pixels=most) as picture:
                assert picture.size == (4, 4)
        except PictureError as error:
            message = str(error)
        else:
            message = ""
        assert message == ("" if read else "its 4 x 4 pixels are too many: at most 15 are read")


def test_every_reader_takes_a_good_picture() -> None:
    """Else the test above would say nothing."""
    assert decode_mask(GOOD, classes=2).tolist() == [[0] * 4] * 4
    assert read_palette(GOOD)[:2] == [(255, 0, 0), (0, 255, 0)]
    assert read_mask(GOOD, CLASSES, 4, 4).tolist() == [[0] * 4] * 4
    assert open_rgb(GOOD, "x")[0, 0].tolist() == [255, 0, 0]


def test_only_the_formats_named_are_tried() -> None:
    for kind in ("GIF", "TIFF", "BMP", "PPM", "WEBP", "ICO"):
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(buffer, kind)
        with pytest.raises(PictureError), open_picture(buffer.getvalue(), max_pixels=100):
            pass
        with pytest.raises(DataError):
            open_rgb(buffer.getvalue(), "x")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) = quit\n"
    with pytest.raises(DataError, match="cannot be read as a picture"):
        open_rgb(postscript, "x")


@pytest.mark.parametrize("data", [b"", b"hello", SIGNATURE + END])
def test_what_is_no_picture_is_said_in_words(data: bytes) -> None:
    """Pillow's message is the address of a buffer."""
    with pytest.raises(PictureError) as one, open_picture(data, max_pixels=16):
        pass
    formats = ("PNG", "JPEG")
    with (
        pytest.raises(PictureError) as two,
        open_picture(data, formats=formats, max_pixels=16),
    ):
        pass
    assert str(one.value) == "it is no PNG that can be decoded"
    assert str(two.value) == "it is no PNG or JPEG that can be decoded"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"../../x", "names the candidate '../../x', which is no candidate id"),
        (b"<script>", "is no candidate id"),
        (b"0" * 100_000, "is no candidate id"),
        (b"A" * 32, "is no candidate id"),
    ],
)
def test_an_id_in_a_picture_is_an_id(text: bytes, message: str) -> None:
    data = SIGNATURE + header(4, 4) + chunk(b"tEXt", b"hdgan-candidate\0" + text) + END
    with pytest.raises(RequestError, match=message) as error:
        read_candidate_id(data)
    assert len(str(error.value)) < 200


def test_a_picture_of_very_many_chunks_is_refused() -> None:
    data = SIGNATURE + header(4, 4) + chunk(b"tEXt", b"a\0b") * 100_001 + END
    with pytest.raises(RequestError, match="far too many chunks"):
        read_candidate_id(data)


def test_a_mask_written_by_us_is_no_exception() -> None:
    mask = np.array([[0, 1], [255, 0]], np.uint8)
    assert (decode_mask(encode_mask(mask, CLASSES), classes=2) == mask).all()
