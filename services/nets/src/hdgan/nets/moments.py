"""Mean and standard deviation per channel in float64, mergeable (Chan et al. 1979)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdgan.nets.pyramid import NativeMap, sample_rows

ROWS_PER_CHUNK = 2048  # with 1000 channels 16 MB in float64: small enough for the caches


@dataclass(frozen=True)
class Moments:
    """Of `count` rows: the mean and the sum of squared deviations from it, float64 [C]."""

    count: int
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Population standard deviation per channel, float64 [C]."""
        return np.sqrt(self.deviation / max(self.count, 1))

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> Moments:
        return Moments(
            int(value["count"]),
            np.asarray(value["mean"], dtype=np.float64),
            np.asarray(value["deviation"], dtype=np.float64),
        )


def moments_of(rows_NC: torch.Tensor) -> Moments:
    """Moments of float32 rows [N, C], computed in float64."""
    values = rows_NC.to(torch.float64)
    count = int(values.shape[0])
    mean = values.sum(dim=0) / max(count, 1)
    deviation = (values - mean).square_().sum(dim=0)
    return Moments(count, mean.cpu().numpy(), deviation.cpu().numpy())


def merge_moments(parts: Iterable[Moments], channels: int) -> Moments:
    """Moments of all rows together; the order of `parts` fixes the last bits."""
    count = 0
    mean = np.zeros(channels, dtype=np.float64)
    deviation = np.zeros(channels, dtype=np.float64)
    for part in parts:
        if part.count == 0:
            continue
        total = count + part.count
        delta = part.mean - mean
        deviation = deviation + part.deviation + delta**2 * (count * part.count / total)
        mean = mean + delta * (part.count / total)
        count = total
    return Moments(count, mean, deviation)


def labelled_moments(
    maps: list[NativeMap], rows: npt.NDArray[np.int64], resolution: int, channels: int
) -> Moments:
    """Moments of a picture's sampled vectors at flat pixel indices `rows`, in bounded chunks."""
    chunks = (
        moments_of(
            sample_rows(maps, torch.from_numpy(rows[i : i + ROWS_PER_CHUNK].copy()), resolution)
        )
        for i in range(0, len(rows), ROWS_PER_CHUNK)
    )
    return merge_moments(chunks, channels)
