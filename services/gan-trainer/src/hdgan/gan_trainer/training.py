"""One StyleGAN2-ADA training run as an object: `step()` is the whole method, top to bottom.

Every random draw is keyed by (seed, step, sample of the global batch, purpose), and everything that
belongs to the batch as a whole (minibatch-std groups, mean path length, mean w, the sign ADA looks
at) is of the global batch. So the state is tensors and counters alone, a resumed run continues bit
for bit on the same machine, and several processes compute what one would.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
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
from hdgan.gan_trainer.batch_shares import discriminator_pieces, even_pieces
from hdgan.gan_trainer.distribution import Processes
from hdgan.gan_trainer.draws import Draws
from hdgan.gan_trainer.gradients import FlatGradients
from hdgan.nets.architecture import Architecture
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.generator import Generator
from hdgan.nets.layers import channels_last
from hdgan.nets.precision import full_float32
from hdgan.nets.sending import sent

# Above this p, augmentations start to leak into the images (Karras et al. 2020b, section 2.2).
MAX_ADA_P = 0.8
# Updates in a row of one kind (the penalties are their own kinds: they come every few steps) with a
# gradient that is not finite, after which training has diverged. A single one happens in 16-bit
# training and is skipped.
MAX_SKIPPED_IN_A_ROW = 10

_SUMS = (
    "lossG",
    "pathLength",
    "pathPenalty",
    "lossD",
    "logitsReal",
    "logitsFake",
    "signReal",
    "r1",
)


def architecture_for(
    config: GanTrainerConfig, resolution: int, labels: tuple[str, ...] = ()
) -> Architecture:
    """The networks a config asks for at one tile size."""
    return Architecture(
        resolution=resolution,
        latent_dim=config.latent_dim,
        mapping_layers=config.mapping_layers,
        mapping_lr_multiplier=config.mapping_lr_multiplier,
        channel_base=config.channel_base,
        channel_max=config.channel_max,
        conv_clamp=config.conv_clamp,
        minibatch_std_group=config.minibatch_std_group,
        labels=labels,
    )


def _adam(gradients: FlatGradients, config: GanTrainerConfig, interval: int) -> torch.optim.Adam:
    """Adam, corrected for an extra regularisation step every `interval` steps (0: none).

    StyleGAN2, appendix B: with c = k / (k + 1), lr * c and beta ** c.
    """
    c = interval / (interval + 1) if interval else 1.0
    on_gpu = gradients.flat.device.type == "cuda"
    return torch.optim.Adam(
        gradients.parameters,
        lr=config.learning_rate * c,
        betas=(config.beta1**c, config.beta2**c),
        eps=1e-8,
        fused=on_gpu,
        foreach=not on_gpu,
    )


class Training:
    """Networks, optimizers and counters of one run, the same in every process.

    Args:
        processes: those that share each batch; the default is this one alone.
        labels: names of the labels of a conditional generator; empty: not conditional.
        label_pool: int64 [n], labels of the training tiles; generated images get labels from it.
        dtype: float32; float64 is for comparing computations.

    Attributes:
        images: real images shown so far (the paper's unit of progress; 1 kimg = 1000).
        fine_tuning: whether it started from trained weights.
        steps: optimizer steps of each network so far.
        skipped: updates left out so far because a gradient was not finite.
        ema: the averaged generator, the one that is used afterwards.
        samples: which samples of each global batch this process works on.
    """

    def __init__(
        self,
        config: GanTrainerConfig,
        resolution: int,
        device: torch.device | str = "cpu",
        *,
        processes: Processes | None = None,
        labels: tuple[str, ...] = (),
        label_pool: NDArray[np.int64] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        full_float32()
        self.config = config
        self.processes = processes or Processes(device=device)
        self.device = self.processes.device
        self.dtype = dtype
        rank, world = self.processes.rank, self.processes.size
        self._pieces = discriminator_pieces(
            config.batch, config.minibatch_std_group, rank, world, config.per_device_batch
        )
        shrink = config.path_length_batch_shrink
        self._path_batch = max(1, config.batch // shrink)
        most = config.per_device_batch and max(1, config.per_device_batch // shrink)
        self._path_pieces = even_pieces(self._path_batch, rank, world, most)
        self.samples = np.array(list(itertools.chain(*self._pieces)), dtype=np.int64)
        self.ops = augment_set(config.augment_set)
        self.arch = architecture_for(config, resolution, labels)
        self._label_pool = None if label_pool is None else torch.from_numpy(label_pool)
        if bool(labels) != (label_pool is not None):
            raise ValueError("labels and label_pool go together")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            generator, discriminator = Generator(self.arch), Discriminator(self.arch)
        self.generator = channels_last(generator.to(self.device, dtype))
        self.discriminator = channels_last(discriminator.to(self.device, dtype))
        self.ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        if config.precision == "bfloat16":
            self.generator.synthesis.use_mixed_precision(config.mixed_resolutions, torch.bfloat16)
            self.discriminator.use_mixed_precision(config.mixed_resolutions, torch.bfloat16)
        self.generator.synthesis.recompute(config.recompute_resolutions)
        self.discriminator.recompute(config.recompute_resolutions)
        self._freeze()
        self.r1_gamma = config.r1_gamma_at(resolution)
        self._g_gradients = FlatGradients(self.generator)
        self._d_gradients = FlatGradients(self.discriminator)
        self.g_optimizer = _adam(
            self._g_gradients,
            config,
            config.path_length_interval if config.path_length_weight else 0,
        )
        self.d_optimizer = _adam(
            self._d_gradients, config, config.r1_interval if self.r1_gamma else 0
        )
        self.path_mean = torch.zeros([], device=self.device, dtype=dtype)
        initial_p = 0.0 if config.augment == "noaug" else config.augment_p
        ada_kimg = 500.0 if config.ada_kimg is None else config.ada_kimg
        self.ada = AdaController(
            initial_p, config.ada_target, config.ada_interval, ada_kimg, MAX_ADA_P
        )
        self.steps = 0
        self.images = 0
        self.skipped = 0
        self._skipped_in_a_row: dict[str, int] = {}
        self.fine_tuning = False
        self._sums: dict[str, Tensor] = {}

    def initialise_from(self, generator: Generator, discriminator: Discriminator) -> None:
        """Start from other weights of the same architecture; optimizers stay fresh.

        The average then starts from trained weights, so it has no random start to forget and its
        half-life is not ramped up.
        """
        differs = self.arch.differences(generator.arch)
        if differs:
            raise RequestError(
                f"ganTrainer.initFrom: its networks are of another architecture than this run's: "
                f"{'; '.join(differs)}. Set these fields to what the networks have, or leave "
                "initFrom out"
            )
        self.generator.load_state_dict(generator.state_dict())
        self.discriminator.load_state_dict(discriminator.state_dict())
        self.ema.load_state_dict(self.generator.state_dict())
        self.fine_tuning = True

    def _freeze(self) -> None:
        """FreezeD (Mo et al. 2020): the layers that see the image first stay as they were."""
        if self.config.freeze_mapping:
            self.generator.mapping.requires_grad_(False)
        if self.config.freeze_d:
            self.discriminator.from_rgb.requires_grad_(False)
            for block in list(self.discriminator.blocks.values())[: self.config.freeze_d]:
                block.requires_grad_(False)

    # One step

    def step(
        self, reals_BHW3: NDArray[np.uint8], labels_B: NDArray[np.int64] | None = None
    ) -> dict[str, float]:
        """Train both networks on one batch.

        Args:
            reals_BHW3: uint8 [len(samples), H, W, 3], the tiles of `samples`, in that order.
            labels_B: int64 [len(samples)], their labels, if conditional.

        Returns:
            What was measured over the global batch: losses, penalties (only when computed), mean
            logits; `skipped`, the number of updates left out, only when there were any.

        Raises:
            DataError: gradients have not been finite for many steps: training has diverged.
        """
        labels = None if labels_B is None else sent(torch.from_numpy(labels_B), self.device)
        self._sums = {}
        skipped = self.skipped
        self._train_generator()
        if self.config.path_length_weight and self.steps % self.config.path_length_interval == 0:
            self._regularise_generator()
        judged = self._train_discriminator(reals_BHW3, labels)
        if self.r1_gamma and self.steps % self.config.r1_interval == 0:
            self._regularise_discriminator(reals_BHW3, labels)
        self._update_ema()
        measured = self._measured()
        if self.config.augment == "ada" and judged:
            self.ada.observe(measured["signReal"] * self.config.batch, self.config.batch)
        self.steps += 1
        self.images += self.config.batch
        if self.config.augment == "ada":
            self.ada.adjust(self.steps)
        if self.skipped > skipped:
            measured["skipped"] = float(self.skipped - skipped)
            self._stop_if_diverged()
        return measured

    def _train_generator(self) -> None:
        config = self.config
        self._g_gradients.clear()
        self._d_gradients.train(False)
        w_sum = torch.zeros_like(self.generator.mapping.w_avg)
        w_count = torch.zeros_like(w_sum[..., :1])
        for piece in self._pieces:
            draws = self._draws(piece, "g")
            ws, w, label = self._draw_ws(draws)
            fakes = self.generator.synthesis(ws, self._draw_noise(draws))
            logits = self.discriminator(self._augment(fakes, draws), label)
            loss = losses.generator_loss(logits).sum()
            _backward(loss / config.batch)
            self._add("lossG", loss)
            _add_w(w_sum, w_count, w.detach(), label)
        self._d_gradients.train(True)
        applied = self._apply("generator", self.g_optimizer, self._g_gradients)
        self.processes.sum_(w_sum)
        self.processes.sum_(w_count)
        if applied:
            self.generator.mapping.update_w_avg(w_sum, w_count, config.w_avg_beta)

    def _regularise_generator(self) -> None:
        """Path length (Karras et al. 2020a, equation 4). `path_mean` is the mean before this batch,
        so no piece of the batch has to wait for the others."""
        config = self.config
        self._g_gradients.clear()
        length_sum = torch.zeros_like(self.path_mean)
        for piece in self._path_pieces:
            draws = self._draws(piece, "pl")
            ws, _, _ = self._draw_ws(draws)
            if not ws.requires_grad:  # the mapping network is frozen
                ws.requires_grad_(True)
            images = self.generator.synthesis(ws, self._draw_noise(draws))
            y = draws.normal_on_device("y", *images.shape[1:]).to(images.dtype)
            lengths = losses.path_lengths(images, ws, y)
            penalty = (lengths - self.path_mean).square().sum()
            weight = config.path_length_weight * config.path_length_interval / self._path_batch
            _backward(penalty * weight)
            length_sum += lengths.detach().sum()
            self._add("pathLength", lengths.sum(), self._path_batch)
            self._add("pathPenalty", penalty, self._path_batch)
        applied = self._apply("path length", self.g_optimizer, self._g_gradients)
        self.processes.sum_(length_sum)
        if applied:
            self.path_mean.lerp_(length_sum / self._path_batch, config.path_length_decay)

    def _train_discriminator(self, reals_BHW3: NDArray[np.uint8], labels: Tensor | None) -> bool:
        config = self.config
        self._d_gradients.clear()
        for piece, rows in self._pieces_with_rows():
            draws = self._draws(piece, "d")
            with torch.no_grad():
                ws, _, fake_label = self._draw_ws(draws)
                fakes = self.generator.synthesis(ws, self._draw_noise(draws))
            fakes = self._augment(fakes, draws.under("fakes"))
            fake_logits = self.discriminator(fakes, fake_label)
            fake_loss = losses.fake_loss(fake_logits).sum()
            _backward(fake_loss / config.batch)
            reals = self._augment(self._to_images(reals_BHW3[rows], draws), draws.under("reals"))
            real_logits = self.discriminator(reals, None if labels is None else labels[rows])
            real_loss = losses.real_loss(real_logits).sum()
            _backward(real_loss / config.batch)
            self._add("lossD", fake_loss + real_loss)
            self._add("logitsFake", fake_logits.sum())
            self._add("logitsReal", real_logits.sum())
            self._add("signReal", real_logits.sign().sum())
        return self._apply("discriminator", self.d_optimizer, self._d_gradients)

    def _regularise_discriminator(
        self, reals_BHW3: NDArray[np.uint8], labels: Tensor | None
    ) -> None:
        """R1 (Mescheder et al. 2018), through the augmentations."""
        config = self.config
        self._d_gradients.clear()
        for piece, rows in self._pieces_with_rows():
            draws = self._draws(piece, "d")
            reals = self._to_images(reals_BHW3[rows], draws).requires_grad_(True)
            augmented = self._augment(reals, draws.under("reals"))
            logits = self.discriminator(augmented, None if labels is None else labels[rows])
            penalty = losses.r1_penalty(logits, reals).sum()
            _backward(penalty * (self.r1_gamma / 2 * config.r1_interval / config.batch))
            self._add("r1", penalty)
        self._apply("R1", self.d_optimizer, self._d_gradients)

    def _apply(self, what: str, optimizer: torch.optim.Optimizer, gradients: FlatGradients) -> bool:
        """Sum the gradients over all processes and take a step, unless one is not finite."""
        self.processes.sum_(gradients.flat)
        if not bool(gradients.finite()):
            self.skipped += 1
            self._skipped_in_a_row[what] = self._skipped_in_a_row.get(what, 0) + 1
            return False
        self._skipped_in_a_row.pop(what, None)
        optimizer.step()
        return True

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

    # What was measured

    def _add(self, name: str, total: Tensor, batch: int | None = None) -> None:
        """Add to the mean over the batch of what `name` measures; nothing is fetched yet."""
        share = total.detach().double() / (batch or self.config.batch)
        self._sums[name] = self._sums[name] + share if name in self._sums else share

    def _measured(self) -> dict[str, float]:
        """Means over the global batch, fetched at once."""
        zero = torch.zeros([], dtype=torch.float64, device=self.device)
        computed = torch.stack([self._sums.get(name, zero) for name in _SUMS])
        # A process that had no sample of some penalty still takes part in its sum.
        counted = sent(torch.tensor([float(n in self._sums) for n in _SUMS]), self.device)
        both = self.processes.sum_(torch.cat([computed, counted.double()])).tolist()
        values, present = both[: len(_SUMS)], both[len(_SUMS) :]
        return {
            name: value
            for name, value, there in zip(_SUMS, values, present, strict=True)
            if there and math.isfinite(value)
        }

    def _stop_if_diverged(self) -> None:
        for what, count in self._skipped_in_a_row.items():
            if count >= MAX_SKIPPED_IN_A_ROW:
                raise DataError(
                    f"training diverged at {self.images} images: {count} updates in a row "
                    f"({what}) had gradients that are not finite. Start again with a lower "
                    "learningRate or a higher r1Gamma; the last saved state is intact"
                )

    # Draws

    def _draws(self, samples: Sequence[int], purpose: str) -> Draws:
        return Draws(self.config.seed, self.steps, samples, self.device, f"{purpose}/")

    def _draw_ws(self, draws: Draws) -> tuple[Tensor, Tensor, Tensor | None]:
        """Styles of one piece: ws [B, N, D], w [B, D] before mixing, labels [B] if conditional."""
        width, num_ws = self.arch.latent_dim, self.arch.num_ws
        z = sent(draws.normal("z", 2, width), self.device, self.dtype)
        mixed = draws.uniform("mix") < self.config.style_mixing
        cutoff = draws.integers("cutoff", 1, num_ws)
        cutoff = sent(torch.where(mixed, cutoff, torch.full_like(cutoff, num_ws)), self.device)
        label = self.draw_labels(draws)
        ws, w = losses.mix_styles(self.generator, z[:, 0], z[:, 1], cutoff, label)
        return ws, w, label

    def draw_labels(self, draws: Draws) -> Tensor | None:
        """Labels as frequent as among the training tiles: int64 [B]; None if not conditional."""
        if self._label_pool is None:
            return None
        chosen = draws.integers("label", 0, len(self._label_pool))
        return sent(self._label_pool[chosen], self.device)

    def _draw_noise(self, draws: Draws) -> list[Tensor]:
        """Noise of every layer, each [B, 1, H, W]: one draw per sample, cut into layers."""
        shapes = self.generator.synthesis.noise_shapes()
        sizes = [height * width for height, width in shapes]
        drawn = draws.normal_on_device("noise", sum(sizes)).to(self.dtype)
        return [
            part.reshape(-1, 1, height, width)
            for part, (height, width) in zip(torch.split(drawn, sizes, dim=1), shapes, strict=True)
        ]

    def _augment(self, images: Tensor, draws: Draws) -> Tensor:
        return augment(images, self.ops, self.ada.p, draws)

    def _to_images(self, tiles_BHW3: NDArray[np.uint8], draws: Draws) -> Tensor:
        tiles = sent(torch.from_numpy(np.ascontiguousarray(tiles_BHW3)), self.device)
        images = tiles.permute(0, 3, 1, 2).to(self.dtype) / 127.5 - 1.0
        if self.config.mirror:
            mirrored = sent(draws.uniform("mirror") < 0.5, self.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images

    def _pieces_with_rows(self) -> list[tuple[list[int], slice]]:
        """Each piece, and which rows of this process's tiles it is."""
        ends = list(itertools.accumulate(len(piece) for piece in self._pieces))
        return [
            (piece, slice(end - len(piece), end))
            for piece, end in zip(self._pieces, ends, strict=True)
        ]

    # State

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state that is not in the networks, by name, on the CPU."""
        found: dict[str, Tensor] = {"path_mean": self.path_mean}
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
            "skipped": self.skipped,
            "skippedInARow": dict(self._skipped_in_a_row),
            "ada": self.ada.state(),
        }

    def restore_optimizers(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Take what `optimizer_tensors()` and `counters()` gave; the networks are loaded apart."""
        self.path_mean = tensors["path_mean"].to(self.device, self.dtype)
        for prefix, optimizer, module in self._optimizers():
            for name, parameter in module.named_parameters():
                state = {
                    key: tensors[f"{prefix}.{key}.{name}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{prefix}.{key}.{name}" in tensors
                }
                if state:
                    # Adam's step count stays where it keeps it: on the CPU, unless it is fused.
                    on_gpu = self.device.type == "cuda"
                    optimizer.state[parameter] = {
                        key: (value.to(self.device) if on_gpu else value.clone())
                        if key == "step"
                        else _like(value, parameter)
                        for key, value in state.items()
                    }
        self.steps, self.images = int(counters["steps"]), int(counters["images"])
        self.skipped = int(counters["skipped"])
        self._skipped_in_a_row = {k: int(v) for k, v in counters["skippedInARow"].items()}
        self.fine_tuning = bool(counters["fineTuning"])
        self.ada.restore(counters["ada"])

    def _optimizers(self) -> list[tuple[str, torch.optim.Optimizer, torch.nn.Module]]:
        return [
            ("g_optimizer", self.g_optimizer, self.generator),
            ("d_optimizer", self.d_optimizer, self.discriminator),
        ]


def _backward(loss: Tensor) -> None:
    """Add the loss's gradients to those that are there."""
    loss.backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _add_w(w_sum: Tensor, w_count: Tensor, w_BD: Tensor, label_B: Tensor | None) -> None:
    """Add the batch's w (and how many there are) to the sums, for each label if conditional."""
    if label_B is None:
        w_sum += w_BD.sum(dim=0)
        w_count += len(w_BD)
    else:
        w_sum.index_add_(0, label_B, w_BD)
        w_count.index_add_(0, label_B, torch.ones_like(w_BD[:, :1]))


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` with the device and memory format of `parameter`."""
    result = torch.empty_like(parameter, dtype=value.dtype)
    return result.copy_(value)
