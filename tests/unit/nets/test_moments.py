"""Moments of labelled pixels without sampling them, against sampling every one in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hdgan.nets import moments
from hdgan.nets.moments import Moments, labelled_moments, merge_moments
from hdgan.nets.pyramid import NativeMap, axis_taps, tensor_to_stored

Bools = npt.NDArray[np.bool_]
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def of_rows(rows_NC: torch.Tensor) -> Moments:
    """The definition: two passes over the rows in float64."""
    values = rows_NC.double()
    mean = values.mean(dim=0) if len(values) else values.new_zeros(values.shape[1])
    return Moments(len(values), mean.numpy(), (values - mean).square().sum(dim=0).numpy())


def sampled(maps: list[torch.Tensor], labelled: Bools) -> torch.Tensor:
    """Every labelled pixel's vector in float64, from the same axis weights."""
    y, x = (torch.from_numpy(one) for one in np.nonzero(labelled))
    parts = []
    for one in maps:
        values = one.double()
        top, bottom, down = axis_taps(one.shape[0], labelled.shape[0], y)
        left, right, across = axis_taps(one.shape[1], labelled.shape[1], x)
        d, a = down.double()[:, None], across.double()[:, None]
        upper = values[top, left] * (1 - a) + values[top, right] * a
        lower = values[bottom, left] * (1 - a) + values[bottom, right] * a
        parts.append(upper * (1 - d) + lower * d)
    return torch.cat(parts, dim=1)


def native_map(seed: int, shape: tuple[int, int, int], dtype: torch.dtype) -> torch.Tensor:
    """Random values around a mean well away from 0, where cancellation would show."""
    stream = torch.Generator().manual_seed(seed)
    drawn = torch.randn(shape, generator=stream) * 3
    return (drawn + torch.randn(shape[2], generator=stream) * 100).to(dtype)


def require_equal(found: Moments, maps: list[torch.Tensor], labelled: Bools) -> None:
    """Equal up to float64 rounding of sums over native values with their spread."""
    expected = of_rows(sampled(maps, labelled))
    assert found.count == expected.count
    spread = torch.cat([(one.double() - one.double().mean(dim=(0, 1))).abs().amax(dim=(0, 1))
                        for one in maps]).numpy() + 1e-300  # fmt: skip
    size = torch.cat([one.double().abs().amax(dim=(0, 1)) for one in maps]).numpy()
    assert (np.abs(found.mean - expected.mean) <= 1e-13 * size + 1e-300).all()
    bound = 1e-12 * expected.count * spread**2 + 1e-24 * size**2
    assert (np.abs(found.deviation - expected.deviation) <= bound).all()


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    factor=st.sampled_from([1, 2, 4, 8]),
    channels=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    dtype=st.sampled_from(sorted(DTYPES)),
    band=st.sampled_from([1, 7, 2**19]),
    seed=st.integers(0, 10**6),
)
def test_any_map_and_any_labels_give_the_moments_of_their_samples(
    height: int, width: int, factor: int, channels: int, share: float, dtype: str, band: int,
    seed: int,
) -> None:  # fmt: skip
    maps = [
        native_map(seed, (height, width, channels), DTYPES[dtype]),
        native_map(seed + 1, (height * factor, width * factor, 1), DTYPES[dtype]),
    ]
    stream = np.random.default_rng(seed)
    labelled = stream.random((height * factor, width * factor)) < share
    if share:  # at least one; often the only one, anywhere
        labelled[stream.integers(0, height * factor), stream.integers(0, width * factor)] = True
    stored: list[NativeMap] = [tensor_to_stored(one) for one in maps]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "BAND_VALUES", band)
        found = labelled_moments(stored, labelled, threads=1 + seed % 3)
    if share:
        require_equal(found, maps, labelled)
    else:
        assert found.count == 0
    assert np.array_equal(found.mean, labelled_moments(maps, labelled).mean) or band < 2**19


@settings(max_examples=60, deadline=None)
@given(
    native=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    output=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 10**6),
)
def test_sizes_that_are_no_multiple_of_each_other(
    native: tuple[int, int], output: tuple[int, int], seed: int
) -> None:
    maps = [native_map(seed, (*native, 2), torch.float32)]
    labelled = np.random.default_rng(seed).random(output) < 0.5
    labelled[-1, -1] = True
    require_equal(labelled_moments(maps, labelled), maps, labelled)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_read_only_memory_maps_are_taken_as_they_are(tmp_path: Path, dtype: str) -> None:
    one = native_map(4, (8, 8, 5), DTYPES[dtype])
    np.save(tmp_path / "map.npy", tensor_to_stored(one))
    stored = np.load(tmp_path / "map.npy", mmap_mode="r")
    labelled = np.random.default_rng(1).random((32, 32)) < 0.3
    require_equal(labelled_moments([stored], labelled), [one], labelled)


