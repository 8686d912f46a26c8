"""What the same classifier gives without the generator's features: colour, and blurred colour.

The pictures' own pixels are put in the place of the feature maps, so that everything after them is
the same code: rows, network, training, early stopping, scores. Colour is read from the stored
pictures as it is: standardisation takes care of its range. Blurred colour is written to scratch
beside the features, as shards of the same kind, and used again by a restart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hdgan.core.claimed_folders import remove_unfinished
from hdgan.core.masks import UNLABELLED
from hdgan.nets.moments import labelled_moments, merge_moments
from hdgan.nets.pyramid import FeatureMap, FeaturePlan
from hdgan.nets.shards import (
    FeatureSet,
    ImageFeatures,
    ShardDamaged,
    ShardRecord,
    open_shard,
    remove_shard,
    shard_bytes,
    verify_shard,
    write_shard,
)

BLUR_SIGMAS = (8.0, 4.0, 2.0, 1.0)  # pixels: neighbourhoods up to about 48 px wide
BLUR_DTYPE = "float16"
BLUR_FOLDER = "blurred"
BLOCK = 64  # rows and columns that are blurred together


def rgb_features(features: FeatureSet) -> FeatureSet:
    """The same images, splits and labels with colour, 0 to 255, as the only map."""
    side = features.plan.resolution
    images = tuple(_with_maps(one, (one.picture,)) for one in features.images)
    moments = merge_moments(
        (
            labelled_moments(one.maps, np.asarray(one.labels) != UNLABELLED)
            for one in images
            if one.split == "train"
        ),
        3,
    )
    return FeatureSet(
        plan=FeaturePlan(side, (FeatureMap("rgb", side, 3),)),
        dtype="float32",
        classes=features.classes,
        mean=moments.mean,
        std=moments.std,
        images=images,
    )


def blurred_features(
    features: FeatureSet,
    folder: Path,
    *,
    require_space: Callable[[int, int], None] = lambda size, images: None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureSet:
    """Colour, and before it colour blurred with each of `BLUR_SIGMAS`, in `folder`.

    Makes only what is not there already, from the same pictures and labels. `require_space` is
    asked for the bytes that so many images take before any is made; `on_image` is told how many of
    them are done, and may raise to stop.
    """
    plan = blur_plan(features.plan.resolution)
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    records: dict[str, ShardRecord] = {}
    for image in features.images:
        found = _usable(folder, image, plan)
        if found is not None:
            records[image.id] = found
        else:
            remove_shard(folder, image.id)
    missing = [one for one in features.images if one.id not in records]
    require_space(shard_bytes(plan, BLUR_DTYPE) * len(missing), len(missing))
    for done, image in enumerate(missing):
        on_image(done, len(missing))
        records[image.id] = _write_blurred(folder, image, plan, len(features.classes))
    rgb = rgb_features(features)
    ordered = [records[one.id] for one in features.images]
    merged = merge_moments(
        (one.moments for one in ordered if one.moments is not None), plan.channels
    )
    images = tuple(
        _with_maps(colour, (*open_shard(folder, record).maps, colour.picture))
        for colour, record in zip(rgb.images, ordered, strict=True)
    )
    return FeatureSet(
        plan=FeaturePlan(plan.resolution, (*plan.maps, *rgb.plan.maps)),
        dtype=BLUR_DTYPE,
        classes=features.classes,
        mean=np.concatenate([merged.mean, rgb.mean]),
        std=np.concatenate([merged.std, rgb.std]),
        images=images,
    )


def blur_plan(side: int) -> FeaturePlan:
    """The blurred maps of a picture, coarse to fine: at half a sigma per pixel, where nothing is
    lost, or at the picture's own resolution."""
    maps = tuple(
        FeatureMap(f"blur{sigma:g}", side // blur_step(sigma, side), 3) for sigma in BLUR_SIGMAS
    )
    return FeaturePlan(side, maps)


def blur_step(sigma: float, side: int) -> int:
    """Pixels of the picture per pixel of its blurred map: the largest power of two up to sigma / 2
    that divides the picture's side."""
    step = 1
    while 2 * step <= sigma / 2 and side % (2 * step) == 0:
        step *= 2
    return step


def blurred_map(picture: npt.NDArray[np.uint8], sigma: float, step: int) -> torch.Tensor:
    """uint8 [H, W, 3] -> float16 [H / step, W / step, 3]: a Gaussian blur (cut off at 3 sigma, edge
    pixels repeated), then means of step x step pixels.

    Block by block, each with what lies 3 sigma around it, as products with the same small matrix.
    """
    height, width = picture.shape[:2]
    radius = math.ceil(3 * sigma)
    weights = blur_weights(sigma, step, BLOCK)
    size = weights.shape[1]
    columns = np.clip(np.arange(-radius, width + -width % BLOCK + radius), 0, width - 1)
    result = torch.empty(height // step, width // step, 3, dtype=torch.float16)
    for first in range(0, height, BLOCK):
        rows = np.clip(np.arange(first - radius, first + BLOCK + radius), 0, height - 1)
        band = np.ascontiguousarray(picture[rows].transpose(0, 2, 1), dtype=np.float32)
        down_Y3X = (weights @ torch.from_numpy(band).flatten(1)).reshape(-1, 3, width)
        padded = down_Y3X[:, :, torch.from_numpy(columns)]
        blurred_Y3X = (padded.unfold(2, size, BLOCK) @ weights.T).flatten(2)
        here = result[first // step : (first + BLOCK) // step]
        here.copy_(blurred_Y3X.permute(0, 2, 1)[: len(here), : width // step])
    return result


def blur_weights(sigma: float, step: int, block: int) -> torch.Tensor:
    """What `block` pixels and those within 3 sigma of them give to the means of `step` blurred
    pixels each: float32 [block / step, block + 2 * radius]."""
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    gaussian = torch.exp(-0.5 * (offsets / sigma) ** 2)
    gaussian = gaussian / gaussian.sum()
    weights = torch.zeros(block, block + 2 * radius, dtype=torch.float64)
    for pixel in range(block):
        weights[pixel, pixel : pixel + 2 * radius + 1] = gaussian
    return weights.reshape(block // step, step, -1).mean(dim=1).to(torch.float32)


def _write_blurred(
    folder: Path, image: ImageFeatures, plan: FeaturePlan, classes: int
) -> ShardRecord:
    picture, side = np.asarray(image.picture), plan.resolution
    return write_shard(
        folder,
        image.id,
        split=image.split,
        plan=plan,
        dtype=BLUR_DTYPE,
        classes=classes,
        maps=(blurred_map(picture, sigma, blur_step(sigma, side)) for sigma in BLUR_SIGMAS),
        labels=np.asarray(image.labels),
        picture=picture,
    )


def _usable(folder: Path, image: ImageFeatures, plan: FeaturePlan) -> ShardRecord | None:
    """The record of a shard that verifies and was made from this very picture and its labels."""
    try:
        record = verify_shard(folder, image.id, split=image.split, plan=plan, dtype=BLUR_DTYPE)
        stored = open_shard(folder, record)
    except ShardDamaged:
        return None
    same = np.array_equal(stored.picture, image.picture) and np.array_equal(
        stored.labels, image.labels
    )
    return record if same else None


def _with_maps(
    image: ImageFeatures, maps: tuple[torch.Tensor | npt.NDArray[np.uint8], ...]
) -> ImageFeatures:
    return ImageFeatures(image.id, image.split, maps, image.labels, image.picture)
