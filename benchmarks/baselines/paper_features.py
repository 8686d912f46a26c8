"""Features the way the paper handles them: every image upsampled to its full size.

One tensor [H, W, C] per image with the vectors of all pixels, chunks of 65,536 rows that all
members share, members one after the other; training rows come from a `Dataset` of single pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from hdgan.nets.ensemble import NORM_EPSILON, EnsembleSpec, PixelEnsemble

CHUNK = 65_536


def upsampled_rows(maps: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """All vectors float32 [H * W, C] of a picture from its maps [h, w, C_m]."""
    # Of the plain ways to write this down, channels first is the fastest here.
    native = (one.float().permute(2, 0, 1).contiguous()[None] for one in maps)
    levels = [F.interpolate(one, (side, side), mode="bilinear")[0] for one in native]
    return torch.cat(levels).flatten(1).T.contiguous()


def plain_members(ensemble: PixelEnsemble) -> list[nn.Sequential]:
    """The members as ordinary modules, each (Linear, ReLU, BatchNorm, Dropout) per hidden layer."""
    spec = ensemble.spec
    members = [plain_member(spec) for _ in range(spec.members)]
    for index, member in enumerate(members):
        linears = [one for one in member if isinstance(one, nn.Linear)]
        norms = [one for one in member if isinstance(one, nn.BatchNorm1d)]
        with torch.no_grad():
            for layer, linear in enumerate(linears):
                linear.weight.copy_(ensemble.weights[layer][index].T)
                linear.bias.copy_(ensemble.biases[layer][index])
            for layer, norm in enumerate(norms):
                norm.weight.copy_(ensemble.norm_weights[layer][index])
                norm.bias.copy_(ensemble.norm_biases[layer][index])
                for name in ("running_mean", "running_var"):
                    value = ensemble.get_buffer(f"{name}{layer}")[index]
                    norm.get_buffer(name).copy_(value)
        member.eval()
    return members


def plain_member(spec: EnsembleSpec) -> nn.Sequential:
    """One member with random weights."""
    modules: list[nn.Module] = []
    widths = spec.widths
    for inner, outer in itertools.pairwise(widths[:-1]):
        norm = nn.BatchNorm1d(outer, eps=NORM_EPSILON)
        modules += [nn.Linear(inner, outer), nn.ReLU(), norm, nn.Dropout(spec.dropout)]
    return nn.Sequential(*modules, nn.Linear(widths[-2], widths[-1]))


@torch.no_grad()
def label_upsampled(
    ensemble: PixelEnsemble, members: Sequence[nn.Module], maps: Sequence[torch.Tensor]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], torch.Tensor]:
    """Mask, Jensen-Shannon uncertainty (not normalised) and mean probabilities of all pixels."""
    side = ensemble.spec.plan.resolution
    correction = torch.from_numpy(ensemble.spec.log_prior_correction.astype(np.float32))
    means, uncertain = [], []
    for chunk in torch.split(upsampled_rows(maps, side), CHUNK):
        rows = ensemble.standardise(chunk)
        each = [(member(rows) + correction).softmax(dim=1) for member in members]
        p_MNK = torch.stack(each)
        mean = p_MNK.mean(dim=0)
        within = torch.special.entr(p_MNK).sum(dim=2).mean(dim=0)
        uncertain.append(torch.special.entr(mean).sum(dim=1) - within)
        means.append(mean)
    mean_NK = torch.cat(means)
    mask = mean_NK.argmax(dim=1).to(torch.uint8).reshape(side, side).numpy()
    return mask, torch.cat(uncertain).reshape(side, side).numpy(), mean_NK


class PixelDataset(Dataset[tuple[torch.Tensor, int]]):
    """One labelled pixel per item, its vector sampled from stored maps when it is asked for."""

    def __init__(
        self,
        images: Sequence[Sequence[npt.NDArray[np.generic]]],
        labels: Sequence[npt.NDArray[np.uint8]],
    ) -> None:
        """`images`: per image its maps [h, w, C_m]; `labels`: uint8 [H, W], all labelled."""
        self._images = images
        self._labels = labels
        self._side = len(labels[0])

    def __len__(self) -> int:
        return len(self._images) * self._side**2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, pixel = divmod(index, self._side**2)
        y, x = divmod(pixel, self._side)
        parts = [self._sample(one, y, x) for one in self._images[image]]
        return torch.from_numpy(np.concatenate(parts)), int(self._labels[image][y, x])

    def _sample(self, native: npt.NDArray[np.generic], y: int, x: int) -> npt.NDArray[np.float32]:
        scale = len(native) / self._side
        row, column = (max((at + 0.5) * scale - 0.5, 0.0) for at in (y, x))
        top, left = int(row), int(column)
        bottom, right = min(top + 1, len(native) - 1), min(left + 1, len(native) - 1)
        down, across = np.float32(row - top), np.float32(column - left)
        one = np.float32(1)
        upper = native[top, left].astype(np.float32) * (one - across)
        upper += native[top, right].astype(np.float32) * across
        lower = native[bottom, left].astype(np.float32) * (one - across)
        lower += native[bottom, right].astype(np.float32) * across
        result: npt.NDArray[np.float32] = upper * (one - down) + lower * down
        return result
