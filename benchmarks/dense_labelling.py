"""Labelling every pixel: at native resolution, and on features upsampled to the picture.

The plain way upsamples all maps to the size of the picture, standardises, and runs each member on
chunks of pixels. hdgan applies the first layer to the native maps and upsamples what comes out.
Same ensemble, same maps; the masks are compared.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from hdgan.nets.architecture import Architecture
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, PixelEnsemble, fold
from hdgan.nets.labelling import label_dense
from hdgan.nets.pyramid import feature_plan

RESOLUTION = 512
CHANNEL_BASE, CHANNEL_MAX = 16384, 128
BLOCKS = 5
MEMBERS = 10
CLASSES = 3
CHUNK = 65_536
REPEATS = 3


def dense_labelling() -> dict[str, object]:
    """Seconds per picture for both, their ratio, and how many pixels differ."""
    plan = feature_plan(Architecture(RESOLUTION, 512, 8, 0.01, CHANNEL_BASE, CHANNEL_MAX), BLOCKS)
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(one.resolution, one.resolution, one.channels, generator=generator)
        for one in plan.maps
    ]
    labels = tuple(ClassLabel(f"class {i}", f"#00000{i}") for i in range(CLASSES))
    spec = EnsembleSpec(
        plan=plan,
        blocks=BLOCKS,
        dtype="float32",
        classes=labels,
        hidden=(128, 32),
        members=MEMBERS,
        dropout=0.1,
        mean=np.zeros(plan.channels),
        std=np.ones(plan.channels),
        log_prior_correction=np.zeros(CLASSES),
        generator="0" * 64,
    )
    ensemble = PixelEnsemble(spec).eval()
    folded = fold(ensemble)
    native_times, plain_times = [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        mask = label_dense(folded, maps).mask
        native_times.append(time.perf_counter() - started)
        started = time.perf_counter()
        plain = _label_upsampled(ensemble, maps)
        plain_times.append(time.perf_counter() - started)
    native, upsampled = statistics.median(native_times), statistics.median(plain_times)
    return {
        "resolution": RESOLUTION,
        "channels": plan.channels,
        "members": MEMBERS,
        "threads": torch.get_num_threads(),
        "nativeSeconds": round(native, 3),
        "upsampledSeconds": round(upsampled, 3),
        "ratio": round(upsampled / native, 2),
        "differingPixels": float(np.mean(mask != plain)),
    }


@torch.no_grad()
def _label_upsampled(ensemble: PixelEnsemble, maps: list[torch.Tensor]) -> npt.NDArray[np.uint8]:
    """The mask uint8 [H, W] by upsampling first."""
    upsampled = [
        F.interpolate(one.permute(2, 0, 1)[None], size=(RESOLUTION, RESOLUTION), mode="bilinear")[0]
        for one in maps
    ]
    rows = torch.cat(upsampled).flatten(1).T.contiguous()
    means = [ensemble(chunk).softmax(dim=2).mean(dim=0) for chunk in torch.split(rows, CHUNK)]
    return torch.cat(means).argmax(dim=1).to(torch.uint8).reshape(RESOLUTION, RESOLUTION).numpy()
