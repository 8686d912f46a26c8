"""Pauses between attempts, as numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.retry_budget import RetryBudget


def test_the_longest_pauses_double_up_to_a_limit() -> None:
    budget = RetryBudget(attempts=8, seconds=1000, first=0.25, longest=5)
    longest = [budget.pause(failures, 0, 1.0) for failures in range(1, 9)]
    assert longest == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, None]


def test_pauses_are_drawn_from_nothing_to_the_longest() -> None:
    budget = RetryBudget(first=2)
    assert budget.pause(1, 0, 0.0) == 0
    assert budget.pause(1, 0, 0.25) == 0.5


def test_there_is_no_attempt_after_the_time_is_over() -> None:
    budget = RetryBudget(attempts=100, seconds=10, first=4, longest=4)
    assert budget.pause(1, 5.9, 1.0) == 4
    assert budget.pause(1, 6.1, 1.0) is None
    assert budget.pause(1, 11, 0.0) is None


@given(
    failures=st.integers(1, 10_000),
    elapsed=st.floats(0, 1e6),
    drawn=st.floats(0, 1),
    attempts=st.integers(1, 20_000),
)
def test_whatever_happens_it_ends(
    failures: int, elapsed: float, drawn: float, attempts: int
) -> None:
    budget = RetryBudget(attempts=attempts)
    pause = budget.pause(failures, elapsed, drawn)
    if failures >= attempts:
        assert pause is None
    assert pause is None or (0 <= pause <= budget.longest and elapsed + pause <= budget.seconds)
