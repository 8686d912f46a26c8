"""Losses and regularisers against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from hdgan.gan_trainer import losses
from hdgan.nets.architecture import Architecture
from hdgan.nets.generator import Generator


def test_logistic_losses() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])

    def minus_log_sigmoid(v: float) -> float:
        return math.log1p(math.exp(-v))

    expected = [minus_log_sigmoid(0.5), minus_log_sigmoid(3.0)]
    assert losses.generator_loss(fake).tolist() == pytest.approx(expected, rel=1e-5)
    expected = [minus_log_sigmoid(2.0), minus_log_sigmoid(-1.0)]
    assert losses.real_loss(real).tolist() == pytest.approx(expected, rel=1e-5)
    expected = [minus_log_sigmoid(-0.5), minus_log_sigmoid(-3.0)]
    assert losses.fake_loss(fake).tolist() == pytest.approx(expected, rel=1e-5)


def test_r1_of_a_quadratic_discriminator() -> None:
    """D(x) = sum a x^2 has gradient 2 a x."""
    images = torch.randn(3, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    a = torch.randn(3, 4, 4, dtype=torch.float64)
    logits = (a * images.square()).sum(dim=(1, 2, 3))
    expected = (2 * a * images).square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(losses.r1_penalty(logits, images), expected)


def test_path_length_of_a_linear_generator() -> None:
    """image = A w: the Jacobian is A, so |J^T y| is known."""
    torch.manual_seed(0)
    a = torch.randn(3 * 4 * 4, 2 * 5, dtype=torch.float64)
    ws = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    images = (ws.flatten(1) @ a.T).reshape(3, 3, 4, 4)
    y = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    projected = (y.flatten(1) / 4) @ a
    expected = projected.reshape(3, 2, 5).square().sum(dim=2).mean(dim=1).sqrt()
    torch.testing.assert_close(losses.path_lengths(images, ws, y), expected)


def test_style_mixing_switches_at_the_cutoff() -> None:
    torch.manual_seed(0)
    arch = Architecture(
        resolution=16, latent_dim=8, mapping_layers=2, channel_base=64, channel_max=8
    )
    generator = Generator(arch).requires_grad_(False)
    z, other = torch.randn(3, 8), torch.randn(3, 8)
    ws, w = losses.mix_styles(generator, z, other, torch.tensor([1, 4, arch.num_ws]))
    first, second = generator.mapping.w(z), generator.mapping.w(other)
    torch.testing.assert_close(w, first)
    for image, cutoff in enumerate((1, 4, arch.num_ws)):
        for layer in range(arch.num_ws):
            source = first if layer < cutoff else second
            torch.testing.assert_close(ws[image, layer], source[image])
