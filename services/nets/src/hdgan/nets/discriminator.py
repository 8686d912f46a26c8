"""The StyleGAN2 residual discriminator with minibatch standard deviation.

Source: Karras et al. 2020a, section 4.1; Karras et al. 2018 (minibatch standard deviation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hdgan.nets.architecture import Architecture
from hdgan.nets.layers import (
    ACTIVATION_GAIN,
    EqualisedConv,
    EqualisedLinear,
    activate,
    full_precision,
    normalise_second_moment,
)

# Layers between a label's embedding and the vector its images are compared with (StyleGAN2-ADA).
LABEL_LAYERS = 8
LABEL_LR_MULTIPLIER = 0.01
HALF_POWER = math.sqrt(0.5)


def minibatch_std(x_BCHW: Tensor, group: int) -> Tensor:
    """Append one channel: the standard deviation over groups of images, averaged over C, H, W.

    Groups are strided as in StyleGAN2 (image i belongs with i + B/group, ...). B must be divisible
    by `group` (or be smaller than it).
    """
    batch, channels, height, width = x_BCHW.shape
    group = min(group, batch)
    if batch % group:
        raise ValueError(f"batch {batch} is not divisible by the minibatch-std group {group}")
    grouped = full_precision(x_BCHW).reshape(group, batch // group, channels, height, width)
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
        residual = self.skip(x_BCHW, HALF_POWER)
        x = activate(self.conv0(x_BCHW, ACTIVATION_GAIN), self.clamp)
        if self.clamp is None:
            # The sum of two unit-variance paths has variance two; the factor goes into both.
            x = activate(self.conv1(x, ACTIVATION_GAIN * HALF_POWER))
        else:
            x = activate(self.conv1(x, ACTIVATION_GAIN), self.clamp) * HALF_POWER
        total: Tensor = x + residual
        return total


class LabelMapping(nn.Module):
    """Label -> the vector that the discriminator's last features are projected on.

    Source: Miyato and Koyama 2018 (projection discriminator), with the mapping of StyleGAN2-ADA.
    """

    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        self.embed = EqualisedLinear(labels, width)
        self.layers = nn.ModuleList(
            EqualisedLinear(width, width, LABEL_LR_MULTIPLIER) for _ in range(LABEL_LAYERS)
        )

    def forward(self, one_hot_BL: Tensor) -> Tensor:
        """[B, labels] -> [B, width]."""
        x = normalise_second_moment(self.embed(one_hot_BL))
        for layer in self.layers:
            x = activate(layer(x, ACTIVATION_GAIN))
        return x


class Discriminator(nn.Module):
    """Images -> logits of being real (and of their label, if the networks are conditional)."""

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
        self.labels = len(arch.labels)
        self.out = EqualisedLinear(channels, channels if self.labels else 1)
        self.label_mapping = LabelMapping(self.labels, channels) if self.labels else None
        self.mixed_blocks = 0
        self.mixed_dtype = torch.float32
        self.recomputed_blocks = 0

    def use_mixed_precision(self, blocks: int, dtype: torch.dtype) -> None:
        """Compute the first `blocks` (highest) resolutions in `dtype`; the 4 x 4 part never."""
        self.mixed_blocks = min(blocks, len(self.blocks))
        self.mixed_dtype = dtype

    def recompute(self, blocks: int) -> None:
        """Keep no activations inside the first `blocks` (highest) resolutions for the backward
        pass; compute them again there (Chen et al. 2016). Costs time, saves memory."""
        self.recomputed_blocks = min(blocks, len(self.blocks))

    def forward(self, image_B3HW: Tensor, label_B: Tensor | None = None) -> Tensor:
        """float32 [B, 3, H, W] -> logits float32 [B].

        Args:
            label_B: int64 label numbers; needed if, and only if, the networks are conditional.
        """
        side = self.arch.resolution
        if tuple(image_B3HW.shape[1:]) != (3, side, side):
            raise ValueError(f"images must be [B, 3, {side}, {side}], got {image_B3HW.shape}")
        x = image_B3HW.contiguous(memory_format=torch.channels_last)
        if self.mixed_blocks:
            x = x.to(self.mixed_dtype)
        x = activate(self.from_rgb(x, ACTIVATION_GAIN), self.arch.conv_clamp)
        for index, block in enumerate(self.blocks.values()):
            if index == self.mixed_blocks:
                x = full_precision(x)
            if index < self.recomputed_blocks and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x)
        x = minibatch_std(full_precision(x), self.arch.minibatch_std_group)
        x = activate(self.final_conv(x, ACTIVATION_GAIN), self.arch.conv_clamp)
        x = activate(self.hidden(x.flatten(1), ACTIVATION_GAIN))
        logits: Tensor = self.out(x)
        if self.label_mapping is None:
            return logits.squeeze(1)
        if label_B is None:
            raise ValueError(f"this network is conditional on {self.arch.labels}: give label_B")
        one_hot = nn.functional.one_hot(label_B, self.labels).to(logits.dtype)
        wanted: Tensor = self.label_mapping(one_hot)
        return (logits * wanted).sum(dim=1) / math.sqrt(wanted.shape[1])
