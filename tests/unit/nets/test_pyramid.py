"""Sampled vectors are the rows of the upsampled tensor; the picture comes with its own features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hdgan.core.errors import InternalError, RequestError
from hdgan.nets.architecture import Architecture
from hdgan.nets.generator import Generator, to_uint8
from hdgan.nets.pyramid import (
    FeatureCollector,
    FeaturePlan,
    feature_plan,
    render,
    sample_rows,
    stored_to_tensor,
    tensor_to_stored,
)

ARCH = Architecture(32, latent_dim=16, mapping_layers=2, channel_base=256, channel_max=24)


def random_maps(plan: FeaturePlan, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(3)
    return [
        torch.randn(one.resolution, one.resolution, one.channels, generator=stream).to(dtype)
        for one in plan.maps
    ]


def upsampled(maps: list[torch.Tensor], side: int) -> torch.Tensor:
    """What the paper's own code does: every map upsampled whole, [H * W, C]."""
    levels = [
        F.interpolate(
            one.float().permute(2, 0, 1)[None],
            size=(side, side),
            mode="bilinear",
            align_corners=False,
        )[0]
        for one in maps
    ]
    return torch.cat(levels).permute(1, 2, 0).reshape(side * side, -1)


def generator() -> Generator:
    torch.manual_seed(5)
    return Generator(ARCH).eval().requires_grad_(False)


def test_plan_lists_both_convolutions_of_the_last_blocks_coarse_to_fine() -> None:
    plan = feature_plan(ARCH, 4)
    assert [one.name for one in plan.maps] == [
        "b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1", "b32.conv0", "b32.conv1",
    ]  # fmt: skip
    assert [one.channels for one in plan.maps] == [24, 24, 24, 16, 16, 8, 8]
    assert plan.channels == 120
    assert plan.slices()[3] == slice(72, 88)
    assert FeaturePlan.from_json(plan.to_json()) == plan


def test_the_plan_of_the_paper_has_its_496_channels_and_one_gigabyte() -> None:
    paper = Architecture(4096)
    plan = feature_plan(paper, 5)
    assert plan.channels == 2 * (128 + 64 + 32 + 16 + 8)
    assert plan.bytes_per_image("float16") <= 1.05e9


def test_more_blocks_than_the_generator_has_are_refused() -> None:
    with pytest.raises(RequestError, match=r"set extractor.blocks to 1..4"):
        feature_plan(ARCH, 5)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_pixel_equals_its_row_of_the_upsampled_tensor(
    blocks: int, dtype: torch.dtype
) -> None:
    plan = feature_plan(ARCH, blocks)
    maps = random_maps(plan, dtype)
    expected = upsampled(maps, 32)
    rows = torch.arange(32 * 32)  # all pixels: corners and borders too
    torch.testing.assert_close(sample_rows(maps, rows, 32), expected, rtol=1e-5, atol=1e-5)
    on_disk = [tensor_to_stored(one) for one in maps]
    for one in on_disk:
        one.setflags(write=False)
    assert torch.equal(sample_rows(on_disk, rows, 32), sample_rows(maps, rows, 32))


@settings(max_examples=40, deadline=None)
@given(
    native=st.integers(1, 12),
    factor=st.sampled_from([1, 2, 4, 8]),
    channels=st.integers(1, 5),
    data=st.data(),
)
def test_sampling_equals_interpolation_for_any_shape(
    native: int, factor: int, channels: int, data: st.DataObject
) -> None:
    side = native * factor
    one = torch.randn(native, native, channels, generator=torch.Generator().manual_seed(native))
    chosen = data.draw(st.lists(st.integers(0, side * side - 1), min_size=1, max_size=20))
    rows = torch.tensor(chosen)
    expected = upsampled([one], side)[rows]
    torch.testing.assert_close(sample_rows([one], rows, side), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_survives_its_form_on_disk() -> None:
    values = torch.randn(4, 5).to(torch.bfloat16)
    stored = tensor_to_stored(values)
    assert stored.dtype == np.uint16
    assert torch.equal(stored_to_tensor(stored.copy()), values)


def test_picture_and_features_come_from_one_forward_pass() -> None:
    network, plan = generator(), feature_plan(ARCH, 3)
    ws = network.mapping(torch.randn(1, 16, generator=torch.Generator().manual_seed(1)))
    seen: dict[str, torch.Tensor] = {}
    image = network.synthesis(ws, "constant", lambda name, x: seen.update({name: x.clone()}))
    rendered = render(network, ws[0], "constant", plan, "float16")
    assert np.array_equal(rendered.image, to_uint8(image)[0].numpy())
    for planned, native in zip(plan.maps, rendered.maps, strict=True):
        assert native.dtype == torch.float16
        assert torch.equal(native, seen[planned.name][0].permute(1, 2, 0).half())


def test_noise_reaches_the_features() -> None:
    network, plan = generator(), feature_plan(ARCH, 1)
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    ws = network.mapping(torch.randn(1, 16, generator=torch.Generator().manual_seed(1)))
    drawn = [torch.randn(1, 1, h, w) for h, w in network.synthesis.noise_shapes()]
    constant = render(network, ws, "constant", plan, "float32")
    own = render(network, ws, drawn, plan, "float32")
    assert not torch.equal(constant.maps[0], own.maps[0])
    assert not np.array_equal(constant.image, own.image)


def test_overflow_names_the_map_and_the_way_out() -> None:
    plan = feature_plan(ARCH, 1)
    collector = FeatureCollector(plan, "float16")
    x = torch.full((1, 8, 32, 32), 7e4)
    with pytest.raises(RequestError, match=r"b32.conv0 reaches 7e\+04.*bfloat16 or float32"):
        collector("b32.conv0", x)
    FeatureCollector(plan, "bfloat16")("b32.conv0", x)
    with pytest.raises(RequestError, match="not finite already"):
        collector("b32.conv0", x * torch.inf)


def test_a_generator_that_leaves_out_a_map_is_a_bug() -> None:
    with pytest.raises(InternalError, match=r"b32\.conv0, b32\.conv1"):
        FeatureCollector(feature_plan(ARCH, 1), "float32").maps()
