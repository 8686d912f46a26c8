"""The resampling of ADA, forward and backward: its filters as matrix products and as convolutions.

Both are the product's own code (`MATRIX_SIDE` decides); the convolutions are what one would write
first. Run in turn, so that a machine that changes its pace changes both.
"""

from __future__ import annotations

import statistics
import time

import torch

from hdgan.gan_trainer.augment import resampling

SIDE = 64
BATCH = 32
REPEATS = 9


def ada_resampling() -> dict[str, object]:
    """Seconds per batch for both, and their ratio."""
    images = torch.rand(BATCH, 3, SIDE, SIDE, requires_grad=True)
    turn = torch.tensor([[0.9, -0.3, 0.1], [0.3, 1.1, -0.2], [0.0, 0.0, 1.0]])
    inverse = turn.expand(BATCH, 3, 3)
    seconds: dict[int, list[float]] = {0: [], SIDE: []}
    kept = resampling.MATRIX_SIDE
    try:
        for _ in range(REPEATS):
            for side, times in seconds.items():
                resampling.MATRIX_SIDE = side
                started = time.perf_counter()
                resampling.resample(images, inverse).sum().backward()  # type: ignore[no-untyped-call]
                times.append(time.perf_counter() - started)
    finally:
        resampling.MATRIX_SIDE = kept
    # The first round warms up.
    convolutions, matrices = (statistics.median(times[1:]) for times in seconds.values())
    return {
        "side": SIDE,
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "matrixSeconds": round(matrices, 4),
        "convolutionSeconds": round(convolutions, 4),
        "ratio": round(convolutions / matrices, 2),
    }
