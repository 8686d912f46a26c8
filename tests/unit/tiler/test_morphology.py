"""Masks grown, shrunk, closed and freed of small parts."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hdgan.tiler.morphology import closed, grown, opened, shrunken, without_holes, without_small


def test_a_gap_is_closed_and_the_border_is_no_gap() -> None:
    mask = np.zeros((9, 20), bool)
    mask[:, :5] = mask[:, 7:12] = True
    found = closed(mask, (1, 1))
    assert found[:, :12].all()
    assert not found[:, 12:].any()
    assert grown(mask, (0, 1)).sum() > mask.sum() > shrunken(mask, (0, 1)).sum()


def test_holes_are_filled_but_what_lies_around_is_none_however_little() -> None:
    ring = np.zeros((9, 9), bool)
    ring[2:7, 2:7] = True
    ring[4, 4] = False
    expected = ring.copy()
    expected[4, 4] = True
    assert np.array_equal(without_holes(ring, 1000), expected)
    assert np.array_equal(without_holes(ring, 1), ring)
    assert not without_holes(np.zeros((4, 4), bool), 1000).any()


def test_small_parts_go_counted_by_another_mask() -> None:
    mask = np.zeros((5, 12), bool)
    mask[1:4, 1:4] = True
    mask[1:4, 6:11] = True
    assert without_small(mask, 10).sum() == 15
    counted = np.zeros_like(mask)
    counted[2, 2] = True
    assert np.array_equal(without_small(mask, 1, counted).nonzero()[1] < 5, np.ones(9, bool))


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
