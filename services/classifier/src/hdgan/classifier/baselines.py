"""What the same classifier gives without the generator's features: colour, and blurred colour.

The pictures' own pixels are put in the place of the feature maps, so that everything after them is
the same code: rows, network, training, early stopping, scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from hdgan.core.masks import UNLABELLED
from hdgan.nets.moments import labelled_moments, merge_moments
from hdgan.nets.pyramid import FeatureMap, FeaturePlan
from hdgan.nets.shards import FeatureSet, ImageFeatures

BLUR_SIGMAS = (1.0, 2.0, 4.0, 8.0)  # pixels: neighbourhoods up to about 48 px wide


def rgb_features(features: FeatureSet, sigmas: Sequence[float] = ()) -> FeatureSet:
    """The same images, splits and labels with colour as the only map.

    Channels: RGB in [-1, 1], then RGB blurred with each of `sigmas` (pixels).
    """
    side = features.plan.resolution
    channels = 3 * (1 + len(sigmas))
    plan = FeaturePlan(side, (FeatureMap("rgb", side, channels),))
    images = tuple(
        ImageFeatures(
            id=one.id,
            split=one.split,
            maps=(colour_map(np.asarray(one.picture), sigmas),),
            labels=one.labels,
            picture=one.picture,
        )
        for one in features.images
    )
    moments = merge_moments(
        (
            labelled_moments(one.maps, np.asarray(one.labels) != UNLABELLED)
            for one in images
            if one.split == "train"
        ),
        channels,
    )
    return FeatureSet(
        plan=plan,
        dtype="float32",
        classes=features.classes,
        mean=moments.mean,
        std=moments.std,
        images=images,
    )


def colour_map(picture: npt.NDArray[np.uint8], sigmas: Sequence[float]) -> torch.Tensor:
    """uint8 [H, W, 3] -> float32 [H, W, 3 * (1 + len(sigmas))], RGB in [-1, 1] and its blurs."""
    rgb_HW3 = torch.from_numpy(picture.astype(np.float32)) / 127.5 - 1.0
    image_13HW = rgb_HW3.permute(2, 0, 1)[None]
    levels = [image_13HW, *(gaussian_blur(image_13HW, sigma) for sigma in sigmas)]
    return torch.cat(levels, dim=1)[0].permute(1, 2, 0).contiguous()


def gaussian_blur(image_BCHW: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian blur, cut off at 3 sigma, edge pixels repeated; same shape."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    channels = image_BCHW.shape[1]
    along_y = weights.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    along_x = weights.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(image_BCHW, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, along_y, groups=channels), along_x, groups=channels)
