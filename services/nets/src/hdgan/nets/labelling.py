"""Dense labelling: from native feature maps to class mask and uncertainty, in bounded memory.

The first linear layer commutes with bilinear upsampling, so each map's share of it is computed at
the map's own resolution; only the hidden pre-activations are upsampled and summed. Work goes in
bands of rows, so that memory does not grow with the picture beyond its native maps and its results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hdgan.core.errors import InternalError
from hdgan.nets.ensemble import FoldedEnsemble, PixelEnsemble, fold
from hdgan.nets.generator import Generator, Noise
from hdgan.nets.pyramid import (
    DTYPES,
    FeaturePlan,
    NativeMap,
    axis_taps,
    render,
    stored_to_tensor,
)

BAND_BYTES = 64 * 2**20  # hidden pre-activations of one band of rows


@dataclass(frozen=True)
class DensePrediction:
    """A labelled picture without the picture.

    `mask` uint8 [H, W] class indices; `uncertainty` float32 [H, W] in [0, 1], Jensen-Shannon
    divergence between members; `entropy` float32 [H, W] in [0, 1], entropy of the mean over ln
    classes; `probabilities` float32 [K, H, W], mean over members, if asked for.
    """

    mask: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32]
    entropy: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None

    @property
    def image_uncertainty(self) -> float:
        """Mean uncertainty over the picture's pixels, in [0, 1]."""
        return float(self.uncertainty.mean(dtype=np.float64))


@dataclass(frozen=True)
class LabelledImage:
    """A picture and its labels, from one forward pass.

    `image` uint8 [H, W, 3]; the rest as in `DensePrediction`.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    uncertainty: npt.NDArray[np.float32]
    image_uncertainty: float
    probabilities: npt.NDArray[np.float32] | None = None


def entropy(probabilities: torch.Tensor, dim: int) -> torch.Tensor:
    """-sum p ln p in nats along `dim`; 0 ln 0 = 0."""
    terms: torch.Tensor = torch.special.entr(probabilities)
    return terms.sum(dim=dim)


def disagreement(probabilities_MNK: torch.Tensor) -> torch.Tensor:
    """Normalised Jensen-Shannon divergence between members, float32 [N] in [0, 1].

    H(mean p) - mean H(p) over min(ln members, ln classes), of *probabilities* [M, N, K]: 0 where
    all members agree, 1 where they are certain of as different classes as can be. One member: 0.
    """
    members, _, classes = probabilities_MNK.shape
    bound = min(math.log(members), math.log(classes))
    if bound == 0.0:
        return torch.zeros_like(probabilities_MNK[0, :, 0])
    mean_NK = probabilities_MNK.mean(dim=0)
    divergence = entropy(mean_NK, dim=1) - entropy(probabilities_MNK, dim=2).mean(dim=0)
    return (divergence / bound).clamp_(0.0, 1.0)


def band_rows(resolution: int, width: int, budget: int = BAND_BYTES) -> int:
    """Output rows per band: [rows, resolution, width] float32 stays within `budget` bytes."""
    return max(1, min(resolution, budget // (4 * resolution * width)))


@torch.no_grad()
def label_dense(
    folded: FoldedEnsemble,
    maps: Sequence[NativeMap],
    *,
    probabilities: bool = False,
    budget: int = BAND_BYTES,
) -> DensePrediction:
    """Label every pixel of a picture from its native maps [h, w, C_m], in the plan's order.

    Maps are used as given: round them to the shard dtype first, so that training and serving see
    the same numbers (`render` and the shards do).
    """
    plan = folded.spec.plan
    shapes = [tuple(one.shape) for one in maps]
    planned = [(one.resolution, one.resolution, one.channels) for one in plan.maps]
    if shapes != planned:
        raise InternalError(f"maps have shapes {shapes}, the ensemble's plan is {planned}")
    side, classes = plan.resolution, len(folded.spec.classes)
    mask = np.empty((side, side), dtype=np.uint8)
    unsure = np.empty((side, side), dtype=np.float32)
    spread = np.empty((side, side), dtype=np.float32)
    mean = np.empty((classes, side, side), dtype=np.float32) if probabilities else None
    for first, pre_RWF in _hidden_bands(folded, maps, budget):
        rows = pre_RWF.shape[0]
        here = slice(first, first + rows)
        p_MNK = folded.finish(pre_RWF.reshape(rows * side, -1)).softmax(dim=2)
        mean_NK = p_MNK.mean(dim=0)
        mask[here] = mean_NK.argmax(dim=1).to(torch.uint8).reshape(rows, side).cpu().numpy()
        unsure[here] = disagreement(p_MNK).reshape(rows, side).cpu().numpy()
        spread_N = (entropy(mean_NK, dim=1) / math.log(classes)).clamp_(0.0, 1.0)
        spread[here] = spread_N.reshape(rows, side).cpu().numpy()
        if mean is not None:
            mean[:, here] = mean_NK.T.reshape(classes, rows, side).cpu().numpy()
    return DensePrediction(mask, unsure, spread, mean)


def _hidden_bands(
    folded: FoldedEnsemble, maps: Sequence[NativeMap], budget: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Bands of the first layer's pre-activations: (first output row, float32 [rows, W, M * H])."""
    plan = folded.spec.plan
    device = folded.first_bias.device
    side, width = plan.resolution, int(folded.first_bias.shape[0])
    step = band_rows(side, width, budget)
    columns = torch.arange(side, device=device)
    levels = _levels(plan)
    for first in range(0, side, step):
        rows = torch.arange(first, min(first + step, side), device=device)
        total: torch.Tensor | None = None
        for resolution, members in levels:
            # Maps of one resolution are summed before they are upsampled, once.
            top, bottom, down = axis_taps(resolution, side, rows)
            # At the picture's own resolution the second tap has no weight: only its own rows.
            start, stop = int(top[0]), int((top if resolution == side else bottom)[-1]) + 1
            native: torch.Tensor | None = None
            for index in members:
                band = _band(maps[index], start, stop, device)
                flat = band.reshape(-1, band.shape[-1])
                weight = folded.first[index]
                native = flat @ weight if native is None else native.addmm_(flat, weight)
            assert native is not None
            level = native.reshape(stop - start, resolution, width)
            if resolution != side:
                left, right, across = axis_taps(resolution, side, columns)
                level = torch.lerp(level[top - start], level[bottom - start], down[:, None, None])
                level = torch.lerp(level[:, left], level[:, right], across[None, :, None])
            total = level if total is None else total.add_(level)
        assert total is not None
        yield first, total.add_(folded.first_bias)


