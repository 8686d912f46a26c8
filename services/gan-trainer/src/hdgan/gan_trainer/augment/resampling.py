"""Warping by an affine transform with antialiasing, in one resampling.

Source: Karras et al. 2020b, appendix B.1: upsample 2x, sample bilinearly, downsample 2x.
"""

from __future__ import annotations

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


# Up to this side a filter is one dense matrix, above it one per block of this many coarse pixels: a
# matrix product is many times faster than a convolution with a single channel, but its cost per
# pixel grows with its size.
MATRIX_SIDE = 512
BLOCK = 64
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
    height, width = x_BCHW.shape[2:]
    if max(height, width) > MATRIX_SIDE:
        return _upsample_blocks(_upsample_blocks(x_BCHW.mT).mT)
    rows, columns = _upsample_last(_eye(height, x_BCHW)), _upsample_last(_eye(width, x_BCHW))
    return rows.T @ (x_BCHW @ columns)


def _downsample(x_BCHW: Tensor) -> Tensor:
    height, width = x_BCHW.shape[2:]
    if max(height, width) - 2 * _RIM > 2 * MATRIX_SIDE:
        return _downsample_blocks(_downsample_blocks(x_BCHW.mT).mT)
    rows, columns = _downsample_last(_eye(height, x_BCHW)), _downsample_last(_eye(width, x_BCHW))
    return rows.T @ (x_BCHW @ columns)


def _fine_grid(inverse_B33: Tensor, height: int, width: int) -> Tensor:
    """Where in the fine image, rim included, each pixel of the fine output reads: [B, 2H + 2 rim,
    2W + 2 rim, 2] in the units of `grid_sample`, the image reflected about its outermost pixels.

    Args:
        inverse_B33: as for `resample`, with the dtype and the device of the image.
        height, width: of the coarse image.
    """
    device, dtype = inverse_B33.device, inverse_B33.dtype
    # sym6 is not quite symmetric: it moves low frequencies by a fraction of a fine pixel, which
    # rotations and flips would double. Sampling where things really are undoes that.
    centre = sum(tap * at for at, tap in enumerate(SYM6)) / sum(SYM6)
    delay = centre - (len(SYM6) - 1) / 2
    # Sample at the centres of a fine output grid; positions are in units of half an image side.
    rows = (torch.arange(2 * height + 2 * _RIM).double() - _RIM + 0.5 - delay) / height - 1
    columns = (torch.arange(2 * width + 2 * _RIM).double() - _RIM + 0.5 - delay) / width - 1
    # The inverse transform is affine: a part of the rows plus a part of the columns. The grid is
    # as large as the image, so it is made where the image is.
    rows, columns = rows.to(device, dtype), columns.to(device, dtype)
    across = columns[None, :, None] * inverse_B33[:, None, :2, 0]
    down = rows[None, :, None] * inverse_B33[:, None, :2, 1] + inverse_B33[:, None, :2, 2]
    back = torch.tensor([delay / width, delay / height], device=device, dtype=dtype)
    grid = across[:, None] + (down + back)[:, :, None]
    # Beyond the rim the image is reflected about the centres of its outermost pixels, at +-edge:
    # edge - |(at + edge) mod 4 edge - 2 edge|. Not by grid_sample, which would reflect about the end
    # of the rim; and not within the rim, so that the identity is the identity up to the border. In
    # place, since this is the largest thing there is.
    edge = torch.tensor([1 - 1 / width, 1 - 1 / height], device=device, dtype=dtype)
    reach = 1 + (_RIM - 0.25) / torch.tensor([width, height], device=device, dtype=dtype)
    reflected = (grid - back).add_(edge).remainder_(4 * edge).sub_(2 * edge).abs_().neg_()
    grid = torch.where(grid.abs() > reach, reflected.add_(edge + back), grid)
    # grid_sample wants positions in units of half of what it is given, rim included.
    half = [width / (width + _RIM), height / (height + _RIM)]
    return grid.mul_(torch.tensor(half, device=device, dtype=dtype))


class _Sample(torch.autograd.Function):
    """Bilinear sampling of the fine image. Linear in the image, so its second derivative is
    sampling again; torch's own grid_sample has no second derivative, which R1 needs. Keeps the
    transform and not the grid, which is three times as large as the image."""

    @staticmethod
    def forward(ctx, fine, inverse, size):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inverse)
        ctx.size = size
        return F.grid_sample(fine, _fine_grid(inverse, *size), mode="bilinear", align_corners=False)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (inverse,) = ctx.saved_tensors
        adjoint = _SampleAdjoint.apply(gradient, inverse, ctx.size)  # type: ignore[no-untyped-call]
        return adjoint, None, None


class _SampleAdjoint(torch.autograd.Function):
    """The transpose of `_Sample`: spreads values back to where they were sampled."""

    @staticmethod
    def forward(ctx, gradient, inverse, size):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inverse)
        ctx.size = size
        # Only its shape matters (that of the result is the same): sampling is linear, its adjoint
        # does not depend on the image.
        image = gradient.new_zeros(()).expand(gradient.shape)
        result, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(), image, _fine_grid(inverse, *size), 0, 1, False, [True, False]
        )
        return result

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (inverse,) = ctx.saved_tensors
        again = _Sample.apply(gradient, inverse, ctx.size)  # type: ignore[no-untyped-call]
        return again, None, None


def resample(images_B3HW: Tensor, inverse_B33: Tensor) -> Tensor:
    """Warp by an inverse transform, antialiased: upsample 2x, sample bilinearly, downsample 2x.

    Both filters are sym6; borders reflect about the centre of the outermost pixel. Images above
    `MATRIX_SIDE` are taken one by one, which bounds the memory by about 20 of them.

    Args:
        images_B3HW: float32 or float64; at least 7 pixels high and wide.
        inverse_B33: output -> input, float64 on the CPU, in units of half an image side.
    """
    height, width = images_B3HW.shape[2:]
    inverse_B33 = inverse_B33.to(images_B3HW.device, images_B3HW.dtype)

    def warp(images: Tensor, inverse: Tensor) -> Tensor:
        fine = _upsample(images)
        warped = _Sample.apply(fine, inverse, (height, width))  # type: ignore[no-untyped-call]
        return _downsample(warped)

    if max(height, width) <= MATRIX_SIDE:
        return warp(images_B3HW.contiguous(), inverse_B33)
    pairs = zip(images_B3HW.split(1), inverse_B33.split(1), strict=True)
    return torch.cat([warp(image, inverse) for image, inverse in pairs])
