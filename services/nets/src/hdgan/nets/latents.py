"""Latents by counter: sample i of a stream is a pure function of (seed, stream, i).

Philox (Salmon et al. 2011) is a counter-based generator: any sample can be drawn at any time, in
any order, on any machine, and streams never overlap.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Stream = Literal["candidates", "dataset", "calibration", "generate", "projection"]
# Part of the Philox key: never renumber, that would change every dataset.
STREAM_CODES: dict[Stream, int] = {
    "candidates": 1,
    "dataset": 2,
    "calibration": 3,
    "generate": 4,
    "projection": 5,
}
_NOISE_OFFSET = 1 << 32
_LABEL_OFFSET = 2 << 32
_ACCEPTANCE_OFFSET = 3 << 32


def _philox(seed: int, code: int, index: int) -> np.random.Generator:
    key = np.array([seed, code], dtype=np.uint64)
    # The index sits in the counter's second word: 2**64 draws remain for each sample.
    counter = np.array([0, index, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def draw_z(seed: int, stream: Stream, index: int, latent_dim: int) -> NDArray[np.float32]:
    """z of sample `index`: float32 [latent_dim], standard normal."""
    generator = _philox(seed, STREAM_CODES[stream], index)
    return generator.standard_normal(latent_dim, dtype=np.float32)


def draw_noise(
    seed: int, stream: Stream, index: int, shapes: list[tuple[int, int]]
) -> list[NDArray[np.float32]]:
    """Per-sample noise inputs: one float32 [1, 1, H, W] per synthesis convolution."""
    generator = _philox(seed, STREAM_CODES[stream] + _NOISE_OFFSET, index)
    return [generator.standard_normal((1, 1, h, w), dtype=np.float32) for h, w in shapes]


def draw_label(seed: int, stream: Stream, index: int, labels: int) -> int:
    """Label number of sample `index` of a conditional generator: uniform in 0 .. labels - 1, so
    that rare stains are drawn as often as common ones."""
    generator = _philox(seed, STREAM_CODES[stream] + _LABEL_OFFSET, index)
    return int(generator.integers(labels))


def draw_acceptance(seed: int, stream: Stream, index: int) -> float:
    """The number in [0, 1) that decides about sample `index`: kept if below its probability."""
    return float(_philox(seed, STREAM_CODES[stream] + _ACCEPTANCE_OFFSET, index).random())


def candidate_id(generator_digest: str, stream: Stream, seed: int, index: int) -> str:
    """Identity of an image: 32 hex digits of SHA-256 over what it was made from."""
    identity = json.dumps([generator_digest, stream, seed, index], separators=(",", ":"))
    return hashlib.sha256(identity.encode()).hexdigest()[:32]
