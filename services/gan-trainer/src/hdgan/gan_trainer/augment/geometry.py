"""All geometric operations of an image as one inverse transform.

Source: Karras et al. 2020b, appendix B: isotropic scale, rotation, anisotropic scale, rotation,
fractional translation, in that order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hdgan.gan_trainer.augment.parameters import Parameters
from hdgan.gan_trainer.augment.sets import AugmentSet


def inverse_geometry(ops: AugmentSet, given: Parameters) -> Tensor:
    """The inverse transform, float64 [B, 3, 3] (output -> input, in units of half an image side).

    The two rotations are each applied with 1 - sqrt(1 - p), so that the chance of any is p.
    """
    inverse = torch.eye(3, dtype=torch.float64).expand(given.batch, 3, 3)
    if ops.scale:
        s = given.where("scale", torch.exp2(given.normal("scale") * 0.2), 1.0)
        inverse = inverse @ _scaling(1 / s, 1 / s)
    if ops.rotate:
        inverse = inverse @ _rotation(_angle("rotate-before", given))
    if ops.stretch:
        s = given.where("stretch", torch.exp2(given.normal("stretch") * 0.2), 1.0)
        inverse = inverse @ _scaling(1 / s, s)
    if ops.rotate:
        inverse = inverse @ _rotation(_angle("rotate-after", given))
    if ops.shift:
        # A shift of one image side is two in units of half a side.
        tx, ty = (
            given.where("shift", given.normal(axis) * 0.125 * 2, 0.0)
            for axis in ("shift-x", "shift-y")
        )
        inverse = inverse @ _translation(-tx, -ty)
    return inverse


def _angle(name: str, given: Parameters) -> Tensor:
    p = 1 - math.sqrt(max(0.0, 1 - given.p))
    return given.where(name, (given.uniform(name) * 2 - 1) * math.pi, 0.0, p)


def _matrix3(rows: list[list[Tensor | float]], batch: int) -> Tensor:
    flat = [torch.as_tensor(v, dtype=torch.float64).expand(batch) for row in rows for v in row]
    return torch.stack(flat, dim=1).reshape(batch, 3, 3)


def _translation(tx: Tensor, ty: Tensor) -> Tensor:
    return _matrix3([[1.0, 0.0, tx], [0.0, 1.0, ty], [0.0, 0.0, 1.0]], len(tx))


def _scaling(sx: Tensor, sy: Tensor) -> Tensor:
    return _matrix3([[sx, 0.0, 0.0], [0.0, sy, 0.0], [0.0, 0.0, 1.0]], len(sx))


def _rotation(theta: Tensor) -> Tensor:
    c, s = torch.cos(theta), torch.sin(theta)
    return _matrix3([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], len(theta))
