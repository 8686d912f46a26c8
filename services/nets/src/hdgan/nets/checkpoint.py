"""Weights in and out: safetensors plus `architecture.json`, checked strictly against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from hdgan.core.errors import RequestError
from hdgan.nets.architecture import Architecture
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.generator import Generator
from hdgan.nets.layers import channels_last
from hdgan.nets.precision import MIXED_RESOLUTIONS, Precision, full_float32
from hdgan.nets.tensor_files import TensorFileError, read_tensors, require_weights

ARCHITECTURE = "architecture.json"
GENERATOR = "generator.safetensors"
GENERATOR_RAW = "generator-raw.safetensors"
DISCRIMINATOR = "discriminator.safetensors"

SMALLEST_NUMBER = 2  # bytes of a weight, in 16 bits

Read = Callable[[str], bytes]
_Network = TypeVar("_Network", Generator, Discriminator)


def weights_to_bytes(module: nn.Module) -> bytes:
    """Parameters and persistent buffers as safetensors bytes (dense, on CPU)."""
    state = module.state_dict()
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def load_weights(module: nn.Module, data: bytes, what: str) -> None:
    """Fill `module` from safetensors bytes; RequestError if a name, shape or type differs."""
    module.load_state_dict(_tensors(data, module.state_dict(), what))


def _tensors(data: bytes, expected: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    try:
        tensors = read_tensors(data)
    except TensorFileError as error:
        raise RequestError(f"{what} is not a readable safetensors file: {error}") from None
    try:
        require_weights(tensors, expected)
    except TensorFileError as error:
        raise RequestError(f"{what} is of another architecture: {error}") from None
    return tensors


def _built(kind: type[_Network], read: Read, name: str) -> _Network:
    """A network with its weights. A description of a huge one allocates nothing: the weights have
    to be there first."""
    arch = Architecture.from_json(read(ARCHITECTURE))
    data = read(name)
    least = arch.least_weights + (arch.least_mapping_weights if kind is Generator else 0)
    if least * SMALLEST_NUMBER > len(data):
        raise RequestError(
            f"{name} is of another architecture: {ARCHITECTURE} describes a network of more than "
            f"{least} weights, which are not in {len(data)} bytes"
        )
    network = kind(arch)
    load_weights(network, data, name)
    return network


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
    generator = _built(Generator, read, GENERATOR)
    generator.eval().requires_grad_(False)
    if precision == "bfloat16":
        generator.synthesis.use_mixed_precision(MIXED_RESOLUTIONS, torch.bfloat16)
    return channels_last(generator.to(device))


def load_discriminator(read: Read, device: torch.device | str = "cpu") -> Discriminator:
    """The discriminator that belongs to a generator, for fine-tuning."""
    return channels_last(_built(Discriminator, read, DISCRIMINATOR).to(device))
