"""Which reason is given when several hold, and none for what was not measured."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from hdgan.tiler.verdict import Limits, Measures, judge

LIMITS = Limits(max_whitespace=0.5, max_pen=0.02, min_focus=0.3, min_compartment=0.1)
GOOD = Measures(touches_tissue=True, compartment=0.5, whitespace=0.2, pen=0.0, focus=0.6)
BAD: dict[str, dict[str, float | bool]] = {
    "noTissue": {"touches_tissue": False},
    "compartment": {"compartment": 0.05},
    "whitespace": {"whitespace": 0.6},
    "pen": {"pen": 0.1},
    "blurred": {"focus": 0.2},
}


@pytest.mark.parametrize("reason", BAD)
def test_each_reason_by_itself(reason: str) -> None:
    assert judge(GOOD, LIMITS) is None
    assert judge(replace(GOOD, **BAD[reason]), LIMITS) == reason  # type: ignore[arg-type]


def test_the_first_in_order_is_given() -> None:
    for first, second in combinations(BAD, 2):
        both = replace(GOOD, **BAD[first], **BAD[second])  # type: ignore[arg-type]
        assert judge(both, LIMITS) == first


def test_limits_themselves_pass() -> None:
    edge = Measures(compartment=0.1, whitespace=0.5, pen=0.02, focus=0.3)
    assert judge(edge, LIMITS) is None


def test_what_is_not_measured_or_not_limited_is_no_reason() -> None:
    assert judge(Measures(), LIMITS) is None
    lenient = Limits(max_whitespace=1.0)
    worst = Measures(compartment=0.0, whitespace=1.0, pen=1.0, focus=0.0)
    assert judge(worst, lenient) is None
