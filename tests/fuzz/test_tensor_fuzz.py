"""Tensors: damaged safetensors and .npy files, and weights of every reader of them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from hdgan.nets.architecture import Architecture
from hdgan.nets.checkpoint import load_generator, weights_to_bytes
from hdgan.nets.generator import Generator
from hdgan.nets.tensor_files import TensorFileError, metadata_of, read_npy, read_tensors
from support.fuzzing import changed_json, damaged, examples, survives

ARCH = Architecture(8, latent_dim=4, mapping_layers=1, channel_base=16, channel_max=2)
FILES = {
    "architecture.json": ARCH.to_json(),
    "generator.safetensors": weights_to_bytes(Generator(ARCH)),
}
SAFE = save({"w": torch.zeros(2, 3), "n": torch.zeros(4, dtype=torch.int64)}, {"generator": "x"})
SIZE = int.from_bytes(SAFE[:8], "little")
HEADER = json.loads(SAFE[8 : 8 + SIZE])


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _with_header(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + SAFE[8 + SIZE :]


@examples(300, 20_000)
@given(st.one_of(damaged(SAFE), changed_json(HEADER).map(_with_header), st.binary(max_size=80)))
def test_a_damaged_file_of_tensors_is_read_or_refused(data: bytes) -> None:
    found = survives(lambda: read_tensors(data), TensorFileError)
    if isinstance(found, dict):
        assert sum(one.numel() * one.element_size() for one in found.values()) <= len(data)
        assert isinstance(metadata_of(data), dict)


@examples(200, 10_000)
@given(st.one_of(damaged(_npy(np.zeros((2, 3), np.float32))), st.binary(max_size=150)))
def test_a_damaged_npy_is_read_or_refused(data: bytes) -> None:
    found = survives(lambda: read_npy(data), TensorFileError)
    if not isinstance(found, TensorFileError):
        assert found.nbytes <= 2 * len(data)


@examples(100)
@given(changed_json(json.loads(FILES["architecture.json"])))
def test_a_generator_of_another_description_is_refused(document: Any) -> None:
    files = FILES | {"architecture.json": json.dumps(document).encode()}
    survives(lambda: load_generator(files.__getitem__))


@examples(60)
@given(damaged(FILES["generator.safetensors"]))
def test_a_generator_with_damaged_weights_is_loaded_or_refused(data: bytes) -> None:
    survives(lambda: load_generator((FILES | {"generator.safetensors": data}).__getitem__))
