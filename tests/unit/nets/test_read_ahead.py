"""Hints to the kernel name the bytes that rows are sampled from, and none outside the file."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.nets import read_ahead as module
from hdgan.nets.pyramid import NativeMap, native_rows
from hdgan.nets.read_ahead import expect_random_reads, read_ahead

SIDE = 512


class Recorder:
    """Stands for a mapping; keeps what it is told."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.hints: list[tuple[int, ...]] = []

    def __len__(self) -> int:
        return self.size

    def madvise(self, *hint: int) -> None:
        self.hints.append(hint)


def saved(folder: Path, native: int, channels: int) -> np.memmap[tuple[int, ...], np.dtype]:
    path = folder / f"{native}.npy"
    np.save(path, np.zeros((native, native, channels), dtype=np.float16))
    opened = np.load(path, mmap_mode="r")
    assert isinstance(opened, np.memmap)
    return opened


@pytest.mark.parametrize("native", [64, 256, 512])
@pytest.mark.parametrize(("top", "bottom"), [(0, 4), (100, 101), (508, 512)])
def test_exactly_the_pages_of_the_rows_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: int, top: int, bottom: int
) -> None:
    one = saved(tmp_path, native, 12)
    recorder = Recorder((tmp_path / f"{native}.npy").stat().st_size)
    monkeypatch.setattr(module, "_mapping", lambda _: recorder)
    read_ahead([one], SIDE, top, bottom)
    ((advice, start, length),) = recorder.hints
    first, last = native_rows(native, SIDE, top, bottom - top)
    wanted = one.offset + first * one.strides[0], one.offset + last * one.strides[0]
    assert advice == mmap.MADV_WILLNEED
    assert start % mmap.PAGESIZE == 0
    assert wanted[0] - mmap.PAGESIZE < start <= wanted[0]
    assert start + length == wanted[1] <= len(recorder)


def test_files_take_the_hints_and_keep_their_content(tmp_path: Path) -> None:
    one = saved(tmp_path, 256, 3)
    expect_random_reads([one])
    read_ahead([one], SIDE, 0, SIDE)
    assert not one.any()


def test_maps_in_memory_are_left_alone() -> None:
    maps: list[NativeMap] = [torch.zeros(8, 8, 2), np.zeros((8, 8, 2), dtype=np.float16)]
    expect_random_reads(maps)
    read_ahead(maps, SIDE, 0, 4)
