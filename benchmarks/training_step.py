"""A training step: ours, and StyleGAN2's as its paper writes it down (`baselines/`).

A cycle is 16 steps: each trains generator and discriminator, every fourth regularises path lengths
and one R1. Kinds of steps are timed apart and weighted as they occur. Memory is that of the first
step, which has all of them, in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from baselines.training import PlainTraining
from figures import Figure, faster
from hdgan.gan_trainer.training import Training
from measuring import Memory, in_fresh_process, median_seconds, peak_memory
from networks_compared import SIDES, Size, config_of, largest_differences

VARIANTS = ("ours", "oursBfloat16", "plain")
REPEATS: dict[Size, int] = {"demo64": 3, "wide128": 3}
# How often a cycle has a step that starts like this one: all regularisers, path length, none.
CYCLE = {0: 1, 4: 3, 1: 12}
MEMORY_SECONDS = 120.0


def training_step() -> tuple[list[Figure], dict[str, object]]:
    """Images per second over a cycle, the ratio to plain, and the memory of each."""
    compared = {size: _compared(size) for size in SIDES}
    return [figure for figures, _ in compared.values() for figure in figures], {
        "threads": torch.get_num_threads(),
        **{size: details for size, (_, details) in compared.items()},
    }


def _compared(size: Size) -> tuple[list[Figure], dict[str, object]]:
    differences = largest_differences(size)
    steps = {variant: step_of(variant, size) for variant in VARIANTS}
    seconds = dict.fromkeys(VARIANTS, 0.0)
    for number, times in CYCLE.items():
        runs = {variant: partial(step, number) for variant, step in steps.items()}
        for variant, median in median_seconds(runs, REPEATS[size]).items():
            seconds[variant] += times * median
    images = sum(CYCLE.values()) * config_of(size).batch
    memory = {
        variant: in_fresh_process(_memory, variant, size, seconds=MEMORY_SECONDS)
        for variant in VARIANTS
    }
    rates = {variant: images / seconds[variant] for variant in VARIANTS}
    figures = [
        faster(
            f"training step, {SIDES[size]} px, {variant}",
            rates[variant],
            rates["plain"],
            "images/s",
            None if (one := memory[variant]) is None else one.peak / 1e6,
        )
        for variant in VARIANTS
        if variant != "plain"
    ]
    return figures, {
        "side": SIDES[size],
        "batch": config_of(size).batch,
        "largestDifferences": differences,
        "imagesPerSecond": {v: round(rates[v], 2) for v in VARIANTS},
        "ratioToPlain": {v: round(seconds["plain"] / seconds[v], 2) for v in VARIANTS},
        "memory": {v: None if one is None else one.to_json() for v, one in memory.items()},
    }


def step_of(variant: str, size: Size) -> Callable[[int], None]:
    """A function that makes the step of one number, with the regularisers that are due then."""
    config = config_of(size)
    if variant == "oursBfloat16":
        config = config.model_copy(update={"precision": "bfloat16", "mixed_resolutions": 3})
    training: Training | PlainTraining
    if variant == "plain":
        training = PlainTraining(config, SIDES[size])
    else:
        training = Training(config, SIDES[size])
    shape = (config.batch, SIDES[size], SIDES[size], 3)
    tiles = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def step(number: int) -> None:
        training.steps = number
        training.step(tiles)

    return step


def _memory(variant: str, size: Size) -> Memory:
    step = step_of(variant, size)
    return peak_memory(lambda: step(0))
