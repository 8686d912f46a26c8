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
from torch.utils.checkpoint import checkpoint

from hdgan.nets.architecture import Architecture
from hdgan.nets.layers import (
    ACTIVATION_GAIN,
    EqualisedLinear,
    activate,
    fir_blur,
    fir_kernel,
    fir_upsample,
    full_precision,
    normalise_second_moment,
)

Noise = Literal["constant", "none"] | Sequence[Tensor]
OnFeature = Callable[[str, Tensor], None]


def to_uint8(image_B3HW: Tensor) -> Tensor:
    """Images of range [-1, 1] as uint8 [B, H, W, 3]: rounded, clamped."""
    scaled = (image_B3HW.float() * 127.5 + 127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class Mapping(nn.Module):
    """z -> w: normalisation, then fully connected layers at a reduced learning rate.

    Conditional networks (`arch.labels`) embed the label and join it with z (StyleGAN2-ADA); their
    `w_avg` has one row per label.
    """

    w_avg: Tensor

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.num_ws = arch.num_ws
        self.label_names = arch.labels
        width, labels = arch.latent_dim, len(arch.labels)
        self.embed = EqualisedLinear(labels, width) if labels else None
        self.layers = nn.ModuleList(
            EqualisedLinear(
                2 * width if labels and index == 0 else width, width, arch.mapping_lr_multiplier
            )
            for index in range(arch.mapping_layers)
        )
        self.register_buffer("w_avg", torch.zeros((labels, width) if labels else width))

    def w(self, z_BZ: Tensor, label_B: Tensor | None = None) -> Tensor:
        """One w per z, not truncated: [B, Z] -> [B, D].

        Args:
            label_B: int64 label numbers; needed if, and only if, the networks are conditional.
        """
        x = normalise_second_moment(z_BZ)
        if self.embed is not None:
            label_B = self._checked(label_B)
            one_hot = F.one_hot(label_B, len(self.label_names)).to(x.dtype)
            x = torch.cat([x, normalise_second_moment(self.embed(one_hot))], dim=1)
        for layer in self.layers:
            x = activate(layer(x, ACTIVATION_GAIN))
        return x

    def broadcast(self, w_BD: Tensor) -> Tensor:
        """The same w for every layer: [B, D] -> [B, N, D]."""
        return w_BD.unsqueeze(1).expand(-1, self.num_ws, -1)

    def forward(self, z_BZ: Tensor, psi: float = 1.0, label_B: Tensor | None = None) -> Tensor:
        """z -> w for every layer, truncated: w_avg + psi * (w - w_avg). Returns [B, N, D].

        w_avg is that of the image's label, if conditional.
        """
        w_BD = self.w(z_BZ, label_B)
        if psi != 1.0:
            centre = self.w_avg if self.embed is None else self.w_avg[self._checked(label_B)]
            w_BD = torch.lerp(centre, w_BD, psi)
        return self.broadcast(w_BD)

    @torch.no_grad()
    def update_w_avg(self, w_sum: Tensor, count: Tensor | float, beta: float) -> None:
        """Moving average of w: w_avg <- beta * w_avg + (1 - beta) * w_sum / count.

        Args:
            w_sum: sum of w over the batch, [D]; [labels, D] if conditional.
            count: number of w in it; [labels, 1] if conditional. A label without any stays.
        """
        count = torch.as_tensor(count, dtype=self.w_avg.dtype, device=self.w_avg.device)
        mean = w_sum / count.clamp_min(1)
        self.w_avg.copy_(torch.where(count > 0, self.w_avg.lerp(mean, 1.0 - beta), self.w_avg))

    def _checked(self, label_B: Tensor | None) -> Tensor:
        if label_B is None:
            raise ValueError(f"this network is conditional on {self.label_names}: give label_B")
        return label_B


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

    def forward(
        self, x_BCHW: Tensor, w_BD: Tensor, bias_C: Tensor | None = None, gain: float = 1.0
    ) -> Tensor:
        """gain * convolution + bias: [B, in, H, W], [B, D] -> [B, out, H or 2 H, W or 2 W]."""
        dtype = x_BCHW.dtype
        style_BC = self.affine(w_BD)
        weight = self.weight * self.gain
        scale_BO: Tensor | None = None
        if self.demodulate:
            energy_OC = weight.square().sum(dim=(2, 3))
            scale_BO = torch.rsqrt(style_BC.square() @ energy_OC.t() + 1e-8) * gain
            if dtype in (torch.bfloat16, torch.float16):
                # Pre-normalised: the style's largest entry is 1 so that 16-bit sums stay small;
                # demodulation cancels the factor (StyleGAN2-ADA, mixed precision).
                largest = style_BC.abs().amax(dim=1, keepdim=True).clamp_min(1e-8)
                style_BC = style_BC / largest
                scale_BO = scale_BO * largest
        else:
            weight = weight * gain
        x = x_BCHW * style_BC.to(dtype)[:, :, None, None]
        weight = weight.to(dtype)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = fir_blur(x, self.kernel, padding=1, gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        return _scale_and_shift(x, scale_BO, bias_C)


def _scale_and_shift(x_BCHW: Tensor, scale_BC: Tensor | None, bias_C: Tensor | None) -> Tensor:
    """x * scale + bias in one pass where gradients are recorded, else in place: x is not used
    again."""
    dtype = x_BCHW.dtype
    scale = None if scale_BC is None else scale_BC.to(dtype)[:, :, None, None]
    bias = None if bias_C is None else bias_C.to(dtype)[None, :, None, None]
    if torch.is_grad_enabled():
        if scale is not None and bias is not None:
            return torch.addcmul(bias, x_BCHW, scale)
        x = x_BCHW if scale is None else x_BCHW * scale
        return x if bias is None else x + bias
    x = x_BCHW if scale is None else x_BCHW.mul_(scale)
    return x if bias is None else x.add_(bias)


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
        x: Tensor = self.conv(x_BCHW, w_BD, self.bias * ACTIVATION_GAIN, ACTIVATION_GAIN)
        if noise is not None:
            scaled = (noise * (self.noise_strength * ACTIVATION_GAIN)).to(x.dtype)
            x = x + scaled if torch.is_grad_enabled() else x.add_(scaled)
        return activate(x, self.clamp)


class ToRgb(nn.Module):
    """Modulated 1 x 1 convolution to three channels, without demodulation."""

    def __init__(self, in_channels: int, arch: Architecture) -> None:
        super().__init__()
        self.clamp = arch.conv_clamp
        self.conv = ModulatedConv(in_channels, 3, 1, arch.latent_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x_BCHW: Tensor, w_BD: Tensor) -> Tensor:
        x: Tensor = full_precision(self.conv(x_BCHW, w_BD)) + self.bias[None, :, None, None]
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
        self.recomputed_blocks = 0

    def recompute(self, blocks: int) -> None:
        """Keep no activations inside the last `blocks` (highest) resolutions for the backward
        pass; compute them again there (Chen et al. 2016). Costs time, saves memory."""
        self.recomputed_blocks = min(blocks, len(self.blocks))

    def use_mixed_precision(self, blocks: int, dtype: torch.dtype) -> None:
        """Compute the last `blocks` resolutions in `dtype` (StyleGAN2-ADA: the last 4); the 4 x 4
        block never."""
        self.mixed_blocks = min(blocks, len(self.blocks) - 1)
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
        first_recomputed = len(self.blocks) - self.recomputed_blocks
        for index, (block_name, block) in enumerate(self.blocks.items()):
            assert isinstance(block, SynthesisBlock)
            if index >= first_mixed:
                x = x.to(self.mixed_dtype)
            layers = block.layers
            noises = [
                _layer_noise(noise, layer_index + number, layer)
                for number, (_, layer) in enumerate(layers)
            ]
            ws = ws_BND[:, layer_index : layer_index + len(layers) + 1]
            layer_index += len(layers)
            if on_feature is None and index >= first_recomputed and torch.is_grad_enabled():
                x, image = checkpoint(
                    self._block,
                    block,
                    x,
                    image,
                    ws,
                    noises,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                emit = None if on_feature is None else _named(on_feature, block_name)
                x, image = self._block(block, x, image, ws, noises, emit)
        assert image is not None
        return image

    def _block(
        self,
        block: SynthesisBlock,
        x_BCHW: Tensor,
        image_B3HW: Tensor | None,
        ws_BND: Tensor,
        noises: list[Tensor | None],
        on_feature: OnFeature | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One resolution: its features, and the image so far."""
        x = x_BCHW
        for number, (name, layer) in enumerate(block.layers):
            x = layer(x, ws_BND[:, number], noises[number])
            if on_feature is not None:
                on_feature(name, x)
        rgb = block.to_rgb(x, ws_BND[:, -1])
        image = rgb if image_B3HW is None else fir_upsample(image_B3HW, self.kernel) + rgb
        return x, image


def _named(on_feature: OnFeature, block: str) -> OnFeature:
    return lambda name, x: on_feature(f"{block}.{name}", x)


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

    def forward(
        self,
        z_BZ: Tensor,
        psi: float = 1.0,
        noise: Noise = "constant",
        label_B: Tensor | None = None,
    ) -> Tensor:
        """z -> images: [B, Z] -> float32 [B, 3, H, W]. Labels as for `Mapping.w`."""
        image: Tensor = self.synthesis(self.mapping(z_BZ, psi, label_B), noise)
        return image
