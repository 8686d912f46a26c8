"""Feature shards on scratch: per picture one folder of channels-last memory maps, plus one index.

    <root>/<id>/b64.conv0.npy   [h, w, C] per map (bfloat16 as its uint16 view)
    <root>/<id>/labels.npy      uint8 [H, W], 255 = unlabelled
    <root>/<id>/picture.npy     uint8 [H, W, 3], from the same forward pass
    <root>/<id>/shard.json      sizes, SHA-256, moments of the labelled pixels
    <root>/index.json           plan, dtype, images, statistics; written last

A folder appears whole by one rename, so a restart keeps what is there and makes only the rest.
Shards are a cache, never an artifact: anything wrong with them is `InputMissing`, extract again.
At the paper's size a shard has 1.1 GB: maps are written one by one, hashed on the way, and read as
memory maps ever after.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdgan.core.atomic_file import FULL, explain_os_error
from hdgan.core.bounded_reading import read_file
from hdgan.core.claimed_folders import making, put_in_place, remove
from hdgan.core.errors import InputMissing, InternalError
from hdgan.core.json_documents import parse_object
from hdgan.core.masks import UNLABELLED
from hdgan.nets.moments import Moments, labelled_moments, merge_moments
from hdgan.nets.pyramid import FeatureMap, FeaturePlan, NativeMap, tensor_to_stored

SHARD_FORMAT = 1
SHARD_FILE = "shard.json"
INDEX_FILE = "index.json"
LABELS = "labels"
PICTURE = "picture"
SPLITS = ("train", "val", "test")
MAX_JSON_BYTES = 64 * 2**20
WRITE_BYTES = 4 * 2**20
HASH_THREADS = 4  # hashing releases the GIL, and one thread is slower than a local disk


class ShardDamaged(InputMissing):
    """A feature shard is missing, incomplete or not what its index says."""


@dataclass(frozen=True)
class ShardFile:
    """One file of a shard: name without folder, bytes, SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ShardRecord:
    """What `shard.json` says about one picture.

    `class_counts` int64 [K]: labelled pixels per class. `moments`: of its labelled pixels' vectors,
    kept for training images only.
    """

    id: str
    split: str
    plan: FeaturePlan
    dtype: str
    files: tuple[ShardFile, ...]
    class_counts: tuple[int, ...]
    moments: Moments | None

    def to_json(self) -> dict[str, Any]:
        return {
            "format": SHARD_FORMAT,
            "id": self.id,
            "split": self.split,
            "plan": self.plan.to_json(),
            "dtype": self.dtype,
            "files": [
                {"name": one.name, "size": one.size, "sha256": one.sha256} for one in self.files
            ],
            "classCounts": list(self.class_counts),
            "moments": None if self.moments is None else self.moments.to_json(),
        }

    @staticmethod
    def from_json(value: Any) -> ShardRecord:
        if value["format"] != SHARD_FORMAT:
            raise ValueError(f"format {value['format']!r}")
        return ShardRecord(
            id=str(value["id"]),
            split=str(value["split"]),
            plan=FeaturePlan.from_json(value["plan"]),
            dtype=str(value["dtype"]),
            files=tuple(
                ShardFile(str(one["name"]), int(one["size"]), str(one["sha256"]))
                for one in value["files"]
            ),
            class_counts=tuple(int(one) for one in value["classCounts"]),
            moments=None if value["moments"] is None else Moments.from_json(value["moments"]),
        )


