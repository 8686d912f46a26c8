"""A computed random order is an order, and random."""

from __future__ import annotations

import numpy as np
import pytest

from hdgan.classifier.random_order import random_order


def seed(number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([1, number])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 17, 64, 1000, 4096])
def test_every_number_comes_once(count: int) -> None:
    for number in range(3):
        order = random_order(np.arange(count), count, seed(number))
        assert sorted(order.tolist()) == list(range(count))


def test_a_place_does_not_depend_on_what_else_is_asked_for() -> None:
    whole = random_order(np.arange(1000), 1000, seed(0))
    some = np.array([999, 0, 500])
    assert np.array_equal(random_order(some, 1000, seed(0)), whole[some])
    few = random_order(np.arange(3), 10**15, seed(0))
    assert ((few >= 0) & (few < 10**15)).all()


@pytest.mark.parametrize("count", [6, 40])
def test_every_number_is_equally_often_at_every_place(count: int) -> None:
    orders = 3000
    seen = np.zeros((count, count))
    for number in range(orders):
        seen[np.arange(count), random_order(np.arange(count), count, seed(number))] += 1
    chi_squared = ((seen - orders / count) ** 2 / (orders / count)).sum()
    free = (count - 1) ** 2
    assert abs(chi_squared - free) < 5 * np.sqrt(2 * free)


def test_neighbours_in_the_order_are_not_neighbours_in_number() -> None:
    order = random_order(np.arange(10_000), 10_000, seed(0)) / 10_000
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
