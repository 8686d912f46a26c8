"""The w of a real image: optimisation of w and noise until the generator makes that image.

Source: Karras et al. 2020a (StyleGAN2), appendix D. What differs, and every report says so:
the paper measures the distance of images with LPIPS (VGG-16 features, weights that cannot be
shipped here); this measures it with `pyramid_distance`, which knows pixels but no perception.
For that distance the noise starts from the network's own, and its penalty weighs less.
Shape suffixes as in `hdgan.nets.generator`; L layers of noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hdgan.core.errors import DataError
from hdgan.nets.generator import Generator
from hdgan.nets.latents import draw_z
from hdgan.nets.layers import fir_kernel, fir_upsample

Space = Literal["w", "w+"]
OnStep = Callable[[int, float], None]

DISTANCE = "laplacian-pyramid-l1"

# Appendix D, in its order. Times are shares of the steps: the paper's 50, 250 and 750 of 1000.
W_SAMPLES = 10_000
MAX_LEARNING_RATE = 0.1
RAMP_UP = 0.05
RAMP_DOWN = 0.25
W_NOISE = 0.05
W_NOISE_UNTIL = 0.75
# The paper's 1e5 balances LPIPS; with a pixel distance it leaves Adam deaf to the image.
NOISE_WEIGHT = 1e2
SMALLEST_NOISE = 8

_MAPPED_AT_ONCE = 1000
_COARSEST = 4
_REPORTS = 20


def pyramid_distance(a_B3HW: Tensor, b_B3HW: Tensor) -> Tensor:
    """Mean absolute difference of each Laplacian-pyramid level, summed over levels: scalar.

    Lap1 of Bojanowski et al. 2018 (*Optimizing the Latent Space of Generative Networks*), with the
    FIR filter of StyleGAN2 for the pyramid: every scale from single pixels to a 4 x 4 image
    counts alike, where plain L1 would be ruled by the largest scale. Sides are powers of two.

    It is no perceptual metric: two textures that look the same and differ pixel by pixel are far
    apart.
    """
    kernel = fir_kernel().to(a_B3HW)
    x = a_B3HW - b_B3HW  # The pyramid is linear: one of the difference is enough.
    weight = kernel.expand(x.shape[1], 1, 4, 4)
    total = x.new_zeros(())
    while x.shape[-1] > _COARSEST:
        coarse = F.conv2d(x, weight, stride=2, padding=1, groups=x.shape[1])
        total = total + (x - fir_upsample(coarse, kernel)).abs().mean()
        x = coarse
    return total + x.abs().mean()


def noise_correlation(noise_L: Sequence[Tensor]) -> Tensor:
    """How far noise maps are from white, so that they cannot carry the picture: scalar.

    L_ij = (mean of n(x, y) n(x - 1, y))^2 + (mean of n(x, y) n(x, y - 1))^2 with wrapped edges, for
    map i and level j of its pyramid, summed over both. Levels go down to 8 x 8: averages of 2 x 2
    pixels times 2, which keeps unit variance (appendix D).

    Args:
        noise_L: square maps [1, 1, H, H], each with a side that is a power of two.
    """
    total = noise_L[0].new_zeros(())
    for noise in noise_L:
        level = noise
        while True:
            for axis in (2, 3):
                total = total + (level * level.roll(1, dims=axis)).mean().square()
            if level.shape[-1] <= SMALLEST_NOISE:
                break
            level = F.avg_pool2d(level, 2) * 2
    return total


@torch.no_grad()
def normalise_noise(noise_L: Sequence[Tensor]) -> None:
    """Each map to zero mean and unit variance, in place (appendix D: after each step)."""
    for noise in noise_L:
        noise.sub_(noise.mean())
        noise.mul_(noise.square().mean().add(1e-12).rsqrt())


def learning_rate(t: float) -> float:
    """Adam's rate at time t in [0, 1]: linear up in 5 %, cosine down in the last 25 % (app. D)."""
    up = min(1.0, t / RAMP_UP)
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - t) / RAMP_DOWN))
    return MAX_LEARNING_RATE * up * down


def w_noise_scale(t: float) -> float:
    """Standard deviation of the noise on w in units of w's spread: 0.05 t'^2, t' from 1 to 0 in
    the first 75 % (appendix D)."""
    return W_NOISE * max(0.0, 1.0 - t / W_NOISE_UNTIL) ** 2


@torch.no_grad()
def latent_statistics(generator: Generator, seed: int, label: int | None) -> tuple[Tensor, float]:
    """Mean of w, [D], and its spread sqrt(E |w - mean|^2), from 10,000 z (appendix D)."""
    device = next(generator.parameters()).device
    parts = []
    for start in range(0, W_SAMPLES, _MAPPED_AT_ONCE):
        z = torch.stack(
            [
                torch.from_numpy(draw_z(seed, "projection", i, generator.arch.latent_dim))
                for i in range(start, start + _MAPPED_AT_ONCE)
            ]
        ).to(device)
        label_B = None if label is None else torch.full((len(z),), label, device=device)
        parts.append(generator.mapping.w(z, label_B))
    w_BD = torch.cat(parts).double()
    mean = w_BD.mean(dim=0)
    spread = float((w_BD - mean).square().sum(dim=1).mean().sqrt())
    return mean.float(), spread


