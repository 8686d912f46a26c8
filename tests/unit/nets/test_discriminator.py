"""The discriminator's parts against direct computations."""

from __future__ import annotations

import pytest
import torch

from hdgan.nets.architecture import Architecture
from hdgan.nets.discriminator import Discriminator, minibatch_std
from hdgan.nets.layers import EqualisedConv, fir_kernel, fir_upsample

SMALL = Architecture(resolution=16, latent_dim=8, channel_base=64, channel_max=8)


def test_minibatch_std_compares_the_images_of_a_group() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    found = minibatch_std(x, 3)
    assert found.shape == (6, 3, 3, 3)
    for i in range(2):
        group = x[[i, i + 2, i + 4]]
        expected = group.var(dim=0, unbiased=False).add(1e-8).sqrt().mean()
        for member in (i, i + 2, i + 4):
            torch.testing.assert_close(
                found[member, 2],
                torch.full((3, 3), float(expected), dtype=torch.float64),
                rtol=1e-6,
                atol=1e-6,
            )


def test_minibatch_std_refuses_a_batch_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="divisible"):
        minibatch_std(torch.zeros(6, 1, 2, 2), 4)


@pytest.mark.parametrize("size", [1, 3])
def test_downsampling_keeps_position(size: int) -> None:
    """A ramp stays the ramp: the filtered, strided convolution is centred."""
    conv = EqualisedConv(1, 1, size, bias=False, down=True)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, size // 2, size // 2] = 1 / conv.gain
        ramp = torch.arange(16.0).expand(1, 1, 16, 16)
        halved = conv(ramp)
    assert halved.shape == (1, 1, 8, 8)
    # Output pixel j covers input pixels 2j and 2j + 1, whose mean is 2j + 0.5.
    torch.testing.assert_close(halved[0, 0, 4, 2:6], torch.tensor([4.5, 6.5, 8.5, 10.5]))


def test_upsampling_keeps_position_and_mean() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    doubled = fir_upsample(ramp, fir_kernel())
    assert doubled.shape == (1, 1, 16, 16)
    expected = (torch.arange(16.0) - 0.5) / 2
    torch.testing.assert_close(doubled[0, 0, 8, 2:14], expected[2:14])


def test_logits_one_per_image_and_size_checked() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(SMALL)
    assert discriminator(torch.randn(4, 3, 16, 16)).shape == (4,)
    with pytest.raises(ValueError, match="images must be"):
        discriminator(torch.randn(4, 3, 32, 32))


def test_bfloat16_blocks_follow_float32() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(SMALL).requires_grad_(False)
    images = torch.randn(4, 3, 16, 16)
    exact = discriminator(images)
    discriminator.use_mixed_precision(4, torch.bfloat16)
    mixed = discriminator(images)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0.1, atol=0.1)
