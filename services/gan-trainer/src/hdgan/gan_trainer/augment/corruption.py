"""Additive noise and cutout (Karras et al. 2020b, appendix B.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from hdgan.gan_trainer.augment.parameters import Parameters
from hdgan.nets.sending import sent

NOISE_STD = 0.1
CUTOUT_SIDE = 0.5


def noise_strengths(given: Parameters) -> Tensor:
    """Standard deviation of each image's noise, float64 [B]: |N(0, 0.1)|, 0 where there is none."""
    return given.where("noise", given.normal("noise").abs() * NOISE_STD, 0.0)


def add_noise(images_B3HW: Tensor, strength_B: Tensor, noise_B3HW: Tensor) -> Tensor:
    """Add `noise` (standard normal) times each image's strength."""
    strength = sent(strength_B, images_B3HW.device, images_B3HW.dtype)[:, None, None, None]
    return images_B3HW + noise_B3HW.to(images_B3HW.dtype) * strength


def cut_out(images_B3HW: Tensor, x_B: Tensor, y_B: Tensor) -> Tensor:
    """Fill a square of half the side with zero (grey).

    Args:
        x_B, y_B: its centre in units of the side, 0 to 1; it may reach beyond the image.
    """
    (height, width), device = images_B3HW.shape[2:], images_B3HW.device
    inside_x = sent(_near(width, x_B), device)[:, None, None, :]
    inside_y = sent(_near(height, y_B), device)[:, None, :, None]
    return images_B3HW.masked_fill(inside_x & inside_y, 0.0)


def _near(size: int, centre_B: Tensor) -> Tensor:
    """Whether each pixel's centre is less than half a square from `centre`: bool [B, size]."""
    positions = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return (positions[None] - centre_B[:, None]).abs() < CUTOUT_SIDE / 2
