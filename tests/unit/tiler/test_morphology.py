"""Masks grown and shrunk, against scipy; and what lies beyond the border."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hdgan.tiler.morphology import closed, grown, opened, shrunken, without_holes, without_small


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    density=st.sampled_from([0.02, 0.3, 0.9]),
    reach=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_growing_and_shrinking_are_box_filters(
    seed: int, density: float, reach: tuple[int, int]
) -> None:
    mask = np.random.default_rng(seed).random((23, 31)) < density
    size = (2 * reach[0] + 1, 2 * reach[1] + 1)
    as_bytes = mask.astype(np.uint8)
    most = ndimage.maximum_filter(as_bytes, size, mode="nearest").astype(bool)
    least = ndimage.minimum_filter(as_bytes, size, mode="nearest").astype(bool)
    assert (grown(mask, reach) == most).all()
    assert (shrunken(mask, reach) == least).all()
    assert (closed(mask, reach) >= mask).all()
    assert (opened(mask, reach) <= mask).all()


def test_what_touches_the_border_is_not_eaten_away() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:, :8] = True
    assert (closed(mask, (3, 3)) == mask).all()
    assert (opened(mask, (3, 3)) == mask).all()


def test_small_parts_and_small_holes_go() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:10, 2:10] = True
    mask[5, 5] = False
    mask[15, 15:17] = True
    assert np.count_nonzero(without_small(mask, 3)) == 63
    assert np.count_nonzero(without_small(mask, 2)) == 65
    counted = np.zeros_like(mask)
    counted[15, 15:17] = True
    assert np.count_nonzero(without_small(mask, 2, counted=counted)) == 2
    assert np.count_nonzero(without_holes(mask, 2)) == 66
    assert not without_small(np.zeros_like(mask), 1).any()
