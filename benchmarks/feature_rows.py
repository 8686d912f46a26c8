"""Reading the vectors of random pixels: from native maps, and from maps upsampled beforehand.

The classifier trains on single pixels of many pictures. Either every map is upsampled to the size
of the picture once and a pixel's vector lies in one piece on disk, or the maps stay native and a
vector is sampled when it is asked for. Both are measured on the same features, from memory maps,
and give the same numbers up to rounding (checked here). The files fit the page cache, so the
seconds are computing, not a disk: upsampled maps are only read this fast while all fit in memory.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdgan.nets.architecture import Architecture
from hdgan.nets.pyramid import DTYPES, FeaturePlan, feature_plan, sample_rows, tensor_to_stored

RESOLUTION = 256
CHANNEL_BASE, CHANNEL_MAX = 8192, 256
BLOCKS = 5
DTYPE = "float16"
ROWS = 4096
REPEATS = 7
Array = npt.NDArray[Any]

BAND = 8192  # pixels upsampled at once


def feature_rows() -> dict[str, object]:
    """Bytes per picture and seconds per read of ROWS random pixels, for both layouts."""
    arch = Architecture(RESOLUTION, channel_base=CHANNEL_BASE, channel_max=CHANNEL_MAX)
    plan = feature_plan(arch, BLOCKS)
    with tempfile.TemporaryDirectory(prefix="hdgan-bench-") as name:
        folder = Path(name)
        native = _write_native(folder, plan)
        started = time.perf_counter()
        upsampled = _write_upsampled(folder / "upsampled.npy", native, plan)
        upsampling = time.perf_counter() - started

        draw = np.random.default_rng(0).integers(0, RESOLUTION**2, size=(REPEATS + 1, ROWS))

        def from_native(rows: Array) -> torch.Tensor:
            return sample_rows(native, torch.from_numpy(rows), RESOLUTION)

        def from_upsampled(rows: Array) -> torch.Tensor:
            return torch.from_numpy(upsampled[rows]).float()

        error = float((from_native(draw[0]) - from_upsampled(draw[0])).abs().max())
        if error > 0.01:
            raise AssertionError(f"the two layouts differ by {error}: nothing to compare")
        return {
            "resolution": RESOLUTION,
            "channels": plan.channels,
            "dtype": DTYPE,
            "rows": ROWS,
            "threads": torch.get_num_threads(),
            "nativeBytes": plan.bytes_per_image(DTYPE),
            "upsampledBytes": upsampled.nbytes,
            "upsamplingSeconds": round(upsampling, 3),
            "nativeReadSeconds": _median(from_native, draw[1:]),
            "upsampledReadSeconds": _median(from_upsampled, draw[1:]),
            "largestDifference": error,
        }


def _write_native(folder: Path, plan: FeaturePlan) -> list[Array]:
    generator = torch.Generator().manual_seed(0)
    maps = []
    for one in plan.maps:
        shape = (one.resolution, one.resolution, one.channels)
        path = folder / f"{one.name}.npy"
        np.save(path, tensor_to_stored(torch.randn(shape, generator=generator).to(DTYPES[DTYPE])))
        maps.append(np.load(path, mmap_mode="r"))
    return maps


def _write_upsampled(path: Path, native: list[Array], plan: FeaturePlan) -> Array:
    """All pixel vectors [H * W, C] in the shard dtype."""
    shape = (RESOLUTION**2, plan.channels)
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    for start in range(0, RESOLUTION**2, BAND):
        rows = torch.arange(start, min(start + BAND, RESOLUTION**2))
        target[start : start + len(rows)] = sample_rows(native, rows, RESOLUTION).half().numpy()
    target.flush()
    stored: Array = np.load(path, mmap_mode="r")
    return stored


def _median(read: Callable[[Array], torch.Tensor], draws: Array) -> float:
    seconds = []
    for rows in draws:
        started = time.perf_counter()
        read(rows)
        seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds), 4)
