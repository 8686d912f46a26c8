"""Masks: the indices survive exactly, and anything but an 8-bit indexed PNG is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hdgan.core.errors import RequestError
from hdgan.core.masks import UNLABELLED, decode_mask, encode_mask, read_palette
from hdgan.core.sections import ClassConfig

CLASSES = [
    ClassConfig(name="a", color="#ff0000"),
    ClassConfig(name="b", color="#00ff7f"),
    ClassConfig(name="c", color="#ffffff"),
]


def example() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.choice(np.array([0, 1, 2, UNLABELLED], np.uint8), size=(37, 53))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_indices_survive_and_the_palette_shows_the_classes() -> None:
    mask = example()
    data = encode_mask(mask, CLASSES)
    assert (decode_mask(data, classes=3, shape=(37, 53)) == mask).all()
    palette = read_palette(data)
    assert palette[:3] == [(255, 0, 0), (0, 255, 127), (255, 255, 255)]
    assert palette[UNLABELLED] == (0, 0, 0)
    assert data == encode_mask(mask, CLASSES)
    with Image.open(io.BytesIO(data)) as image:  # what a viewer shows
        shown = np.asarray(image.convert("RGB"))
    assert (shown[mask == 1] == (0, 255, 127)).all()
    assert (shown[mask == UNLABELLED] == 0).all()


def test_a_mask_of_few_values_is_still_8_bit() -> None:
    data = encode_mask(np.zeros((8, 8), np.uint8), CLASSES)
    assert data[24] == 8
    assert (decode_mask(data) == 0).all()


def test_values_that_are_no_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[3\] are no class"):
        encode_mask(np.full((2, 2), 3, np.uint8), CLASSES)
    data = encode_mask(np.full((2, 2), 2, np.uint8), CLASSES)
    with pytest.raises(RequestError, match=r"holds the values \[2\]; allowed are 0 to 1"):
        decode_mask(data, classes=2)


@pytest.mark.parametrize("mask", [np.zeros((2, 2)), np.zeros((2, 2, 3), np.uint8)])
def test_only_uint8_planes_are_written(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_mask(mask, CLASSES)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "I;16"])
def test_other_pngs_are_refused(mode: str) -> None:
    with pytest.raises(RequestError, match="8-bit indexed"):
        decode_mask(png(Image.new(mode, (4, 4))))


def test_a_4_bit_indexed_png_is_refused() -> None:
    image = Image.new("P", (4, 4))
    image.putpalette(bytes(range(48)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=4)
    with pytest.raises(RequestError, match="4-bit indexed"):
        decode_mask(buffer.getvalue())


def test_the_wrong_size_is_named() -> None:
    data = encode_mask(np.zeros((2, 3), np.uint8), CLASSES)
    with pytest.raises(RequestError, match=r"m\.png: is 3 x 2 pixels, the image is 4 x 2"):
        decode_mask(data, shape=(2, 4), source="m.png")


def test_a_huge_png_is_refused_before_it_is_unpacked() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 3, 0, 0, 0)
    chunk = (
        struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    )
    with pytest.raises(RequestError, match="60000 x 60000"):
        decode_mask(b"\x89PNG\r\n\x1a\n" + chunk)


@pytest.mark.parametrize("keep", [0, 20, 60, -30])
def test_damaged_files_are_refused(keep: int) -> None:
    data = encode_mask(example(), CLASSES)
    with pytest.raises(RequestError):
        decode_mask(data[:keep])
