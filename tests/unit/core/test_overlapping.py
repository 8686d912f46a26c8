"""Many requests at a time: in order, several at once, and what an error does."""

from __future__ import annotations

import threading

import pytest

from hdgan.core.overlapping import overlapping


@pytest.mark.parametrize("at_once", [1, 4])
def test_results_come_in_the_order_of_the_things(at_once: int) -> None:
    assert overlapping(lambda n: n * n, range(50), at_once) == [n * n for n in range(50)]
    assert overlapping(lambda n: n, [], at_once) == []


def test_as_many_are_under_way_as_were_asked_for() -> None:
    together = threading.Barrier(4, timeout=30)
    assert len({*overlapping(lambda _: together.wait(), range(4), 4)}) == 4


def test_alone_it_stays_in_the_callers_thread() -> None:
    threads = overlapping(lambda _: threading.current_thread(), range(3), 1)
    assert set(threads) == {threading.current_thread()}


def test_after_an_error_nothing_more_begins() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        overlapping(work, range(10_000), 2)
    assert len(begun) < 10_000
