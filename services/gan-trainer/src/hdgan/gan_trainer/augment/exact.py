"""Pixel-exact operations ("blit"): x-flip, 90-degree rotation, integer translation.

They need no resampling: flips and rotations permute pixels, translation reflects at borders.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdgan.gan_trainer.augment.parameters import Parameters
from hdgan.gan_trainer.augment.sets import AugmentSet
from hdgan.nets.sending import sent

# Largest translation, as a share of the side (Karras et al. 2020b, appendix B).
REACH = 0.125


def exact_moves(ops: AugmentSet, given: Parameters, side: int) -> tuple[Tensor, ...]:
    """Flip (0 or 1), turns by 90 degrees (0 to 3) and translation in pixels (x, y): int64 [B]."""
    none = torch.zeros(given.batch, dtype=torch.int64)
    flip = turns = tx = ty = none
    if ops.flip:
        flip = given.where("flip", torch.floor(given.uniform("flip") * 2), 0.0).long()
    if ops.rotate90:
        turns = given.where("rotate90", torch.floor(given.uniform("rotate90") * 4), 0.0).long()
    if ops.translate:
        reach = REACH * side
        # One decision for both axes.
        tx, ty = (
            given.where("translate", (given.uniform(axis) * 2 - 1) * reach, 0.0).round().long()
            for axis in ("translate-x", "translate-y")
        )
    return flip, turns, tx, ty


def move_exactly(
    images_B3HW: Tensor, flip_B: Tensor, turns_B: Tensor, tx_B: Tensor, ty_B: Tensor
) -> Tensor:
    """First flip left to right, then turn counter-clockwise, then translate right and down."""
    batch, channels, height, width = images_B3HW.shape
    device = images_B3HW.device
    flip_B, turns_B, tx_B, ty_B = sent(torch.stack([flip_B, turns_B, tx_B, ty_B]), device)
    # One gather for all: source row and column of every target pixel.
    rows = torch.arange(height, device=device).expand(batch, height) - ty_B[:, None]
    columns = torch.arange(width, device=device).expand(batch, width) - tx_B[:, None]
    y = _reflect(rows, height)[:, :, None].expand(batch, height, width)
    x = _reflect(columns, width)[:, None, :].expand(batch, height, width)
    k, last = turns_B[:, None, None], height - 1
    y, x = (
        torch.where(k == 0, y, torch.where(k == 1, x, torch.where(k == 2, last - y, last - x))),
        torch.where(k == 0, x, torch.where(k == 1, last - y, torch.where(k == 2, last - x, y))),
    )
    x = torch.where(flip_B[:, None, None] > 0, width - 1 - x, x)
    flat = (y * width + x).reshape(batch, 1, height * width)
    gathered = images_B3HW.flatten(2).gather(2, flat.expand(-1, channels, -1))
    return gathered.reshape(images_B3HW.shape)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect positions about the first and last pixel (edge not repeated)."""
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)
