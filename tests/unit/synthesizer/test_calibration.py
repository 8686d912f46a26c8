"""The acceptance rule: which images of a calibration draw pass."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.canonical import canonical_json
from hdgan.core.errors import RequestError
from hdgan.core.sections import QuotaConfig, SynthesizerConfig
from hdgan.synthesizer.calibration import (
    AcceptanceRule,
    Measured,
    calibration_document,
    rule_from,
)
from support.tiny_synthesizer import CLASSES


def image(uncertainty: float, dark: float = 0.5) -> Measured:
    return Measured(uncertainty, {"dark": dark, "light": 1 - dark}, 0.0)


def dropping(share: float) -> SynthesizerConfig:
    return SynthesizerConfig(drop_most_uncertain=share)


def asking(*quotas: tuple[str, float, float], drop: float = 0.0) -> SynthesizerConfig:
    names = ("class", "minFraction", "share")
    made = [QuotaConfig.model_validate(dict(zip(names, one, strict=True))) for one in quotas]
    return SynthesizerConfig(quotas=made, drop_most_uncertain=drop)


def rule_of(values: list[float], drop: float) -> AcceptanceRule:
    return rule_from([image(value) for value in values], dropping(drop))


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.integers(1, 99),
)
def test_the_limit_is_the_order_statistic_counted_by_hand(ranks: list[int], percent: int) -> None:
    """Few different values, so that ties are the rule."""
    rule = rule_of([rank / 12 for rank in ranks], percent / 100)
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
    assert all(rule.probability(image(value / 12)) == 1 for value in passed)


def test_a_tenth_of_two_hundred_are_dropped() -> None:
    rule = rule_of(list(np.random.default_rng(5).permutation(200) / 200), 0.1)
    # Rank 0.9 * 199 = 179.1, so the 181st of 200 sorted values is the last that passes.
    assert rule == AcceptanceRule(180 / 200, 181 / 200)
    assert rule.probability(image(0.9)) == 1
    assert rule.probability(image(float(np.nextafter(0.9, 1)))) == 0


def test_ties_at_the_limit_all_pass() -> None:
    assert rule_of([0.1, 0.4, 0.4, 0.4, 0.9], 0.4) == AcceptanceRule(0.4, 0.8)


def test_without_anything_to_decide_everything_passes() -> None:
    rule = rule_from([], dropping(0))
    assert rule == AcceptanceRule(1.0, 1.0)
    assert rule.probability(image(1.0)) == 1


def test_quotas_look_only_at_images_below_the_uncertainty_limit() -> None:
    # The dark ones are the uncertain ones; of the two that stay, one is dark enough.
    images = [image(0.1, 0.9), image(0.2, 0.1), image(0.3, 0.9), image(0.9, 0.9)]
    rule = rule_from(images, asking(("light", 0.5, 0.5), drop=0.5))
    assert rule.max_uncertainty == 0.3
    # One of three is light: of the other two, half.
    assert rule.probability(image(0.0, 0.1)) == 1
    assert rule.probability(image(0.0, 0.9)) == pytest.approx(0.5)
    assert rule.probability(image(0.4, 0.1)) == 0
    assert rule.expected_acceptance == pytest.approx(3 / 4 * 2 / 3)


def test_a_class_that_is_never_that_large_is_an_error_that_says_how_large_it_is() -> None:
    images = [image(0.1, 0.9), image(0.2, 0.75)]
    with pytest.raises(RequestError, match=r"quotas\[1\]: none of 2 .* 0\.5 .* light.*is 0\.25"):
        rule_from(images, asking(("dark", 0.1, 0.1), ("light", 0.5, 0.1)))


def test_a_measured_image_survives_the_saved_state() -> None:
    one = Measured(1 / 3, {"dark": 1.0, "light": 0.0}, 0.1)
    assert Measured.from_json(json.loads(canonical_json(one.to_json()))) == one


def test_the_document_holds_what_the_rule_was_made_from() -> None:
    images = [image(0.1, 0.2), image(1 / 3, 0.7), image(0.7, 0.6), image(0.2, 0.1)]
    config = asking(("dark", 0.65, 0.5), drop=0.5)
    rule = rule_from(images, config)
    document = json.loads(calibration_document(rule, images, CLASSES, config))
    # Every bit survives: the rule can be computed again from the document alone.
    again = [
        Measured(u, {name: f[i] for name, f in document["fractions"].items()}, ignored)
        for i, (u, ignored) in enumerate(
            zip(document["uncertainties"], document["ignored"], strict=True)
        )
    ]
    assert rule_from(again, config) == rule
    assert document["maxUncertainty"] == rule.max_uncertainty
    assert document["expectedAcceptance"] == rule.expected_acceptance
    assert document["quotas"] == [
        {"class": "dark", "minFraction": 0.65, "share": 0.5, "drawn": 1 / 3, "expected": 0.5}
    ]
    assert document["categories"] == [
        {"meets": [], "drawn": 2 / 3, "acceptanceProbability": 0.5},
        {"meets": [0], "drawn": 1 / 3, "acceptanceProbability": 1.0},
    ]
