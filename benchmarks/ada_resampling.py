"""The resampling of ADA, forward and backward: its filters as matrix products and as convolutions.

The convolutions are what one would write first; the matrices are made from the same two functions.
Run in turn, so that a machine that changes its pace changes both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

from figures import Figure, smaller
from hdgan.gan_trainer.augment import resampling

SIDE = 64
BATCH = 32
REPEATS = 9


def ada_resampling() -> tuple[list[Figure], dict[str, object]]:
    """Seconds per batch for both, and their ratio."""
    images = torch.rand(BATCH, 3, SIDE, SIDE, requires_grad=True)
    turn = torch.tensor([[0.9, -0.3, 0.1], [0.3, 1.1, -0.2], [0.0, 0.0, 1.0]])
    inverse = turn.expand(BATCH, 3, 3)
    matrices_seconds: list[float] = []
    convolutions_seconds: list[float] = []
    for _ in range(REPEATS):
        matrices_seconds.append(_seconds(images, inverse))
        with (
            mock.patch.object(resampling, "_upsample", _by_convolution(resampling._upsample_last)),
            mock.patch.object(
                resampling, "_downsample", _by_convolution(resampling._downsample_last)
            ),
        ):
            convolutions_seconds.append(_seconds(images, inverse))
    # The first round warms up.
    matrices = statistics.median(matrices_seconds[1:])
    convolutions = statistics.median(convolutions_seconds[1:])
    details: dict[str, object] = {
        "side": SIDE,
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "matrixSeconds": round(matrices, 4),
        "convolutionSeconds": round(convolutions, 4),
        "ratio": round(convolutions / matrices, 2),
    }
    return [smaller("ada resampling, 64 px", matrices, convolutions, "s")], details


def _seconds(images: Tensor, inverse: Tensor) -> float:
    started = time.perf_counter()
    resampling.resample(images, inverse).sum().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - started


def _by_convolution(filter_last: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A filter of the last axis, applied to rows and columns."""
    return lambda x_BCHW: filter_last(filter_last(x_BCHW.mT).mT)
