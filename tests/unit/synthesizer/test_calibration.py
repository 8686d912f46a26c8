"""The acceptance rule: which images of a calibration draw pass."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.synthesizer.calibration import AcceptanceRule, rule_from, to_json


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.integers(1, 99),
)
def test_the_limit_is_the_order_statistic_counted_by_hand(ranks: list[int], percent: int) -> None:
    """Few different values, so that ties are the rule."""
    values = np.array(ranks) / 12
    rule = rule_from(values, percent / 100)
    # The smallest seen value with at least that share of the gaps between values below it.
    position = (len(ranks) - 1) * (1 - percent / 100)
    nearest = round(position)
    # The same product in another order may differ in the last bit: an exact rank counts as one.
    index = nearest if math.isclose(position, nearest, abs_tol=1e-9) else math.ceil(position)
    allowed = {sorted(ranks)[index] / 12}
    if index == nearest:
        allowed |= {sorted(ranks)[min(index + 1, len(ranks) - 1)] / 12}
    assert rule.max_uncertainty in allowed
    passed = [value for value in ranks if value / 12 <= rule.max_uncertainty]
    assert rule.expected_acceptance == pytest.approx(len(passed) / len(ranks))
    assert all(rule.accepts(value / 12) for value in passed)


def test_a_tenth_of_two_hundred_are_dropped() -> None:
    values = np.random.default_rng(5).permutation(200) / 200
    rule = rule_from(values, 0.1)
    # Rank 0.9 * 199 = 179.1, so the 181st of 200 sorted values is the last that passes.
    assert rule == AcceptanceRule(180 / 200, 181 / 200)
    assert rule.accepts(0.9)
    assert not rule.accepts(np.nextafter(0.9, 1))


def test_ties_at_the_limit_all_pass() -> None:
    rule = rule_from(np.array([0.1, 0.4, 0.4, 0.4, 0.9]), 0.4)
    assert rule == AcceptanceRule(0.4, 0.8)


def test_without_a_share_to_drop_everything_passes() -> None:
    rule = rule_from(np.empty(0), 0)
    assert rule == AcceptanceRule(1.0, 1.0)
    assert rule.accepts(1.0)


def test_the_document_holds_what_the_rule_was_made_from() -> None:
    values = np.array([0.1, 1 / 3, 0.7])
    rule = rule_from(values, 0.4)
    document = json.loads(to_json(rule, values, {"seed": 7}))
    assert document["seed"] == 7
    # Every bit survives: the threshold can be computed again from the document alone.
    again = rule_from(np.array(document["uncertainties"]), 0.4)
    assert again.max_uncertainty == document["maxUncertainty"] == rule.max_uncertainty
    assert again.expected_acceptance == document["expectedAcceptance"]
