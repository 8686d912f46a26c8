"""Shards appear whole, verify, and are refused when anything about them has changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hdgan.core.claimed_folders import making, put_in_place, remove_unfinished
from hdgan.core.errors import InputMissing, InternalError, NoSpace
from hdgan.nets.pyramid import FeatureMap, FeaturePlan, sample_rows
from hdgan.nets.shards import (
    ShardDamaged,
    ShardRecord,
    features_root,
    open_features,
    other_extractions,
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


def test_what_another_extraction_is_at_work_on_stays(tmp_path: Path) -> None:
    with making(tmp_path, "image") as folder:
        (folder / "labels.npy").write_bytes(b"half")
        remove_unfinished(tmp_path)
        assert (folder / "labels.npy").read_bytes() == b"half"
        with making(tmp_path, "image") as other:  # the same image, by a second one
            (other / "labels.npy").write_bytes(b"whole")
            put_in_place(other, tmp_path / "image")
        put_in_place(folder, tmp_path / "image")
    assert (tmp_path / "image" / "labels.npy").read_bytes() == b"half"
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_what_a_process_leaves_that_is_killed_is_removed(tmp_path: Path) -> None:
    command = (
        "import os, sys; from pathlib import Path; from hdgan.core.claimed_folders import making\n"
        "with making(Path(sys.argv[1]), 'image') as folder:\n"
        "    (folder / 'x').write_bytes(b'x'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", command, tmp_path], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_writing_again_replaces_a_damaged_shard(tmp_path: Path) -> None:
    first = write(tmp_path, "image", "train", 0)
    (tmp_path / "image" / "labels.npy").write_bytes(b"")
    assert write(tmp_path, "image", "train", 0).files == first.files
    verify_shard(tmp_path, "image", split="train", plan=PLAN, dtype="float16")


def test_files_are_npy_files_with_the_digests_the_record_lists(tmp_path: Path) -> None:
    record = write(tmp_path, "image", "train", 0, "float32")
    folder = tmp_path / "image"
    assert {one.name for one in record.files} == {
        path.name for path in folder.iterdir() if path.suffix == ".npy"
    }
    for one in record.files:
        data = (folder / one.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one.size, one.sha256)
    stored = np.load(folder / "b4.conv1.npy", allow_pickle=False)
    assert np.array_equal(stored, maps(0, "float32")[0].numpy())


def test_a_map_is_taken_only_when_the_one_before_it_is_written_and_released(
    tmp_path: Path,
) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def one_by_one() -> Iterator[torch.Tensor]:
        for number, planned in enumerate(PLAN.maps):
            assert all(one() is None for one in made)
            assert len(list(tmp_path.glob(".making-*/*.npy"))) == number
            tensor = torch.zeros(planned.resolution, planned.resolution, planned.channels)
            made.append(weakref.ref(tensor))
            yield tensor
            del tensor

    write_shard(
        tmp_path, "image", split="train", plan=PLAN, dtype="float32", classes=2,
        maps=one_by_one(), labels=labels(0), picture=np.zeros((8, 8, 3), dtype=np.uint8),
    )  # fmt: skip
    assert len(made) == 2


@pytest.mark.parametrize("given", [0, 1])
def test_too_few_or_wrong_maps_leave_nothing_behind(tmp_path: Path, given: int) -> None:
    with pytest.raises(InternalError, match=PLAN.maps[given].name.replace(".", r"\.")):
        write_shard(
            tmp_path, "image", split="train", plan=PLAN, dtype="float32", classes=2,
            maps=maps(0, "float32")[:given], labels=labels(0),
            picture=np.zeros((8, 8, 3), dtype=np.uint8),
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_space_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "kept", "train", 0)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match="image") as caught:
        write(tmp_path, "image", "train", 1)
    assert caught.value.exit_code == 69
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_file_in_the_place_of_a_shard_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "image").write_text("no folder")
    write(tmp_path, "image", "train", 0)
    verify_shard(tmp_path, "image", split="train", plan=PLAN, dtype="float16")


def test_other_extractions_are_listed_with_what_they_take(tmp_path: Path) -> None:
    assert other_extractions(tmp_path, "own") == []
    for key, count in (("own", 1), ("small", 1), ("large", 2)):
        for number in range(count):
            write(features_root(tmp_path, key), f"image{number}", "val", number)
    found = other_extractions(tmp_path, "own")
    assert [folder.name for folder, _ in found] == ["large", "small"]
    used = sum(p.stat().st_size for p in (tmp_path / "features" / "small" / "image0").iterdir())
    assert [size for _, size in found] == [2 * used, used]
