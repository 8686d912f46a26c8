"""The feature pyramid: which convolution outputs make a pixel's vector, and how they are sampled.

A pixel's vector is the bilinear sample (`align_corners=False`) of every planned map *directly* at
the pixel's centre, coarse to fine. It equals `torch.nn.functional.interpolate(map, size=output,
mode="bilinear", align_corners=False)` gathered at the pixel, without the upsampled tensor ever
existing. Native maps are channels-last, [h, w, C], so a sample touches four contiguous runs of
memory per map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdgan.core.errors import InternalError, RequestError
from hdgan.nets.architecture import Architecture
from hdgan.nets.generator import Generator, Noise, to_uint8

DTYPES: Mapping[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}

NativeMap = torch.Tensor | npt.NDArray[Any]
"""[h, w, C]: a tensor, or a numpy array / memory map (bfloat16 as its uint16 view)."""


@dataclass(frozen=True)
class FeatureMap:
    """One native map: its name (`b64.conv0`), side length in its own pixels, and channels."""

    name: str
    resolution: int
    channels: int


@dataclass(frozen=True)
class FeaturePlan:
    """The maps that make a pixel's vector, coarse to fine, and the side length of the picture."""

    resolution: int
    maps: tuple[FeatureMap, ...]

    @property
    def channels(self) -> int:
        """Length of a pixel's vector."""
        return sum(one.channels for one in self.maps)

    def slices(self) -> tuple[slice, ...]:
        """Where each map's channels lie in a pixel's vector."""
        ends = np.cumsum([one.channels for one in self.maps]).tolist()
        return tuple(
            slice(end - one.channels, end) for end, one in zip(ends, self.maps, strict=True)
        )

    def levels(self) -> list[tuple[int, list[int]]]:
        """Resolutions, coarse to fine, and the indices of the maps that have each."""
        grouped: dict[int, list[int]] = {}
        for index, one in enumerate(self.maps):
            grouped.setdefault(one.resolution, []).append(index)
        return sorted(grouped.items())

    def bytes_per_image(self, dtype: str) -> int:
        """Bytes that one picture's native maps take in `dtype`."""
        item = DTYPES[dtype].itemsize
        return sum(one.resolution**2 * one.channels * item for one in self.maps)

    def to_json(self) -> dict[str, Any]:
        return {
            "resolution": self.resolution,
            "maps": [
                {"name": one.name, "resolution": one.resolution, "channels": one.channels}
                for one in self.maps
            ],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> FeaturePlan:
        """Parse what `to_json` made; `KeyError`, `TypeError` or `ValueError` if it is not that."""
        resolution = int(value["resolution"])
        maps = tuple(
            FeatureMap(str(one["name"]), int(one["resolution"]), int(one["channels"]))
            for one in value["maps"]
        )
        for one in maps:
            if not (1 <= one.resolution <= resolution <= 16384 and 1 <= one.channels <= 65536):
                raise ValueError(f"map {one.name!r} has an impossible size")
        if not maps:
            raise ValueError("the plan has no maps")
        return FeaturePlan(resolution, maps)


def feature_plan(arch: Architecture, blocks: int) -> FeaturePlan:
    """The outputs of every convolution in the last `blocks` synthesis blocks, coarse to fine.

    The 4 x 4 block has one convolution, every other block two. Raises `RequestError` if the
    generator has fewer blocks than asked for: using fewer silently would change what the
    classifier sees.
    """
    available = list(arch.block_resolutions)
    if not 1 <= blocks <= len(available):
        raise RequestError(
            f"spec.extractor.blocks is {blocks}, but the {arch.resolution} px generator has "
            f"{len(available)} synthesis blocks: set extractor.blocks to 1..{len(available)}"
        )
    maps = []
    for resolution in available[len(available) - blocks :]:
        convolutions = ("conv1",) if resolution == 4 else ("conv0", "conv1")
        for convolution in convolutions:
            maps.append(
                FeatureMap(f"b{resolution}.{convolution}", resolution, arch.channels(resolution))
            )
    return FeaturePlan(arch.resolution, tuple(maps))


def axis_taps(
    native: int, output: int, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where output pixel centres fall along one axis of a native map.

    `positions` int64 [N] in 0..output-1. Returns (low, high, weight): indices of the two native
    pixels (int64 [N]) and the weight of `high` (float32 [N]), clamped at the borders as
    `align_corners=False` does.
    """
    scale = native / output
    source = ((positions.to(torch.float64) + 0.5) * scale - 0.5).clamp_(min=0.0)
    low = source.floor().to(torch.int64).clamp_(max=native - 1)
    high = (low + 1).clamp_(max=native - 1)
    return low, high, (source - low).to(torch.float32)


def native_rows(native: int, output: int, first: int, count: int) -> tuple[int, int]:
    """The native rows, from and to (exclusive), that `count` output rows from `first` on touch."""
    ends = torch.tensor([first, first + count - 1])
    low, high, _ = axis_taps(native, output, ends)
    # At the picture's own resolution the second tap has no weight: only its own rows.
    return int(low[0]), int((low if native == output else high)[1]) + 1


def band_of(native: NativeMap, start: int, stop: int) -> torch.Tensor:
    """Rows start..stop of a native map, [rows, w, C] in its own dtype."""
    if isinstance(native, torch.Tensor):
        return native[start:stop]
    # A copy, because a tensor over read-only memory would warn.
    return stored_to_tensor(np.array(native[start:stop]))


def gather_pixels(native: NativeMap, index: torch.Tensor) -> torch.Tensor:
    """Rows of a native map at flat pixel indices (int64 [N]) as float32 [N, C].

    Rows of a memory map are copied out by numpy: a tensor over read-only memory would warn.
    """
    if isinstance(native, torch.Tensor):
        return native.reshape(-1, native.shape[-1])[index].to(torch.float32)
    flat = native.reshape(-1, native.shape[-1])
    return stored_to_tensor(flat[index.cpu().numpy()]).to(torch.float32)


def stored_to_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """A writable stored array as a tensor; uint16 is the on-disk form of bfloat16."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


def tensor_to_stored(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """The on-disk form of a tensor: numpy has no bfloat16, so that is stored as uint16."""
    host = tensor.detach().cpu().contiguous()
    if host.dtype == torch.bfloat16:
        host = host.view(torch.uint16)
    array: npt.NDArray[Any] = host.numpy()
    return array


def sample_rows(maps: Sequence[NativeMap], rows: torch.Tensor, resolution: int) -> torch.Tensor:
    """Vectors of the picture's pixels: bilinear samples of every map at the pixel centres.

    `maps` native [h, w, C_m], coarse to fine; `rows` int64 [N], flat pixel indices (y * resolution
    + x) of the square picture. Returns float32 [N, sum of C_m].
    """
    y, x = rows // resolution, rows % resolution
    parts = []
    for native in maps:
        height, width = int(native.shape[0]), int(native.shape[1])
        if height == resolution and width == resolution:
            parts.append(gather_pixels(native, rows))
            continue
        top, bottom, down_N = axis_taps(height, resolution, y)
        left, right, across_N = axis_taps(width, resolution, x)
        down, across = down_N[:, None], across_N[:, None]
        upper = gather_pixels(native, top * width + left).mul_(1 - across)
        upper += gather_pixels(native, top * width + right).mul_(across)
        lower = gather_pixels(native, bottom * width + left).mul_(1 - across)
        lower += gather_pixels(native, bottom * width + right).mul_(across)
        parts.append(upper.mul_(1 - down).add_(lower.mul_(down)))
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Rendered:
    """A picture and its native maps, from one forward pass.

    `image` uint8 [H, W, 3] on the CPU; `maps` [h, w, C] in the shard dtype on the generator's
    device, in the plan's order.
    """

    image: npt.NDArray[np.uint8]
    maps: tuple[torch.Tensor, ...]


class FeatureCollector:
    """`on_feature` callback that keeps the planned maps, rounded to the shard dtype.

    Rounding at once frees the float32 output as soon as the next layer has used it. A value that is
    not finite in the shard dtype is a `RequestError`: a clipped feature would be silently wrong.
    """

    def __init__(self, plan: FeaturePlan, dtype: str) -> None:
        self._wanted = {one.name: one for one in plan.maps}
        self._plan = plan
        self._dtype = dtype
        self._maps: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, x_BCHW: torch.Tensor) -> None:
        planned = self._wanted.get(name)
        if planned is None:
            return
        expected = (1, planned.channels, planned.resolution, planned.resolution)
        if tuple(x_BCHW.shape) != expected:
            raise InternalError(
                f"feature map {name} has shape {tuple(x_BCHW.shape)}, planned {expected}"
            )
        rounded = x_BCHW[0].permute(1, 2, 0).to(DTYPES[self._dtype]).contiguous()
        if not bool(torch.isfinite(rounded).all()):
            raise overflow_error(name, x_BCHW, self._dtype)
        self._maps[name] = rounded

    def maps(self) -> tuple[torch.Tensor, ...]:
        missing = [name for name in self._wanted if name not in self._maps]
        if missing:
            raise InternalError(f"the generator gave no feature map {', '.join(missing)}")
        return tuple(self._maps[one.name] for one in self._plan.maps)


def overflow_error(name: str, x: torch.Tensor, dtype: str) -> RequestError:
    """The error for a map that does not fit the shard dtype, saying which and what to do."""
    if not bool(torch.isfinite(x).all()):
        return RequestError(
            f"feature map {name} is not finite already in {x.dtype}: the generator is broken "
            "(diverged training?); train it again or pick an earlier snapshot"
        )
    peak = float(x.abs().max())
    return RequestError(
        f"feature map {name} reaches {peak:.4g}, beyond what {dtype} can hold: "
        "set spec.extractor.dtype to bfloat16 or float32"
    )


@torch.no_grad()
def render(
    generator: Generator, ws: torch.Tensor, noise: Noise, plan: FeaturePlan, dtype: str
) -> Rendered:
    """One picture and its planned maps from the same forward pass and the same noise.

    `ws` float32 [1, num_ws, w_dim] or [num_ws, w_dim]; `noise` as `Generator.synthesis` takes it.
    """
    collector = FeatureCollector(plan, dtype)
    ws_1WD = ws if ws.ndim == 3 else ws[None]
    image = generator.synthesis(ws_1WD, noise=noise, on_feature=collector)
    picture: npt.NDArray[np.uint8] = np.ascontiguousarray(to_uint8(image)[0].cpu().numpy())
    return Rendered(picture, collector.maps())
