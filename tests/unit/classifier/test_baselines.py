"""Colour and blurred colour in the place of features: from the stored pictures, written once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

from hdgan.classifier.baselines import (
    BLUR_SIGMAS,
    blur_plan,
    blur_step,
    blurred_features,
    blurred_map,
    rgb_features,
)
from hdgan.nets.cpu_rows import cpu_rows
from hdgan.nets.ensemble import ClassLabel, EnsembleSpec, PixelEnsemble, fold
from hdgan.nets.labelling import label_dense
from hdgan.nets.pyramid import FeatureMap, FeaturePlan, sample_rows
from hdgan.nets.shards import FeatureSet, open_features, write_index, write_shard

SIDE = 32
SPLITS = ("train", "train", "val", "test")


def picture(seed: int) -> npt.NDArray[np.uint8]:
    """Smooth colour with some noise, brighter with the seed."""
    stream = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = np.stack([np.sin(7 * y), np.cos(5 * x), np.sin(9 * x * y)], axis=2) * 60
    return (
        (waves + 110 + 5 * seed + stream.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8)
    )


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    plan = FeaturePlan(SIDE, (FeatureMap("b32.conv1", SIDE, 2),))
    root = tmp_path / "features"
    records = []
    for seed, split in enumerate(SPLITS):
        labels = np.random.default_rng(seed).integers(0, 3, (SIDE, SIDE)).astype(np.uint8)
        labels[labels == 2] = 255
        records.append(
            write_shard(
                root, f"image{seed}", split=split, plan=plan, dtype="float16", classes=2,
                maps=[torch.zeros(SIDE, SIDE, 2, dtype=torch.float16)], labels=labels,
                picture=picture(seed),
            )
        )  # fmt: skip
    write_index(root, records, ["a", "b"])
    return open_features(root)


def gaussian(image_HW3: npt.NDArray[np.uint8], sigma: float) -> npt.NDArray[np.float64]:
    """By the definition: weights of every pair of rows and columns, edges repeated."""
    radius = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    result = image_HW3.astype(np.float64)
    for axis in (0, 1):
        size = result.shape[axis]
        result = sum(
            weight * np.take(result, np.clip(np.arange(size) + offset, 0, size - 1), axis)
            for weight, offset in zip(weights, range(-radius, radius + 1), strict=True)
        )
    return result


def test_colour_is_the_stored_picture_and_takes_no_memory(features: FeatureSet) -> None:
    rgb = rgb_features(features)
    assert rgb.plan.channels == 3
    for before, after in zip(features.images, rgb.images, strict=True):
        assert (before.id, before.split) == (after.id, after.split)
        assert after.maps[0] is before.picture
        assert after.labels is before.labels
    labelled = np.concatenate(
        [np.asarray(one.picture)[np.asarray(one.labels) != 255] for one in features.split("train")]
    )
    np.testing.assert_allclose(rgb.mean, labelled.mean(axis=0))
    np.testing.assert_allclose(rgb.std, labelled.std(axis=0))


@pytest.mark.parametrize("sigma", BLUR_SIGMAS)
@pytest.mark.parametrize("shape", [(32, 32), (160, 96), (8, 200)])
def test_blur_is_a_gaussian_at_any_block(sigma: float, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    step = blur_step(sigma, min(shape))
    expected = gaussian(image, sigma)
    blocks = expected.reshape(shape[0] // step, step, shape[1] // step, step, 3).mean(axis=(1, 3))
    found = blurred_map(image, sigma, step)
    assert found.dtype == torch.float16
    np.testing.assert_allclose(found.float().numpy(), blocks, atol=0.07)  # of 255: float16


def test_the_blurred_maps_are_as_fine_as_their_blur() -> None:
    assert {one.name: one.resolution for one in blur_plan(4096).maps} == {
        "blur8": 1024, "blur4": 2048, "blur2": 4096, "blur1": 4096,
    }  # fmt: skip
    assert [one.resolution for one in blur_plan(2).maps] == [1, 1, 2, 2]


def test_a_coarse_blurred_map_gives_the_blur_of_the_full_picture() -> None:
    """What is lost by keeping a blur at half a sigma per pixel is small against its contrast."""
    image = np.kron(picture(1), np.ones((8, 8, 1), dtype=np.uint8))
    for sigma in (4.0, 8.0):
        step = blur_step(sigma, 256)
        small = blurred_map(image, sigma, step).float().permute(2, 0, 1)[None]
        large = F.interpolate(small, size=(256, 256), mode="bilinear")[0].permute(1, 2, 0).numpy()
        full = gaussian(image, sigma)
        assert np.abs(large - full).mean() < 0.04 * full.std(axis=(0, 1)).mean()


def test_blurred_features_are_blurs_and_colour_with_their_statistics(
    features: FeatureSet, tmp_path: Path
) -> None:
    found = blurred_features(features, tmp_path / "blurred")
    assert [one.name for one in found.plan.maps] == ["blur8", "blur4", "blur2", "blur1", "rgb"]
    rows = []
    for before, after in zip(features.images, found.images, strict=True):
        assert after.maps[-1] is before.picture
        expected = gaussian(np.asarray(before.picture), 2.0)
        np.testing.assert_allclose(np.asarray(after.maps[2], dtype=float), expected, atol=0.07)
        if after.split == "train":
            chosen = np.flatnonzero(np.asarray(after.labels).reshape(-1) != 255)
            rows.append(sample_rows(after.maps, torch.from_numpy(chosen), SIDE).double().numpy())
    everything = np.concatenate(rows)
    np.testing.assert_allclose(found.mean, everything.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.std, everything.std(axis=0), rtol=1e-5)


def test_reading_and_labelling_take_the_stored_kinds(features: FeatureSet, tmp_path: Path) -> None:
    """uint8 pictures beside float16 maps: compiled loops against torch."""
    for made in (rgb_features(features), blurred_features(features, tmp_path / "blurred")):
        spec = EnsembleSpec(
            plan=made.plan, blocks=1, dtype=made.dtype,
            classes=(ClassLabel("a", "#000000"), ClassLabel("b", "#ffffff")),
            hidden=(16, 8), members=3, dropout=0.0, mean=made.mean, std=made.std,
            log_prior_correction=np.zeros(2), generator="g" * 64,
        )  # fmt: skip
        ensemble = PixelEnsemble(spec, seed=1).eval()
        maps = made.images[0].maps
        rows = sample_rows(maps, torch.arange(SIDE * SIDE), SIDE)
        np.testing.assert_allclose(
            cpu_rows(maps, np.arange(SIDE * SIDE), SIDE), rows.numpy(), rtol=1e-5
        )
        with torch.no_grad():
            expected = ensemble(rows).softmax(dim=2).mean(dim=0)
        dense = label_dense(fold(ensemble), maps, probabilities=True)
        assert dense.probabilities is not None
        np.testing.assert_allclose(
            dense.probabilities.reshape(2, -1).T, expected.numpy(), atol=1e-4
        )


def test_a_restart_makes_only_what_is_missing_damaged_or_of_another_picture(
    features: FeatureSet, tmp_path: Path
) -> None:
    folder = tmp_path / "blurred"
    asked: list[int] = []
    first = blurred_features(features, folder)
    # Copies: what is overwritten below is mapped.
    before = [[np.array(one) for one in image.maps] for image in first.images]
    (folder / "image1" / "blur8.npy").write_bytes(b"damaged")
    (folder / ".making-image9-1").mkdir()
    write_shard(
        folder, "image3", split="test", plan=blur_plan(SIDE), dtype="float16", classes=2,
        maps=[torch.zeros(one.resolution, one.resolution, 3) for one in blur_plan(SIDE).maps],
        labels=np.asarray(features.images[3].labels), picture=picture(9),
    )  # fmt: skip
    kept = {
        name: (folder / name / "shard.json").stat().st_mtime_ns for name in ("image0", "image2")
    }
    again = blurred_features(
        features, folder, require_space=lambda size, images: asked.append(images)
    )
    assert asked == [2]
    for name, time in kept.items():
        assert (folder / name / "shard.json").stat().st_mtime_ns == time
    assert sorted(one.name for one in folder.iterdir()) == [f"image{i}" for i in range(4)]
    for maps, image in zip(before, again.images, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(maps, image.maps, strict=True))
    assert np.array_equal(first.mean, again.mean)
