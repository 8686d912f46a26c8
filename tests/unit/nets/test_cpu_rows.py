"""Vectors of pixels read by compiled loops equal those of the upsampled tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hdgan.nets.architecture import Architecture
from hdgan.nets.cpu_rows import cpu_rows
from hdgan.nets.generator import Generator
from hdgan.nets.pyramid import feature_plan, render, tensor_to_stored


def upsampled(
    maps: list[torch.Tensor], side: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """All vectors [side * side, C] by torch's own interpolation."""
    levels = [
        F.interpolate(one.float().permute(2, 0, 1)[None], (side, side), mode="bilinear")[0]
        for one in maps
    ]
    return torch.cat(levels).flatten(1).T.numpy()


@settings(max_examples=60, deadline=None)
@given(
    side=st.integers(1, 48),
    shrink=st.lists(st.integers(1, 48), min_size=1, max_size=4),
    channels=st.lists(st.integers(1, 21), min_size=4, max_size=4),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    on_disk=st.booleans(),
    seed=st.integers(0, 999),
)
def test_rows_equal_those_of_the_upsampled_tensor(
    side: int,
    shrink: list[int],
    channels: list[int],
    dtype: torch.dtype,
    on_disk: bool,
    seed: int,
) -> None:
    stream = torch.Generator().manual_seed(seed)
    sides = [max(1, side // one) for one in shrink]
    maps = [
        torch.randn(h, h, c, generator=stream).to(dtype)
        for h, c in zip(sides, channels, strict=False)
    ]
    given_maps = [tensor_to_stored(one) if on_disk else one for one in maps]
    pixels = np.random.default_rng(seed).permutation(side * side).astype(np.int64)
    found = cpu_rows(given_maps, pixels, side)
    np.testing.assert_allclose(found, upsampled(maps, side)[pixels], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 6])
def test_a_generators_rows_are_right_to_a_hundred_thousandth_of_a_channels_deviation(
    blocks: int, dtype: str
) -> None:
    torch.manual_seed(3)
    arch = Architecture(128, latent_dim=16, mapping_layers=2, channel_base=1024, channel_max=24)
    generator = Generator(arch).eval().requires_grad_(False)
    plan = feature_plan(arch, blocks)
    maps = render(generator, generator.mapping(torch.randn(1, 16)), "constant", plan, dtype).maps
    expected = upsampled(list(maps), 128)
    deviation = expected.astype(np.float64).std(axis=0)
    pixels = np.arange(128 * 128, dtype=np.int64)  # all of them: corners and borders, too
    error = np.abs(cpu_rows(maps, pixels, 128).astype(np.float64) - expected).max(axis=0)
    assert (error <= 1e-5 * deviation).all()


def test_rows_are_standardised_on_the_way_and_threads_change_nothing() -> None:
    maps = [torch.randn(8, 8, 5), torch.randn(64, 64, 3)]
    pixels = np.arange(4096, dtype=np.int64)
    mean = np.linspace(-1, 1, 8, dtype=np.float32)
    factor = np.linspace(0.5, 2, 8, dtype=np.float32)
    plain = cpu_rows(maps, pixels, 64, threads=1)
    found = cpu_rows(maps, pixels, 64, mean=mean, factor=factor, threads=3)
    np.testing.assert_array_equal(found, (plain - mean) * factor)


def test_a_read_only_memory_map_of_bytes_is_read_in_place(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "picture.npy", picture)
    stored = np.load(tmp_path / "picture.npy", mmap_mode="r")
    found = cpu_rows([stored], np.arange(256, dtype=np.int64), 16)
    np.testing.assert_array_equal(found, picture.reshape(256, 3))


def test_what_does_not_fit_is_refused() -> None:
    maps = [torch.zeros(4, 4, 2)]
    with pytest.raises(ValueError, match="outside"):
        cpu_rows(maps, np.array([16], dtype=np.int64), 4)
    with pytest.raises(ValueError, match="contiguous"):
        cpu_rows([torch.zeros(4, 4, 4)[:, :, ::2]], np.array([0], dtype=np.int64), 4)
    with pytest.raises(ValueError, match="square"):
        cpu_rows([torch.zeros(4, 5, 2)], np.array([0], dtype=np.int64), 4)
    with pytest.raises(ValueError, match="rows need"):
        cpu_rows(maps, np.array([0], dtype=np.int64), 4, out=np.empty((2, 2), dtype=np.float32))
