"""Pictures of the training: reals beside what the generator makes of fixed latents."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hdgan.gan_trainer.draws import keyed_generator
from hdgan.nets.generator import Generator, to_uint8

MAX_GRID_PX = 2048
MAX_GRID_SIDE = 8


def grid_side(resolution: int) -> int:
    """Images per row and column, so that a grid stays within 2048 px (at least one image)."""
    return max(1, min(MAX_GRID_SIDE, MAX_GRID_PX // resolution))


def png_grid(images_BHW3: NDArray[np.uint8]) -> bytes:
    """A square grid of images as PNG; B must be a square number."""
    count, height, width, _ = images_BHW3.shape
    side = round(count**0.5)
    rows = images_BHW3.reshape(side, side, height, width, 3).transpose(0, 2, 1, 3, 4)
    buffer = io.BytesIO()
    Image.fromarray(rows.reshape(side * height, side * width, 3)).save(buffer, format="PNG")
    return buffer.getvalue()


@torch.no_grad()
def fakes_grid(generator: Generator, seed: int) -> bytes:
    """Images of the same latents at every call, not truncated, one at a time to save memory."""
    device = next(generator.parameters()).device
    count = grid_side(generator.arch.resolution) ** 2
    z = torch.randn(count, generator.arch.latent_dim, generator=keyed_generator(seed, 0, 0, "grid"))
    images = []
    for number, row in enumerate(z):
        label = None
        if generator.arch.labels:  # every label in turn
            label = torch.tensor([number % len(generator.arch.labels)], device=device)
        images.append(to_uint8(generator(row[None].to(device), label_B=label))[0].cpu().numpy())
    return png_grid(np.stack(images))
