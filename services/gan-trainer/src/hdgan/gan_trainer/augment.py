"""Adaptive discriminator augmentation: the differentiable augmentation pipeline.

Source: Karras et al. 2020b, *Training Generative Adversarial Networks with Limited Data*,
appendix B. All geometric operations compose into one inverse transform and one resampling, all
colour operations into one 4 x 4 matrix. Every operation is applied to each image independently
with probability p. At p = 0 images come back unchanged to the bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hdgan.core.errors import RequestError

# Orthogonal least-asymmetric Daubechies wavelet with 6 vanishing moments ("sym6"), the low-pass
# decomposition filter the paper resamples with (appendix B.1).
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)


@dataclasses.dataclass(frozen=True)
class AugmentSet:
    """Which operations run, by group of the paper's appendix B (table of parameters)."""

    flip: bool = False  # x-flip
    rotate90: bool = False
    translate: bool = False  # integer translation, up to +-0.125 of the side
    scale: bool = False  # isotropic scale, 2**N(0, 0.2)
    rotate: bool = False  # arbitrary rotation, before and after anisotropic scaling
    stretch: bool = False  # anisotropic scale, 2**N(0, 0.2)
    shift: bool = False  # fractional translation, N(0, 0.125)
    brightness: bool = False  # N(0, 0.2)
    contrast: bool = False  # 2**N(0, 0.5)
    luma_flip: bool = False
    hue: bool = False  # rotation about the luma axis, U(-pi, pi)
    saturation: bool = False  # 2**N(0, 1)
    # Standard deviations in units of the paper's; histology uses less (see AUGMENT_SETS).
    colour_strength: float = 1.0


_BLIT = AugmentSet(flip=True, rotate90=True, translate=True)
_GEOM = AugmentSet(scale=True, rotate=True, stretch=True, shift=True)
_COLOR = AugmentSet(brightness=True, contrast=True, luma_flip=True, hue=True, saturation=True)


def _union(*sets: AugmentSet) -> AugmentSet:
    names = [f.name for f in dataclasses.fields(AugmentSet) if f.name != "colour_strength"]
    return AugmentSet(**{name: any(getattr(s, name) for s in sets) for name in names})


AUGMENT_SETS: dict[str, AugmentSet] = {
    "blit": _BLIT,
    "geom": _GEOM,
    "color": _COLOR,
    "bg": _union(_BLIT, _GEOM),
    "bgc": _union(_BLIT, _GEOM, _COLOR),
    # No luma flip and no hue rotation: both would invent stains, and the generator of a limited
    # dataset learns to copy augmentations that the discriminator sees too often.
    "histology": dataclasses.replace(
        _union(_BLIT, _GEOM, AugmentSet(brightness=True, contrast=True, saturation=True)),
        colour_strength=0.5,
    ),
}


def augment_set(name: str) -> AugmentSet:
    """The named set; an unknown name is a RequestError that lists the known ones."""
    try:
        return AUGMENT_SETS[name]
    except KeyError:
        known = ", ".join(AUGMENT_SETS)
        raise RequestError(f"ganTrainer.augmentSet: {name!r} is not one of {known}") from None


class _Draw:
    """Parameters of one batch: each operation active with probability p, else its identity."""

    def __init__(self, batch: int, p: float, generator: torch.Generator) -> None:
        self.batch, self.p, self.generator = batch, p, generator

    def uniform(self) -> Tensor:
        return torch.rand(self.batch, generator=self.generator)

    def normal(self) -> Tensor:
        return torch.randn(self.batch, generator=self.generator)

    def where(self, value: Tensor, identity: float, p: float | None = None) -> Tensor:
        active = self.uniform() < (self.p if p is None else p)
        return torch.where(active, value, torch.full_like(value, identity))


def _matrix3(rows: list[list[Tensor | float]], batch: int) -> Tensor:
    flat = [torch.as_tensor(v, dtype=torch.float32).expand(batch) for row in rows for v in row]
    return torch.stack(flat, dim=1).reshape(batch, 3, 3)


def _translation(tx: Tensor, ty: Tensor) -> Tensor:
    return _matrix3([[1.0, 0.0, tx], [0.0, 1.0, ty], [0.0, 0.0, 1.0]], len(tx))


def _scaling(sx: Tensor, sy: Tensor) -> Tensor:
    return _matrix3([[sx, 0.0, 0.0], [0.0, sy, 0.0], [0.0, 0.0, 1.0]], len(sx))


