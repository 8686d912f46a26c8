"""Weights survive a round trip; anything that does not fit is refused with the reason."""

from __future__ import annotations

import pytest
import torch

from hdgan.core.errors import RequestError
from hdgan.nets import checkpoint
from hdgan.nets.architecture import Architecture
from hdgan.nets.generator import Generator
from hdgan.nets.layers import channels_last

SMALL = Architecture(resolution=16, latent_dim=8, mapping_layers=2, channel_base=64, channel_max=8)


def files(generator: Generator) -> dict[str, bytes]:
    return {
        checkpoint.ARCHITECTURE: generator.arch.to_json(),
        checkpoint.GENERATOR: checkpoint.weights_to_bytes(generator),
    }


def test_round_trip_makes_the_same_image() -> None:
    torch.manual_seed(0)
    generator = Generator(SMALL)
    loaded = checkpoint.load_generator(files(generator).__getitem__)
    z = torch.randn(2, 8)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    with torch.no_grad():
        torch.testing.assert_close(loaded(z), generator(z))


def test_same_weights_give_the_same_bytes() -> None:
    torch.manual_seed(0)
    generator = Generator(SMALL)
    plain = checkpoint.weights_to_bytes(generator)
    assert checkpoint.weights_to_bytes(channels_last(generator)) == plain


def test_other_architecture_is_refused_by_name_of_a_tensor() -> None:
    torch.manual_seed(0)
    held = files(Generator(SMALL))
    other = Architecture(
        resolution=16, latent_dim=8, mapping_layers=2, channel_base=64, channel_max=4
    )
    held[checkpoint.ARCHITECTURE] = other.to_json()
    with pytest.raises(RequestError, match=r"another architecture.*expected .*found"):
        checkpoint.load_generator(held.__getitem__)


def test_truncated_weights_are_refused() -> None:
    held = files(Generator(SMALL))
    held[checkpoint.GENERATOR] = held[checkpoint.GENERATOR][:-10]
    with pytest.raises(RequestError, match="not a readable safetensors"):
        checkpoint.load_generator(held.__getitem__)
