"""StyleGAN2's networks in the form its paper writes them down: what one implements first.

Weights are modulated and demodulated per image and run as one grouped convolution; resampling is
zero insertion, padding and a depthwise convolution; gains and biases are applied where the paper
has them; memory is contiguous NCHW. Source: Karras et al. 2020a (arXiv 1912.04958). Parameters have
the names of `hdgan.nets`, so the same state_dict goes into both and they make the same images.
No class labels, no clamping, float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdgan.nets.architecture import Architecture

EPSILON = 1e-8


def normalise(x_BC: Tensor) -> Tensor:
    """Rows of unit mean square."""
    return x_BC / (x_BC.square().mean(dim=1, keepdim=True) + EPSILON).sqrt()


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps unit variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2.0)


def filter_kernel() -> Tensor:
    """The [1, 3, 3, 1] low-pass filter in two dimensions, of sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / taps.sum().square()


def resample(
    x_BCHW: Tensor, kernel: Tensor, pad: tuple[int, int], up: int = 1, down: int = 1
) -> Tensor:
    """Zero insertion, padding (before, after), filter, decimation.

    The filter gets gain up^2, so that brightness stays.
    """
    batch, channels, height, width = x_BCHW.shape
    x = x_BCHW
    if up > 1:
        x = x.new_zeros(batch, channels, height * up, width * up)
        x[:, :, ::up, ::up] = x_BCHW
    x = F.pad(x, (*pad, *pad))
    weight = (kernel * up**2).expand(channels, 1, *kernel.shape)
    return F.conv2d(x, weight, stride=down, groups=channels)


class Linear(nn.Module):
    """Fully connected, equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.weight_gain, self.bias_gain = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class Conv(nn.Module):
    """Convolution, equalised learning rate; `down` filters and halves the resolution."""

    kernel: Tensor

    def __init__(
        self, inputs: int, outputs: int, size: int, *, bias: bool = True, down: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1.0 / math.sqrt(inputs * size**2)
        self.size, self.down = size, down
        self.register_buffer("kernel", filter_kernel(), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if not self.down:
            return F.conv2d(x_BCHW, weight, self.bias, padding=self.size // 2)
        if self.size == 1:  # one pixel looks at one pixel, so those that are dropped can go first
            return F.conv2d(resample(x_BCHW, self.kernel, (1, 1), down=2), weight, self.bias)
        return F.conv2d(resample(x_BCHW, self.kernel, (2, 2)), weight, self.bias, stride=2)


class ModulatedConv(nn.Module):
    """Convolution with weights of its own for each image (equations 1 and 3)."""

    kernel: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        latent_dim: int,
        *,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.affine = Linear(latent_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.gain = 1.0 / math.sqrt(inputs * size**2)
        self.size, self.up, self.demodulate = size, up, demodulate
        self.register_buffer("kernel", filter_kernel(), persistent=False)

    def forward(self, x_BCHW: Tensor, w_BD: Tensor) -> Tensor:
        batch, inputs, height, width = x_BCHW.shape
        style_BI = self.affine(w_BD)
        weight = self.weight * self.gain * style_BI[:, None, :, None, None]
        if self.demodulate:
            weight = weight * torch.rsqrt(
                weight.square().sum(dim=(2, 3, 4), keepdim=True) + EPSILON
            )
        x = x_BCHW.reshape(1, batch * inputs, height, width)
        if not self.up:
            x = F.conv2d(x, weight.flatten(0, 1), padding=self.size // 2, groups=batch)
            return x.reshape(batch, -1, height, width)
        weight = weight.transpose(1, 2).flatten(0, 1)
        x = F.conv_transpose2d(x, weight, stride=2, groups=batch)
        x = x.reshape(batch, -1, *x.shape[2:])
        return resample(x, self.kernel * 4, (1, 1))


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, resolution: int, latent_dim: int, *, up: bool
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, latent_dim, up=up)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x_BCHW: Tensor, w_BD: Tensor, noise: Tensor | None) -> Tensor:
        x = self.conv(x_BCHW, w_BD)
        x = x + (self.noise_const if noise is None else noise) * self.noise_strength
        return activate(x + self.bias[:, None, None])


class ToRgb(nn.Module):
    """Modulated 1 x 1 convolution without demodulation, and bias."""

    def __init__(self, inputs: int, latent_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, latent_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x_BCHW: Tensor, w_BD: Tensor) -> Tensor:
        rgb: Tensor = self.conv(x_BCHW, w_BD) + self.bias[:, None, None]
        return rgb


class SynthesisBlock(nn.Module):
    """The layers of one resolution; the lowest starts from a constant and has one convolution."""

    def __init__(self, inputs: int, outputs: int, resolution: int, latent_dim: int) -> None:
        super().__init__()
        self.conv0 = (
            SynthesisLayer(inputs, outputs, resolution, latent_dim, up=True) if inputs else None
        )
        self.conv1 = SynthesisLayer(outputs, outputs, resolution, latent_dim, up=False)
        self.to_rgb = ToRgb(outputs, latent_dim)

    def convolutions(self) -> list[SynthesisLayer]:
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]


class Synthesis(nn.Module):
    """w -> image with skip connections: the RGB of each resolution, added up."""

    kernel: Tensor

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        first = arch.block_resolutions[0]
        self.const = nn.Parameter(torch.randn(arch.channels(first), first, first))
        self.blocks = nn.ModuleDict()
        inputs = 0
        for resolution in arch.block_resolutions:
            outputs = arch.channels(resolution)
            self.blocks[f"b{resolution}"] = SynthesisBlock(
                inputs, outputs, resolution, arch.latent_dim
            )
            inputs = outputs
        self.register_buffer("kernel", filter_kernel(), persistent=False)

    def forward(self, ws_BND: Tensor, noises: Sequence[Tensor] | None = None) -> Tensor:
        """[B, N, D] -> [B, 3, H, W]; the network's own noise without `noises`."""
        x = self.const.expand(ws_BND.shape[0], -1, -1, -1)
        image: Tensor | None = None
        layer = 0
        for block in self.blocks.values():
            assert isinstance(block, SynthesisBlock)
            for convolution in block.convolutions():
                x = convolution(x, ws_BND[:, layer], None if noises is None else noises[layer])
                layer += 1
            rgb = block.to_rgb(x, ws_BND[:, layer])
            image = rgb if image is None else resample(image, self.kernel, (2, 1), up=2) + rgb
        assert image is not None
        return image


