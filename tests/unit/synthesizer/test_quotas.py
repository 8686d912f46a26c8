"""Quotas: the expected mix of accepted images meets them all, with as many images as possible."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hdgan.core.errors import RequestError
from hdgan.core.sections import ClassConfig, QuotaConfig
from hdgan.synthesizer.linear_program import maximise
from hdgan.synthesizer.quotas import Met, check_quotas, met_by, solve

CLASSES = [ClassConfig(name=name, color=f"#{n}00000") for n, name in enumerate("abc")]


def quota(share: float, name: str = "a", least: float = 0.2) -> QuotaConfig:
    return QuotaConfig.model_validate({"class": name, "minFraction": least, "share": share})


def quotas(*shares: float) -> list[QuotaConfig]:
    return [quota(share, name) for share, name in zip(shares, "abc", strict=False)]


def test_one_quota_thins_the_others_just_enough() -> None:
    # 1 of 10 qualifies and 30 % are asked for: of the other 9, x with 1 / (1 + x) = 0.3 stay.
    accepted = solve([(0,)] + [()] * 9, quotas(0.3))
    assert accepted.probability == {(0,): 1, (): Fraction(7, 27)}
    assert accepted.share(0) == Fraction(3, 10)
    assert accepted.of(()) == pytest.approx(7 / 27)


def test_what_holds_already_thins_nothing() -> None:
    accepted = solve([(0,), (0, 1), (), (1,)], quotas(0.5, 0.4))
    assert set(accepted.probability.values()) == {1}
    assert solve([(), ()], []).probability == {(): 1}


def test_images_that_meet_nothing_are_thinned_alike_when_another_quota_holds_anyway() -> None:
    # Quota 1 asks for less than there is: whether an image meets it must make no difference.
    accepted = solve([(0,)] + [(1,)] * 5 + [()] * 4, quotas(0.5, 0.1))
    assert accepted.probability[(1,)] == accepted.probability[()] == Fraction(1, 9)


def test_an_unseen_combination_counts_as_the_best_it_covers() -> None:
    accepted = solve([(0,)] + [(1,)] * 9, quotas(0.5, 0.2))
    assert accepted.of((0, 1)) == 1.0
    assert accepted.of(()) == float(min(accepted.probability.values()))


masks = st.lists(
    st.sets(st.integers(0, 2)).map(lambda s: tuple(sorted(s))), min_size=1, max_size=30
)


@given(masks, st.lists(st.integers(1, 100), min_size=3, max_size=3))
def test_the_expected_mix_meets_every_quota_and_nothing_keeps_more(
    categories: list[Met], percents: list[int]
) -> None:
    asked = quotas(*(percent / 100 for percent in percents))
    try:
        accepted = solve(categories, asked)
    except RequestError:
        assume(False)
        raise AssertionError from None
    assert all(0 <= p <= 1 for p in accepted.probability.values())
    assert accepted.kept > 0
    for number, percent in enumerate(percents):
        assert accepted.share(number) >= Fraction(percent, 100)
    # Weak duality, with prices found independently on a grid: every one bounds what can be kept.
    bound = min(
        sum(
            float(f)
            * max(
                0.0,
                1 + sum(price * ((q in met) - percents[q] / 100) for q, price in enumerate(prices)),
            )
            for met, f in accepted.frequency.items()
        )
        for prices in itertools.product((0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0), repeat=3)
    )
    assert float(accepted.kept) <= bound + 1e-9


@given(masks, st.lists(st.integers(1, 100), min_size=3, max_size=3))
def test_no_acceptance_on_a_grid_keeps_more(categories: list[Met], percents: list[int]) -> None:
    asked = quotas(*(percent / 100 for percent in percents))
    known = sorted(set(categories))
    assume(len(known) <= 4)
    best = 0.0
    for trial in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), repeat=len(known)):
        weights = {m: categories.count(m) * x for m, x in zip(known, trial, strict=True)}
        total = sum(weights.values())
        met = [sum(w for m, w in weights.items() if q in m) for q in range(3)]
        if total and all(m * 100 >= p * total for m, p in zip(met, percents, strict=True)):
            best = max(best, total / len(categories))
    if best:
        assert float(solve(categories, asked).kept) >= best - 1e-9


def test_quotas_that_cannot_hold_together_say_what_was_seen() -> None:
    with pytest.raises(RequestError, match=r"cannot hold together.*60% .* 0\.2 a \(met by 1 of 3"):
        solve([(0,), (1,), ()], quotas(0.6, 0.6))


def test_categories_count_a_share_that_is_just_reached() -> None:
    assert met_by({"a": 0.2, "b": 0.19, "c": 0.0}, quotas(0.1, 0.1, 0.1)) == (0,)


def test_a_class_that_does_not_exist_is_named() -> None:
    with pytest.raises(RequestError, match=r"quotas\[1\].*'x'; the classes are a, b, c"):
        check_quotas([quota(0.1), quota(0.1, "x")], CLASSES)


def test_a_linear_program_by_hand() -> None:
    # Maximise x + y with y >= 2 x: x = 1/2, y = 1.
    found = maximise([Fraction(1), Fraction(1)], [[Fraction(-2), Fraction(1)]])
    assert found.x == [Fraction(1, 2), 1]
