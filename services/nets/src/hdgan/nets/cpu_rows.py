"""Vectors of single pixels on a CPU, read straight from stored maps by compiled loops."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdgan.nets.kernels.rows import BFLOAT16, FLOAT16, FLOAT32, UINT8, pixel_vectors

ROWS_PER_TASK = 2048
KINDS = {
    "float16": FLOAT16,
    "uint16": BFLOAT16,  # how numpy keeps it
    "bfloat16": BFLOAT16,
    "float32": FLOAT32,
    "uint8": UINT8,
}

Floats = npt.NDArray[np.float32]


def cpu_rows(
    maps: Sequence[torch.Tensor | npt.NDArray[Any]],
    pixels: npt.NDArray[np.int64],
    side: int,
    *,
    mean: Floats | None = None,
    factor: Floats | None = None,
    out: Floats | None = None,
    threads: int | None = None,
) -> Floats:
    """(`pyramid.sample_rows` - mean) * factor, float32 [N, C]; `factor` is 1 / std, say.

    Args:
        maps: native [h, h, C_m], contiguous, coarse to fine, of float16, bfloat16 (numpy: uint16),
            float32 or uint8.
        pixels: int64 [N], flat indices; in ascending order memory maps are read forwards.
        out: where to write; None: a new array.
        threads: None: as many as torch uses.
    """
    table = np.array([_entry(one) for one in maps], dtype=np.int64).reshape(-1, 4)
    channels = int(table[:, 2].sum())
    out = np.empty((len(pixels), channels), dtype=np.float32) if out is None else out
    if out.shape != (len(pixels), channels) or not out.flags.c_contiguous:
        raise ValueError(f"rows need [{len(pixels)}, {channels}], contiguous, not {out.shape}")
    if len(pixels) and not 0 <= int(pixels.min()) <= int(pixels.max()) < side * side:
        raise ValueError(f"a pixel is outside the {side} x {side} picture")
    mean = np.zeros(channels, dtype=np.float32) if mean is None else mean
    factor = np.ones(channels, dtype=np.float32) if factor is None else factor

    def read(first: int) -> None:
        stop = min(first + ROWS_PER_TASK, len(pixels))
        pixel_vectors(table, side, pixels, mean, factor, out, first, stop)

    starts = range(0, len(pixels), ROWS_PER_TASK)
    threads = torch.get_num_threads() if threads is None else threads
    if threads == 1 or len(starts) <= 1:
        for first in starts:
            read(first)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, starts):
                pass
    return out


def _entry(native: torch.Tensor | npt.NDArray[Any]) -> tuple[int, int, int, int]:
    if isinstance(native, torch.Tensor):
        if native.device.type != "cpu":  # its address means nothing here
            raise ValueError(f"a map is on {native.device}: need one in the host's memory")
        address, contiguous = native.data_ptr(), native.is_contiguous()
        kind = str(native.dtype).removeprefix("torch.")
    else:
        address, contiguous = native.ctypes.data, native.flags.c_contiguous
        kind = native.dtype.name
    height, width, channels = native.shape
    if height != width or not contiguous or kind not in KINDS:
        raise ValueError(f"a map is {kind} {tuple(native.shape)}: need a contiguous square one")
    return address, height, channels, KINDS[kind]