def _rotation(theta: Tensor) -> Tensor:
    c, s = torch.cos(theta), torch.sin(theta)
    return _matrix3([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], len(theta))


def exact_transform(images_B3HW: Tensor, ops: AugmentSet, draw: _Draw) -> Tensor:
    """Pixel-exact operations ("blit"): x-flip, 90-degree rotation, integer translation.

    They need no resampling: flips and rotations permute pixels, translation reflects at borders.
    """
    batch, _, height, width = images_B3HW.shape
    flip = draw.where(torch.floor(draw.uniform() * 2), 0.0) if ops.flip else None
    turns = draw.where(torch.floor(draw.uniform() * 4), 0.0) if ops.rotate90 else None
    if ops.translate:
        reach = 0.125
        tx = draw.where((draw.uniform() * 2 - 1) * reach * width, 0.0).round().long()
        ty = draw.where((draw.uniform() * 2 - 1) * reach * height, 0.0).round().long()
    else:
        tx = ty = torch.zeros(batch, dtype=torch.long)
    if flip is None and turns is None and not ops.translate:
        return images_B3HW
    # One gather for all: source row and column of every target pixel.
    rows = torch.arange(height).expand(batch, height) - ty[:, None]
    columns = torch.arange(width).expand(batch, width) - tx[:, None]
    y = _reflect(rows, height)[:, :, None].expand(batch, height, width)
    x = _reflect(columns, width)[:, None, :].expand(batch, height, width)
    if turns is not None:
        k = turns.long()[:, None, None]
        last = height - 1
        y, x = (
            torch.where(k == 0, y, torch.where(k == 1, x, torch.where(k == 2, last - y, last - x))),
            torch.where(k == 0, x, torch.where(k == 1, last - y, torch.where(k == 2, last - x, y))),
        )
    if flip is not None:
        x = torch.where(flip[:, None, None] > 0, width - 1 - x, x)
    unchanged = (y == torch.arange(height)[None, :, None]).all() and (
        x == torch.arange(width)[None, None, :]
    ).all()
    if bool(unchanged):
        return images_B3HW
    flat = (y * width + x).reshape(batch, 1, height * width).to(images_B3HW.device)
    gathered = images_B3HW.flatten(2).gather(2, flat.expand(-1, images_B3HW.shape[1], -1))
    return gathered.reshape(images_B3HW.shape)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect positions about the first and last pixel (edge not repeated)."""
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def inverse_geometry(ops: AugmentSet, draw: _Draw) -> Tensor | None:
    """The inverse transform [B, 3, 3] (output -> input, in units of half an image side).

    Order as in appendix B: isotropic scale, rotation, anisotropic scale, rotation, translation.
    The two rotations are each applied with 1 - sqrt(1 - p), so that the chance of any is p.
    None when every image got the identity.
    """
    batch = draw.batch
    eye = torch.eye(3).expand(batch, 3, 3)
    inverse = eye
    if ops.scale:
        s = draw.where(torch.exp2(draw.normal() * 0.2), 1.0)
        inverse = inverse @ _scaling(1 / s, 1 / s)
    p_rotate = 1 - math.sqrt(max(0.0, 1 - draw.p))
    if ops.rotate:
        theta = draw.where((draw.uniform() * 2 - 1) * math.pi, 0.0, p_rotate)
        inverse = inverse @ _rotation(theta)
    if ops.stretch:
        s = draw.where(torch.exp2(draw.normal() * 0.2), 1.0)
        inverse = inverse @ _scaling(1 / s, s)
    if ops.rotate:
        theta = draw.where((draw.uniform() * 2 - 1) * math.pi, 0.0, p_rotate)
        inverse = inverse @ _rotation(theta)
    if ops.shift:
        # A shift of one image side is two in units of half a side.
        tx = draw.where(draw.normal() * 0.125 * 2, 0.0)
        ty = draw.where(draw.normal() * 0.125 * 2, 0.0)
        inverse = inverse @ _translation(-tx, -ty)
    return None if torch.equal(inverse, eye) else inverse


class _Sample(torch.autograd.Function):
    """Bilinear sampling at fixed positions. Linear in the image, so its second derivative is
    sampling again; torch's own grid_sample has no second derivative, which R1 needs."""

    @staticmethod
    def forward(ctx, image, grid):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(grid)
        ctx.image_shape = image.shape
        return F.grid_sample(
            image, grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (grid,) = ctx.saved_tensors
        adjoint = _SampleAdjoint.apply(gradient, grid, ctx.image_shape)  # type: ignore[no-untyped-call]
        return adjoint, None


class _SampleAdjoint(torch.autograd.Function):
    """The transpose of `_Sample`: spreads values back to where they were sampled."""

    @staticmethod
    def forward(ctx, gradient, grid, image_shape):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(grid)
        # Only its shape matters: sampling is linear, its adjoint does not depend on the image.
        image = gradient.new_zeros(image_shape)
        result, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(), image, grid, 0, 2, False, [True, False]
        )
        return result

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (grid,) = ctx.saved_tensors
        again = _Sample.apply(gradient, grid)  # type: ignore[no-untyped-call]
        return again, None, None


