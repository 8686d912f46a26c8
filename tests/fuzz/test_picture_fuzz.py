"""Pictures: damaged PNG and JPEG files, for every reader of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from hdgan.core.masks import decode_mask, encode_mask, read_palette
from hdgan.core.picture_files import PictureError, open_picture
from hdgan.core.sections import ClassConfig
from hdgan.desk.mask_files import read_mask
from hdgan.desk.pictures import open_rgb
from hdgan.desk.png_text import read_candidate_id, with_candidate_id
from hdgan.extractor.pictures import decode_picture
from support.fuzzing import damaged, examples, survives

CLASSES = [ClassConfig(name="a", color="#ff0000"), ClassConfig(name="b", color="#00ff00")]
RGB = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _texts() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("hdgan-candidate", "0" * 32)
    info.add_text("other", "x" * 50, zip=True)
    info.add_itxt("more", "y" * 50, "de", "mehr", zip=True)
    return info


MASK = encode_mask(np.arange(256, dtype=np.uint8).reshape(16, 16) % 2, CLASSES)
VALID = [
    MASK,
    _saved(Image.fromarray(RGB), "PNG", pnginfo=_texts(), icc_profile=b"p" * 200),
    _saved(Image.fromarray(RGB).convert("RGBA"), "PNG"),
    _saved(Image.fromarray(RGB[..., 0]), "PNG"),
    _saved(Image.fromarray(RGB[..., 0].astype(np.uint16) * 257), "PNG"),
    _saved(Image.fromarray(RGB), "JPEG"),
    _saved(Image.fromarray(RGB), "PNG", dpi=(40_000, 40_000)),
]


@examples(300, 20_000)
@given(st.one_of(st.sampled_from(VALID).flatmap(damaged), st.binary(max_size=80)))
def test_a_damaged_picture_is_read_or_refused(data: bytes) -> None:
    def pixels() -> Any:
        with open_picture(data, formats=("PNG", "JPEG"), max_pixels=1 << 16) as picture:
            return np.asarray(picture)

    found = survives(pixels, PictureError)
    if not isinstance(found, PictureError):
        assert found.shape[0] * found.shape[1] <= 1 << 16
    survives(lambda: decode_mask(data, classes=2))
    survives(lambda: read_palette(data))
    survives(lambda: read_mask(data, CLASSES, 16, 16))
    survives(lambda: open_rgb(data, "picture"))
    survives(lambda: decode_picture(data, 16, "picture"))
    survives(lambda: read_candidate_id(data))
    survives(lambda: with_candidate_id(data, "0" * 32))
