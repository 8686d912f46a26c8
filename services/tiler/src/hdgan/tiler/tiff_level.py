"""One picture of a TIFF as a grid of separately decoded pieces: its tiles or strips."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from hdgan.tiler.pixels import Pixels
from hdgan.tiler.slide import SlideError

MAX_PIECE_PIXELS = 1 << 27
"""Pixels that are decoded in one go at most: 134 million, 400 MB of RGB."""

# Rows of an uncompressed picture stored in one piece are read as they are needed, this much a time.
RUN_BYTES = 1 << 20

BLACK_IS_ZERO, RGB, YCBCR, WHITE_IS_ZERO = 1, 2, 6, 0
JPEG = 7
JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
BY_SIZE = frozenset({1, 5, 8, 32946, 32773, 50000})
"""Nothing, LZW, Deflate (two numbers), PackBits, Zstandard: decoded into a given room."""
COMPRESSIONS = BY_SIZE | JPEG_2000 | {JPEG}

ASSOCIATED, UNASSOCIATED = 1, 2
TAG_FILL_ORDER, TAG_EXTRA_SAMPLES = 266, 338


@dataclass(frozen=True)
class TiffLevel:
    """A picture of 8-bit samples.

    piece: width and height of a tile or strip in pixels; across, down: pieces per row and column;
    offsets, counts: int64 [planes, across * down], bytes of each piece in the file; run: pieces are
    runs of uncompressed rows that need no decoder; jpeg_tables: what JPEG pieces have in common;
    extra: what a fourth sample means.
    """

    page: tifffile.TiffPage
    width: int
    height: int
    piece: tuple[int, int]
    across: int
    down: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    jpeg_tables: bytes | None
    extra: int
    run: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    def decode(self, file: int, column: int, row: int) -> Pixels:
        """One piece as uint8 [height, width, 3] RGB, or 4 with alpha; cut off at the rim.

        file: descriptor open for reading. SlideError where it cannot be decoded.
        """
        where = f"at x {column * self.piece[0]}, y {row * self.piece[1]} of {self._name}"
        height = min(self.piece[1], self.height - row * self.piece[1])
        width = min(self.piece[0], self.width - column * self.piece[0])
        planes = []
        for plane in range(len(self.offsets)):
            index = row * self.across + column
            data = self._bytes(file, plane, index, where)
            samples = self._samples(data, plane, index, where)
            if samples.shape[0] < height or samples.shape[1] < width:
                raise SlideError(
                    f"is damaged {where}: {samples.shape[1]} x {samples.shape[0]} px are there, "
                    f"{width} x {height} were announced; copy or export it again"
                )
            planes.append(samples[:height, :width])
        joined = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        return _coloured(joined, int(self.page.photometric), self.extra)

    @property
    def has_alpha(self) -> bool:
        """Whether `decode` gives a fourth sample."""
        return int(self.page.samplesperpixel) == 4 and self.extra in (ASSOCIATED, UNASSOCIATED)

    @property
    def _name(self) -> str:
        return f"the picture of {self.width} x {self.height} px"

    def _bytes(self, file: int, plane: int, index: int, where: str) -> bytes:
        offset, count = int(self.offsets[plane, index]), int(self.counts[plane, index])
        if count == 0:
            raise SlideError(f"has no data {where}: it was not written completely; export it again")
        try:
            data = os.pread(file, count, offset)
        except OSError as error:
            raise SlideError(f"cannot be read {where}: {error.strerror or error}") from error
        if len(data) < count:
            raise SlideError(f"ends within its data {where}; copy it again")
        return data

    def _samples(self, data: bytes, plane: int, index: int, where: str) -> Pixels:
        """uint8 [height, width, samples of the plane]."""
        page = self.page
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        if self.run:
            return np.frombuffer(data, np.uint8).reshape(-1, self.width, samples)
        self._check_announced(data, where)
        try:
            # Any exception: the decoders raise whatever a damaged piece leads them to.
            decoded, *_ = page.decode(
                data, plane * self.across * self.down + index, jpegtables=self.jpeg_tables
            )
            pixels = np.asarray(decoded)
            if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != samples:
                raise ValueError(f"it holds {pixels.dtype} {pixels.shape}")
        except Exception as error:
            raise SlideError(
                f"cannot be decoded {where} ({_short(error)}); the file is damaged: "
                "copy or export it again"
            ) from error
        found: Pixels = pixels[0]
        return found

    def _check_announced(self, data: bytes, where: str) -> None:
        """A piece may hold a picture larger than its place: found out before it is decoded."""
        compression = int(self.page.compression)
        if compression in BY_SIZE:
            return
        size = jpeg_size(data) if compression == JPEG else jpeg_2000_size(data)
        if size is None:
            raise SlideError(f"has no picture {where}; the file is damaged: copy it again")
        if size[0] > self.piece[0] or size[1] > self.piece[1]:
            raise SlideError(
                f"holds a picture of {size[0]} x {size[1]} px {where}, where there is room for "
                f"{self.piece[0]} x {self.piece[1]}; the file is damaged"
            )


def tiff_level(page: tifffile.TiffPage, file_size: int) -> TiffLevel:
    """Check a page and lay out its pieces. SlideError says why it cannot be used."""
    _check_pixels(page)
    width, height = int(page.imagewidth), int(page.imagelength)
    tall = int(page.tilelength if page.is_tiled else page.rowsperstrip)
    piece = (int(page.tilewidth), tall) if page.is_tiled else (width, min(tall, height))
    if min(width, height, *piece) <= 0:
        raise SlideError(f"says it is {width} x {height} px in pieces of {piece}; it is damaged")
    across, down = math.ceil(width / piece[0]), math.ceil(height / piece[1])
    planes = 1 if page.planarconfig == 1 else int(page.samplesperpixel)
    wanted = across * down * planes
    have = min(len(page.dataoffsets), len(page.databytecounts))
    if have < wanted:
        raise SlideError(
            f"consists of {wanted} tiles or strips but lists only {have}; the file is damaged or "
            "was not written completely: export it again"
        )
    offsets = _table(page.dataoffsets, wanted).reshape(planes, -1)
    counts = _table(page.databytecounts, wanted).reshape(planes, -1)
    end = int((offsets + counts).max())
    if end > file_size:
        raise SlideError(
            f"is damaged or incomplete: it has {file_size} bytes, its pixels reach to {end}; "
            "copy it again"
        )
    level = TiffLevel(
        page=page,
        width=width,
        height=height,
        piece=piece,
        across=across,
        down=down,
        offsets=offsets,
        counts=counts,
        jpeg_tables=page.jpegtables,
        extra=_tag(page, TAG_EXTRA_SAMPLES, 0),
        run=False,
    )
    plain = int(page.compression) == 1 and _tag(page, TAG_FILL_ORDER, 1) == 1
    if across == down == 1 and not page.is_tiled and plain and int(page.predictor) == 1:
        return _in_runs(level)
    if piece[0] * piece[1] > MAX_PIECE_PIXELS:
        raise SlideError(
            f"is stored in pieces of {piece[0]} x {piece[1]} px, which can be read only whole; "
            f"more than {MAX_PIECE_PIXELS} px are not: save it as a tiled TIFF"
        )
    return level


def _in_runs(level: TiffLevel) -> TiffLevel:
    """One uncompressed strip as many short ones."""
    samples = level.page.samplesperpixel if level.page.planarconfig == 1 else 1
    row = level.width * int(samples)
    if (level.counts < row * level.height).any():
        raise SlideError("has fewer bytes than pixels; it is damaged: export it again")
    tall = min(level.height, max(1, RUN_BYTES // row))
    tops = np.arange(0, level.height, tall, dtype=np.int64)
    rows = np.minimum(tall, level.height - tops)
    return replace(
        level,
        piece=(level.width, tall),
        down=len(tops),
        offsets=level.offsets + tops * row,
        counts=np.broadcast_to(rows * row, (len(level.offsets), len(tops))),
        run=True,
    )


def _table(values: Any, count: int) -> NDArray[np.int64]:
    try:
        table = np.asarray(values[:count], dtype=np.int64)
    except (OverflowError, TypeError, ValueError) as error:
        raise SlideError(
            f"has a table of tiles that is damaged ({error}); copy it again"
        ) from error
    if (table < 0).any() or (table > 1 << 60).any():
        raise SlideError("has a table of tiles that is damaged; copy it again")
    return table


def _check_pixels(page: tifffile.TiffPage) -> None:
    """SlideError unless these are 8-bit RGB or grey pixels in a compression that is known."""
    bits, samples = page.bitspersample, int(page.samplesperpixel)
    photometric, compression = int(page.photometric), int(page.compression)
    if bits != 8 or page.dtype != np.uint8:
        kind = "floating-point" if int(page.sampleformat) == 3 else "integer"
        raise SlideError(
            f"has {bits}-bit {kind} pixels, probably fluorescence or a mask; only 8-bit RGB or "
            "grey pictures can be cut: convert it to 8-bit RGB"
        )
    if int(page.imagedepth) != 1 or int(page.tiledepth) != 1:
        raise SlideError("is a volume, not a picture; export one plane as 8-bit RGB")
    grey = photometric in (BLACK_IS_ZERO, WHITE_IS_ZERO) and samples == 1
    colour = photometric == RGB and samples in (3, 4)
    # Only JPEG says how to get from YCbCr to RGB; there the decoder does it.
    colour |= photometric == YCBCR and samples == 3 and compression == JPEG
    if not (grey or colour):
        name = getattr(page.photometric, "name", str(photometric))
        raise SlideError(
            f"has {samples} samples per pixel of kind {name}, neither RGB nor grey (fluorescence "
            "channels, a palette or a mask?); convert it to 8-bit RGB"
        )
    if compression not in COMPRESSIONS:
        name = getattr(page.compression, "name", str(compression))
        raise SlideError(
            f"is compressed by {name}, which is not supported; save it with JPEG, JPEG 2000, "
            "Deflate, LZW or Zstandard"
        )


def _coloured(samples: Pixels, photometric: int, extra: int) -> Pixels:
    """Samples as RGB or RGBA."""
    count = samples.shape[2]
    if count == 1:
        grey = 255 - samples if photometric == WHITE_IS_ZERO else samples
        return np.repeat(grey, 3, axis=2)
    if count == 4:
        if extra == ASSOCIATED:
            height, width, _ = samples.shape
            dense = np.ascontiguousarray(samples)
            straight = Image.frombuffer("RGBa", (width, height), dense, "raw", "RGBa", 0, 1)
            return np.asarray(straight.convert("RGBA"))
        if extra != UNASSOCIATED:
            return np.ascontiguousarray(samples[..., :3])
    return np.ascontiguousarray(samples)


def _tag(page: tifffile.TiffPage, code: int, default: int) -> int:
    value = page.tags.valueof(code, default)
    if isinstance(value, tuple):
        value = value[0] if value else default
    return int(value)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height a JPEG stream announces, or None where it has no frame header."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill, or without length
            at += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        elif marker in (0xD9, 0xDA):
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    """Width and height a JPEG 2000 codestream, bare or in a JP2 file, announces, or None."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(data) < start + 24:
        return None
    right, bottom, left, top = (
        int.from_bytes(data[at : at + 4]) for at in range(start + 8, start + 24, 4)
    )
    return right - left, bottom - top
