"""The StyleGAN2 generator: mapping network, modulated convolutions, skip architecture.

Source: Karras et al. 2020a, *Analyzing and Improving the Image Quality of StyleGAN*, section 2-4.
Shape suffixes: B batch, C channels, H height, W width, Z latent, N copies of w, D length of w.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdgan.nets.architecture import Architecture
from hdgan.nets.layers import (
    ACTIVATION_GAIN,
    EqualisedLinear,
    activate,
    fir_blur,
    fir_kernel,
    fir_upsample,
)

Noise = Literal["constant", "none"] | Sequence[Tensor]
OnFeature = Callable[[str, Tensor], None]


def to_uint8(image_B3HW: Tensor) -> Tensor:
    """Images of range [-1, 1] as uint8 [B, H, W, 3]: rounded, clamped."""
    scaled = (image_B3HW.float() * 127.5 + 127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class Mapping(nn.Module):
    """z -> w: normalisation, then fully connected layers at a reduced learning rate."""

    w_avg: Tensor

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.num_ws = arch.num_ws
        self.layers = nn.ModuleList(
            EqualisedLinear(arch.latent_dim, arch.latent_dim, arch.mapping_lr_multiplier)
            for _ in range(arch.mapping_layers)
        )
        self.register_buffer("w_avg", torch.zeros(arch.latent_dim))

    def w(self, z_BZ: Tensor) -> Tensor:
        """One w per z, not truncated: [B, Z] -> [B, D]."""
        x = z_BZ * torch.rsqrt(z_BZ.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = activate(layer(x))
        return x

    def broadcast(self, w_BD: Tensor) -> Tensor:
        """The same w for every layer: [B, D] -> [B, N, D]."""
        return w_BD.unsqueeze(1).expand(-1, self.num_ws, -1)

    def forward(self, z_BZ: Tensor, psi: float = 1.0) -> Tensor:
        """z -> w for every layer, truncated: w_avg + psi * (w - w_avg). Returns [B, N, D]."""
        w_BD = self.w(z_BZ)
        if psi != 1.0:
            w_BD = torch.lerp(self.w_avg, w_BD, psi)
        return self.broadcast(w_BD)

    @torch.no_grad()
    def update_w_avg(self, w_BD: Tensor, beta: float) -> None:
        """Moving average of w: w_avg <- beta * w_avg + (1 - beta) * mean(w)."""
        self.w_avg.lerp_(w_BD.detach().float().mean(dim=0), 1.0 - beta)


class ModulatedConv(nn.Module):
    """Convolution whose weights are scaled per image by a style and normalised again.

    Scaling weights per image is the same as scaling the input by the style and the output by the
    demodulation factor (StyleGAN2, equations 1 to 3); that form runs as one ordinary convolution
    for the whole batch.
    """

    kernel: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        latent_dim: int,
        *,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.affine = EqualisedLinear(latent_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, size, size))
        self.gain = 1.0 / math.sqrt(in_channels * size * size)
        self.up = up
        self.demodulate = demodulate
        self.padding = size // 2
        self.register_buffer("kernel", fir_kernel(), persistent=False)

    def forward(self, x_BCHW: Tensor, w_BD: Tensor) -> Tensor:
        dtype = x_BCHW.dtype
        style_BC = self.affine(w_BD)
        weight = self.weight * self.gain
        scale_BO: Tensor | None = None
        if self.demodulate:
            energy_OC = weight.square().sum(dim=(2, 3))
            scale_BO = torch.rsqrt(style_BC.square() @ energy_OC.t() + 1e-8)
            if dtype != torch.float32:
                # Pre-normalised: the style's largest entry is 1 so that 16-bit sums stay small;
                # demodulation cancels the factor (StyleGAN2-ADA, mixed precision).
                largest = style_BC.abs().amax(dim=1, keepdim=True).clamp_min(1e-8)
                style_BC = style_BC / largest
                scale_BO = scale_BO * largest
        x = x_BCHW * style_BC.to(dtype)[:, :, None, None]
        weight = weight.to(dtype)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = fir_blur(x, self.kernel, padding=1, gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        return x if scale_BO is None else x * scale_BO.to(dtype)[:, :, None, None]


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU."""

    noise_const: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, resolution: int, arch: Architecture, *, up: bool
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.clamp = arch.conv_clamp
        self.conv = ModulatedConv(in_channels, out_channels, 3, arch.latent_dim, up=up)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x_BCHW: Tensor, w_BD: Tensor, noise: Tensor | None) -> Tensor:
        x = self.conv(x_BCHW, w_BD)
        if noise is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        x = x + self.bias.to(x.dtype)[None, :, None, None]
        return activate(x, self.clamp, ACTIVATION_GAIN)


