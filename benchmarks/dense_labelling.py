"""Labelling every pixel of a picture: ours, and on features upsampled to the picture.

The 4096 px model's channels at 1024 px, so that the plain way fits a small machine. Same ensemble,
same maps; the masks are compared, and where they differ, by how much the two classes differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from baselines.paper_features import label_upsampled, plain_members
from figures import Figure, smaller
from hdgan.nets.ensemble import fold
from hdgan.nets.labelling import label_dense
from measuring import Memory, in_fresh_process, median_seconds, peak_memory
from paper_scale import MEMBERS, plan_at, random_ensemble, random_maps

SIDE = 1024
REPEATS = 3
MEMORY_SECONDS = 240.0
CLOSE = 1e-4


def dense_labelling() -> tuple[list[Figure], dict[str, object]]:
    """Seconds per picture for ten members and for one, the ratio, and the largest difference."""
    figures: list[Figure] = []
    details: dict[str, object] = {"side": SIDE, "threads": torch.get_num_threads()}
    for members in (MEMBERS, 1):
        plan = plan_at(SIDE)
        maps = random_maps(plan, "float16", 0)
        ensemble = random_ensemble(plan, members, "float16").eval()
        folded, plain = fold(ensemble), plain_members(ensemble)
        runs: dict[str, Callable[[], object]] = {
            "ours": partial(label_dense, folded, maps),
            "plain": partial(label_upsampled, ensemble, plain, maps),
        }
        seconds = median_seconds(runs, REPEATS)
        memory = in_fresh_process(_memory, members, seconds=MEMORY_SECONDS)
        peak = None if memory is None else memory.peak / 1e6
        name = f"dense labelling, {SIDE} px, members: {members}"
        figures.append(smaller(name, seconds["ours"], seconds["plain"], "s", peak))
        mask, _, mean_NK = label_upsampled(ensemble, plain, maps)
        differing = torch.from_numpy(label_dense(folded, maps).mask != mask).reshape(-1)
        first, second = mean_NK[differing].topk(2, dim=1).values.T
        if bool((first - second > CLOSE).any()):
            raise AssertionError("the two ways label a pixel differently that is no tie")
        details[f"members{members}"] = {
            "seconds": {name: round(one, 3) for name, one in seconds.items()},
            "channels": plan.channels,
            "differingPixels": int(differing.sum()),
            "memory": None if memory is None else memory.to_json(),
        }
    return figures, details


def _memory(members: int) -> Memory:
    plan = plan_at(SIDE)
    maps = random_maps(plan, "float16", 0)
    folded = fold(random_ensemble(plan, members, "float16").eval())
    return peak_memory(lambda: np.asarray(label_dense(folded, maps).mask))
