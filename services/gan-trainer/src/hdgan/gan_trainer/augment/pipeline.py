"""Adaptive discriminator augmentation: the differentiable augmentation pipeline.

Source: Karras et al. 2020b, *Training Generative Adversarial Networks with Limited Data*,
appendix B. All geometric operations compose into one inverse transform and one resampling, all
colour operations into one 4 x 4 matrix; then the image filter, noise and cutout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hdgan.gan_trainer.augment.colour import colour_matrix, recolour
from hdgan.gan_trainer.augment.corruption import add_noise, cut_out, noise_strengths
from hdgan.gan_trainer.augment.exact import exact_moves, move_exactly
from hdgan.gan_trainer.augment.geometry import inverse_geometry
from hdgan.gan_trainer.augment.image_filter import band_gains, filter_bands
from hdgan.gan_trainer.augment.parameters import Parameters
from hdgan.gan_trainer.augment.resampling import resample
from hdgan.gan_trainer.augment.sets import AugmentSet
from hdgan.gan_trainer.draws import Draws
from hdgan.nets.sending import sent


def augment(images_B3HW: Tensor, ops: AugmentSet, p: float, draws: Draws) -> Tensor:
    """Augment a batch; what happens to an image depends on its own draws alone.

    Args:
        images_B3HW: float32 or float64, square, about [-1, 1].
        ops: the operations.
        p: probability of each operation, 0 to 1.
        draws: for the samples of this batch.

    Returns:
        The same shape; differentiable twice with respect to the images. An image that no operation
        was drawn for comes back unchanged to the bit.
    """
    if p <= 0.0:
        return images_B3HW
    given = Parameters(draws, p)
    images = images_B3HW
    moves = exact_moves(ops, given, images.shape[3])
    moved = torch.stack(moves).ne(0).any(dim=0)
    images = _where(moved, images, lambda x, rows: move_exactly(x, *(m[rows] for m in moves)))
    inverse = inverse_geometry(ops, given)
    warped = _differs(inverse, torch.eye(3, dtype=torch.float64))
    images = _where(warped, images, lambda x, rows: resample(x, inverse[rows]))
    colours = colour_matrix(ops, given)
    coloured = _differs(colours, torch.eye(4, dtype=torch.float64))
    images = _where(coloured, images, lambda x, rows: recolour(x, colours[rows]))
    if ops.filter:
        gains = band_gains(given)
        filtered = _differs(gains, torch.ones(1, dtype=torch.float64))
        images = _where(filtered, images, lambda x, rows: filter_bands(x, gains[rows]))
    if ops.noise:
        strengths = noise_strengths(given)

        def noisy(x: Tensor, rows: Tensor) -> Tensor:
            noise = draws.of(rows.tolist()).normal_on_device("augment-noise", *x.shape[1:])
            return add_noise(x, strengths[rows], noise)

        images = _where(strengths > 0, images, noisy)
    if ops.cutout:
        x_B, y_B = given.uniform("cutout-x"), given.uniform("cutout-y")
        cut = given.active("cutout")
        images = _where(cut, images, lambda x, rows: cut_out(x, x_B[rows], y_B[rows]))
    return images


def _differs(values: Tensor, identity: Tensor) -> Tensor:
    """Which rows are not the identity: bool [B]."""
    return (values != identity).flatten(1).any(dim=1)


def _where(active_B: Tensor, images: Tensor, apply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`apply(images[rows], rows)` in the rows that are active; the others stay as they are.

    Decided on the CPU, where the draws are, so that no device has to wait.
    """
    rows = active_B.nonzero().flatten()
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return apply(images, rows)
    there = sent(rows, images.device)
    return images.index_copy(0, there, apply(images.index_select(0, there), rows))
