"""All colour operations of an image as one 4 x 4 matrix (Karras et al. 2020b, appendix B.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hdgan.gan_trainer.augment.parameters import Parameters
from hdgan.gan_trainer.augment.sets import AugmentSet
from hdgan.nets.sending import sent

# The grey axis, as a homogeneous direction.
_LUMA = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64) / math.sqrt(3.0)
# The homogeneous coordinate is no colour: it must stay 1.
_HOMOGENEOUS = torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64))


def colour_matrix(ops: AugmentSet, given: Parameters) -> Tensor:
    """Affine colour transform, float64 [B, 4, 4], on images in [-1, 1]: brightness, contrast, luma
    flip, hue, saturation, in that order."""
    k = ops.colour_strength
    eye = torch.eye(4, dtype=torch.float64).expand(given.batch, 4, 4)
    matrix = eye
    if ops.brightness:
        shift = given.where("brightness", given.normal("brightness") * 0.2 * k, 0.0)
        brighten = eye.clone()
        brighten[:, :3, 3] = shift[:, None]
        matrix = brighten @ matrix
    if ops.contrast:
        factor = given.where("contrast", torch.exp2(given.normal("contrast") * 0.5 * k), 1.0)
        contrast = eye.clone()
        contrast[:, :3, :3] *= factor[:, None, None]
        matrix = contrast @ matrix
    luma = torch.outer(_LUMA, _LUMA)
    if ops.luma_flip:
        flip = given.where("luma-flip", torch.floor(given.uniform("luma-flip") * 2), 0.0)
        # Householder reflection of the luma axis.
        matrix = (eye - 2 * luma * flip[:, None, None]) @ matrix
    if ops.hue:
        theta = given.where("hue", (given.uniform("hue") * 2 - 1) * math.pi, 0.0)
        matrix = _rotation_about_luma(theta) @ matrix
    if ops.saturation:
        factor = given.where("saturation", torch.exp2(given.normal("saturation") * k), 1.0)
        chroma = torch.eye(4, dtype=torch.float64) - luma - _HOMOGENEOUS
        matrix = (luma + _HOMOGENEOUS + chroma * factor[:, None, None]) @ matrix
    return matrix


def recolour(images_B3HW: Tensor, matrix_B44: Tensor) -> Tensor:
    """Apply a colour transform to every pixel."""
    matrix = sent(matrix_B44, images_B3HW.device, images_B3HW.dtype)
    images = torch.einsum("bij,bjhw->bihw", matrix[:, :3, :3], images_B3HW)
    return images + matrix[:, :3, 3, None, None]


def _rotation_about_luma(theta: Tensor) -> Tensor:
    """Rodrigues' formula about the grey axis: [B, 4, 4]."""
    u = 1.0 / math.sqrt(3.0)
    cross = torch.tensor([[0.0, -u, u], [u, 0.0, -u], [-u, u, 0.0]], dtype=torch.float64)
    outer = torch.full((3, 3), u * u, dtype=torch.float64)
    c, s = torch.cos(theta)[:, None, None], torch.sin(theta)[:, None, None]
    matrix = torch.eye(4, dtype=torch.float64).repeat(len(theta), 1, 1)
    matrix[:, :3, :3] = torch.eye(3, dtype=torch.float64) * c + cross * s + outer * (1 - c)
    return matrix
