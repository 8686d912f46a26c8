"""Decoded pixels, and how they are put together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""[height, width, samples]: RGB, or RGB and alpha."""


def paste(target_HWC: Pixels, part_HWC: Pixels) -> None:
    """Pixels of 3 or 4 samples into as many of 3 or 4; RGB is opaque."""
    target_HWC[..., : part_HWC.shape[2]] = part_HWC
    if part_HWC.shape[2] < target_HWC.shape[2]:
        target_HWC[..., 3] = 255
