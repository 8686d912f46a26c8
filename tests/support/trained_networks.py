"""A tiny trained-looking generator as files, and the commands that use it."""

from __future__ import annotations

from pathlib import Path

import torch
import typer
from typer.testing import CliRunner

from hdgan.nets.architecture import Architecture
from hdgan.nets.checkpoint import ARCHITECTURE, GENERATOR, weights_to_bytes
from hdgan.nets.generator import Generator
from hdgan.nets.tools import commands


def write_networks(folder: Path, labels: tuple[str, ...] = ()) -> Generator:
    """A tiny generator whose noise shows, as files."""
    torch.manual_seed(3)
    arch = Architecture(
        16, latent_dim=8, mapping_layers=2, channel_base=128, channel_max=8, labels=labels
    )
    generator = Generator(arch).eval().requires_grad_(False)
    generator.mapping.w_avg.normal_()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.3)
        if name.endswith("to_rgb.conv.weight"):
            # As of a trained one, its pixels stay within [-1, 1]: an 8-bit picture says it all.
            parameter.mul_(0.25)
    folder.mkdir()
    (folder / ARCHITECTURE).write_bytes(arch.to_json())
    (folder / GENERATOR).write_bytes(weights_to_bytes(generator))
    return generator


def call(*arguments: str | Path) -> str:
    """Run a command as `hdgan` does; its errors come out as exceptions."""
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
