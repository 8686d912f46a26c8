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
from hdgan.nets.cpu_labelling import cpu_logits_bands, fits_cpu
from hdgan.nets.ensemble import FoldedEnsemble, PixelEnsemble, fold
from hdgan.nets.generator import Generator, Noise
from hdgan.nets.pyramid import DTYPES, NativeMap, axis_taps, band_of, native_rows, render
from hdgan.nets.sending import sent

BAND_BYTES = 64 * 2**20  # what is worked on at once: hidden values or logits of a band of rows
GPU_BANDS = 16  # a GPU's bands are that much larger


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


@dataclass(frozen=True)
class Beliefs:
    """What an ensemble thinks of N pixels.

    `mean` float32 [K, N]: probabilities, mean over members. `uncertainty` [N]: normalised
    Jensen-Shannon divergence between the members' *probabilities*, H(mean p) - mean H(p) over
    min(ln members, ln classes): 0 where all agree, 1 where they are certain of as different
    classes as can be, 0 for one member. `entropy` [N]: of the mean, over ln classes.
    """

    mean: torch.Tensor
    uncertainty: torch.Tensor
    entropy: torch.Tensor


def beliefs(logits_MKN: torch.Tensor) -> Beliefs:
    """Probabilities and uncertainty from the members' logits, float32 [M, K, N]."""
    members, classes, _ = logits_MKN.shape
    log_p_MKN = logits_MKN.log_softmax(dim=1)
    p_MKN = log_p_MKN.exp()
    mean_KN = p_MKN.mean(dim=0)
    total_N = entropy(mean_KN, dim=0)
    bound = min(math.log(members), math.log(classes))
    if bound == 0.0:
        unsure_N = torch.zeros_like(total_N)
    else:
        # The softmax knows ln p anyway; taking it again costs more than all the rest.
        within_N = p_MKN.mul_(log_p_MKN).sum(dim=(0, 1)).div_(-members)
        unsure_N = ((total_N - within_N) / bound).clamp_(0.0, 1.0)
    return Beliefs(mean_KN, unsure_N, (total_N / math.log(classes)).clamp_(0.0, 1.0))


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
    side, classes = folded.spec.plan.resolution, len(folded.spec.classes)
    mask = np.empty((side, side), dtype=np.uint8)
    unsure = np.empty((side, side), dtype=np.float32)
    spread = np.empty((side, side), dtype=np.float32)
    mean = np.empty((classes, side, side), dtype=np.float32) if probabilities else None
    for first, band in iter_dense(folded, maps, probabilities=probabilities, budget=budget):
        here = slice(first, first + len(band.mask))
        mask[here], unsure[here], spread[here] = band.mask, band.uncertainty, band.entropy
        if mean is not None and band.probabilities is not None:
            mean[:, here] = band.probabilities
    return DensePrediction(mask, unsure, spread, mean)


def iter_dense(
    folded: FoldedEnsemble,
    maps: Sequence[NativeMap],
    *,
    probabilities: bool = False,
    budget: int = BAND_BYTES,
) -> Iterator[tuple[int, DensePrediction]]:
    """`label_dense` in bands of rows: the first row of each, and its prediction.

    `budget`: bytes for what is worked on at once, roughly; it does not change the result.
    """
    plan = folded.spec.plan
    shapes = [tuple(one.shape) for one in maps]
    planned = [(one.resolution, one.resolution, one.channels) for one in plan.maps]
    if shapes != planned:
        raise InternalError(f"maps have shapes {shapes}, the ensemble's plan is {planned}")
    for first, logits_MKRW in logits_bands(folded, maps, budget):
        rows, side = logits_MKRW.shape[2:]
        with torch.no_grad():
            found = beliefs(logits_MKRW.flatten(2))
            mask_N = found.mean.argmax(dim=0).to(torch.uint8)
        yield (
            first,
            DensePrediction(
                mask_N.reshape(rows, side).cpu().numpy(),
                found.uncertainty.reshape(rows, side).cpu().numpy(),
                found.entropy.reshape(rows, side).cpu().numpy(),
                found.mean.reshape(-1, rows, side).cpu().numpy() if probabilities else None,
            ),
        )


def logits_bands(
    folded: FoldedEnsemble, maps: Sequence[NativeMap], budget: int = BAND_BYTES
) -> Iterator[tuple[int, torch.Tensor]]:
    """Bands of the members' logits: first row, float32 [M, K, rows, W]. Valid until the next."""
    if folded.first_bias.device.type == "cpu" and fits_cpu(folded.spec):
        return cpu_logits_bands(folded, maps, budget)
    return torch_logits_bands(folded, maps, budget)


@torch.no_grad()
def torch_logits_bands(
    folded: FoldedEnsemble, maps: Sequence[NativeMap], budget: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """`logits_bands` in torch, on any device: what the compiled loops are compared with."""
    side = folded.spec.plan.resolution
    for first, pre_RWF in _hidden_bands(folded, maps, budget):
        rows = pre_RWF.shape[0]
        logits_MNK = folded.finish(pre_RWF.reshape(rows * side, -1))
        yield first, logits_MNK.permute(0, 2, 1).reshape(*logits_MNK.shape[::2], rows, side)


def _hidden_bands(
    folded: FoldedEnsemble, maps: Sequence[NativeMap], budget: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Bands of the first layer's pre-activations: (first output row, float32 [rows, W, M * H])."""
    plan = folded.spec.plan
    device = folded.first_bias.device
    if device.type == "cuda":
        budget *= GPU_BANDS  # otherwise starting its programs takes longer than running them
    side, width = plan.resolution, int(folded.first_bias.shape[0])
    step = band_rows(side, width, budget)
    columns = torch.arange(side, device=device)
    levels = plan.levels()
    for first in range(0, side, step):
        rows = torch.arange(first, min(first + step, side), device=device)
        total: torch.Tensor | None = None
        for resolution, members in levels:
            # Maps of one resolution are summed before they are upsampled, once.
            top, bottom, down = axis_taps(resolution, side, rows)
            start, stop = native_rows(resolution, side, first, len(rows))
            native: torch.Tensor | None = None
            for index in members:
                # Sent as it is stored: half the bytes, and the device converts faster.
                band = sent(band_of(maps[index], start, stop), device).to(torch.float32)
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
