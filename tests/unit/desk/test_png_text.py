"""The candidate's id inside a PNG: readable by others, lossless, defensive."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.errors import RequestError
from hdgan.core.masks import decode_mask, encode_mask
from hdgan.desk.png_text import read_candidate_id, with_candidate_id
from support.desk_run import CLASSES, noise_rgb, png, striped_mask

ID = "ab" * 16


def test_pillow_reads_what_is_written_and_pixels_and_palette_stay() -> None:
    mask = striped_mask()
    data = with_candidate_id(encode_mask(mask, CLASSES), ID)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.text[CANDIDATE_KEYWORD] == ID  # type: ignore[attr-defined]
    np.testing.assert_array_equal(decode_mask(data), mask)


@pytest.mark.parametrize("international", [False, True])
def test_reads_what_pillow_writes(international: bool) -> None:
    info = PngImagePlugin.PngInfo()
    (info.add_itxt if international else info.add_text)(CANDIDATE_KEYWORD, ID)
    buffer = io.BytesIO()
    Image.fromarray(noise_rgb(0)).save(buffer, format="PNG", pnginfo=info)
    assert read_candidate_id(buffer.getvalue()) == ID


def test_writing_an_id_replaces_the_one_before() -> None:
    data = with_candidate_id(with_candidate_id(png(noise_rgb(0)), "cd" * 16), ID)
    assert read_candidate_id(data) == ID
    assert data.count(CANDIDATE_KEYWORD.encode()) == 1


def id_chunk(identity: str, international: bool) -> bytes:
    kind, between = (b"iTXt", bytes(5)) if international else (b"tEXt", b"\0")
    payload = CANDIDATE_KEYWORD.encode() + between + identity.encode()
    crc = zlib.crc32(kind + payload)
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", crc)


@pytest.mark.parametrize("international", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_two_ids_in_a_picture_are_refused(international: bool, last: bool) -> None:
    """Whichever would be taken, the other one may be meant."""
    data = with_candidate_id(png(noise_rgb(0)), ID)

    def with_another(identity: str) -> bytes:
        place = data.index(b"IEND" if last else b"IDAT") - 4
        return data[:place] + id_chunk(identity, international) + data[place:]

    assert read_candidate_id(with_another(ID)) == ID
    other = "cd" * 16
    with pytest.raises(RequestError, match=f"names two candidates, {ID} and {other}"):
        read_candidate_id(with_another(other))
    with pytest.raises(RequestError, match="which is no candidate id"):
        read_candidate_id(with_another("../x"))


def test_a_png_without_id_has_none() -> None:
    assert read_candidate_id(png(noise_rgb(0))) is None


def test_broken_files_and_impossible_ids_are_refused() -> None:
    data = png(noise_rgb(0))
    for broken in (b"", b"GIF89a", data[:-6], data[:60] + b"\xff" + data[61:]):
        with pytest.raises(RequestError):
            read_candidate_id(broken)
    with pytest.raises(RequestError, match="no candidate id"):
        with_candidate_id(data, "../../etc")
