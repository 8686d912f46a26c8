"""Smoothing of masks equals counting votes pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from hdgan.core.errors import RequestError
from hdgan.synthesizer import smoothing
from hdgan.synthesizer.smoothing import radius_in_pixels, smooth_mask

Mask = NDArray[np.uint8]


def naive(mask: Mask, radius: float) -> Mask:
    """The rule, word by word."""
    height, width = mask.shape
    out = mask.copy()
    for y in range(height):
        for x in range(width):
            if mask[y, x] == 255:
                continue
            votes = np.zeros(256, int)
            for v in range(height):
                for u in range(width):
                    if (v - y) ** 2 + (u - x) ** 2 <= radius**2 and mask[v, u] != 255:
                        votes[mask[v, u]] += 1
            winners = np.flatnonzero(votes == votes.max())
            out[y, x] = mask[y, x] if mask[y, x] in winners else winners[0]
    return out


@settings(deadline=None)
@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 9), st.integers(1, 11)),
        elements=st.sampled_from([0, 1, 2, 31, 255]),
    ),
    st.sampled_from([1.0, 1.5, 2.0, 2.9, 3.0, 20.0]),
    st.integers(1, 5),
)
def test_it_is_the_majority_in_the_disc(mask: Mask, radius: float, rows: int) -> None:
    before = mask.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothing, "_BAND_ROWS", rows)
        smoothed = smooth_mask(mask, 32, radius)
    assert np.array_equal(smoothed, naive(mask, radius))
    assert np.array_equal(mask, before)


def test_specks_go_and_straight_contours_stay() -> None:
    mask = np.zeros((300, 280), np.uint8)
    mask[:, 140:] = 1
    straight = mask.copy()
    mask[50, 50] = 1
    mask[200:202, 200:202] = 0
    assert np.array_equal(smooth_mask(mask, 2, 4), straight)


def test_votes_of_the_largest_disc_are_counted_right() -> None:
    mask = np.zeros((200, 400), np.uint8)
    mask[100, 200] = 1
    assert not smooth_mask(mask, 2, 64).any()


def test_a_radius_is_micrometres_and_must_be_useful() -> None:
    assert radius_in_pixels(2.0, 0.5) == 4
    assert 0.3 / 0.1 < 3  # by a last bit, which must not cost the disc its outermost pixels
    assert radius_in_pixels(0.3, 0.1) == 3
    with pytest.raises(RequestError, match=r"0\.5 um are 0\.25 pixels at 2 um/px; use 1 to 64"):
        radius_in_pixels(0.5, 2.0)
    with pytest.raises(RequestError, match="smoothingRadius"):
        radius_in_pixels(100.0, 0.25)
    with pytest.raises(ValueError, match="1 to 64"):
        smooth_mask(np.zeros((2, 2), np.uint8), 2, 0.5)
