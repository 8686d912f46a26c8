"""Masks grown, shrunk, closed and freed of small parts."""

from __future__ import annotations

import numpy as np

from hdgan.tiler.morphology import closed, grown, shrunken, without_holes, without_small


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
