"""The paper's features and ensemble, with random numbers, for the benchmarks that need them."""

from __future__ import annotations

import numpy as np
import torch

from hdgan.nets.architecture import Architecture
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, PixelEnsemble
from hdgan.nets.pyramid import DTYPES, FeatureMap, FeaturePlan, feature_plan

ARCHITECTURE = Architecture(4096, channel_base=32_768, channel_max=512)
BLOCKS = 5
CLASSES = 3
MEMBERS = 10


def plan_at(side: int) -> FeaturePlan:
    """The 4096 px model's five blocks (496 channels) as if its picture had `side` pixels a side."""
    full = feature_plan(ARCHITECTURE, BLOCKS)
    shrink = full.resolution // side
    maps = tuple(FeatureMap(m.name, m.resolution // shrink, m.channels) for m in full.maps)
    return FeaturePlan(side, maps)


def random_maps(plan: FeaturePlan, dtype: str, seed: int) -> list[torch.Tensor]:
    """Maps [h, w, C] of standard normal numbers."""
    stream = torch.Generator().manual_seed(seed)
    return [
        torch.randn(m.resolution, m.resolution, m.channels, generator=stream).to(DTYPES[dtype])
        for m in plan.maps
    ]


def random_ensemble(plan: FeaturePlan, members: int, dtype: str) -> PixelEnsemble:
    """The paper's classifier: 128 and 32 hidden values."""
    spec = EnsembleSpec(
        plan=plan,
        blocks=BLOCKS,
        dtype=dtype,
        classes=tuple(ClassLabel(f"class {i}", f"#00000{i}") for i in range(CLASSES)),
        hidden=(128, 32),
        members=members,
        dropout=0.1,
        mean=np.zeros(plan.channels),
        std=np.ones(plan.channels),
        log_prior_correction=np.zeros(CLASSES),
        generator="0" * 64,
    )
    return PixelEnsemble(spec)