# Up to this side the filters run as dense matrices, above as convolutions: a matrix product is
# several times faster on small images, but its cost per pixel grows with the side.
MATRIX_SIDE = 512
_MARGIN = len(SYM6) // 2  # reflected pixels around the image before it is upsampled
_RIM = len(SYM6) // 2 - 1  # fine pixels that the downsampling filter eats on each side


def _taps(like: Tensor) -> Tensor:
    taps = torch.tensor(SYM6, device=like.device, dtype=like.dtype)
    return taps / taps.sum()


def _upsample_last(x: Tensor) -> Tensor:
    """Twice the resolution along the last axis, and a rim: [..., W] -> [..., 2 W + 2 rim].

    Reflect a few pixels, put zeros between, filter with gain 2. Pixel i of the input covers fine
    pixels rim + 2i and rim + 2i + 1.
    """
    taps = _taps(x)
    lines = F.pad(x.reshape(-1, 1, x.shape[-1]), (_MARGIN, _MARGIN), mode="reflect")
    spread = torch.stack([lines, torch.zeros_like(lines)], dim=-1).flatten(2)
    fine = F.conv1d(spread, (taps.flip(0) * 2).reshape(1, 1, -1))
    # Output k of a valid filter is centred on its input k + (taps - 1) / 2. Pixel 0 sits at
    # 2 * margin and should be centred between fine pixels 0 and 1, hence the offset.
    start = 2 * _MARGIN - len(SYM6) // 2 - _RIM
    fine = fine[..., start : start + 2 * x.shape[-1] + 2 * _RIM]
    return fine.reshape(*x.shape[:-1], -1)


def _downsample_last(x: Tensor) -> Tensor:
    """Filter and keep every second: [..., 2 W + 2 rim] -> [..., W]; undoes `_upsample_last`."""
    coarse = F.conv1d(x.reshape(-1, 1, x.shape[-1]), _taps(x).reshape(1, 1, -1), stride=2)
    return coarse.reshape(*x.shape[:-1], -1)


def _both_axes(x_BCHW: Tensor, filter_last: Callable[[Tensor], Tensor], side: int) -> Tensor:
    """Apply a linear filter of the last axis to rows and columns."""
    if side > MATRIX_SIDE:
        return filter_last(filter_last(x_BCHW.transpose(2, 3)).transpose(2, 3))

    def matrix(size: int) -> Tensor:
        return filter_last(torch.eye(size, device=x_BCHW.device, dtype=x_BCHW.dtype))

    return matrix(x_BCHW.shape[2]).T @ (x_BCHW @ matrix(x_BCHW.shape[3]))


