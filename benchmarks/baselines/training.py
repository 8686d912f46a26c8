"""StyleGAN2's training step as its paper describes it, on the plain networks.

Logistic losses, R1 and path length as lazy regularisers, style mixing, Adam, moving average; no
augmentation. Source: Karras et al. 2020a (arXiv 1912.04958). Takes the trainer's own config, so
that both train the same networks with the same numbers.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.networks import Discriminator, Generator
from hdgan.core.run import GanTrainerConfig
from hdgan.gan_trainer.training import architecture_for


class PlainTraining:
    """Networks and optimizers; `step` is one training step of both."""

    def __init__(self, config: GanTrainerConfig, resolution: int) -> None:
        self.config = config
        self.arch = architecture_for(config, resolution)
        self.generator, self.discriminator = Generator(self.arch), Discriminator(self.arch)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.g_optimizer = _adam(self.generator, config, config.path_length_interval)
        self.d_optimizer = _adam(self.discriminator, config, config.r1_interval)
        self.r1_gamma = config.r1_gamma_at(resolution)
        self.path_mean = torch.zeros([])
        self.steps = 0

    def step(self, reals_BHW3: NDArray[np.uint8]) -> None:
        """One step of generator and discriminator, with the regularisers that are due."""
        config = self.config
        reals = torch.from_numpy(reals_BHW3).permute(0, 3, 1, 2).contiguous() / 127.5 - 1.0
        self.discriminator.requires_grad_(False)
        self._train_generator()
        if self.steps % config.path_length_interval == 0:
            self._regularise_generator()
        self.discriminator.requires_grad_(True)
        self._train_discriminator(reals)
        if self.steps % config.r1_interval == 0:
            self._regularise_discriminator(reals)
        self._average()
        self.steps += 1

    def _train_generator(self) -> None:
        fakes, ws = self._generate(self.config.batch)
        loss = F.softplus(-self.discriminator(fakes)).mean()
        _update(self.g_optimizer, loss)
        w_mean = ws[:, 0].detach().mean(dim=0)
        self.generator.mapping.w_avg.lerp_(w_mean, 1 - self.config.w_avg_beta)

    def _regularise_generator(self) -> None:
        config = self.config
        fakes, ws = self._generate(config.batch // config.path_length_batch_shrink)
        projection = (fakes * torch.randn_like(fakes)).sum() / self.arch.resolution
        (gradient,) = torch.autograd.grad(projection, ws, create_graph=True)
        lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
        penalty = (lengths - self.path_mean).square().mean()
        self.path_mean.lerp_(lengths.detach().mean(), config.path_length_decay)
        weight = config.path_length_weight * config.path_length_interval
        _update(self.g_optimizer, penalty * weight)

    def _train_discriminator(self, reals: Tensor) -> None:
        with torch.no_grad():
            fakes, _ = self._generate(self.config.batch)
        self.d_optimizer.zero_grad()
        _backward(F.softplus(self.discriminator(fakes)).mean())
        _backward(F.softplus(-self.discriminator(reals)).mean())
        self.d_optimizer.step()

    def _regularise_discriminator(self, reals: Tensor) -> None:
        reals = reals.detach().requires_grad_(True)
        logits = self.discriminator(reals)
        (gradient,) = torch.autograd.grad(logits.sum(), reals, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        _update(self.d_optimizer, penalty * (self.r1_gamma / 2 * self.config.r1_interval))

    def _generate(self, batch: int) -> tuple[Tensor, Tensor]:
        """Images and their ws [B, N, D], of which some change to a second latent half-way."""
        width, num_ws = self.arch.latent_dim, self.arch.num_ws
        mapping, synthesis = self.generator.mapping, self.generator.synthesis
        w = mapping(torch.randn(batch, width))
        other = mapping(torch.randn(batch, width))
        cutoff = torch.randint(1, num_ws, (batch,))
        cutoff[torch.rand(batch) >= self.config.style_mixing] = num_ws
        first = torch.arange(num_ws)[None, :] < cutoff[:, None]
        ws = torch.where(first[:, :, None], w[:, None], other[:, None])
        sides = [int(name.split(".")[0][1:]) for name in self.arch.conv_names]
        noises = [torch.randn(batch, 1, side, side) for side in sides]
        return synthesis(ws, noises), ws

    @torch.no_grad()
    def _average(self) -> None:
        config = self.config
        shown = (self.steps + 1) * config.batch
        half_life = min(config.ema_kimg * 1000, shown * config.ema_rampup)
        share = 1 - 0.5 ** (config.batch / half_life)
        pairs = zip(self.average.parameters(), self.generator.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.lerp_(theirs, share)
        self.average.mapping.w_avg.copy_(self.generator.mapping.w_avg)


def _adam(network: nn.Module, config: GanTrainerConfig, interval: int) -> torch.optim.Adam:
    """Adam, corrected for the extra steps of the lazy regulariser (appendix B)."""
    share = interval / (interval + 1)
    return torch.optim.Adam(
        network.parameters(),
        lr=config.learning_rate * share,
        betas=(config.beta1**share, config.beta2**share),
        eps=1e-8,
    )


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    _backward(loss)
    optimizer.step()


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
