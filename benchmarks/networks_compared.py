"""The networks that the benchmarks of generator and training step run, ours and the plain ones."""

from __future__ import annotations

from typing import Literal

import torch

from baselines import networks as plain
from hdgan.core.run import GanTrainerConfig
from hdgan.gan_trainer.training import architecture_for
from hdgan.nets import discriminator, generator
from hdgan.nets.layers import channels_last

Size = Literal["demo64", "wide128"]

SIDES: dict[Size, int] = {"demo64": 64, "wide128": 128}

TOLERANCE = 1e-4


def config_of(size: Size) -> GanTrainerConfig:
    """The trainer's settings: float32 and without augmentation, which both would share.

    `demo64` has the widths of preset `demo`, `wide128` a quarter of the widths of StyleGAN2's
    config F, which is what two cores can do in a minute.
    """
    common = {"augment": "noaug", "precision": "float32"}
    if size == "demo64":
        return GanTrainerConfig.model_validate(
            {"preset": "demo", "batch": 16, "mirror": False, **common}
        )
    widths = {"channel_base": 8192, "channel_max": 256, "latent_dim": 256}
    return GanTrainerConfig.model_validate({"batch": 4, **widths, **common})


def networks(
    size: Size,
) -> tuple[generator.Generator, discriminator.Discriminator, plain.Generator, plain.Discriminator]:
    """Both pairs, with equal weights."""
    arch = architecture_for(config_of(size), SIDES[size])
    torch.manual_seed(0)
    ours_g, ours_d = generator.Generator(arch), discriminator.Discriminator(arch)
    with torch.no_grad():
        for network in (ours_g, ours_d):
            for name, parameter in network.named_parameters():
                if name.endswith(("bias", "noise_strength")):  # zero where nothing is trained yet
                    parameter.add_(0.1 * torch.randn_like(parameter))
    plain_g, plain_d = plain.Generator(arch), plain.Discriminator(arch)
    plain_g.load_state_dict(ours_g.state_dict())
    plain_d.load_state_dict(ours_d.state_dict())
    return channels_last(ours_g), channels_last(ours_d), plain_g, plain_d


@torch.no_grad()
def largest_differences(size: Size) -> dict[str, float]:
    """How far images and logits of the two are apart.

    Raises:
        AssertionError: further than rounding: there would be nothing to compare.
    """
    ours_g, ours_d, plain_g, plain_d = networks(size)
    z = torch.randn(4, ours_g.arch.latent_dim)
    images = plain_g(z)
    found = {
        "images": float((ours_g(z) - images).abs().max()),
        "logits": float((ours_d(images) - plain_d(images)).abs().max()),
    }
    for what, difference in found.items():
        if not difference <= TOLERANCE:
            raise AssertionError(f"{size}: {what} differ by {difference}: nothing to compare")
    return found