class ToRgb(nn.Module):
    """Modulated 1 x 1 convolution to three channels, without demodulation."""

    def __init__(self, in_channels: int, arch: Architecture) -> None:
        super().__init__()
        self.clamp = arch.conv_clamp
        self.conv = ModulatedConv(in_channels, 3, 1, arch.latent_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x_BCHW: Tensor, w_BD: Tensor) -> Tensor:
        x: Tensor = self.conv(x_BCHW, w_BD).float() + self.bias[None, :, None, None]
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """One resolution: two convolutions (4 x 4: one) and the contribution to the RGB skip sum."""

    def __init__(self, in_channels: int, resolution: int, arch: Architecture) -> None:
        super().__init__()
        channels = arch.channels(resolution)
        self.conv0 = (
            SynthesisLayer(in_channels, channels, resolution, arch, up=True)
            if in_channels
            else None
        )
        self.conv1 = SynthesisLayer(channels, channels, resolution, arch, up=False)
        self.to_rgb = ToRgb(channels, arch)

    @property
    def layers(self) -> list[tuple[str, SynthesisLayer]]:
        first = [] if self.conv0 is None else [("conv0", self.conv0)]
        return [*first, ("conv1", self.conv1)]


class Synthesis(nn.Module):
    """w -> image. `blocks` maps resolution to block; execution is coarse to fine."""

    kernel: Tensor

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        first = arch.block_resolutions[0]
        self.const = nn.Parameter(torch.randn(arch.channels(first), first, first))
        self.blocks = nn.ModuleDict()
        previous = 0
        for resolution in arch.block_resolutions:
            self.blocks[f"b{resolution}"] = SynthesisBlock(previous, resolution, arch)
            previous = arch.channels(resolution)
        self.register_buffer("kernel", fir_kernel(), persistent=False)
        self.mixed_blocks = 0
        self.mixed_dtype = torch.float32

    def use_mixed_precision(self, blocks: int, dtype: torch.dtype) -> None:
        """Compute the last `blocks` resolutions in `dtype` (StyleGAN2-ADA: the last 4)."""
        self.mixed_blocks = blocks
        self.mixed_dtype = dtype

    def noise_shapes(self) -> list[tuple[int, int]]:
        """[H, W] of each convolution's noise, coarse to fine."""
        sides = [int(name.split(".")[0][1:]) for name in self.arch.conv_names]
        return [(side, side) for side in sides]

    def forward(
        self, ws_BND: Tensor, noise: Noise = "constant", on_feature: OnFeature | None = None
    ) -> Tensor:
        """Make images.

        Args:
            ws_BND: float32 [B, num_ws, latent_dim].
            noise: "constant" uses the network's own noise buffers, "none" adds no noise; or one
                tensor per convolution, each broadcastable to [B, 1, H, W].
            on_feature: called with (name, [B, C, H, W]) after each convolution (after noise, bias,
                activation and clamp; before RGB), coarse to fine. Keep or copy what you need:
                nothing else holds on to it.

        Returns:
            float32 [B, 3, H, W], about [-1, 1].
        """
        expected = (self.arch.num_ws, self.arch.latent_dim)
        if tuple(ws_BND.shape[1:]) != expected:
            raise ValueError(f"ws must be [B, {expected[0]}, {expected[1]}], got {ws_BND.shape}")
        if not isinstance(noise, str) and len(noise) != len(self.arch.conv_names):
            raise ValueError(f"noise needs {len(self.arch.conv_names)} tensors, got {len(noise)}")
        x = self.const.unsqueeze(0).expand(ws_BND.shape[0], -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        layer_index = 0
        first_mixed = len(self.blocks) - self.mixed_blocks
        for index, (block_name, block) in enumerate(self.blocks.items()):
            assert isinstance(block, SynthesisBlock)
            if index >= first_mixed:
                x = x.to(self.mixed_dtype)
            for name, layer in block.layers:
                x = layer(x, ws_BND[:, layer_index], _layer_noise(noise, layer_index, layer))
                layer_index += 1
                if on_feature is not None:
                    on_feature(f"{block_name}.{name}", x)
            rgb = block.to_rgb(x, ws_BND[:, layer_index])
            image = rgb if image is None else fir_upsample(image, self.kernel) + rgb
        assert image is not None
        return image


def _layer_noise(noise: Noise, index: int, layer: SynthesisLayer) -> Tensor | None:
    if isinstance(noise, str):
        if noise == "constant":
            return layer.noise_const
        if noise == "none":
            return None
        raise ValueError(f"noise must be 'constant', 'none' or tensors, got {noise!r}")
    return noise[index]


class Generator(nn.Module):
    """Mapping and synthesis network of one architecture."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.mapping = Mapping(arch)
        self.synthesis = Synthesis(arch)

    def forward(self, z_BZ: Tensor, psi: float = 1.0, noise: Noise = "constant") -> Tensor:
        """z -> images: [B, Z] -> float32 [B, 3, H, W]."""
        image: Tensor = self.synthesis(self.mapping(z_BZ, psi), noise)
        return image
