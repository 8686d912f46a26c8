"""Memory of one training step with preset `tile4096`.

Two figures for each side, with the preset's own images per device and every regulariser in one
step. Measured: bytes in memory of a process that makes the step on the CPU, at sides that fit a
small machine. Counted: bytes of all tensors that live at the same time when the same code runs
without data (PyTorch's fake tensors), which also works at 4096 px; temporary memory inside an
operation and an allocator's waste are not in it. Their ratio where both are known extrapolates to
4096 px. Nothing here has been tested on a GPU.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from figures import Figure
from hdgan.core.run import GanTrainerConfig
from hdgan.gan_trainer.training import Training
from live_tensors import peak_tensor_bytes
from measuring import Memory, in_fresh_process, peak_memory

SIDES = (256, 512, 1024)
TARGET = 4096
BATCH = 2
LIMIT = 16 * 2**30
SECONDS = 240.0


def tile4096_memory() -> tuple[list[Figure], dict[str, object]]:
    """Peak bytes by side, measured (null: beyond the limits) and counted, and extrapolated."""
    measured: dict[int, Memory] = {}
    for side in SIDES:
        memory = in_fresh_process(step_memory, side, seconds=SECONDS, limit=LIMIT)
        if memory is None:  # larger ones only take more
            break
        measured[side] = memory
    largest = max(measured, default=None)
    counted = {side: step_tensor_bytes(side) for side in (largest, TARGET) if side is not None}
    figures = [
        Figure(f"tile4096 training step, {side} px", one.seconds, "s", peak_rss_mb=one.peak / 1e6)
        for side, one in measured.items()
    ]
    return figures, {
        "threads": torch.get_num_threads(),
        "batch": BATCH,
        "limitBytes": LIMIT,
        "limitSeconds": SECONDS,
        "measured": {side: one.to_json() for side, one in measured.items()},
        "countedTensorBytes": counted,
        "extrapolatedTo4096UntestedOnGpu": None
        if largest is None
        else round(counted[TARGET] * measured[largest].peak / counted[largest]),
    }


def step_memory(side: int) -> Memory:
    """The first step; its optimizers' state is made in it."""
    training = _training(side)
    return peak_memory(lambda: training.step(_tiles(side)))


def step_tensor_bytes(side: int) -> int:
    """The same without data, networks and optimizers' state included."""
    return peak_tensor_bytes(lambda: _training(side), _tiles(side))


def _training(side: int) -> Training:
    config = GanTrainerConfig.model_validate({"preset": "tile4096", "batch": BATCH})
    assert config.per_device_batch == BATCH
    return Training(config, side)


def _tiles(side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
