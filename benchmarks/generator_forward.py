"""Generating images: ours, and the generator as its paper writes it down (`baselines/`).

And the memory that one picture of 4096 x 4096 px takes with StyleGAN2's widths, in a process of its
own, with random weights: what a picture costs does not depend on them.
"""

from __future__ import annotations

import torch

from figures import Figure, faster
from hdgan.nets.architecture import Architecture
from hdgan.nets.generator import Generator
from hdgan.nets.layers import channels_last
from measuring import Memory, in_fresh_process, median_seconds, peak_memory
from networks_compared import SIDES, Size, config_of, largest_differences, networks

REPEATS = 7
LARGE = Architecture(4096, latent_dim=512, mapping_layers=8, channel_base=32_768, channel_max=512)
LARGE_SECONDS = 240.0


def generator_forward() -> tuple[list[Figure], dict[str, object]]:
    """Images per second of both, their ratio, and the memory of one large picture."""
    large = in_fresh_process(_large_picture, seconds=LARGE_SECONDS)
    compared = {size: _compared(size) for size in SIDES}
    figures = [figure for figure, _ in compared.values()]
    if large is not None:
        name = "generator forward, 4096 px, float32"
        figures.append(Figure(name, large.seconds, "s", peak_rss_mb=large.peak / 1e6))
    return figures, {
        "threads": torch.get_num_threads(),
        **{size: details for size, (_, details) in compared.items()},
        "picture4096": None if large is None else large.to_json(),
    }


@torch.no_grad()
def _compared(size: Size) -> tuple[Figure, dict[str, object]]:
    differences = largest_differences(size)
    ours, _, plain, _ = networks(size)
    batch = config_of(size).batch
    z = torch.randn(batch, ours.arch.latent_dim)
    seconds = median_seconds({"ours": lambda: ours(z), "plain": lambda: plain(z)}, REPEATS)
    rates = {name: batch / one for name, one in seconds.items()}
    name = f"generator forward, {SIDES[size]} px"
    figure = faster(name, rates["ours"], rates["plain"], "images/s")
    return figure, {
        "side": SIDES[size],
        "batch": batch,
        "largestDifference": differences["images"],
        "imagesPerSecond": {name: round(one, 1) for name, one in rates.items()},
        "ratioToPlain": round(seconds["plain"] / seconds["ours"], 2),
    }


@torch.no_grad()
def _large_picture() -> Memory:
    generator = channels_last(Generator(LARGE)).eval().requires_grad_(False)
    z = torch.randn(1, LARGE.latent_dim)
    return peak_memory(lambda: generator(z))
