"""The ADA controller: how strong augmentation must be for D to be right, but not always.

Source: Karras et al. 2020b, section 3.1, overfitting heuristic r_t = E[sign(D(real))].
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class AdaController:
    """Moves p by a fixed amount toward the target of r_t.

    Attributes:
        p: augmentation probability, always in [0, max_p].
        target: r_t to hold (0.6).
        interval: steps between adjustments (4).
        kimg: thousands of images in which p can travel from 0 to 1 (500).
        sign_sum, sign_count: accumulated signs since the last adjustment; part of the state.
        last_sign: r_t at the last adjustment.
    """

    p: float
    target: float
    interval: int
    kimg: float
    max_p: float = 1.0
    sign_sum: float = 0.0
    sign_count: int = 0
    last_sign: float = 0.0

    def observe(self, sign_sum: float, count: int) -> None:
        """Add the signs of D's logits for `count` real images."""
        self.sign_sum += sign_sum
        self.sign_count += count

    def adjust(self, step: int) -> None:
        """After step `step` (counted from 1): move p when an interval has passed."""
        if step % self.interval or not self.sign_count:
            return
        self.last_sign = self.sign_sum / self.sign_count
        direction = (self.last_sign > self.target) - (self.last_sign < self.target)
        self.p += direction * self.sign_count / (self.kimg * 1000)
        self.p = min(max(self.p, 0.0), self.max_p)
        self.sign_sum, self.sign_count = 0.0, 0

    def state(self) -> dict[str, float]:
        """What must be saved to go on exactly."""
        return {
            "p": self.p,
            "signSum": self.sign_sum,
            "signCount": self.sign_count,
            "lastSign": self.last_sign,
        }

    def restore(self, state: dict[str, float]) -> None:
        """Take a saved state."""
        # Canonical JSON writes 0.0 as 0.
        self.p = float(state["p"])
        self.sign_sum = float(state["signSum"])
        self.sign_count = int(state["signCount"])
        self.last_sign = float(state["lastSign"])
