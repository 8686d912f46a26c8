"""The members' logits of every pixel on a CPU: bands of rows, tiles of a band on all cores.

What `labelling.torch_logits_bands` computes, with the hidden values of a tile never leaving the
caches: they are 2.6 times as many numbers as the features, and torch would carry each of them
through memory several times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from threading import local

import numpy as np
import numpy.typing as npt
import torch

from hdgan.nets.ensemble import EnsembleSpec, FoldedEnsemble
from hdgan.nets.kernels.dense import scratch_size, tile_logits
from hdgan.nets.kernels.products import LANES
from hdgan.nets.pyramid import FeaturePlan, NativeMap, band_of, native_rows

TILE_ROWS = 64  # a tile's native hidden values of one member then about fill a core's cache
TILE_COLUMNS = 128
COPIES = 3  # logits, their probabilities and the logarithms of these

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """An ensemble's weights as `kernels.dense.tile_logits` takes them: widths padded with zeros."""

    weights: Floats
    levels: Integers
    hidden: int
    bias: int
    layers: Integers
    widest: int


def fits_cpu(spec: EnsembleSpec) -> bool:
    """Whether the compiled loops know such an ensemble: its finest maps have the picture's
    resolution, and there is a hidden layer."""
    return spec.plan.levels()[-1][0] == spec.plan.resolution and len(spec.hidden) > 0


@lru_cache(maxsize=4)
def pack(folded: FoldedEnsemble) -> Packed:
    """Bring an ensemble's weights into one array. The levels' data offsets stay 0."""
    spec = folded.spec
    members, width = spec.members, spec.widths[1]
    hidden = _padded(width)
    parts: list[Floats] = []

    def add(values: Floats) -> int:
        offset = sum(one.size for one in parts)
        parts.append(values.reshape(-1))
        return offset

    levels = []
    for resolution, indices in spec.plan.levels():
        stacked = torch.cat([folded.first[index] for index in indices])
        stacked_CMH = stacked.reshape(-1, members, width).numpy()
        padded = np.zeros((members, len(stacked), hidden), dtype=np.float32)
        padded[:, :, :width] = stacked_CMH.transpose(1, 0, 2)
        levels.append([0, 0, 0, resolution, len(stacked), add(padded)])
    first_bias = np.zeros((members, hidden), dtype=np.float32)
    first_bias[:, :width] = folded.first_bias.reshape(members, width).numpy()
    bias = add(first_bias)
    layers = []
    for weight_MIO, bias_MO in folded.later:
        inner, outer = weight_MIO.shape[1:]
        weights = np.zeros((members, _padded(inner), _padded(outer)), dtype=np.float32)
        weights[:, :inner, :outer] = weight_MIO.numpy()
        biases = np.zeros((members, _padded(outer)), dtype=np.float32)
        biases[:, :outer] = bias_MO.numpy()
        layers.append([_padded(inner), _padded(outer), add(weights), add(biases)])
    widest = max(hidden, *(layer[1] for layer in layers))
    table = np.array(levels, dtype=np.int64), np.array(layers, dtype=np.int64)
    return Packed(np.concatenate(parts), table[0], hidden, bias, table[1], widest)


def cpu_logits_bands(
    folded: FoldedEnsemble, maps: Sequence[NativeMap], budget: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """See `labelling.logits_bands`."""
    spec, packed = folded.spec, pack(folded)
    side, members, classes = spec.plan.resolution, spec.members, len(spec.classes)
    step = max(1, min(TILE_ROWS, side, budget // (4 * COPIES * members * classes * side)))
    own = local()  # each thread's memory to work with
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for first in range(0, side, step):
            rows = min(step, side - first)
            data, levels = _band_data(packed, spec.plan, maps, first, rows)
            size = scratch_size(levels, packed.hidden, packed.widest, side, TILE_COLUMNS)
            logits = np.empty((members, classes, rows, side), dtype=np.float32)

            def label(left: int) -> None:
                if getattr(own, "scratch", np.empty(0)).size < size:  # noqa: B023
                    own.scratch = np.empty(size, dtype=np.float32)  # noqa: B023
                tile_logits(
                    data,  # noqa: B023
                    levels,  # noqa: B023
                    packed.weights,
                    packed.hidden,
                    packed.bias,
                    packed.layers,
                    packed.widest,
                    side,
                    first,  # noqa: B023
                    rows,  # noqa: B023
                    left,
                    min(left + TILE_COLUMNS, side),
                    own.scratch,
                    logits,  # noqa: B023
                )

            for _ in pool.map(label, range(0, side, TILE_COLUMNS)):
                pass
            yield first, torch.from_numpy(logits)


def _band_data(
    packed: Packed, plan: FeaturePlan, maps: Sequence[NativeMap], first: int, rows: int
) -> tuple[Floats, Integers]:
    """The native rows of all levels that a band touches, one after the other, and where each is."""
    levels = packed.levels.copy()
    spans = [native_rows(side, plan.resolution, first, rows) for side, _ in plan.levels()]
    sizes = [
        (stop - start) * level[3] * level[4]
        for (start, stop), level in zip(spans, levels, strict=True)
    ]
    data = torch.empty(int(sum(sizes)))
    offset = 0
    for level, size, (start, stop), (side, indices) in zip(
        levels, sizes, spans, plan.levels(), strict=True
    ):
        level[:3] = offset, start, stop - start
        target = data[offset : offset + size].view(stop - start, side, -1)
        # Converting while joining would go number by number.
        bands = [band_of(maps[index], start, stop).to(torch.float32) for index in indices]
        torch.cat(bands, dim=2, out=target)
        offset += size
    return data.numpy(), levels


def _padded(width: int) -> int:
    return -(-width // LANES) * LANES