@dataclass(frozen=True)
class FeatureIndex:
    """What `index.json` says about all pictures.

    `mean`, `std` float64 [C]: of the labelled pixels of the training images, `labelled` of them.
    """

    plan: FeaturePlan
    dtype: str
    classes: tuple[str, ...]
    images: tuple[tuple[str, str], ...]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    labelled: int

    def to_json(self) -> dict[str, Any]:
        return {
            "format": SHARD_FORMAT,
            "plan": self.plan.to_json(),
            "dtype": self.dtype,
            "classes": list(self.classes),
            "images": [{"id": one, "shardSha256": digest} for one, digest in self.images],
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "labelled": self.labelled,
        }

    @staticmethod
    def from_json(value: Any) -> FeatureIndex:
        if value["format"] != SHARD_FORMAT:
            raise ValueError(f"format {value['format']!r}")
        index = FeatureIndex(
            plan=FeaturePlan.from_json(value["plan"]),
            dtype=str(value["dtype"]),
            classes=tuple(str(one) for one in value["classes"]),
            images=tuple((str(one["id"]), str(one["shardSha256"])) for one in value["images"]),
            mean=np.asarray(value["mean"], dtype=np.float64),
            std=np.asarray(value["std"], dtype=np.float64),
            labelled=int(value["labelled"]),
        )
        if index.mean.shape != (index.plan.channels,) or index.std.shape != index.mean.shape:
            raise ValueError("statistics do not have one value per channel")
        return index


@dataclass(frozen=True)
class ImageFeatures:
    """One picture ready to sample: maps [h, w, C] coarse to fine, labels, pixels.

    `labels` uint8 [H, W], 255 = unlabelled; `picture` uint8 [H, W, 3]. Arrays from disk are
    read-only memory maps.
    """

    id: str
    split: str
    maps: tuple[NativeMap, ...]
    labels: npt.NDArray[np.uint8]
    picture: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FeatureSet:
    """All pictures of a run with the statistics of the training pixels."""

    plan: FeaturePlan
    dtype: str
    classes: tuple[str, ...]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    images: tuple[ImageFeatures, ...]

    def split(self, name: str) -> tuple[ImageFeatures, ...]:
        """The pictures of one split, in index order."""
        return tuple(one for one in self.images if one.split == name)


def features_root(scratch: Path, extractor_key: str) -> Path:
    """Folder of the shards of one extraction."""
    return scratch / "features" / extractor_key


def remove_shard(root: Path, image_id: str) -> bool:
    """Delete what is there of a picture's shard; whether there was anything."""
    path = root / image_id
    there = path.exists() or path.is_symlink()
    if there:
        remove(path)
    return there


def other_extractions(scratch: Path, extractor_key: str) -> list[tuple[Path, int]]:
    """Folders of other extractions' features on scratch and their bytes, largest first."""
    own = features_root(scratch, extractor_key)
    found = [
        (folder, sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()))
        for folder in (own.parent.iterdir() if own.parent.is_dir() else ())
        if folder != own
    ]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def shard_bytes(plan: FeaturePlan, dtype: str) -> int:
    """Bytes one picture takes on scratch: maps, labels, picture, and headers generously."""
    pixels = plan.resolution**2
    moments = 3 * 25 * plan.channels
    return plan.bytes_per_image(dtype) + 4 * pixels + moments + 4096 * (len(plan.maps) + 4)


def write_shard(
    root: Path,
    image_id: str,
    *,
    split: str,
    plan: FeaturePlan,
    dtype: str,
    classes: int,
    maps: Iterable[torch.Tensor],
    labels: npt.NDArray[np.uint8],
    picture: npt.NDArray[np.uint8],
) -> ShardRecord:
    """Write one picture's shard; it appears at `root/<image_id>` complete or not at all.

    `maps` [h, w, C] in the shard dtype, in the plan's order; each is taken when the one before it
    has been written, so an iterator may release them one by one. Replaces a damaged shard of that
    id. NoSpace if the disk is full; nothing half-written is left then.
    """
    try:
        with making(root, image_id) as folder:
            record = _fill_shard(
                folder, image_id, split, plan, dtype, classes, maps, labels, picture
            )
            put_in_place(folder, root / image_id)
        _sync_folder(root)
    except OSError as error:
        if error.errno in FULL:
            raise explain_os_error(error, "write", root / image_id) from error
        raise
    return record


