"""One StyleGAN2-ADA training run as an object: `step()` is the whole method, top to bottom.

Every random draw is keyed by (seed, step, purpose), so the state is tensors and counters alone
and a resumed run continues bit for bit (same thread count and torch build).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdgan.core.errors import DataError, RequestError
from hdgan.core.run import GanTrainerConfig
from hdgan.gan_trainer import losses
from hdgan.gan_trainer.ada import AdaController
from hdgan.gan_trainer.augment import augment, augment_set
from hdgan.gan_trainer.randomness import keyed_generator, normal, sample_indices
from hdgan.nets.architecture import Architecture
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.generator import Generator
from hdgan.nets.layers import channels_last

# Above this p, augmentations start to leak into the images (Karras et al. 2020b, section 2.2).
MAX_ADA_P = 0.8


def architecture_for(config: GanTrainerConfig, resolution: int) -> Architecture:
    """The networks a config asks for at one tile size."""
    return Architecture(
        resolution=resolution,
        latent_dim=config.latent_dim,
        mapping_layers=config.mapping_layers,
        mapping_lr_multiplier=config.mapping_lr_multiplier,
        channel_base=config.channel_base,
        channel_max=config.channel_max,
        # The paper clamps because float16 overflows; bfloat16 has the range of float32.
        conv_clamp=None,
        minibatch_std_group=config.minibatch_std_group,
    )


def _adam(module: torch.nn.Module, config: GanTrainerConfig, interval: int) -> torch.optim.Adam:
    """Adam, corrected for an extra regularisation step every `interval` steps (0: none).

    StyleGAN2, appendix B: with c = k / (k + 1), lr * c and beta ** c.
    """
    c = interval / (interval + 1) if interval else 1.0
    betas = (config.beta1**c, config.beta2**c)
    return torch.optim.Adam(
        module.parameters(), lr=config.learning_rate * c, betas=betas, eps=1e-8, foreach=True
    )


class Training:
    """Networks, optimizers and counters of one run.

    Attributes:
        images: real images shown so far (the paper's unit of progress; 1 kimg = 1000).
        fine_tuning: whether it started from trained weights.
        steps: optimizer steps of each network so far.
        ema: the averaged generator, the one that is used afterwards.
    """

    def __init__(
        self, config: GanTrainerConfig, resolution: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.ops = augment_set(config.augment_set)
        arch = architecture_for(config, resolution)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            generator, discriminator = Generator(arch), Discriminator(arch)
        self.arch = arch
        self.generator = channels_last(generator.to(self.device))
        self.discriminator = channels_last(discriminator.to(self.device))
        self.ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        if config.precision == "bfloat16":
            self.generator.synthesis.use_mixed_precision(config.mixed_resolutions, torch.bfloat16)
            self.discriminator.use_mixed_precision(config.mixed_resolutions, torch.bfloat16)
        pl_interval = config.path_length_interval if config.path_length_weight else 0
        self.r1_gamma = config.r1_gamma_at(resolution)
        self.g_optimizer = _adam(self.generator, config, pl_interval)
        self.d_optimizer = _adam(
            self.discriminator, config, config.r1_interval if self.r1_gamma else 0
        )
        self.path_mean = torch.zeros([], device=self.device)
        initial_p = 0.0 if config.augment == "noaug" else config.augment_p
        self.ada = AdaController(
            initial_p, config.ada_target, config.ada_interval, config.ada_kimg, MAX_ADA_P
        )
        self.steps = 0
        self.images = 0
        self.fine_tuning = False

    def initialise_from(self, generator: Generator, discriminator: Discriminator) -> None:
        """Start from other weights of the same architecture; optimizers stay fresh.

        The average then starts from trained weights, so it has no random start to forget and its
        half-life is not ramped up.
        """
        for what, mine, theirs in (
            ("generator", self.generator, generator),
            ("discriminator", self.discriminator, discriminator),
        ):
            shapes = {n: t.shape for n, t in mine.state_dict().items()}
            if shapes != {n: t.shape for n, t in theirs.state_dict().items()}:
                raise RequestError(
                    f"ganTrainer.initFrom: its {what} is of another architecture "
                    f"({theirs.arch}) than this run's ({self.arch}): use the same tileSize, "
                    "channelBase, channelMax, latentDim and mappingLayers, or leave initFrom out"
                )
            mine.load_state_dict(theirs.state_dict())
        self.ema.load_state_dict(self.generator.state_dict())
        self.fine_tuning = True

    # One step

    def batch_indices(self, size: int) -> NDArray[np.int64]:
        """Which of `size` training tiles the next step takes."""
        return sample_indices(self.config.seed, self.images, self.config.batch, size)

    def step(self, reals_BHW3: NDArray[np.uint8]) -> dict[str, float]:
        """Train both networks on one batch.

        Args:
            reals_BHW3: uint8 [batch, H, W, 3].

        Returns:
            What was measured: losses, penalties (only when computed), mean logits.

        Raises:
            DataError: a loss is not finite; nothing after that step is worth keeping.
        """
        measured: dict[str, float] = {}
        reals = self._to_images(reals_BHW3)
        self._train_generator(measured)
        self._train_discriminator(reals, measured)
        self._update_ema()
        self.steps += 1
        self.images += self.config.batch
        if self.config.augment == "ada":
            self.ada.adjust(self.steps)
        bad = [name for name, value in measured.items() if not math.isfinite(value)]
        if bad:
            raise DataError(
                f"training diverged at {self.images} images: {', '.join(bad)} is not finite. "
                "Start again with a lower learningRate or a higher r1Gamma; the last saved state "
                "is intact"
            )
        return measured

    def _train_generator(self, measured: dict[str, float]) -> None:
        config = self.config
        self.discriminator.requires_grad_(False)
        ws, w = self._draw_ws("g", config.batch)
        self.generator.mapping.update_w_avg(w, config.w_avg_beta)
        fakes = losses.render(self.generator, ws, self._draw_noise("g-noise", config.batch))
        logits = self.discriminator(self._augment(fakes, "g-augment"))
        loss = losses.generator_loss(logits)
        self._update(self.g_optimizer, loss)
        measured["lossG"] = float(loss.detach())
        interval = config.path_length_interval
        if config.path_length_weight and self.steps % interval == 0:
            batch = max(1, config.batch // config.path_length_batch_shrink)
            ws, _ = self._draw_ws("pl", batch)
            images = losses.render(self.generator, ws, self._draw_noise("pl-noise", batch))
            y = normal(tuple(images.shape), self._key("pl-y"), self.device)
            lengths = losses.path_lengths(images, ws, y)
            self.path_mean.lerp_(lengths.detach().mean(), config.path_length_decay)
            penalty = (lengths - self.path_mean).square().mean()
            self._update(self.g_optimizer, penalty * (config.path_length_weight * interval))
            measured["pathLength"] = float(lengths.detach().mean())
            measured["pathPenalty"] = float(penalty.detach())
        self.discriminator.requires_grad_(True)

    def _train_discriminator(self, reals: Tensor, measured: dict[str, float]) -> None:
        config = self.config
        with torch.no_grad():
            ws, _ = self._draw_ws("d", config.batch)
            fakes = losses.render(self.generator, ws, self._draw_noise("d-noise", config.batch))
        fake_logits = self.discriminator(self._augment(fakes, "d-augment-fakes"))
        real_logits = self.discriminator(self._augment(reals, "d-augment-reals"))
        loss = losses.discriminator_loss(real_logits, fake_logits)
        self._update(self.d_optimizer, loss)
        signs = real_logits.detach().sign()
        self.ada.observe(float(signs.sum()), len(signs))
        measured["lossD"] = float(loss.detach())
        measured["logitsReal"] = float(real_logits.detach().mean())
        measured["logitsFake"] = float(fake_logits.detach().mean())
        measured["signReal"] = float(signs.mean())
        if self.r1_gamma and self.steps % config.r1_interval == 0:
            inputs = reals.detach().requires_grad_(True)
            logits = self.discriminator(self._augment(inputs, "d-augment-reals"))
            penalty = losses.r1_penalty(logits, inputs)
            self._update(self.d_optimizer, penalty * (self.r1_gamma / 2 * config.r1_interval))
            measured["r1"] = float(penalty.detach())

    @staticmethod
    def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Exponential moving average of weights, half-life in kimg with ramp-up (StyleGAN2)."""
        config = self.config
        shown = self.images + config.batch
        half_life = config.ema_kimg * 1000
        if not self.fine_tuning:
            half_life = min(half_life, shown * config.ema_rampup)
        beta = 0.5 ** (config.batch / max(half_life, 1e-8))
        torch._foreach_lerp_(
            list(self.ema.parameters()), list(self.generator.parameters()), 1.0 - beta
        )
        for mine, theirs in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            mine.copy_(theirs)

    # Draws

    def _key(self, purpose: str) -> torch.Generator:
        return keyed_generator(self.config.seed, self.steps, purpose)

    def _draw_ws(self, purpose: str, batch: int) -> tuple[Tensor, Tensor]:
        key = self._key(purpose)
        z = normal((2 * batch, self.arch.latent_dim), key, self.device)
        mixed = torch.rand(batch, generator=key) < self.config.style_mixing
        cutoff = torch.randint(1, self.arch.num_ws, (batch,), generator=key)
        cutoff = torch.where(mixed, cutoff, torch.full_like(cutoff, self.arch.num_ws))
        return losses.mix_styles(self.generator, z[:batch], z[batch:], cutoff.to(self.device))

    def _draw_noise(self, purpose: str, batch: int) -> list[Tensor]:
        key = self._key(purpose)
        shapes = self.generator.synthesis.noise_shapes()
        return [normal((batch, 1, h, w), key, self.device) for h, w in shapes]

    def _augment(self, images: Tensor, purpose: str) -> Tensor:
        return augment(images, self.ops, self.ada.p, self._key(purpose))

    def _to_images(self, tiles_BHW3: NDArray[np.uint8]) -> Tensor:
        tiles = torch.from_numpy(np.ascontiguousarray(tiles_BHW3)).to(self.device)
        images = tiles.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        if self.config.mirror:
            mirrored = torch.rand(len(images), generator=self._key("mirror")) < 0.5
            images = torch.where(
                mirrored[:, None, None, None].to(self.device), images.flip(3), images
            )
        return images

    # State

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name, on the CPU."""
        found: dict[str, Tensor] = {"path_mean": self.path_mean}
        for prefix, module in self._modules():
            found |= {f"{prefix}.{n}": t for n, t in module.state_dict().items()}
        for prefix, optimizer, module in self._optimizers():
            for name, parameter in module.named_parameters():
                for key, value in optimizer.state.get(parameter, {}).items():
                    found[f"{prefix}.{key}.{name}"] = value
        return {name: t.detach().cpu().clone().contiguous() for name, t in found.items()}

    def counters(self) -> dict[str, Any]:
        """Every number of the state."""
        return {
            "steps": self.steps,
            "images": self.images,
            "fineTuning": self.fine_tuning,
            "ada": self.ada.state(),
        }

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Take a state that `tensors()` and `counters()` gave."""
        self.path_mean = tensors["path_mean"].to(self.device)
        for prefix, module in self._modules():
            start = f"{prefix}."
            module.load_state_dict(
                {n[len(start) :]: t for n, t in tensors.items() if n.startswith(start)}
            )
        for prefix, optimizer, module in self._optimizers():
            for name, parameter in module.named_parameters():
                state = {
                    key: tensors[f"{prefix}.{key}.{name}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{prefix}.{key}.{name}" in tensors
                }
                if state:
                    # Adam keeps its step count on the CPU and the moments beside the weights.
                    optimizer.state[parameter] = {
                        key: value.clone() if key == "step" else _like(value, parameter)
                        for key, value in state.items()
                    }
        self.steps, self.images = int(counters["steps"]), int(counters["images"])
        self.fine_tuning = bool(counters["fineTuning"])
        self.ada.restore(counters["ada"])

    def _modules(self) -> list[tuple[str, torch.nn.Module]]:
        return [
            ("generator", self.generator),
            ("discriminator", self.discriminator),
            ("ema", self.ema),
        ]

    def _optimizers(self) -> list[tuple[str, torch.optim.Optimizer, torch.nn.Module]]:
        return [
            ("g_optimizer", self.g_optimizer, self.generator),
            ("d_optimizer", self.d_optimizer, self.discriminator),
        ]


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` with the device and memory format of `parameter`."""
    result = torch.empty_like(parameter, dtype=value.dtype)
    return result.copy_(value)
