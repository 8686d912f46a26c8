"""Warping by an affine transform with antialiasing, in one resampling.

Source: Karras et al. 2020b, appendix B.1: upsample 2x, sample bilinearly, downsample 2x.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

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

    Both filters are sym6; borders reflect.

    Args:
        images_B3HW: float32 or float64.
        inverse_B33: output -> input, float64 on the CPU, in units of half an image side.
    """
    height, width = images_B3HW.shape[2:]
    side = max(height, width)
    fine = _both_axes(images_B3HW.contiguous(), _upsample_last, side)
    # sym6 is not quite symmetric: it moves low frequencies by a fraction of a fine pixel, which
    # rotations and flips would double. Sampling where things really are undoes that.
    centre = sum(tap * at for at, tap in enumerate(SYM6)) / sum(SYM6)
    delay = centre - (len(SYM6) - 1) / 2
    # Sample at the centres of a fine output grid; positions are in units of half an image side.
    rows = (torch.arange(2 * height + 2 * _RIM).double() - _RIM + 0.5 - delay) / height - 1
    columns = (torch.arange(2 * width + 2 * _RIM).double() - _RIM + 0.5 - delay) / width - 1
    # The inverse transform is affine: a part of the rows plus a part of the columns. The grid is
    # as large as the image, so it is made where the image is.
    device, dtype = images_B3HW.device, images_B3HW.dtype
    inverse_B33 = inverse_B33.to(device, dtype)
    rows, columns = rows.to(device, dtype), columns.to(device, dtype)
    across = columns[None, :, None] * inverse_B33[:, None, :2, 0]
    down = rows[None, :, None] * inverse_B33[:, None, :2, 1] + inverse_B33[:, None, :2, 2]
    grid = across[:, None] + down[:, :, None]
    back = torch.tensor([delay / width, delay / height], device=device, dtype=dtype)
    # grid_sample wants them in units of half of what it is given, rim included.
    half = [width / (width + _RIM), height / (height + _RIM)]
    grid = (grid + back) * torch.tensor(half, device=device, dtype=dtype)
    warped = _Sample.apply(fine, grid)  # type: ignore[no-untyped-call]
    return _both_axes(warped, _downsample_last, side)