def _levels(plan: FeaturePlan) -> list[tuple[int, list[int]]]:
    """The plan's map indices grouped by resolution, coarse to fine."""
    grouped: dict[int, list[int]] = {}
    for index, one in enumerate(plan.maps):
        grouped.setdefault(one.resolution, []).append(index)
    return sorted(grouped.items())


def _band(native: NativeMap, start: int, stop: int, device: torch.device) -> torch.Tensor:
    """Rows start..stop of a native map as float32 on `device`."""
    if isinstance(native, torch.Tensor):
        return native[start:stop].to(device, torch.float32)
    return stored_to_tensor(np.array(native[start:stop])).to(device, torch.float32)


class Labeller:
    """Makes labelled pictures: generator and ensemble in, picture, mask and uncertainty out."""

    def __init__(self, ensemble: PixelEnsemble, device: str | torch.device = "cpu") -> None:
        """Fold `ensemble` once and keep it on `device`, where the generator must be as well."""
        self.spec = ensemble.spec
        self._folded = fold(ensemble).to(device)
        assert self.spec.dtype in DTYPES

    def label(
        self, generator: Generator, ws: torch.Tensor, noise: Noise, *, probabilities: bool = False
    ) -> LabelledImage:
        """Label one picture; `ws` float32 [num_ws, w_dim] or [1, num_ws, w_dim].

        Picture and features come from the same forward pass and noise, features rounded to the
        dtype the ensemble was trained on.
        """
        rendered = render(generator, ws, noise, self.spec.plan, self.spec.dtype)
        dense = label_dense(self._folded, rendered.maps, probabilities=probabilities)
        return LabelledImage(
            image=rendered.image,
            mask=dense.mask,
            uncertainty=dense.uncertainty,
            image_uncertainty=dense.image_uncertainty,
            probabilities=dense.probabilities,
        )
