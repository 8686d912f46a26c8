"""The generator against its definition in the paper, computed another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hdgan.core.errors import RequestError
from hdgan.nets.architecture import Architecture
from hdgan.nets.generator import Generator, ModulatedConv, SynthesisBlock, to_uint8

SMALL = Architecture(
    resolution=32, latent_dim=8, mapping_layers=2, channel_base=128, channel_max=16
)


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    made = Generator(SMALL).eval().requires_grad_(False)
    for name, parameter in made.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.3)
    return made


def test_channels_follow_the_rule_of_the_paper() -> None:
    arch = Architecture(resolution=4096)
    last_five = [arch.channels(r) for r in arch.block_resolutions[-5:]]
    assert last_five == [128, 64, 32, 16, 8]
    assert 2 * sum(last_five) == 496
    assert arch.num_ws == 22


@pytest.mark.parametrize("resolution", [4, 48, 8192, 0, -64])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(RequestError, match="power of two"):
        Architecture(resolution=resolution)


def test_architecture_survives_json_and_refuses_unknown_fields() -> None:
    assert Architecture.from_json(SMALL.to_json()) == SMALL
    with pytest.raises(RequestError, match="architecture"):
        Architecture.from_json(b'{"resolution": 32, "depth": 3}')
    with pytest.raises(RequestError, match="architecture"):
        Architecture.from_json(b"[")


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolution_equals_per_image_weights(up: bool, demodulate: bool) -> None:
    """Equations 1 and 3 of StyleGAN2, with explicit weights for each image."""
    torch.manual_seed(1)
    conv = ModulatedConv(5, 7, 3, 4, up=up, demodulate=demodulate).double()
    x = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    w = torch.randn(2, 4, dtype=torch.float64)
    styles = conv.affine(w)
    for i in range(2):
        weight = conv.weight / math.sqrt(5 * 9) * styles[i][None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        one = x[i : i + 1]
        if up:
            # Zero insertion, convolution (not correlation), then the [1 3 3 1] filter, gain 4.
            zeros = torch.zeros(1, 5, 12, 12, dtype=torch.float64)
            zeros[:, :, ::2, ::2] = one
            full = F.conv2d(F.pad(zeros, (2, 2, 2, 2)), weight.flip(2, 3))
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
            kernel = (taps[:, None] * taps[None, :] * 4).expand(7, 1, 4, 4)
            expected = F.conv2d(full, kernel, groups=7, padding=1)[:, :, :12, :12]
        else:
            expected = F.conv2d(one, weight, padding=1)
        torch.testing.assert_close(conv(x, w)[i : i + 1], expected, rtol=1e-9, atol=1e-9)


def test_mixed_precision_normalisation_cancels() -> None:
    """Pre-normalised styles change nothing but rounding, whatever their size."""
    torch.manual_seed(2)
    conv = ModulatedConv(8, 8, 3, 4)
    x, w = torch.randn(1, 8, 8, 8), torch.randn(1, 4) * 300
    exact = conv(x, w)
    mixed = conv(x.bfloat16(), w).float()
    assert ((exact - mixed).abs().max() / exact.abs().max()) < 0.03


def test_features_are_those_of_the_image_and_come_coarse_to_fine(generator: Generator) -> None:
    ws = generator.mapping(torch.randn(2, 8))
    seen: list[tuple[str, tuple[int, ...]]] = []
    last: list[torch.Tensor] = []

    def keep(name: str, x: torch.Tensor) -> None:
        seen.append((name, tuple(x.shape)))
        last.append(x)

    image = generator.synthesis(ws, on_feature=keep)
    assert [name for name, _ in seen] == list(SMALL.conv_names)
    assert seen[0] == ("b4.conv1", (2, 16, 4, 4))
    assert seen[-1] == ("b32.conv1", (2, 4, 32, 32))
    assert image.shape == (2, 3, 32, 32)
    # The last feature map is what the last RGB layer reads.
    block = generator.synthesis.blocks["b32"]
    assert isinstance(block, SynthesisBlock)
    rgb = block.to_rgb(last[-1], ws[:, -1])
    skip = image - rgb
    again = generator.synthesis(ws)
    torch.testing.assert_close(again - rgb, skip)


def test_noise_modes_differ_only_by_their_noise(generator: Generator) -> None:
    ws = generator.mapping(torch.randn(1, 8))
    constant = generator.synthesis(ws, "constant")
    buffers = [
        layer.noise_const[None, None]
        for block in generator.synthesis.blocks.values()
        if isinstance(block, SynthesisBlock)
        for _, layer in block.layers
    ]
    torch.testing.assert_close(generator.synthesis(ws, buffers), constant)
    zeros = [torch.zeros_like(b) for b in buffers]
    torch.testing.assert_close(generator.synthesis(ws, zeros), generator.synthesis(ws, "none"))
    assert not torch.equal(generator.synthesis(ws, "none"), constant)
    with pytest.raises(ValueError, match="noise needs"):
        generator.synthesis(ws, buffers[:-1])


def test_truncation_interpolates_towards_the_mean(generator: Generator) -> None:
    z = torch.randn(3, 8)
    generator.mapping.w_avg.copy_(torch.linspace(-1, 1, 8))
    full = generator.mapping(z)
    average = generator.mapping.w_avg.expand_as(full)
    torch.testing.assert_close(generator.mapping(z, 0.0), average)
    torch.testing.assert_close(generator.mapping(z, 0.7), average + 0.7 * (full - average))


def test_w_avg_is_a_moving_average(generator: Generator) -> None:
    w = torch.randn(10, 8)
    generator.mapping.w_avg.zero_()
    generator.mapping.update_w_avg(w.sum(dim=0), len(w), 0.9)
    torch.testing.assert_close(generator.mapping.w_avg, 0.1 * w.mean(dim=0))


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 1 / 127.5 * 0.6])
    image = values.reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
    found = to_uint8(image)
    assert found.shape == (1, 1, 6, 3)
    expected = np.clip(np.rint((values.numpy() + 1) / 2 * 255), 0, 255).astype(np.uint8)
    assert np.abs(found[0, 0, :, 0].numpy().astype(int) - expected.astype(int)).max() == 0


def test_activations_neither_grow_nor_shrink_with_depth() -> None:
    """Equalised learning rate and gains. (The FIR filter takes a constant share of variance.)"""
    torch.manual_seed(3)
    arch = Architecture(resolution=64, latent_dim=64, channel_base=4096, channel_max=64)
    generator = Generator(arch).requires_grad_(False)
    spread: dict[str, float] = {}
    generator.synthesis(
        generator.mapping(torch.randn(8, 64)),
        on_feature=lambda name, x: spread.update({name: float(x.square().mean().sqrt())}),
    )
    assert all(0.35 < value < 1.5 for value in spread.values()), spread
