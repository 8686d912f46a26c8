"""Pictures as bytes: always the same ones, with nothing lost."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from hdgan.core.annotations import CANDIDATE_KEYWORD
from hdgan.core.masks import decode_mask, read_palette
from hdgan.synthesizer.pictures import (
    DATASET_PNG,
    ContactSheet,
    encode_classes,
    encode_rgb,
    encode_uncertainty,
    quantise_uncertainty,
)
from support.tiny_synthesizer import CLASSES


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(0, 1, width=32),
    )
)
def test_uncertainty_survives_to_half_a_step_of_16_bits(values: NDArray[np.float32]) -> None:
    decoded = Image.open(io.BytesIO(encode_uncertainty(quantise_uncertainty(values))))
    assert decoded.mode == "I;16"
    read = np.asarray(decoded).astype(np.float64) / 65535
    assert np.abs(read - values).max() <= 0.5 / 65535 + 1e-12


def test_uncertainty_uses_the_whole_range() -> None:
    ends = np.array([[0, 1, 0.5]], np.float32)
    decoded = np.asarray(Image.open(io.BytesIO(encode_uncertainty(quantise_uncertainty(ends)))))
    assert decoded.tolist() == [[0, 65535, 32768]]


def test_uncertainty_is_quantised_alike_in_bands() -> None:
    values = np.random.default_rng(0).random((300, 7), dtype=np.float32) * 1.1 - 0.05
    expected = np.clip(np.rint(values.astype(np.float64) * 65535), 0, 65535)
    assert np.array_equal(quantise_uncertainty(values), expected)


def test_a_mask_survives_with_its_colours_and_ignored_pixels() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (16, 24))
    data = encode_classes(mask, CLASSES)
    assert np.array_equal(decode_mask(data, classes=2), mask)
    assert read_palette(data)[:2] == [one.rgb for one in CLASSES]
    with pytest.raises(ValueError, match=r"\[7\] are no class"):
        encode_classes(np.full((2, 2), 7, np.uint8), CLASSES)


def test_a_dataset_picture_holds_the_same_pixels_as_a_candidate() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    decoded = Image.open(io.BytesIO(encode_rgb(picture, "c0ffee", DATASET_PNG)))
    assert np.array_equal(np.asarray(decoded), picture)


def test_a_picture_is_the_same_bytes_and_carries_its_id() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    data = encode_rgb(picture, "c0ffee")
    assert data == encode_rgb(picture.copy(), "c0ffee")
    assert data != encode_rgb(picture, "c0ffef")
    decoded = Image.open(io.BytesIO(data))
    assert decoded.info == {CANDIDATE_KEYWORD: "c0ffee"}
    assert np.array_equal(np.asarray(decoded), picture)


def test_a_contact_sheet_fills_row_by_row() -> None:
    sheet = ContactSheet(21)
    sheet.paste(20, Image.new("RGB", (8, 8), "red"))
    decoded = Image.open(io.BytesIO(sheet.png()))
    assert decoded.size == (20 * 64, 2 * 64)
    assert decoded.getpixel((10, 74)) == (255, 0, 0)
    assert decoded.getpixel((10, 10)) == (255, 255, 255)
