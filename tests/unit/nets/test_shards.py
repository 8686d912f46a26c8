"""Shards appear whole, verify, and are refused when anything about them has changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.core.errors import InputMissing
from hdgan.nets.pyramid import FeatureMap, FeaturePlan, sample_rows
from hdgan.nets.shards import (
    ShardDamaged,
    ShardRecord,
    open_features,
    remove_unfinished,
    shard_bytes,
    verify_shard,
    write_index,
    write_shard,
)

PLAN = FeaturePlan(8, (FeatureMap("b4.conv1", 4, 3), FeatureMap("b8.conv1", 8, 2)))
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def maps(seed: int, dtype: str) -> list[torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [
        torch.randn(one.resolution, one.resolution, one.channels, generator=stream).to(
            DTYPES[dtype]
        )
        for one in PLAN.maps
    ]


def labels(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    drawn = np.random.default_rng(seed).integers(0, 3, (8, 8)).astype(np.uint8)
    drawn[drawn == 2] = 255
    return drawn


def write(root: Path, name: str, split: str, seed: int, dtype: str = "float16") -> ShardRecord:
    return write_shard(
        root,
        name,
        split=split,
        plan=PLAN,
        dtype=dtype,
        classes=2,
        maps=maps(seed, dtype),
        labels=labels(seed),
        picture=np.full((8, 8, 3), seed, dtype=np.uint8),
    )


def write_all(root: Path, dtype: str = "float16") -> None:
    splits = ("train", "val", "train", "test")
    records = [write(root, f"image{i}", split, i, dtype) for i, split in enumerate(splits)]
    write_index(root, records, ["a", "b"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_was_written_is_read(tmp_path: Path, dtype: str) -> None:
    write_all(tmp_path, dtype)
    features = open_features(tmp_path)
    assert [one.id for one in features.images] == ["image0", "image1", "image2", "image3"]
    assert [one.id for one in features.split("train")] == ["image0", "image2"]
    rows = torch.arange(64)
    for seed, image in enumerate(features.images):
        expected = sample_rows(maps(seed, dtype), rows, 8)
        assert torch.equal(sample_rows(image.maps, rows, 8), expected)
        assert np.array_equal(image.labels, labels(seed))
        assert image.picture[0, 0, 0] == seed


def test_statistics_are_of_the_labelled_training_pixels_alone(tmp_path: Path) -> None:
    write_all(tmp_path)
    features = open_features(tmp_path)
    rows = []
    for seed in (0, 2):
        chosen = torch.from_numpy(np.flatnonzero(labels(seed).reshape(-1) != 255))
        rows.append(sample_rows(maps(seed, "float16"), chosen, 8).double())
    everything = torch.cat(rows)
    np.testing.assert_allclose(features.mean, everything.mean(dim=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(features.std, everything.std(dim=0, correction=0), rtol=1e-9)


def test_a_shard_takes_no_more_space_than_was_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "image", "train", 0)
    used = sum(path.stat().st_size for path in (tmp_path / "image").iterdir())
    assert used <= shard_bytes(PLAN, "float16")


def test_a_flipped_bit_a_short_file_and_a_lost_file_are_found(tmp_path: Path) -> None:
    for damage in ("flip", "cut", "lose"):
        write_all(tmp_path)
        path = tmp_path / "image1" / "b8.conv1.npy"
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[-1] ^= 1
            path.write_bytes(data)
        elif damage == "cut":
            path.write_bytes(data[:-1])
        else:
            path.unlink()
        with pytest.raises(ShardDamaged, match=r"b8\.conv1\.npy"):
            verify_shard(tmp_path, "image1", split="val", plan=PLAN, dtype="float16")
        with pytest.raises(InputMissing):
            open_features(tmp_path)


def test_a_shard_of_another_split_plan_or_dtype_is_not_reused(tmp_path: Path) -> None:
    write(tmp_path, "image", "train", 0)
    verify_shard(tmp_path, "image", split="train", plan=PLAN, dtype="float16")
    other = FeaturePlan(8, PLAN.maps[1:])
    for split, plan, dtype in (
        ("val", PLAN, "float16"),
        ("train", other, "float16"),
        ("train", PLAN, "float32"),
    ):
        with pytest.raises(ShardDamaged, match="another picture, plan or dtype"):
            verify_shard(tmp_path, "image", split=split, plan=plan, dtype=dtype)


def test_missing_features_are_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="extract the features") as caught:
        open_features(tmp_path / "nowhere")
    assert caught.value.exit_code == 66


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "plan": {}}'])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    write_all(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ShardDamaged):
        open_features(tmp_path)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write_all(tmp_path / "features")
    index = json.loads((tmp_path / "features" / "index.json").read_text())
    index["images"][0]["id"] = "../secret"
    (tmp_path / "features" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ShardDamaged, match="impossible image"):
        open_features(tmp_path / "features")


def test_what_a_killed_extraction_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / ".making-image9-1").mkdir()
    (tmp_path / ".making-index.json-1").write_text("{")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "image0", "image1", "image2", "image3", "index.json",
    ]  # fmt: skip


def test_writing_again_replaces_a_damaged_shard(tmp_path: Path) -> None:
    first = write(tmp_path, "image", "train", 0)
    (tmp_path / "image" / "labels.npy").write_bytes(b"")
    assert write(tmp_path, "image", "train", 0).files == first.files
    verify_shard(tmp_path, "image", split="train", plan=PLAN, dtype="float16")