def _fill_shard(
    folder: Path,
    image_id: str,
    split: str,
    plan: FeaturePlan,
    dtype: str,
    classes: int,
    maps: Iterable[torch.Tensor],
    labels: npt.NDArray[np.uint8],
    picture: npt.NDArray[np.uint8],
) -> ShardRecord:
    """Write a shard's files into `folder`, `shard.json` last."""
    files = []
    remaining = iter(maps)  # zip would hold on to a map while the next one is made
    for planned in plan.maps:
        stored = tensor_to_stored(_next_map(remaining, planned))
        files.append(_write_array(folder / f"{planned.name}.npy", stored))
        del stored
    files.append(_write_array(folder / f"{LABELS}.npy", labels))
    files.append(_write_array(folder / f"{PICTURE}.npy", picture))
    moments = None
    if split == "train":
        moments = labelled_moments(_open_maps(folder, plan), labels != UNLABELLED)
    record = ShardRecord(
        id=image_id,
        split=split,
        plan=plan,
        dtype=dtype,
        files=tuple(files),
        class_counts=class_counts(labels, classes),
        moments=moments,
    )
    _write_json(folder / SHARD_FILE, record.to_json())
    return record


def _next_map(maps: Iterator[torch.Tensor], planned: FeatureMap) -> torch.Tensor:
    tensor = next(maps, None)
    expected = (planned.resolution, planned.resolution, planned.channels)
    if tensor is None or tuple(tensor.shape) != expected:
        found = "nothing" if tensor is None else list(tensor.shape)
        raise InternalError(f"map {planned.name} to write is {found}, planned {list(expected)}")
    return tensor


def verify_shard(
    root: Path,
    image_id: str,
    *,
    split: str,
    plan: FeaturePlan,
    dtype: str,
    threads: int = HASH_THREADS,
) -> ShardRecord:
    """The record of a shard whose every file verifies by size and SHA-256; else `ShardDamaged`."""
    folder = root / image_id
    record = _read_record(folder)
    if (record.id, record.split, record.plan, record.dtype) != (image_id, split, plan, dtype):
        raise ShardDamaged(f"{folder / SHARD_FILE} describes another picture, plan or dtype")
    expected = {f"{one.name}.npy" for one in plan.maps} | {f"{LABELS}.npy", f"{PICTURE}.npy"}
    if {one.name for one in record.files} != expected:
        raise ShardDamaged(f"{folder / SHARD_FILE} does not list the files of its plan")
    # The large ones first, so that no thread is left with one of them at the end.
    listed = sorted(record.files, key=lambda one: -one.size)
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda one: _verify_file(folder / one.name, one), listed):
            pass
    return record


def _verify_file(path: Path, expected: ShardFile) -> None:
    try:
        size = path.stat().st_size
        if size != expected.size:
            raise ShardDamaged(f"{path} has {size} bytes, not {expected.size}")
        if file_sha256(path) != expected.sha256:
            raise ShardDamaged(f"{path} is damaged: its SHA-256 differs from {SHARD_FILE}")
    except OSError as error:
        raise ShardDamaged(f"{path} cannot be read: {error}") from error


def write_index(root: Path, records: Sequence[ShardRecord], classes: Sequence[str]) -> FeatureIndex:
    """Merge the training images' moments in the given order and write `index.json` last."""
    first = records[0]
    merged = merge_moments(
        (one.moments for one in records if one.moments is not None), first.plan.channels
    )
    index = FeatureIndex(
        plan=first.plan,
        dtype=first.dtype,
        classes=tuple(classes),
        images=tuple((one.id, file_sha256(root / one.id / SHARD_FILE)) for one in records),
        mean=merged.mean,
        std=merged.std,
        labelled=merged.count,
    )
    with making(root, INDEX_FILE) as folder:
        _write_json(folder / INDEX_FILE, index.to_json())
        os.replace(folder / INDEX_FILE, root / INDEX_FILE)
    _sync_folder(root)
    return index


