"""Cutting tiles: how near it comes to a loop that only reads and saves, and its memory.

The slide is a pyramid of JPEG tiles as scanners write them, painted here: islands of tissue-like
texture on glass. All read level 0 with one thread and write the same PNG. `tiffslide` takes part
where it is installed.
"""

from __future__ import annotations

import importlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from baselines.grid_tiling import bare_loop, grid_loop
from figures import Figure, faster
from hdgan.core.run import TilerConfig
from hdgan.tiler.cut import cut_slide
from measuring import peak_memory

MPP = 0.25
SIDE = 8192
JPEG_SIDE = 512
TILE_SIDES = (256, 1024)
MAX_WHITESPACE = 0.9
REPEATS = 3
LARGE_SIDE = 60_000
LARGE_SECONDS = 400.0

Bytes = NDArray[np.uint8]


def tiling() -> tuple[list[Figure], dict[str, object]]:
    """Tiles per second against the limit and against others, and most memory on a large slide."""
    figures: list[Figure] = []
    details: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="hdgan-bench-") as folder:
        path = Path(folder) / "slide.tiff"
        write_pyramid(path, SIDE)
        for side in TILE_SIDES:
            config = TilerConfig(tile_size=side, mpp=MPP, max_whitespace=MAX_WHITESPACE)
            tiles = [(one.rect.x, one.rect.y) for one in cut_slide(path, config)]

            def ours(config: TilerConfig = config) -> Iterator[object]:
                return cut_slide(path, config)

            def limit(places: list[tuple[int, int]] = tiles, side: int = side) -> Iterator[object]:
                with openslide.OpenSlide(path) as slide:
                    yield from bare_loop(slide, places, side)

            runs: dict[str, Callable[[], Iterator[object]]] = {"ours": ours, "limit": limit}
            other = _tiffslide()
            if other is not None:

                def plain(
                    other: Callable[[Path], object] = other, side: int = side
                ) -> Iterator[object]:
                    yield from grid_loop(other(path), side, MAX_WHITESPACE)

                runs["tiffslide"] = plain
            rates = _rates(runs)
            details[f"tilesPerSecond{side}"] = {k: round(v, 2) for k, v in rates.items()}
            details[f"tiles{side}"] = len(tiles)
            name = f"tiling, {side} px tiles, against reading and saving alone"
            figures.append(faster(name, rates["ours"], rates["limit"], "tiles/s"))
            if "tiffslide" in rates:
                name = f"tiling, {side} px tiles, against a loop over the grid with tiffslide"
                figures.append(faster(name, rates["ours"], rates["tiffslide"], "tiles/s"))
        large = Path(folder) / "large.tiff"
        write_pyramid(large, LARGE_SIDE)
        peak = _peak_alone(large)
    name = f"memory while a slide of {LARGE_SIDE:,} px a side is cut, two threads"
    figures.append(Figure(name, peak / 1e6, "MB", peak_rss_mb=peak / 1e6))
    return figures, details


def _peak_alone(path: Path) -> int:
    """In a process that has loaded the tiler and nothing of the other benchmarks."""
    command = "import sys, pathlib, tiling; print(tiling.peak_of(pathlib.Path(sys.argv[1])))"
    ended = subprocess.run(
        [sys.executable, "-c", command, path],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=LARGE_SECONDS,
    )
    return int(ended.stdout)


def _rates(runs: dict[str, Callable[[], Iterator[object]]]) -> dict[str, float]:
    """Tiles per second of each, in turn, medians."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            started = time.perf_counter()
            count = sum(1 for _ in run())
            rates[name].append(count / (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in rates.items()}


def _tiffslide() -> Callable[[Path], object] | None:
    try:
        return importlib.import_module("tiffslide").TiffSlide  # type: ignore[no-any-return]
    except ImportError:
        return None


def peak_of(path: Path) -> int:
    """Most bytes in memory while tiles of 1024 and, far apart, of 4096 px are cut."""

    def cut() -> None:
        far = TilerConfig(tile_size=4096, mpp=MPP, stride=16_384, max_whitespace=1.0)
        for config in (far, TilerConfig(tile_size=1024, mpp=4 * MPP, max_whitespace=1.0)):
            for _ in cut_slide(path, config, threads=2):
                pass

    return peak_memory(cut).peak


def write_pyramid(path: Path, side: int) -> None:
    """A tiled JPEG TIFF of `side` x `side` px at MPP with levels of a quarter, painted from a few
    JPEG tiles, so that even a very large one is made quickly."""
    random = np.random.default_rng(0)
    tissue = [_jpeg(_texture(random)) for _ in range(8)]
    glass = _jpeg(np.full((JPEG_SIDE, JPEG_SIDE, 3), 243, dtype=np.uint8))
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        level, shape = 0, side
        while shape >= JPEG_SIDE:
            across = -(-shape // JPEG_SIDE)
            scale = 4**level

            def tiles(across: int = across, scale: int = scale) -> Iterator[bytes]:
                islands = np.random.default_rng(1)
                centres = islands.random((5, 2)) * side / JPEG_SIDE
                for row in range(across):
                    for column in range(across):
                        place = (np.array([column, row]) + 0.5) * scale
                        near = np.hypot(*(centres - place).T).min() < side / JPEG_SIDE / 5
                        yield tissue[(3 * row + 5 * column) % len(tissue)] if near else glass

            writer.write(
                tiles(),
                shape=(shape, shape, 3),
                dtype=np.uint8,
                tile=(JPEG_SIDE, JPEG_SIDE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                resolution=(1e4 / MPP / scale, 1e4 / MPP / scale),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,
                metadata=None,
            )
            level, shape = level + 1, shape // 4


def _texture(random: np.random.Generator) -> Bytes:
    """Pink with purple spots and fine noise."""
    noise = random.random((JPEG_SIDE, JPEG_SIDE)).astype(np.float32)
    smooth = Image.fromarray((noise * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(6))
    spots = np.asarray(smooth) > np.percentile(np.asarray(smooth), 80)
    picture = np.where(spots[..., None], (110, 70, 140), (222, 150, 182)).astype(np.float32)
    picture += random.normal(0, 8, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def _jpeg(picture: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=85, subsampling=2)
    return buffer.getvalue()