def resample(images_B3HW: Tensor, inverse_B33: Tensor) -> Tensor:
    """Warp by an inverse transform, antialiased: upsample 2x, sample bilinearly, downsample 2x.

    Both filters are sym6 (appendix B.1); borders reflect. The identity returns the image.
    """
    height, width = images_B3HW.shape[2:]
    side = max(height, width)
    fine = _both_axes(images_B3HW.contiguous(), _upsample_last, side)
    # sym6 is not quite symmetric: it moves low frequencies by a fraction of a fine pixel, which
    # rotations and flips would double. Sampling where things really are undoes that.
    centre = torch.tensor(SYM6) @ torch.arange(len(SYM6)).float() / sum(SYM6)
    delay = float(centre) - (len(SYM6) - 1) / 2
    # Sample at the centres of a fine output grid; positions are in units of half an image side.
    rows = (torch.arange(2 * height + 2 * _RIM) - _RIM + 0.5 - delay) / height - 1
    columns = (torch.arange(2 * width + 2 * _RIM) - _RIM + 0.5 - delay) / width - 1
    # The inverse transform is affine: a part of the rows plus a part of the columns.
    across = columns[None, :, None] * inverse_B33[:, None, :2, 0]
    down = rows[None, :, None] * inverse_B33[:, None, :2, 1] + inverse_B33[:, None, :2, 2]
    grid = across[:, None] + down[:, :, None]
    grid = grid + torch.tensor([delay / width, delay / height])
    # grid_sample wants them in units of half of what it is given, rim included.
    grid = grid * torch.tensor([width / (width + _RIM), height / (height + _RIM)])
    grid = grid.to(images_B3HW.device, images_B3HW.dtype)
    warped = _Sample.apply(fine, grid)  # type: ignore[no-untyped-call]
    return _both_axes(warped, _downsample_last, side)


_LUMA = torch.tensor([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3.0)


def colour_matrix(ops: AugmentSet, draw: _Draw) -> Tensor | None:
    """Affine colour transform [B, 4, 4] on images in [-1, 1], appendix B.2, in that order.

    None when every image got the identity.
    """
    batch, k = draw.batch, ops.colour_strength
    eye3 = torch.eye(4).expand(batch, 4, 4)
    matrix = eye3
    if ops.brightness:
        shift = draw.where(draw.normal() * 0.2 * k, 0.0)
        brighten = eye3.clone()
        brighten[:, :3, 3] = shift[:, None]
        matrix = brighten @ matrix
    if ops.contrast:
        factor = draw.where(torch.exp2(draw.normal() * 0.5 * k), 1.0)
        contrast = eye3.clone()
        contrast[:, :3, :3] *= factor[:, None, None]
        matrix = contrast @ matrix
    luma = torch.outer(_LUMA, _LUMA)
    if ops.luma_flip:
        flip = draw.where(torch.floor(draw.uniform() * 2), 0.0)
        # Householder reflection of the luma axis.
        matrix = (eye3 - 2 * luma * flip[:, None, None]) @ matrix
    if ops.hue:
        theta = draw.where((draw.uniform() * 2 - 1) * math.pi, 0.0)
        matrix = _rotation_about_luma(theta) @ matrix
    if ops.saturation:
        factor = draw.where(torch.exp2(draw.normal() * k), 1.0)[:, None, None]
        chroma = torch.eye(4) - luma
        # The homogeneous coordinate is no colour: it must stay 1.
        chroma = chroma - torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        keep = luma + torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        matrix = (keep + chroma * factor) @ matrix
    return None if torch.equal(matrix, eye3) else matrix


def _rotation_about_luma(theta: Tensor) -> Tensor:
    """Rodrigues' formula about the grey axis: [B, 4, 4]."""
    u = 1.0 / math.sqrt(3.0)
    cross = torch.tensor([[0.0, -u, u], [u, 0.0, -u], [-u, u, 0.0]])
    outer = torch.full((3, 3), u * u)
    c, s = torch.cos(theta)[:, None, None], torch.sin(theta)[:, None, None]
    matrix = torch.eye(4).repeat(len(theta), 1, 1)
    matrix[:, :3, :3] = torch.eye(3) * c + cross * s + outer * (1 - c)
    return matrix


def augment(images_B3HW: Tensor, ops: AugmentSet, p: float, generator: torch.Generator) -> Tensor:
    """Augment a batch.

    Args:
        images_B3HW: float32, about [-1, 1].
        ops: the operations.
        p: probability of each operation, 0 to 1.
        generator: CPU generator; its state alone decides the draw.

    Returns:
        The same shape; differentiable twice with respect to the images.
    """
    if p <= 0.0:
        return images_B3HW
    draw = _Draw(images_B3HW.shape[0], p, generator)
    images = exact_transform(images_B3HW, ops, draw)
    inverse = inverse_geometry(ops, draw)
    if inverse is not None:
        images = resample(images, inverse)
    matrix = colour_matrix(ops, draw)
    if matrix is not None:
        matrix = matrix.to(images.device)
        images = torch.einsum("bij,bjhw->bihw", matrix[:, :3, :3], images)
        images = images + matrix[:, :3, 3, None, None]
    return images
