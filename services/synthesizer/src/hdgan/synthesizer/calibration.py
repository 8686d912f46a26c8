"""Which images a dataset keeps: thresholds and probabilities, fixed from a seeded draw before the
first shard.

Because the rule is fixed first, a shard depends on nothing but its number: parts can be made by
anyone, in any order, and come out the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hdgan.core.errors import RequestError
from hdgan.core.sections import ClassConfig, QuotaConfig, SynthesizerConfig
from hdgan.synthesizer.quotas import Acceptance, met_by, solve


@dataclasses.dataclass(frozen=True)
class Measured:
    """What decides about an image.

    Attributes:
        uncertainty: mean over its pixels, in [0, 1].
        fractions: by class name, share of all its pixels that the finished mask gives the class.
        ignored: share of its pixels that are 255 in the finished mask.
    """

    uncertainty: float
    fractions: Mapping[str, float]
    ignored: float

    def to_json(self) -> dict[str, Any]:
        """Values for the saved state."""
        return {
            "uncertainty": self.uncertainty,
            "fractions": dict(self.fractions),
            "ignored": self.ignored,
        }

    @classmethod
    def from_json(cls, value: Any) -> Measured:
        """The inverse of `to_json`; whole numbers may have lost their point."""
        return cls(
            float(value["uncertainty"]),
            {str(name): float(f) for name, f in value["fractions"].items()},
            float(value["ignored"]),
        )


@dataclasses.dataclass(frozen=True)
class AcceptanceRule:
    """Drop an image above `max_uncertainty`; keep any other with the probability of its category.

    Attributes:
        max_uncertainty: in [0, 1], the (1 - drop) quantile of the calibration draw.
        expected_acceptance: share of images that is kept, as the calibration draw tells.
        quotas: what the categories are made from.
        acceptance: probabilities by category; None without quotas: all are kept.
    """

    max_uncertainty: float
    expected_acceptance: float
    quotas: Sequence[QuotaConfig] = ()
    acceptance: Acceptance | None = None

    def probability(self, image: Measured) -> float:
        """With which probability an image like this one is kept, 0 to 1."""
        if image.uncertainty > self.max_uncertainty:
            return 0.0
        if self.acceptance is None:
            return 1.0
        return self.acceptance.of(met_by(image.fractions, self.quotas))


def needs_calibration(config: SynthesizerConfig) -> bool:
    """Whether anything is decided by the calibration draw."""
    return config.drop_most_uncertain > 0 or bool(config.quotas)


def rule_from(images: Sequence[Measured], config: SynthesizerConfig) -> AcceptanceRule:
    """The rule that drops the most uncertain images and meets the quotas among the others.

    Args:
        images: the calibration draw; not looked at if nothing needs it.

    Raises:
        RequestError: a quota cannot be met by what the draw shows.
    """
    if not needs_calibration(config):
        return AcceptanceRule(1.0, 1.0)
    limit = _limit([one.uncertainty for one in images], config.drop_most_uncertain)
    certain = [one for one in images if one.uncertainty <= limit]
    passed = len(certain) / len(images)
    if not config.quotas:
        return AcceptanceRule(limit, passed)
    categories = [met_by(one.fractions, config.quotas) for one in certain]
    for number, quota in enumerate(config.quotas):
        if not any(number in met for met in categories):
            raise RequestError(_never_met(number, quota, certain))
    acceptance = solve(categories, config.quotas)
    kept = passed * float(acceptance.kept)
    return AcceptanceRule(limit, kept, tuple(config.quotas), acceptance)


def _limit(uncertainties: Sequence[float], drop: float) -> float:
    if drop == 0:
        return 1.0
    # "higher" takes a value that was seen, so the threshold does not hang on interpolation.
    return float(np.quantile(np.asarray(uncertainties), 1 - drop, method="higher"))


def _never_met(number: int, quota: QuotaConfig, images: Sequence[Measured]) -> str:
    largest = max(one.fractions[quota.class_name] for one in images)
    return (
        f"synthesizer.quotas[{number}]: none of {len(images)} calibration images has "
        f"{quota.min_fraction:g} of its pixels in class {quota.class_name}; the most is "
        f"{largest:.3g}. Lower its minFraction, or raise synthesizer.calibration to find images "
        "that are rarer than that, or synthesizer.psi for more varied ones"
    )


def calibration_document(
    rule: AcceptanceRule,
    images: Sequence[Measured],
    classes: Sequence[ClassConfig],
    config: SynthesizerConfig,
) -> bytes:
    """The bytes of `calibration.json`: the draw, and the rule that follows from it."""
    document: dict[str, Any] = {
        "maxUncertainty": rule.max_uncertainty,
        "expectedAcceptance": rule.expected_acceptance,
        "dropMostUncertain": config.drop_most_uncertain,
        "seed": config.seed,
        "psi": config.psi,
        "noise": config.noise,
        "smoothing": config.smoothing,
        "smoothingRadius": config.smoothing_radius,
        "ignoreAbove": config.ignore_above,
        "quotas": [
            quota.model_dump(mode="json", by_alias=True) | _expected(rule, number)
            for number, quota in enumerate(config.quotas)
        ],
        "categories": _categories(rule),
        "images": len(images),
        "uncertainties": [one.uncertainty for one in images],
        "fractions": {
            entry.name: [one.fractions[entry.name] for one in images] for entry in classes
        },
        "ignored": [one.ignored for one in images],
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def _expected(rule: AcceptanceRule, number: int) -> dict[str, float]:
    """How often a quota's images are drawn below the threshold, and their share of the kept."""
    assert rule.acceptance is not None
    drawn = sum(f for met, f in rule.acceptance.frequency.items() if number in met)
    return {"drawn": float(drawn), "expected": float(rule.acceptance.share(number))}


def _categories(rule: AcceptanceRule) -> list[dict[str, Any]]:
    """By the quotas an image meets: how often it is drawn, and the probability to be kept."""
    if rule.acceptance is None:
        return []
    return [
        {
            "meets": list(met),
            "drawn": float(drawn),
            "acceptanceProbability": rule.acceptance.of(met),
        }
        for met, drawn in rule.acceptance.frequency.items()
    ]