def test_they_are_those_of_the_upsampled_tensor() -> None:
    """Against torch's own interpolation, which shares no code with ours."""
    maps = [native_map(5, (4, 4, 3), torch.float16), native_map(6, (16, 16, 2), torch.float16)]
    labelled = np.random.default_rng(2).random((64, 64)) < 0.4
    up = [
        F.interpolate(one.double().permute(2, 0, 1)[None], size=(64, 64), mode="bilinear")[0]
        for one in maps
    ]
    rows = torch.cat(up).permute(1, 2, 0)[torch.from_numpy(labelled)]
    expected, found = of_rows(rows), labelled_moments(maps, labelled)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.deviation, expected.deviation, rtol=1e-11)


def test_a_picture_of_two_regions_loses_nothing_to_the_shift() -> None:
    """Rows that decide the shift may be anything but typical."""
    one = native_map(7, (64, 8, 2), torch.float32)
    one[:: moments.SHIFT_STRIDE] += 1e4
    labelled = np.ones((64, 8), dtype=bool)
    found, expected = labelled_moments([one], labelled), of_rows(sampled([one], labelled))
    np.testing.assert_allclose(found.deviation, expected.deviation, rtol=1e-12)


def test_a_constant_channel_does_not_vary() -> None:
    one = torch.full((4, 4, 1), 1234.56)
    found = labelled_moments([one], np.random.default_rng(0).random((32, 32)) < 0.5)
    assert found.mean[0] == pytest.approx(float(one[0, 0, 0]), rel=1e-14)
    assert found.std[0] <= 1e-12 * found.mean[0]


def test_parts_merge_to_the_moments_of_all_rows() -> None:
    images = [[native_map(seed, (8, 8, 4), torch.float32) * 10**seed] for seed in range(3)]
    labels = [np.random.default_rng(seed).random((16, 16)) < 0.3 for seed in range(3)]
    parts = [labelled_moments(maps, one) for maps, one in zip(images, labels, strict=True)]
    found = merge_moments(parts, 4)
    expected = of_rows(torch.cat([sampled(m, one) for m, one in zip(images, labels, strict=True)]))
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.deviation, expected.deviation, rtol=1e-11)


def test_merging_empty_moments_changes_nothing() -> None:
    part = labelled_moments([torch.tensor([[[1.0], [3.0]]])], np.ones((1, 2), dtype=bool))
    nothing = labelled_moments([torch.empty(1, 2, 1)], np.zeros((1, 2), dtype=bool))
    merged = merge_moments([nothing, part], 1)
    assert (merged.count, merged.mean.tolist(), merged.std.tolist()) == (2, [2.0], [1.0])


def test_moments_survive_json_bit_for_bit() -> None:
    found = labelled_moments([native_map(1, (3, 3, 4), torch.float32)], np.ones((6, 6), dtype=bool))
    again = Moments.from_json(found.to_json())
    assert (again.mean == found.mean).all()
    assert (again.deviation == found.deviation).all()


def test_threads_do_not_change_a_bit() -> None:
    maps = [native_map(8, (32, 32, 7), torch.float16), native_map(9, (64, 64, 3), torch.float16)]
    labelled = np.random.default_rng(5).random((64, 64)) < 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "BAND_VALUES", 500)
        one, four = (labelled_moments(maps, labelled, threads=count) for count in (1, 4))
    assert np.array_equal(one.mean, four.mean)
    assert np.array_equal(one.deviation, four.deviation)


def test_nothing_is_read_of_rows_without_labels() -> None:
    """Not a number there would show."""
    one = native_map(3, (16, 4, 2), torch.float32)
    labelled = np.zeros((64, 16), dtype=bool)
    labelled[20:28] = True  # native rows 4 to 7
    expected = labelled_moments([one], labelled)
    one[:3] = one[9:] = torch.nan
    assert np.array_equal(labelled_moments([one], labelled).deviation, expected.deviation)
