"""Host to device without a wait."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """`x`, made on the CPU, on `device` (and as `dtype`); a GPU's work goes on meanwhile.

    Plain `.to(device)` waits until the GPU has done all that it was given before, which then has
    nothing to do until the host has caught up. Memory of the host is free to be written again as
    soon as this returns, unless it is pinned: the driver has copied it by then.
    """
    return x.to(device, dtype, non_blocking=True)
