"""The chunks of a PNG file, and whether its pixels are all there."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000
_STEP = 1 << 20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type (PNG specification, table 11.1)."""
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column and row, and steps, of the passes of an interlaced file (section 8.2)."""


def chunks(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(offset, type, payload) of each chunk. Raises ValueError where the file is broken."""
    if data[:8] != SIGNATURE:
        raise ValueError("is not a PNG file")
    offset = 8
    for _ in range(_MAX_CHUNKS):
        if offset + 12 > len(data):
            raise ValueError("is a truncated PNG file")
        (length,) = struct.unpack_from(">I", data, offset)
        kind = data[offset + 4 : offset + 8]
        end = offset + 8 + length
        if end + 4 > len(data):
            raise ValueError("is a truncated PNG file")
        payload = data[offset + 8 : end]
        if struct.unpack_from(">I", data, end)[0] != zlib.crc32(kind + payload):
            raise ValueError("is a damaged PNG file (checksum)")
        yield offset, kind, payload
        if kind == b"IEND":
            return
        offset = end + 4
    raise ValueError("is a PNG file with far too many chunks")


def has_all_pixels(data: bytes) -> bool:
    """Whether the compressed pixels are as many as the header says.

    A decoder takes a file whose compressed data ends early, but cleanly, for whole and fills it
    with 0, which in a mask is a class. Raises ValueError where the file is broken.
    """
    expected, got = 0, 0
    unpacking = zlib.decompressobj()
    try:
        for _, kind, payload in chunks(data):
            if kind == b"IHDR":
                expected = _unpacked_bytes(payload)
            elif kind == b"IDAT":
                rest = payload
                # Not after the end of the compressed data: what follows there would be kept, and
                # copied with every chunk.
                while rest and got < expected and not unpacking.eof:
                    got += len(unpacking.decompress(rest, _STEP))
                    rest = unpacking.unconsumed_tail
    except (zlib.error, struct.error, KeyError) as error:
        raise ValueError(f"is a damaged PNG file ({error})") from None
    while got < expected and not unpacking.eof:
        more = len(unpacking.decompress(unpacking.unconsumed_tail, _STEP))
        if not more:
            break
        got += more
    return 0 < expected <= got


def _unpacked_bytes(header: bytes) -> int:
    """Bytes of all rows, each with its filter byte, that a header (IHDR) promises."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    bits = depth * _CHANNELS[colour]
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    total = 0
    for x, y, step_x, step_y in passes:
        columns = max(0, -(-(width - x) // step_x))
        rows = max(0, -(-(height - y) // step_y))
        if columns:
            total += rows * (1 + -(-columns * bits // 8))
    return total
