"""The id of a candidate inside its PNG: a text chunk that survives renaming the file.

Works on the chunks alone, so the picture's pixels and palette are never touched.
"""

from __future__ import annotations

import re
import struct
import zlib

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.errors import RequestError
from hdgan.desk.png_chunks import SIGNATURE, chunks

CANDIDATE_ID = re.compile(r"[0-9a-f]{16,64}")
"""What a candidate id looks like: lower-case hexadecimal digits."""

_MAX_TEXT = 1024


def _text_of(kind: bytes, payload: bytes) -> str | None:
    """The text of our keyword in a tEXt or (uncompressed) iTXt chunk, else None."""
    keyword, separator, rest = payload[: _MAX_TEXT + 128].partition(b"\0")
    if not separator or keyword != CANDIDATE_KEYWORD.encode("ascii"):
        return None
    if kind == b"iTXt":
        # compression flag, method, language\0, translated keyword\0, text
        if rest[:1] != b"\0":
            return None
        parts = rest[2:].split(b"\0", 2)
        rest = parts[2] if len(parts) == 3 else b""
    return rest[:_MAX_TEXT].decode("latin-1").strip()


def read_candidate_id(data: bytes) -> str | None:
    """The candidate id in a PNG's text chunk, None if there is none.

    Raises RequestError (without a file name: the caller knows it) for a broken PNG, an id that
    cannot be one, or two ids.
    """
    found: str | None = None
    try:
        for _, kind, payload in chunks(data):
            if kind not in (b"tEXt", b"iTXt"):
                continue
            text = _text_of(kind, payload)
            if text is None:
                continue
            if not CANDIDATE_ID.fullmatch(text):
                raise ValueError(f"names the candidate {text[:80]!r}, which is no candidate id")
            if found not in (None, text):
                raise ValueError(f"names two candidates, {found} and {text}")
            found = text
    except ValueError as error:
        raise RequestError(f"{error}: export it again") from None
    return found


def with_candidate_id(data: bytes, candidate: str) -> bytes:
    """The same PNG with `candidate` as its id; an id it had before is replaced."""
    if not CANDIDATE_ID.fullmatch(candidate):
        raise RequestError(f"{candidate!r} is no candidate id: lower-case hexadecimal is expected")
    payload = CANDIDATE_KEYWORD.encode("ascii") + b"\0" + candidate.encode("ascii")
    chunk = struct.pack(">I", len(payload)) + b"tEXt" + payload
    chunk += struct.pack(">I", zlib.crc32(b"tEXt" + payload))
    result = bytearray(SIGNATURE)
    try:
        for offset, kind, body in chunks(data):
            if kind in (b"tEXt", b"iTXt") and _text_of(kind, body) is not None:
                continue
            result += data[offset : offset + 12 + len(body)]
            if kind == b"IHDR":  # Early in the file, and legal there for both chunk types.
                result += chunk
    except ValueError as error:
        raise RequestError(f"{error}: export it again") from None
    return bytes(result)
