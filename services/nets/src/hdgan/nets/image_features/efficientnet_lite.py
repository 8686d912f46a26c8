"""EfficientNet-Lite0 as a feature extractor: the network, without its classifier.

Source: Tan and Le 2019 (EfficientNet), in the "lite" variant published for mobile devices: no
squeeze-and-excitation, ReLU6 instead of swish, stem and head of fixed width. Blocks are inverted
residuals (Sandler et al. 2018). Padding is TensorFlow's "same", which the weights were trained
with.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hdgan.core.errors import RequestError

FEATURES = 1280
SIDE = 224
"""Side of the images the weights were trained on, in pixels."""

_STEM = 32
# Expansion, kernel, stride of the first block, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_EPSILON = 1e-3


class _ConvNorm(nn.Module):
    """Convolution with TensorFlow's "same" padding, then batch normalisation."""

    def __init__(self, ins: int, outs: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, size, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outs, eps=_EPSILON)
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        # Enough on both sides for ceil(n / stride) outputs; the odd pixel goes right and below.
        needed = [
            max((-(-n // self.stride) - 1) * self.stride + self.size - n, 0) for n in x.shape[2:]
        ]
        (top, left) = (n // 2 for n in needed)
        x = F.pad(x, (left, needed[1] - left, top, needed[0] - top))
        normalised: Tensor = self.norm(self.conv(x))
        return normalised


class _Block(nn.Module):
    """Inverted residual: expand, filter each channel, project."""

    def __init__(self, ins: int, outs: int, expansion: int, size: int, stride: int) -> None:
        super().__init__()
        wide = ins * expansion
        self.expand = _ConvNorm(ins, wide, 1) if expansion > 1 else None
        self.depthwise = _ConvNorm(wide, wide, size, stride, groups=wide)
        self.project = _ConvNorm(wide, outs, 1)
        self.residual = stride == 1 and ins == outs

    def forward(self, x: Tensor) -> Tensor:
        inside = x if self.expand is None else F.relu6(self.expand(x))
        result: Tensor = self.project(F.relu6(self.depthwise(inside)))
        return result + x if self.residual else result


class EfficientNetLite0(nn.Module):
    """Images in [-1, 1], float32 [B, 3, H, W] -> pooled features [B, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _ConvNorm(3, _STEM, 3, 2)
        blocks: list[_Block] = []
        channels = _STEM
        for expansion, size, stride, outs, count in _STAGES:
            for number in range(count):
                blocks.append(_Block(channels, outs, expansion, size, stride if number == 0 else 1))
                channels = outs
        self.blocks = nn.ModuleList(blocks)
        self.head = _ConvNorm(channels, FEATURES, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        x = F.relu6(self.stem(x_B3HW))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.head(x)).mean(dim=(2, 3))


def named_as_here(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under the names of `EfficientNetLite0`, without the classifier.

    RequestError if a tensor is missing.
    """
    names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for number in range(sum(stage[-1] for stage in _STAGES)):
        source, here = f"_blocks.{number}.", f"blocks.{number}."
        if number:
            names[f"{here}expand"] = (f"{source}_expand_conv", f"{source}_bn0")
        names[f"{here}depthwise"] = (f"{source}_depthwise_conv", f"{source}_bn1")
        names[f"{here}project"] = (f"{source}_project_conv", f"{source}_bn2")
    result: dict[str, Tensor] = {}
    try:
        for here, (conv, norm) in names.items():
            result[f"{here}.conv.weight"] = published[f"{conv}.weight"]
            for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                result[f"{here}.norm.{part}"] = published[f"{norm}.{part}"]
    except KeyError as error:
        raise RequestError(f"these are no EfficientNet-Lite0 weights: {error} is missing") from None
    return result


def fresh() -> EfficientNetLite0:
    """The network with random weights, for inference."""
    return EfficientNetLite0().eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
