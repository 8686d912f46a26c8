"""Building blocks of StyleGAN2: equalised learning rate, FIR resampling, leaky ReLU with gain.

Sources: Karras et al. 2018 (equalised learning rate), Karras et al. 2020a (StyleGAN2).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ModuleT = TypeVar("ModuleT", bound=nn.Module)

LEAKY_SLOPE = 0.2
# Keeps the variance of activations at one after a leaky ReLU (StyleGAN2, weight scaling).
ACTIVATION_GAIN = math.sqrt(2.0)
# The separable binomial low-pass filter of StyleGAN2, used for every up- and downsampling.
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)


def channels_last(module: ModuleT) -> ModuleT:
    """The module with its 4-D weights in channels-last order, which convolutions run fastest in
    on CPU and tensor cores."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def full_precision(x: Tensor) -> Tensor:
    """16-bit tensors as float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def normalise_second_moment(x_BC: Tensor) -> Tensor:
    """Each row divided by the root of its mean square (StyleGAN, input of the mapping network)."""
    return x_BC * torch.rsqrt(x_BC.square().mean(dim=1, keepdim=True) + 1e-8)


def activate(x: Tensor, clamp: float | None = None) -> Tensor:
    """Leaky ReLU (0.2), clamped to +-`clamp` when given.

    The gain that keeps activations at unit variance, `ACTIVATION_GAIN`, belongs in what computes x:
    leaky ReLU commutes with a positive factor, and there it costs no pass over the image.
    """
    # Without gradients nobody needs x again, and 4096 px maps are large.
    x = F.leaky_relu(x, LEAKY_SLOPE, inplace=not torch.is_grad_enabled())
    # hardtanh is clamp with a cheaper derivative.
    return x if clamp is None else F.hardtanh(x, -clamp, clamp)


def fir_kernel() -> Tensor:
    """The 4 x 4 FIR kernel, normalised to sum 1: float32 [4, 4]."""
    taps = torch.tensor(FIR_TAPS, dtype=torch.float32)
    kernel = taps[:, None] * taps[None, :]
    return kernel / kernel.sum()


def fir_blur(x_BCHW: Tensor, kernel: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Depthwise convolution with the FIR kernel; output side is H + 2 * padding - 3."""
    channels = x_BCHW.shape[1]
    weight = (kernel * gain).to(x_BCHW.dtype).expand(channels, 1, 4, 4)
    return F.conv2d(x_BCHW, weight, padding=padding, groups=channels)


def fir_upsample(x_BCHW: Tensor, kernel: Tensor) -> Tensor:
    """Twice the resolution: zero insertion, then the FIR filter with gain 4."""
    channels = x_BCHW.shape[1]
    weight = (kernel * 4.0).to(x_BCHW.dtype).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x_BCHW, weight, stride=2, padding=1, groups=channels)


class EqualisedLinear(nn.Module):
    """Fully connected layer whose weights are N(0, 1) and scaled by 1/sqrt(fan-in) when used.

    Args:
        lr_multiplier: scales the learning rate of weight and bias.
        bias_init: initial value of the bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """The layer, and its output times `gain`."""
        bias_gain = self.bias_gain * gain
        bias = self.bias if bias_gain == 1.0 else self.bias * bias_gain
        return F.linear(x, self.weight * (self.weight_gain * gain), bias)


class EqualisedConv(nn.Module):
    """Convolution with equalised learning rate, optionally halving the resolution.

    Downsampling filters first and strides after, so nothing aliases (StyleGAN2, after Zhang 2019).
    """

    kernel: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        bias: bool = True,
        down: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.gain = 1.0 / math.sqrt(in_channels * size * size)
        self.down = down
        self.padding = size // 2
        self.register_buffer("kernel", fir_kernel(), persistent=False)

    def forward(self, x_BCHW: Tensor, gain: float = 1.0) -> Tensor:
        """The convolution, and its output times `gain` (which costs nothing: it is in the
        weights)."""
        weight = (self.weight * (self.gain * gain)).to(x_BCHW.dtype)
        bias = None if self.bias is None else (self.bias * gain).to(x_BCHW.dtype)
        if not self.down:
            return F.conv2d(x_BCHW, weight, bias, padding=self.padding)
        # The FIR filter has 4 taps, so one more pixel on each side keeps the result centred.
        blurred = fir_blur(x_BCHW, self.kernel, padding=self.padding + 1)
        return F.conv2d(blurred, weight, bias, stride=2)
