"""The random numbers of an augmentation: one row per image, one fixed column per use.

A column belongs to its use whether or not the operation is in the set, so a set with one more
operation leaves the numbers of the others as they were.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdgan.gan_trainer.draws import Draws

# Never reorder: new columns go to the end.
UNIFORM = (
    "flip?", "flip", "rotate90?", "rotate90", "translate?", "translate-x", "translate-y",
    "scale?", "rotate-before?", "rotate-before", "stretch?", "rotate-after?", "rotate-after",
    "shift?", "brightness?", "contrast?", "luma-flip?", "luma-flip", "hue?", "hue", "saturation?",
    "filter-0?", "filter-1?", "filter-2?", "filter-3?", "noise?", "cutout?", "cutout-x", "cutout-y",
)  # fmt: skip
NORMAL = (
    "scale", "stretch", "shift-x", "shift-y", "brightness", "contrast", "saturation", "filter-0",
    "filter-1", "filter-2", "filter-3", "noise",
)  # fmt: skip
_UNIFORM_COLUMN = {name: column for column, name in enumerate(UNIFORM)}
_NORMAL_COLUMN = {name: column for column, name in enumerate(NORMAL)}


class Parameters:
    """Parameters of a batch, float64 on the CPU: each operation is active with probability p.

    Attributes:
        batch: images.
        p: probability of each operation, 0 to 1.
        draws: for numbers that are as large as an image.
    """

    def __init__(self, draws: Draws, p: float) -> None:
        self.batch, self.p, self.draws = len(draws.samples), p, draws
        self._uniform = draws.uniform("augment-uniform", len(UNIFORM)).double()
        self._normal = draws.normal("augment-normal", len(NORMAL)).double()

    def uniform(self, name: str) -> Tensor:
        """Uniform in [0, 1): [B]."""
        return self._uniform[:, _UNIFORM_COLUMN[name]]

    def normal(self, name: str) -> Tensor:
        """Standard normal: [B]."""
        return self._normal[:, _NORMAL_COLUMN[name]]

    def active(self, name: str, p: float | None = None) -> Tensor:
        """Whether the operation is applied: bool [B]."""
        return self.uniform(f"{name}?") < (self.p if p is None else p)

    def where(self, name: str, value: Tensor, identity: float, p: float | None = None) -> Tensor:
        """`value` where the operation is applied, else `identity`."""
        return torch.where(self.active(name, p), value, torch.full_like(value, identity))
