"""Pixels that a PNG promises and does not have are noticed, whatever its kind."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdgan.core.run import ClassConfig
from hdgan.desk.mask_files import MaskError, read_mask
from hdgan.desk.png_chunks import SIGNATURE, has_all_pixels

CLASSES = [ClassConfig(name="a", color="#ff0000"), ClassConfig(name="b", color="#00ff00")]


def chunk(kind: bytes, payload: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + payload))
    return struct.pack(">I", len(payload)) + kind + payload + crc


def png(width: int, height: int, depth: int, colour: int, interlace: int, raw: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    packed = zlib.compress(raw)
    half = len(packed) // 2
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", packed[:half]), chunk(b"IDAT", packed[half:])]
    return SIGNATURE + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 33), (1300, 900)])
def test_whole_files_are_whole(mode: str, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0]), dtype=np.uint8)
    picture = Image.fromarray(noise.astype(np.uint16) if mode == "I;16" else noise)
    buffer = io.BytesIO()
    (picture if mode == "I;16" else picture.convert(mode)).save(buffer, "PNG")
    assert has_all_pixels(buffer.getvalue())


@pytest.mark.parametrize("missing", [1, 4, 17])
def test_a_mask_that_ends_early_is_no_mask_of_the_first_class(missing: int) -> None:
    raw = (b"\0" + b"\1" * 8) * 8
    whole = png(8, 8, 8, 0, 0, raw)
    assert (read_mask(whole, CLASSES, 8, 8) == 1).all()
    short = png(8, 8, 8, 0, 0, raw[:-missing])
    with pytest.raises(MaskError, match="ends before its last row"):
        read_mask(short, CLASSES, 8, 8)


def test_interlaced_files_are_counted_by_their_passes() -> None:
    # 3 x 2 pixels of 8 bits: pass 1 has one pixel, 4 one, 6 two, 7 three (with a filter byte a
    # row); passes 2, 3 and 5 have none.
    rows = b"\0\1" + b"\0\1" + b"\0\1" + b"\0\1\1\1"
    whole = png(3, 2, 8, 0, 1, rows)
    assert has_all_pixels(whole)
    assert np.asarray(Image.open(io.BytesIO(whole))).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert not has_all_pixels(png(3, 2, 8, 0, 1, rows[:-1]))


def test_what_follows_the_end_of_the_pixels_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """zlib keeps what follows the end and copies it with every call: quadratic in the chunks."""
    calls: list[bool] = []

    class Counting:
        def __init__(self) -> None:
            self._inner = unpacker()

        def decompress(self, *arguments: Any) -> bytes:
            calls.append(self._inner.eof)
            return self._inner.decompress(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    unpacker = zlib.decompressobj
    monkeypatch.setattr("hdgan.desk.png_chunks.zlib.decompressobj", Counting)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    more = chunk(b"IDAT", b"x" * 20) * 1000
    for rows, whole in ((4, False), (8, True)):
        pixels = chunk(b"IDAT", zlib.compress(bytes(9 * rows)))
        data = SIGNATURE + header + pixels + more + chunk(b"IEND", b"")
        assert has_all_pixels(data) is whole
        assert calls
        assert not any(calls)


def test_a_bomb_is_not_unpacked_beyond_what_it_promises() -> None:
    assert has_all_pixels(png(8, 8, 8, 0, 0, b"\0" * (256 << 20)))
