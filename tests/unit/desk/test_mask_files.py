"""PNG masks as tools write them: by colour, by index, or refused with the reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hdgan.core.masks import encode_mask
from hdgan.desk.mask_files import MaskError, read_mask
from hdgan.desk.pictures import colour_mask
from support.desk_run import CLASSES, SIDE, noise_rgb, png, striped_mask


def read(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return read_mask(data, CLASSES, SIDE, SIDE)


def partly_labelled() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    mask = striped_mask()
    mask[:4] = 255
    return mask


def test_every_way_to_write_a_mask_gives_the_same_mask() -> None:
    mask = partly_labelled()
    rgb = colour_mask(mask, CLASSES)
    alpha = np.dstack([rgb, np.where(mask == 255, 0, 255).astype(np.uint8)])
    alpha[mask == 255, :3] = 77  # What lies under full transparency does not matter.
    for data in (encode_mask(mask, CLASSES), png(mask), png(rgb), png(alpha)):
        np.testing.assert_array_equal(read(data), mask)


def test_a_palette_that_an_editor_reordered_is_read_by_its_colours() -> None:
    mask = striped_mask()
    picture = Image.fromarray((2 - mask).astype(np.uint8), mode=None)
    picture.putpalette([part for entry in CLASSES[::-1] for part in entry.rgb])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    np.testing.assert_array_equal(read(buffer.getvalue()), mask)


def test_a_picture_or_a_soft_edge_is_no_mask() -> None:
    with pytest.raises(MaskError, match="colours that are no class"):
        read(png(noise_rgb(0)))
    rgb = colour_mask(striped_mask(), CLASSES)
    rgb[5, 7] = (1, 2, 3)
    with pytest.raises(MaskError, match=r"x=7, y=5: #010203 \(1 px\)"):
        read(png(rgb))


def test_unknown_indices_are_named() -> None:
    mask = striped_mask()
    mask[0, :3] = 9
    with pytest.raises(MaskError, match=r"9 \(3 px\); allowed are 0 to 2"):
        read(png(mask))


def test_size_is_checked_before_anything_is_decoded() -> None:
    header_only = png(np.zeros((SIDE, 2 * SIDE), np.uint8))[:40]
    with pytest.raises(MaskError):
        read(header_only)
    with pytest.raises(MaskError, match="is 64 x 32 px, but its candidate is 32 x 32 px"):
        read(png(np.zeros((SIDE, 2 * SIDE), np.uint8)))


@pytest.mark.parametrize("data", [b"", b"nonsense", png(striped_mask())[:-30]])
def test_broken_files_are_refused(data: bytes) -> None:
    with pytest.raises(MaskError):
        read(data)