def open_features(root: Path) -> FeatureSet:
    """Open and verify all shards below `root`; `InputMissing` if any is not as its index says."""
    try:
        index = FeatureIndex.from_json(_read_json(root / INDEX_FILE))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ShardDamaged(f"{root / INDEX_FILE} is not a feature index: {error!r}") from error
    images = []
    for image_id, digest in index.images:
        if not image_id or Path(image_id).name != image_id:
            raise ShardDamaged(f"{root / INDEX_FILE} names an impossible image {image_id!r}")
        path = root / image_id / SHARD_FILE
        if not path.is_file() or file_sha256(path) != digest:
            raise ShardDamaged(f"{path} is missing or not the one {INDEX_FILE} lists")
        split = _read_record(root / image_id).split
        record = verify_shard(root, image_id, split=split, plan=index.plan, dtype=index.dtype)
        images.append(open_shard(root, record))
    return FeatureSet(
        plan=index.plan,
        dtype=index.dtype,
        classes=index.classes,
        mean=index.mean,
        std=index.std,
        images=tuple(images),
    )


def open_shard(root: Path, record: ShardRecord) -> ImageFeatures:
    """Map a verified shard; nothing is read yet. `ShardDamaged` if its files are not there."""
    folder, side = root / record.id, record.plan.resolution
    return ImageFeatures(
        id=record.id,
        split=record.split,
        maps=_open_maps(folder, record.plan),
        labels=_open_array(folder / f"{LABELS}.npy", (side, side)),
        picture=_open_array(folder / f"{PICTURE}.npy", (side, side, 3)),
    )


def class_counts(labels: npt.NDArray[np.uint8], classes: int) -> tuple[int, ...]:
    """Labelled pixels per class."""
    flat = labels.reshape(-1)
    counts = np.zeros(UNLABELLED + 1, dtype=np.int64)
    for first in range(0, len(flat), WRITE_BYTES):  # counting copies them to eight times the size
        counts += np.bincount(flat[first : first + WRITE_BYTES], minlength=UNLABELLED + 1)
    return tuple(int(one) for one in counts[:classes])


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, streamed."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open_maps(folder: Path, plan: FeaturePlan) -> tuple[npt.NDArray[Any], ...]:
    return tuple(
        _open_array(
            folder / f"{one.name}.npy", (one.resolution, one.resolution, one.channels), "uf"
        )
        for one in plan.maps
    )


def _open_array(path: Path, shape: tuple[int, ...], kinds: str = "u") -> npt.NDArray[Any]:
    """`kinds`: which of numpy's kinds of numbers it may have; u: unsigned, f: floating point."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError, SyntaxError, OverflowError, EOFError) as error:
        raise ShardDamaged(f"{path} cannot be opened: {error}") from error
    if array.shape != shape:
        raise ShardDamaged(f"{path} has shape {array.shape}, planned {shape}")
    if array.dtype.kind not in kinds or (kinds == "u" and array.dtype != np.uint8):
        raise ShardDamaged(f"{path} has numbers of type {array.dtype}")
    return array


def _write_array(path: Path, array: npt.NDArray[Any]) -> ShardFile:
    """Write a .npy file and hash it on the way."""
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as stream:
        data = array.reshape(-1).view(np.uint8).data
        pieces = (data[i : i + WRITE_BYTES] for i in range(0, len(data), WRITE_BYTES))
        for piece in itertools.chain([memoryview(header.getvalue())], pieces):
            digest.update(piece)
            size += stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return ShardFile(path.name, size, digest.hexdigest())


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())


def _read_json(path: Path) -> Any:
    try:
        return parse_object(read_file(path, MAX_JSON_BYTES), max_bytes=MAX_JSON_BYTES)
    except OSError as error:
        raise ShardDamaged(f"{path} cannot be read: {error}; extract the features") from error
    except ValueError as error:
        raise ShardDamaged(f"{path} is not JSON: {error}") from error


def _read_record(folder: Path) -> ShardRecord:
    try:
        return ShardRecord.from_json(_read_json(folder / SHARD_FILE))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ShardDamaged(f"{folder / SHARD_FILE} is not a shard record: {error!r}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
