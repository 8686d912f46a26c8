"""Images of a generator by seed, or of given w.

What a seed means: the image of seed s is made from z = sample 0 of the stream `generate` under s
(`hdgan.nets.latents`), standard normal; with noise `perSample` also the noise is that sample's. It
is a function of the networks, s, psi, label and noise alone, and is none of a run's candidates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from hdgan.core.bounded_reading import TooLarge, read_file
from hdgan.core.errors import DataError, InputMissing, RequestError
from hdgan.nets.generator import Generator, Noise, to_uint8
from hdgan.nets.latents import draw_z
from hdgan.nets.sample_noise import NoiseMode, sample_noise
from hdgan.nets.tensor_files import FLOATS, metadata_of, read_npy, read_tensors
from hdgan.nets.tools.pictures import Rgb

NoiseChoice = Literal["constant", "perSample", "none"]

MAX_SEED = 2**31 - 1
MAX_IMAGES = 100_000
PSI = 0.7
STREAM: Literal["generate"] = "generate"
NOISE_PREFIX = "noise."
MAX_LATENT_BYTES = 4 << 30


def parse_seeds(text: str) -> list[int]:
    """Seeds of `0-35,40`: numbers and ranges with both ends, in order, each once.

    RequestError for anything else, for a seed above 2**31 - 1, or for more than 100,000 seeds.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part, re.ASCII)
        if match is None:
            raise RequestError(
                f"--seeds {text}: {part!r} is no seed; write numbers and ranges such as 0-35,40"
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise RequestError(f"--seeds {text}: the range {part.strip()} is backwards")
        if last > MAX_SEED:
            raise RequestError(f"--seeds {text}: the largest seed is {MAX_SEED}")
        if last - first >= MAX_IMAGES or len(seeds) + last - first >= MAX_IMAGES:
            raise RequestError(f"--seeds {text}: at most {MAX_IMAGES} images at a time")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


@dataclass(frozen=True)
class Latents:
    """Given w, and the noise that belongs to them if the file has any."""

    ws: Tensor
    """float32 [n, num_ws, latent_dim]."""
    noise: list[Tensor] | None = None
    generator: str | None = None
    """Digest of the generator they were found for, if the file says it."""


def load_latents(path: Path, generator: Generator) -> Latents:
    """Read w from `.npy` (float32 [num_ws, w_dim] or [n, num_ws, w_dim]) or `.safetensors` (`w`).

    The tensors `noise.<convolution>` of a projection are read too. InputMissing if there is no such
    file, RequestError if it is none of these or of another generator's shape.
    """
    arch = generator.arch
    device = next(generator.parameters()).device
    try:
        data = read_file(path, MAX_LATENT_BYTES)
    except TooLarge as error:
        raise RequestError(f"--latent {path}: {error}") from None
    except FileNotFoundError:
        raise InputMissing(f"--latent {path}: there is no such file") from None
    except OSError as error:
        raise RequestError(f"--latent {path}: cannot be read: {error.strerror or error}") from None
    noise: list[Tensor] | None = None
    digest: str | None = None
    try:
        if path.suffix == ".npy":
            w = torch.from_numpy(read_npy(data).copy())
        elif path.suffix == ".safetensors":
            tensors = read_tensors(data)
            digest = metadata_of(data).get("generator")
            if "w" not in tensors or tensors["w"].dtype not in FLOATS:
                raise ValueError("it has no tensor w of floating-point numbers")
            w = tensors["w"]
            names = [NOISE_PREFIX + name for name in arch.conv_names]
            if set(names) <= tensors.keys():
                noise = [tensors[name].float().to(device) for name in names]
        else:
            raise ValueError("its name must end with .npy or .safetensors")
    except ValueError as error:
        raise RequestError(f"--latent {path}: holds no w: {error}") from None
    if w.ndim == 2:
        w = w[None]
    if w.ndim != 3 or tuple(w.shape[1:]) != (arch.num_ws, arch.latent_dim):
        raise RequestError(
            f"--latent {path}: w has shape {list(w.shape)}, this generator takes "
            f"[{arch.num_ws}, {arch.latent_dim}] or [n, {arch.num_ws}, {arch.latent_dim}]: it is "
            "of another generator"
        )
    if noise is not None:
        sides = [tuple(one.shape) for one in noise]
        if sides != generator.synthesis.noise_shapes():
            raise RequestError(f"--latent {path}: its noise is of another generator: {sides}")
    return Latents(w.float().contiguous().to(device), noise, digest)


@torch.no_grad()
def images_of_seeds(
    generator: Generator,
    seeds: Sequence[int],
    *,
    psi: float,
    label: int | None,
    noise: NoiseChoice,
    batch: int,
) -> Iterator[Rgb]:
    """uint8 [H, W, 3] for each seed, in their order.

    Args:
        psi: truncation toward the mean w: w_avg + psi * (w - w_avg).
        label: label number, for conditional generators.
        batch: images synthesised at once. Other values may change a pixel by one grey level.
    """
    device = next(generator.parameters()).device
    label_B = None if label is None else torch.tensor([label], device=device)
    for start in range(0, len(seeds), batch):
        group = seeds[start : start + batch]
        # Mapped one at a time, as the synthesizer does: w does not depend on the batch.
        ws = [
            generator.mapping(
                torch.from_numpy(draw_z(seed, STREAM, 0, generator.arch.latent_dim))[None].to(
                    device
                ),
                psi,
                label_B,
            )
            for seed in group
        ]
        yield from _render(generator, torch.cat(ws), noise_inputs(generator, noise, group))


@torch.no_grad()
def images_of_latents(
    generator: Generator, ws_BND: Tensor, noise: Noise, *, psi: float, batch: int
) -> Iterator[Rgb]:
    """uint8 [H, W, 3] for each w: truncated by psi, with the same noise inputs for all."""
    if psi != 1.0:
        # A w of unknown label: the middle of all labels' means.
        centre = generator.mapping.w_avg.reshape(-1, generator.arch.latent_dim).mean(dim=0)
        ws_BND = torch.lerp(centre, ws_BND, psi)
    for start in range(0, len(ws_BND), batch):
        yield from _render(generator, ws_BND[start : start + batch], noise)


def noise_inputs(generator: Generator, choice: NoiseChoice, seeds: Sequence[int]) -> Noise:
    """Noise for a batch of seeds; `perSample` joins what is drawn for each of them."""
    if choice == "none":
        return "none"
    modes: tuple[NoiseMode, ...] = get_args(NoiseMode)
    assert choice in modes
    per_seed = [sample_noise(generator, choice, seed, STREAM, 0) for seed in seeds]
    if choice == "constant":
        return "constant"
    layers = zip(*(one for one in per_seed if not isinstance(one, str)), strict=True)
    return [torch.cat(layer) for layer in layers]


def _render(generator: Generator, ws_BND: Tensor, noise: Noise) -> Iterator[Rgb]:
    image = generator.synthesis(ws_BND, noise)
    if not bool(image.isfinite().all()):
        raise DataError(
            "the generator makes images with NaN or infinite pixels: its training diverged, or "
            "the latents are far outside what it knows; use an earlier snapshot"
        )
    yield from to_uint8(image).cpu().numpy()
