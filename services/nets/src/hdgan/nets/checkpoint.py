"""Weights in and out: safetensors plus `architecture.json`, checked strictly against each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors.torch import load, save
from torch import nn

from hdgan.core.errors import RequestError
from hdgan.nets.architecture import Architecture
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.generator import Generator
from hdgan.nets.layers import channels_last
from hdgan.nets.precision import MIXED_RESOLUTIONS, Precision, full_float32

ARCHITECTURE = "architecture.json"
GENERATOR = "generator.safetensors"
GENERATOR_RAW = "generator-raw.safetensors"
DISCRIMINATOR = "discriminator.safetensors"

Read = Callable[[str], bytes]


def weights_to_bytes(module: nn.Module) -> bytes:
    """Parameters and persistent buffers as safetensors bytes (dense, on CPU)."""
    state = module.state_dict()
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def load_weights(module: nn.Module, data: bytes, what: str) -> None:
    """Fill `module` from safetensors bytes; a name or shape that differs is a RequestError."""
    try:
        tensors = load(data)
    except Exception as error:  # safetensors raises its own untyped errors
        raise RequestError(f"{what} is not a readable safetensors file: {error}") from None
    expected = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected != found:
        differing = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        name = differing[0]
        raise RequestError(
            f"{what} is of another architecture: {len(differing)} tensors differ, the first is "
            f"{name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}"
        )
    module.load_state_dict(tensors)


def load_generator(
    read: Read, device: torch.device | str = "cpu", precision: Precision = "float32"
) -> Generator:
    """The EMA generator for inference: eval, channels-last, without gradients.

    Args:
        read: returns a file's bytes by name, for example `Artifact.read`.
        precision: `float32` is full float32 (see `hdgan.nets.precision`); `bfloat16` computes the
            four largest resolutions in 16 bits, and is another function: labels and ensembles hold
            for the precision they were made with.
    """
    full_float32()
    generator = Generator(Architecture.from_json(read(ARCHITECTURE)))
    load_weights(generator, read(GENERATOR), GENERATOR)
    generator.eval().requires_grad_(False)
    if precision == "bfloat16":
        generator.synthesis.use_mixed_precision(MIXED_RESOLUTIONS, torch.bfloat16)
    return channels_last(generator.to(device))


def load_discriminator(read: Read, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator that belongs to a generator, for fine-tuning."""
    discriminator = Discriminator(Architecture.from_json(read(ARCHITECTURE)))
    load_weights(discriminator, read(DISCRIMINATOR), DISCRIMINATOR)
    return channels_last(discriminator.to(device))
