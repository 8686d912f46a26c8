"""Sample i of a stream: the w and the noise that make it, each a pure function of (seed, i)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hdgan.nets.generator import Generator, Noise
from hdgan.nets.latents import Stream, candidate_id, draw_label, draw_z
from hdgan.nets.sample_noise import NoiseMode, sample_noise

# A shard's draws are numbered from shard * SHARD_SPAN: shards never share a sample, and a shard's
# content does not depend on how many draws another one needed.
SHARD_SPAN = 1 << 32


@dataclasses.dataclass(frozen=True)
class Sample:
    """One latent, ready for synthesis: ws float32 [1, num_ws, latent_dim].

    `label` names what a conditional generator was asked for, such as a stain; else None.
    """

    id: str
    index: int
    ws: Tensor
    noise: Noise
    label: str | None = None


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws the samples of one stream for one generator.

    Attributes:
        generator_digest: content digest of the generator's artifact; part of every id.
        psi: truncation toward w_avg, 0 to 1.
    """

    generator: Generator
    generator_digest: str
    stream: Stream
    seed: int
    psi: float
    noise: NoiseMode

    @torch.no_grad()
    def sample(self, index: int) -> Sample:
        """Sample `index`, mapped on its own so that no batch can change its bits."""
        device = next(self.generator.parameters()).device
        arch = self.generator.arch
        z = torch.from_numpy(draw_z(self.seed, self.stream, index, arch.latent_dim))[None]
        number: Tensor | None = None
        label: str | None = None
        if arch.labels:
            drawn = draw_label(self.seed, self.stream, index, len(arch.labels))
            number, label = torch.tensor([drawn], device=device), arch.labels[drawn]
        ws = self.generator.mapping(z.to(device), self.psi, number)
        noise = sample_noise(self.generator, self.noise, self.seed, self.stream, index)
        name = candidate_id(self.generator_digest, self.stream, self.seed, index)
        return Sample(name, index, ws.contiguous(), noise, label)
