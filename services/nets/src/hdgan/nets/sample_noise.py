"""The noise inputs of a sample: one rule for whoever renders it first and whoever renders it again.

A candidate is drawn by the synthesizer and rendered again by the extractor; features belong to the
picture only if both feed the network the same noise.
"""

from __future__ import annotations

from typing import Literal

import torch

from hdgan.nets.generator import Generator, Noise
from hdgan.nets.latents import Stream, draw_noise

NoiseMode = Literal["constant", "perSample"]


def sample_noise(
    generator: Generator, mode: NoiseMode, seed: int, stream: Stream, index: int
) -> Noise:
    """Noise of sample `index`: the network's own buffers, or drawn from (seed, stream, index)."""
    if mode == "constant":
        return "constant"
    device = next(generator.parameters()).device
    drawn = draw_noise(seed, stream, index, generator.synthesis.noise_shapes())
    return [torch.from_numpy(one).to(device) for one in drawn]