class Mapping(nn.Module):
    """z -> w."""

    w_avg: Tensor

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        width = arch.latent_dim
        self.layers = nn.ModuleList(
            Linear(width, width, arch.mapping_lr_multiplier) for _ in range(arch.mapping_layers)
        )
        self.register_buffer("w_avg", torch.zeros(width))

    def forward(self, z_BZ: Tensor) -> Tensor:
        x = normalise(z_BZ)
        for layer in self.layers:
            x = activate(layer(x))
        return x


class Generator(nn.Module):
    """z -> image."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        if arch.labels or arch.conv_clamp is not None:
            raise ValueError("the plain networks have neither labels nor a clamp")
        self.arch = arch
        self.mapping = Mapping(arch)
        self.synthesis = Synthesis(arch)

    def forward(self, z_BZ: Tensor) -> Tensor:
        w_BD = self.mapping(z_BZ)
        image: Tensor = self.synthesis(w_BD[:, None].expand(-1, self.arch.num_ws, -1))
        return image


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a residual path, to half the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, inputs, 3)
        self.conv1 = Conv(inputs, outputs, 3, down=True)
        self.skip = Conv(inputs, outputs, 1, bias=False, down=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = activate(self.conv1(activate(self.conv0(x_BCHW))))
        total: Tensor = (x + self.skip(x_BCHW)) / math.sqrt(2.0)
        return total


class Discriminator(nn.Module):
    """Images -> logits of being real."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        first, *rest = arch.block_resolutions
        channels = arch.channels(first)
        self.group = arch.minibatch_std_group
        self.from_rgb = Conv(3, arch.channels(arch.resolution), 1)
        self.blocks = nn.ModuleDict(
            {
                f"b{resolution}": DiscriminatorBlock(
                    arch.channels(resolution), arch.channels(resolution // 2)
                )
                for resolution in reversed(rest)
            }
        )
        self.final_conv = Conv(channels + 1, channels, 3)
        self.hidden = Linear(channels * first**2, channels)
        self.out = Linear(channels, 1)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B]."""
        x = activate(self.from_rgb(image_B3HW))
        for block in self.blocks.values():
            x = block(x)
        x = activate(self.final_conv(self._with_deviation(x)))
        logits: Tensor = self.out(activate(self.hidden(x.flatten(1))))
        return logits.squeeze(1)

    def _with_deviation(self, x_BCHW: Tensor) -> Tensor:
        """One more channel: the mean standard deviation among the images of a group."""
        batch, _, height, width = x_BCHW.shape
        group = min(self.group, batch)
        grouped = x_BCHW.reshape(group, batch // group, -1)
        deviation = (grouped.var(dim=0, unbiased=False) + EPSILON).sqrt().mean(dim=1)
        channel = deviation.repeat(group)[:, None, None, None].expand(-1, 1, height, width)
        return torch.cat([x_BCHW, channel], dim=1)
