"""Which images a dataset keeps: thresholds fixed from a seeded draw before the first shard.

Because the rule is fixed first, a shard depends on nothing but its number: parts can be made by
anyone, in any order, and come out the same.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class AcceptanceRule:
    """Keep an image when its mean uncertainty is at most `max_uncertainty`.

    Attributes:
        max_uncertainty: in [0, 1], the (1 - drop) quantile of the calibration draw.
        expected_acceptance: share of the calibration images that pass.
    """

    max_uncertainty: float
    expected_acceptance: float

    def accepts(self, uncertainty: float) -> bool:
        """Whether an image of this mean uncertainty is kept."""
        return uncertainty <= self.max_uncertainty


def rule_from(uncertainties: NDArray[np.float64], drop_most_uncertain: float) -> AcceptanceRule:
    """The rule that drops the given share of the most uncertain images.

    Args:
        uncertainties: mean Jensen-Shannon uncertainty of each calibration image, [n].
        drop_most_uncertain: share to drop, 0 to below 1; 0 keeps everything.
    """
    if drop_most_uncertain == 0:
        return AcceptanceRule(1.0, 1.0)
    # "higher" takes a value that was seen, so the threshold does not hang on interpolation.
    limit = float(np.quantile(uncertainties, 1 - drop_most_uncertain, method="higher"))
    return AcceptanceRule(limit, float(np.mean(uncertainties <= limit)))


def to_json(
    rule: AcceptanceRule, uncertainties: NDArray[np.float64], config: dict[str, Any]
) -> bytes:
    """The bytes of `calibration.json`."""
    document = {
        "maxUncertainty": rule.max_uncertainty,
        "expectedAcceptance": rule.expected_acceptance,
        **config,
        "uncertainties": [float(u) for u in uncertainties],
    }
    return (json.dumps(document, indent=1) + "\n").encode()
