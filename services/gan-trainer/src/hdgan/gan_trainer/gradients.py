"""All gradients of a network in one piece of memory: one sum over processes, one test for NaN."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FlatGradients:
    """Makes the gradient of every trained parameter of `module` a view into `flat`.

    Backward passes then add up in place, so gradients accumulate over the pieces of a batch.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("the network has no parameter that is trained")
        first = self.parameters[0]
        self.flat = torch.zeros(
            sum(p.numel() for p in self.parameters), dtype=first.dtype, device=first.device
        )
        start = 0
        for parameter in self.parameters:
            # The same strides as the parameter (channels-last ones too), as autograd wants them.
            parameter.grad = self.flat[start : start + parameter.numel()].as_strided(
                parameter.shape, parameter.stride(), start
            )
            start += parameter.numel()

    def clear(self) -> None:
        """Set all gradients to zero."""
        self.flat.zero_()

    def finite(self) -> Tensor:
        """Whether no gradient is NaN or infinite: bool []."""
        return torch.isfinite(self.flat).all()

    def train(self, on: bool) -> None:
        """Whether backward passes reach these parameters."""
        for parameter in self.parameters:
            parameter.requires_grad_(on)
