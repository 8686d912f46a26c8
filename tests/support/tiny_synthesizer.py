"""What the synthesizer is tested with: a tiny generator, and a labeller that needs no ensemble."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from hdgan.core.sections import ClassConfig, Noise
from hdgan.nets.architecture import Architecture
from hdgan.nets.generator import Generator, to_uint8
from hdgan.nets.generator import Noise as NoiseInputs
from hdgan.nets.labelling import LabelledImage
from hdgan.nets.latents import Stream
from hdgan.synthesizer.sampling import Sampler

ARCH = Architecture(16, latent_dim=8, mapping_layers=2, channel_base=128, channel_max=12)
CLASSES = [ClassConfig(name="dark", color="#203040"), ClassConfig(name="light", color="#e0d0c0")]
DIGEST = "ab" * 32


def tiny_generator() -> Generator:
    """Random weights of a fixed seed, with a w_avg to truncate to and noise that shows."""
    torch.manual_seed(11)
    generator = Generator(ARCH).eval().requires_grad_(False)
    generator.mapping.w_avg.copy_(torch.linspace(-0.5, 0.5, ARCH.latent_dim))
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    return generator


def sampler(
    stream: Stream = "dataset", *, seed: int = 0, psi: float = 0.7, noise: Noise = "constant"
) -> Sampler:
    """Samples of the tiny generator."""
    return Sampler(tiny_generator(), DIGEST, stream, seed, psi, noise)


def brightness_uncertainty(image: NDArray[np.uint8]) -> float:
    """A number in [0, 1] that differs from picture to picture."""
    return float(image.astype(np.float64).mean() * 37 % 1)


class FakeLabeller:
    """Labels by brightness; the image's uncertainty is any function of its pixels.

    threshold  grey level from which a pixel is light; None: the image's median
    varied     whether a pixel's uncertainty is its brightness instead of the image's
    """

    def __init__(
        self,
        uncertainty: Callable[[NDArray[np.uint8]], float] = brightness_uncertainty,
        *,
        threshold: float | None = None,
        varied: bool = False,
    ) -> None:
        self._uncertainty = uncertainty
        self._threshold = threshold
        self._varied = varied
        self.labelled = 0

    @torch.no_grad()
    def label(
        self,
        generator: Generator,
        ws: torch.Tensor,
        noise: NoiseInputs,
        *,
        probabilities: bool = False,
    ) -> LabelledImage:
        self.labelled += 1
        image = to_uint8(generator.synthesis(ws, noise))[0].numpy()
        value = self._uncertainty(image)
        grey = image.mean(axis=2)
        threshold = np.median(grey) if self._threshold is None else self._threshold
        return LabelledImage(
            image=image,
            mask=(grey > threshold).astype(np.uint8),
            uncertainty=(
                (grey / 255).astype(np.float32)
                if self._varied
                else np.full(grey.shape, value, np.float32)
            ),
            image_uncertainty=value,
        )
