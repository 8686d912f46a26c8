"""One whole 4096 x 4096 pair: generate, label with ten members, encode as the dataset holds it.

Random weights; what a pair costs does not depend on them. Each precision runs in a process of its
own. The plain way keeps 496 channels of every pixel in float32: counted, not run.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from figures import Figure, smaller
from hdgan.core.sections import ClassConfig
from hdgan.nets.generator import Generator
from hdgan.nets.labelling import Labeller
from hdgan.nets.layers import channels_last
from hdgan.nets.precision import MIXED_RESOLUTIONS, Precision
from hdgan.synthesizer.pair import PairMaker
from hdgan.synthesizer.sampling import Sampler
from measuring import Memory, in_fresh_process, peak_memory
from paper_scale import ARCHITECTURE, CLASSES, MEMBERS, plan_at, random_ensemble

SECONDS = 600.0
COLOURS = ("#f2f2f2", "#e377c2", "#5e3c99")


def pair4096() -> tuple[list[Figure], dict[str, object]]:
    """Seconds and peak bytes of one pair, in float32 and in bfloat16."""
    plan = plan_at(ARCHITECTURE.resolution)
    plain = 4 * plan.channels * plan.resolution**2
    figures: list[Figure] = []
    details: dict[str, object] = {"members": MEMBERS, "plainFeatureBytes": plain}
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        memory = in_fresh_process(_pair, precision, seconds=SECONDS)
        details[precision] = None if memory is None else memory.to_json()
        if memory is None:
            continue
        name = f"4096 px pair, {precision}"
        peak = memory.peak / 1e6
        figures.append(smaller(f"{name}: memory", peak / 1e3, plain / 1e9, "GB", peak))
        figures.append(Figure(f"{name}: time", memory.seconds, "s", peak_rss_mb=peak))
    return figures, details


def _pair(precision: Precision) -> Memory:
    """Features are kept in the precision they are computed in."""
    torch.manual_seed(0)
    generator = channels_last(Generator(ARCHITECTURE)).eval().requires_grad_(False)
    if precision == "bfloat16":
        generator.synthesis.use_mixed_precision(MIXED_RESOLUTIONS, torch.bfloat16)
    plan = plan_at(ARCHITECTURE.resolution)
    labeller = Labeller(random_ensemble(plan, MEMBERS, precision).eval())
    classes = [ClassConfig(name=f"class {i}", color=COLOURS[i]) for i in range(CLASSES)]
    sampler = Sampler(generator, "0" * 64, "dataset", 0, 0.7, "constant")
    maker = PairMaker(sampler, labeller, classes, mpp=0.25)

    def make() -> None:
        with ThreadPoolExecutor(1) as threads:
            maker.encode(maker.label(0), 1.0, threads).pair()

    return peak_memory(make)
