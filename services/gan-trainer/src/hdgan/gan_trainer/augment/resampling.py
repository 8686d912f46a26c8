"""Warping by an affine transform with antialiasing, in one resampling.

Source: Karras et al. 2020b, appendix B.1: upsample 2x, sample bilinearly, downsample 2x.
Every step is linear in the image and keeps nothing of it for the backward pass.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from hdgan.nets.sending import sent

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


# Up to this side a filter is one dense matrix, above it one per block of this many coarse pixels: a
# matrix product is many times faster than a convolution with a single channel, but its cost per
# pixel grows with its size.
MATRIX_SIDE = 512
BLOCK = 64
_MARGIN = len(SYM6) // 2  # reflected pixels around the image before it is upsampled
_RIM = len(SYM6) // 2 - 1  # fine pixels that the downsampling filter eats on each side


def _taps(like: Tensor) -> Tensor:
    taps = sent(torch.tensor(SYM6, dtype=like.dtype), like.device)
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


def _upsample_blocks(x: Tensor) -> Tensor:
    """What `_upsample_last` does, block by block."""
    size = x.shape[-1]
    # What a block must see to the left and right, and how far the rim reaches in coarse pixels.
    halo, rim = _MARGIN, (_RIM + 1) // 2
    # Away from its ends, the matrix of a short line is that of any line.
    matrix = _upsample_last(_eye(BLOCK + 2 * halo, x))
    matrix = matrix[:, _RIM + 2 * halo :][:, : 2 * BLOCK]
    margin = halo + rim
    lines = F.pad(x.reshape(-1, 1, size), (margin, margin), mode="reflect")
    lines = F.pad(lines, (0, -(size + 2 * rim) % BLOCK))
    fine = (lines.unfold(-1, BLOCK + 2 * halo, BLOCK) @ matrix).flatten(1)
    start = 2 * rim - _RIM
    return fine[:, start : start + 2 * size + 2 * _RIM].reshape(*x.shape[:-1], -1)


def _downsample_blocks(x: Tensor) -> Tensor:
    """What `_downsample_last` does, block by block."""
    size = (x.shape[-1] - 2 * _RIM) // 2
    matrix = _downsample_last(_eye(2 * BLOCK + 2 * _RIM, x))
    lines = F.pad(x.reshape(-1, x.shape[-1]), (0, 2 * (-size % BLOCK)))
    coarse = (lines.unfold(-1, 2 * BLOCK + 2 * _RIM, 2 * BLOCK) @ matrix).flatten(1)
    return coarse[:, :size].reshape(*x.shape[:-1], -1)


def _eye(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, device=like.device, dtype=like.dtype)


def _upsample(x_BCHW: Tensor) -> Tensor:
    """Both axes: [B, C, S, S] -> [B, C, 2 S + 2 rim, 2 S + 2 rim]."""
    side = x_BCHW.shape[3]
    if side > MATRIX_SIDE:
        return _upsample_blocks(_upsample_blocks(x_BCHW.mT).mT)
    matrix = _upsample_last(_eye(side, x_BCHW))
    return matrix.T @ (x_BCHW @ matrix)


def _downsample(x_BCHW: Tensor) -> Tensor:
    """Both axes: [B, C, 2 S + 2 rim, 2 S + 2 rim] -> [B, C, S, S]."""
    side = x_BCHW.shape[3]
    if side > 2 * MATRIX_SIDE + 2 * _RIM:
        return _downsample_blocks(_downsample_blocks(x_BCHW.mT).mT)
    matrix = _downsample_last(_eye(side, x_BCHW))
    return matrix.T @ (x_BCHW @ matrix)


def _fine_grid(inverse_B33: Tensor, side: int) -> Tensor:
    """Where in the fine image, rim included, each pixel of the fine output reads.

    Beyond the rim the image is reflected about the centres of its outermost pixels.

    Args:
        inverse_B33: as for `resample`, with the dtype and the device of the image.
        side: of the coarse image.

    Returns:
        [B, 2 side + 2 rim, 2 side + 2 rim, 2] (x, y) in the units of `grid_sample`.
    """
    # sym6 is not quite symmetric: it moves low frequencies by a fraction of a fine pixel, which
    # rotations and flips would double. Sampling where things really are undoes that.
    centre = sum(tap * at for at, tap in enumerate(SYM6)) / sum(SYM6)
    delay = centre - (len(SYM6) - 1) / 2
    # Sample at the centres of a fine output grid; positions are in units of half an image side,
    # for grid_sample in units of half of what it is given, rim included.
    unit = side / (side + _RIM)
    lines = (torch.arange(2 * side + 2 * _RIM).double() - _RIM + 0.5 - delay) / side - 1
    lines = sent(lines, inverse_B33.device, inverse_B33.dtype)
    # The inverse transform is affine: a part of the rows plus a part of the columns. The grid is
    # as large as the image, so it is made where the image is.
    back = delay / side * unit
    inverse_B33 = inverse_B33 * unit
    across = lines[None, :, None] * inverse_B33[:, None, :2, 0]
    down = lines[None, :, None] * inverse_B33[:, None, :2, 1] + inverse_B33[:, None, :2, 2]
    grid = across[:, None] + (down + back)[:, :, None]
    # Outermost centres are at +-edge, so a position is |(position - edge) mod 4 edge - 2 edge| -
    # edge. Not left to grid_sample, which would reflect about the end of the rim; and not done
    # within the rim, so that the identity is the identity up to the border.
    edge, reach = (1 - 1 / side) * unit, (1 + (_RIM - 0.25) / side) * unit
    reflected = (grid - (edge + back)).remainder_(4 * edge).sub_(2 * edge).abs_().sub_(edge - back)
    return torch.where(grid.abs() > reach, reflected, grid)


class _Sample(torch.autograd.Function):
    """Bilinear sampling of the fine image at a grid, which is given as a function so that a large
    one need not be kept. Linear in the image, so its second derivative is sampling again; torch's
    own grid_sample has no second derivative, which R1 needs."""

    @staticmethod
    def forward(ctx, fine, grid):  # type: ignore[no-untyped-def]
        ctx.grid = grid
        return F.grid_sample(
            fine, grid(), mode="bilinear", padding_mode="border", align_corners=False
        )

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return _SampleAdjoint.apply(gradient, ctx.grid), None  # type: ignore[no-untyped-call]


class _SampleAdjoint(torch.autograd.Function):
    """The transpose of `_Sample`: spreads values back to where they were sampled."""

    @staticmethod
    def forward(ctx, gradient, grid):  # type: ignore[no-untyped-def]
        ctx.grid = grid
        # Only its shape matters (that of the gradient): sampling is linear, its adjoint does not
        # depend on the image.
        image = gradient.new_zeros(()).expand(gradient.shape)
        result, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(), image, grid(), 0, 1, False, [True, False]
        )
        return result

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return _Sample.apply(gradient, ctx.grid), None  # type: ignore[no-untyped-call]


def resample(images_B3HW: Tensor, inverse_B33: Tensor) -> Tensor:
    """Warp by an inverse transform, antialiased: upsample 2x, sample bilinearly, downsample 2x.

    Both filters are sym6; borders reflect about the centre of the outermost pixel. Images above
    `MATRIX_SIDE` are taken one by one and little is kept for the backward pass, which bounds the
    memory by about 25 such images.

    Args:
        images_B3HW: float32 or float64, square, at least 7 pixels high.
        inverse_B33: output -> input, float64 on the CPU, in units of half an image side.
    """
    side = images_B3HW.shape[3]
    inverse = sent(inverse_B33, images_B3HW.device, images_B3HW.dtype)
    if side <= MATRIX_SIDE:
        grid = _fine_grid(inverse, side)
        fine = _upsample(images_B3HW.contiguous())
        warped = _Sample.apply(fine, lambda: grid)  # type: ignore[no-untyped-call]
        return _downsample(warped)
    results = []
    for row in range(len(images_B3HW)):
        again = functools.partial(_fine_grid, inverse[row : row + 1], side)
        fine = _upsample(images_B3HW[row : row + 1])
        warped = _Sample.apply(fine, again)  # type: ignore[no-untyped-call]
        results.append(_downsample(warped))
    return torch.cat(results)
