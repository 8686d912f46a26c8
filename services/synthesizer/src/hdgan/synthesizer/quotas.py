"""Quotas of classes: with which probability an image is accepted, from what a calibration draw
showed.

Images fall into categories by the quotas they meet. Of the acceptance probabilities that make the
expected mix meet every quota, those are taken that keep the most images; where these leave a
choice, categories that matter equally are thinned equally.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from hdgan.core.errors import RequestError
from hdgan.core.sections import ClassConfig, QuotaConfig
from hdgan.synthesizer.linear_program import Solution, maximise

Met = tuple[int, ...]
"""Numbers of the quotas an image meets, ascending: its category."""


@dataclasses.dataclass(frozen=True)
class Acceptance:
    """Acceptance probabilities by category, exact.

    Attributes:
        frequency: share of each category among the calibration images, in (0, 1].
        probability: with which an image of it is kept, 0 to 1.
    """

    frequency: Mapping[Met, Fraction]
    probability: Mapping[Met, Fraction]

    @property
    def kept(self) -> Fraction:
        """Share of images that is kept, expected."""
        return sum((f * self.probability[met] for met, f in self.frequency.items()), Fraction(0))

    def share(self, quota: int) -> Fraction:
        """Expected share of kept images that meet a quota."""
        meeting = (f * self.probability[m] for m, f in self.frequency.items() if quota in m)
        return sum(meeting, Fraction(0)) / self.kept

    def of(self, met: Met) -> float:
        """Probability for an image of a category, which the calibration may not have shown.

        An unknown one counts as the best known one it covers: it meets at least as much. One that
        covers none meets less than all that are known, and counts as the least.
        """
        if met in self.probability:
            return float(self.probability[met])
        covered = [p for known, p in self.probability.items() if set(known) <= set(met)]
        return float(max(covered) if covered else min(self.probability.values()))


def met_by(fractions: Mapping[str, float], quotas: Sequence[QuotaConfig]) -> Met:
    """Category of an image whose classes have these shares of its pixels."""
    return tuple(
        number
        for number, quota in enumerate(quotas)
        if fractions[quota.class_name] >= quota.min_fraction
    )


def check_quotas(quotas: Sequence[QuotaConfig], classes: Iterable[ClassConfig]) -> None:
    """RequestError if a quota names a class that does not exist."""
    names = [one.name for one in classes]
    for number, quota in enumerate(quotas):
        if quota.class_name not in names:
            raise RequestError(
                f"synthesizer.quotas[{number}].class: there is no class {quota.class_name!r}; "
                f"the classes are {', '.join(names)}"
            )


def solve(categories: Sequence[Met], quotas: Sequence[QuotaConfig]) -> Acceptance:
    """Acceptance probabilities from the categories of calibration images.

    RequestError if no acceptance meets all quotas.
    """
    counts = Counter(categories)
    known = sorted(counts)
    frequency = {met: Fraction(counts[met], len(categories)) for met in known}
    # Through text: 0.3 is meant as 3/10, not as the nearest binary number.
    shares = [Fraction(str(quota.share)) for quota in quotas]
    rows = [
        [frequency[met] * ((number in met) - share) for met in known]
        for number, share in enumerate(shares)
    ]
    gains = [frequency[met] for met in known]
    best = maximise(gains, rows)
    if not any(best.x):
        raise RequestError(_impossible(categories, quotas))
    chosen = _evened(best, gains, rows)
    return Acceptance(frequency, dict(zip(known, chosen, strict=True)))


def _evened(best: Solution, gains: list[Fraction], rows: list[list[Fraction]]) -> list[Fraction]:
    """As good a solution as `best` in which categories that matter equally are thinned alike.

    Those among which the number of kept images leaves a choice get their mean probability; if that
    breaks a quota, as much of the way to it as holds.
    """
    free = [j for j, gain in enumerate(best.gain) if gain == 0]
    total = sum((gains[j] for j in free), Fraction(0))
    if not total:
        return best.x
    mean = sum((gains[j] * best.x[j] for j in free), Fraction(0)) / total
    even = [mean if j in free else x for j, x in enumerate(best.x)]
    way = Fraction(1)
    for row in rows:
        at_best, at_even = _dot(row, best.x), _dot(row, even)
        if at_even < 0:
            way = min(way, at_best / (at_best - at_even))
    return [x + way * (y - x) for x, y in zip(best.x, even, strict=True)]


def _dot(row: Sequence[Fraction], x: Sequence[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(row, x, strict=True)), Fraction(0))


def _impossible(categories: Sequence[Met], quotas: Sequence[QuotaConfig]) -> str:
    """Why quotas that each some image meets cannot hold together."""
    asked = "; ".join(
        f"{q.share:.0%} of images with {q.min_fraction:g} {q.class_name} (met by "
        f"{sum(n in met for met in categories)} of {len(categories)})"
        for n, q in enumerate(quotas)
    )
    return (
        f"synthesizer.quotas cannot hold together: {asked}. Too few calibration images meet "
        "several of them at once, and the shares sum to "
        f"{sum(q.share for q in quotas):g}. Ask for smaller shares or minFractions, or raise "
        "synthesizer.calibration to find such images"
    )