@dataclasses.dataclass(frozen=True)
class Projection:
    """What was found.

    Attributes:
        ws: [num_ws, latent_dim]; all rows are equal in space `w`.
        noise: one [1, 1, H, W] per convolution, zero mean, unit variance.
        w_mean: the mean of w it started from.
        w_spread: root mean square distance of a random w from that mean.
        distances: (step, distance) about twenty times on the way, with the noise on w of then.
    """

    ws: Tensor
    noise: list[Tensor]
    w_mean: Tensor
    w_spread: float
    distances: list[tuple[int, float]]

    @property
    def distance_to_mean(self) -> float:
        """Distance of w from the mean, root mean square over its copies; compare `w_spread`."""
        return float((self.ws - self.w_mean).square().sum(dim=1).mean().sqrt())


def project(
    generator: Generator,
    target_3HW: Tensor,
    *,
    steps: int = 1000,
    seed: int = 0,
    space: Space = "w",
    label: int | None = None,
    on_step: OnStep | None = None,
) -> Projection:
    """Find w and noise whose image is near the target (appendix D).

    Every draw is keyed by (seed, its number), so equal arguments give equal results on one machine
    at one number of threads.

    Args:
        generator: frozen (no parameter requires a gradient), as `load_generator` gives it.
        target_3HW: float32, in [-1, 1], of the generator's resolution.
        steps: Adam steps; all schedules stretch with it.
        space: `w`: one w for all layers, what the generator was trained on. `w+`: a w for each,
            nearer to the image but not what the mapping network ever makes.
        label: label number, for conditional generators: whose mean w to start from.
        on_step: called with (steps done, distance) about twenty times.

    Raises:
        DataError: the optimisation left the finite numbers.
    """
    arch = generator.arch
    device = next(generator.parameters()).device
    target = target_3HW[None].to(device)
    mean_D, spread = latent_statistics(generator, seed, label)
    rows = 1 if space == "w" else arch.num_ws
    w_ND = mean_D.repeat(rows, 1).requires_grad_()
    # White noise, as the paper starts from, but the network's own: a distance of pixels would
    # punish any other for what an image made with it need not change.
    noise_L = [
        one.detach().to(device, copy=True)[None, None]
        for name, one in generator.synthesis.named_buffers()
        if name.endswith("noise_const")
    ]
    normalise_noise(noise_L)
    for noise in noise_L:
        noise.requires_grad_()
    optimizer = torch.optim.Adam([w_ND, *noise_L])
    report_every = max(1, steps // _REPORTS)
    distances: list[tuple[int, float]] = []
    for step in range(steps):
        t = (step + 0.5) / steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(t)
        drawn = draw_z(seed, "projection", W_SAMPLES + step, rows * arch.latent_dim)
        offset_ND = torch.from_numpy(drawn).to(device).view(rows, arch.latent_dim)
        ws_ND = w_ND + offset_ND * (w_noise_scale(t) * spread)
        image = generator.synthesis(ws_ND.expand(arch.num_ws, -1)[None], noise_L)
        distance = pyramid_distance(image, target)
        optimizer.zero_grad()
        (distance + NOISE_WEIGHT * noise_correlation(noise_L)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        normalise_noise(noise_L)
        if (step + 1) % report_every == 0 or step + 1 == steps:
            # The only moments at which the host waits for the device.
            distances.append((step + 1, float(distance.detach())))
            if not math.isfinite(distances[-1][1]):
                raise DataError(
                    f"projection: the distance is {distances[-1][1]} after step {step + 1}: the "
                    "generator makes no finite images; use an earlier snapshot"
                )
            if on_step is not None:
                on_step(*distances[-1])
    ws = w_ND.detach().expand(arch.num_ws, -1).contiguous()
    return Projection(ws, [one.detach() for one in noise_L], mean_D, spread, distances)


@dataclasses.dataclass(frozen=True)
class ImageError:
    """How far an image is from the target.

    Attributes:
        rmse: root mean square difference in grey levels (0 to 255) of the 8-bit images, over all
            pixels and channels.
        psnr: 20 log10(255 / rmse) in dB; None for equal images.
        distance: `pyramid_distance` of the images before rounding.
    """

    rmse: float
    psnr: float | None
    distance: float


def image_error(image_3HW: Tensor, target_3HW: Tensor) -> ImageError:
    """Compare two images of range [-1, 1], as the 8-bit pictures one sees."""
    both = [((x.double() * 127.5 + 127.5).round().clamp(0, 255)) for x in (image_3HW, target_3HW)]
    rmse = float((both[0] - both[1]).square().mean().sqrt())
    psnr = None if rmse == 0 else 20 * math.log10(255 / rmse)
    return ImageError(rmse, psnr, float(pyramid_distance(image_3HW[None], target_3HW[None])))
