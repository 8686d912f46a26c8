"""The StyleGAN2 residual discriminator with minibatch standard deviation.

Source: Karras et al. 2020a, section 4.1; Karras et al. 2018 (minibatch standard deviation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hdgan.nets.architecture import Architecture
from hdgan.nets.layers import EqualisedConv, EqualisedLinear, activate


def minibatch_std(x_BCHW: Tensor, group: int) -> Tensor:
    """Append one channel: the standard deviation over groups of images, averaged over C, H, W.

    Groups are strided as in StyleGAN2 (image i belongs with i + B/group, ...). B must be divisible
    by `group` (or be smaller than it).
    """
    batch, channels, height, width = x_BCHW.shape
    group = min(group, batch)
    if batch % group:
        raise ValueError(f"batch {batch} is not divisible by the minibatch-std group {group}")
    grouped = x_BCHW.float().reshape(group, batch // group, channels, height, width)
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    extra = deviation.to(x_BCHW.dtype).repeat(group).reshape(batch, 1, 1, 1)
    return torch.cat([x_BCHW, extra.expand(-1, 1, height, width)], dim=1)


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a residual path from one resolution to half of it."""

    def __init__(self, resolution: int, arch: Architecture) -> None:
        super().__init__()
        channels = arch.channels(resolution)
        out_channels = arch.channels(resolution // 2)
        self.clamp = arch.conv_clamp
        self.conv0 = EqualisedConv(channels, channels, 3)
        self.conv1 = EqualisedConv(channels, out_channels, 3, down=True)
        self.skip = EqualisedConv(channels, out_channels, 1, bias=False, down=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        residual = self.skip(x_BCHW)
        x = activate(self.conv0(x_BCHW), self.clamp)
        x = activate(self.conv1(x), self.clamp)
        # The sum of two unit-variance paths has variance two.
        total: Tensor = (x + residual) * math.sqrt(0.5)
        return total


class Discriminator(nn.Module):
    """Images -> logits of being real."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        first, *_ = arch.block_resolutions
        channels = arch.channels(first)
        self.from_rgb = EqualisedConv(3, arch.channels(arch.resolution), 1)
        self.blocks = nn.ModuleDict(
            {f"b{r}": DiscriminatorBlock(r, arch) for r in reversed(arch.block_resolutions[1:])}
        )
        self.final_conv = EqualisedConv(channels + 1, channels, 3)
        self.hidden = EqualisedLinear(channels * first * first, channels)
        self.out = EqualisedLinear(channels, 1)
        self.mixed_blocks = 0
        self.mixed_dtype = torch.float32

    def use_mixed_precision(self, blocks: int, dtype: torch.dtype) -> None:
        """Compute the first `blocks` (highest) resolutions in `dtype`; the 4 x 4 part never."""
        self.mixed_blocks = min(blocks, len(self.blocks))
        self.mixed_dtype = dtype

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """float32 [B, 3, H, W] -> logits float32 [B]."""
        side = self.arch.resolution
        if tuple(image_B3HW.shape[1:]) != (3, side, side):
            raise ValueError(f"images must be [B, 3, {side}, {side}], got {image_B3HW.shape}")
        x = image_B3HW.contiguous(memory_format=torch.channels_last)
        if self.mixed_blocks:
            x = x.to(self.mixed_dtype)
        x = activate(self.from_rgb(x), self.arch.conv_clamp)
        for index, block in enumerate(self.blocks.values()):
            if index == self.mixed_blocks:
                x = x.float()
            x = block(x)
        x = minibatch_std(x.float(), self.arch.minibatch_std_group)
        x = activate(self.final_conv(x), self.arch.conv_clamp)
        x = activate(self.hidden(x.flatten(1)))
        logits: Tensor = self.out(x)
        return logits.squeeze(1)
